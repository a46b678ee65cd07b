"""``bidsfit``: the BIDS App."""

from __future__ import annotations

import argparse
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from bidsfit.cli.options import hyphenated
from bidsfit.cli.parser import build_parser
from bidsfit.exceptions import BidsfitError, UsageError

#: Exit codes.
OK, FAILED, UNUSABLE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app.

    Returns
    -------
    int
        0: all is well. 1: something failed or was left out. 2: the command line or the input cannot be used;
        a message on stderr says what is wrong with which file and what to do.
    """
    words = hyphenated(sys.argv[1:] if argv is None else argv)
    arguments = argparse.Namespace(verbosity=0)
    try:
        arguments = parse(words)
        from bidsfit.cli.settings import settings_from

        settings = settings_from(arguments, ["bidsfit", *map(shlex.quote, words)])
        if settings.analysis_level == "group":
            raise UsageError(
                "The group level is not part of this release; repeatability and treatment response come with it. "
                "Run the participant level: bidsfit BIDS_DIR OUTPUT_DIR participant."
            )
        from bidsfit.cli.participant import run_participants

        return run_participants(settings)
    except BidsfitError as error:
        if arguments.verbosity >= 2:
            traceback.print_exc()
        print(f"bidsfit: error: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("bidsfit: interrupted; the same command resumes from the work folder.", file=sys.stderr)
        return FAILED


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line on top of the options of ``--config-file``, where there is one."""
    parser = build_parser()
    arguments = parser.parse_args(words)
    if arguments.config_file is not None:
        from bidsfit.cli.settings import read_config

        known = [name for name in vars(arguments) if name != "config_file"]
        parser.set_defaults(**read_config(Path(arguments.config_file), known))
        arguments = parser.parse_args(words)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
