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
from bidsfit.exceptions import BidsfitError

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
            from bidsfit.cli.group import run_group

            return run_group(settings)
        from bidsfit.cli.participant import run_participants

        return run_participants(settings)
    except BidsfitError as error:
        if arguments.verbosity >= 2:
            traceback.print_exc()
        print(f"bidsfit: error: {error}", file=sys.stderr)
        return UNUSABLE
    except OSError as error:  # a full disk, a folder that went away
        if arguments.verbosity >= 2:
            traceback.print_exc()
        print(f"bidsfit: error: {error}.", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("bidsfit: interrupted; the same command resumes from the work folder.", file=sys.stderr)
        return FAILED


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line on top of the options of ``--config-file``, where there is one."""
    parser = build_parser()
    given = parser.parse_args(words)
    if given.config_file is None:
        return given
    from bidsfit.cli.settings import config_words

    options = [action for action in parser._actions if action.option_strings and action.dest in vars(given)]
    known = {option.dest: max(option.option_strings, key=len) for option in options}
    file_words = config_words(Path(given.config_file), known)
    configured = parser.parse_args([given.bids_dir, given.output_dir, given.analysis_level, *file_words])
    for name, value in vars(given).items():
        if value == parser.get_default(name):  # options that add up (-d, -v) are replaced, not added to
            parser.set_defaults(**{name: getattr(configured, name)})
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
