"""What both command lines share: their parser, and the preparation of words."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from bidsfit.exceptions import ExitCode


def hyphenated(argv: Sequence[str]) -> list[str]:
    """Replace underscores by hyphens in the names of options."""
    return [re.sub("^--[^=]+", lambda option: option[0].replace("_", "-"), argument) for argument in argv]


class Parser(argparse.ArgumentParser):
    """A parser that ends the program with the exit code of BEP027 where the command line is wrong."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message on standard error, and end the program."""
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {message}\n")
