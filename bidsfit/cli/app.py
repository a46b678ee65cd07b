"""``bidsfit``: the BIDS App."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bidsfit.cli.options import hyphenated
from bidsfit.cli.parser import build_parser
from bidsfit.exceptions import BidsfitError, ExitCode, OutOfMemoryError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app.

    Returns
    -------
    int
        One of `ExitCode`; where nothing was run, a message on stderr says what is wrong with which file and what to
        do. Stopped by Ctrl-C or SIGTERM, the process ends with 130 or 143.
    """
    with stopping_at_once():
        return run(argv)


def run(argv: Sequence[str] | None = None) -> int:
    """Run the app with ordinary handling of signals."""
    words = hyphenated(sys.argv[1:] if argv is None else argv)
    arguments = argparse.Namespace(verbosity=0)
    try:
        arguments = parse(words)
        from bidsfit.files import CACHE_VARIABLE
        from bidsfit.run.settings import settings_from

        settings = settings_from(arguments, ["bidsfit", *map(shlex.quote, words)])
        os.environ[CACHE_VARIABLE] = str(settings.cache_dir)  # workers inherit it
        for variable, name in (("MPLCONFIGDIR", "matplotlib"), ("DIPY_HOME", "dipy")):
            os.environ.setdefault(variable, str(settings.cache_dir / name))  # instead of a home, which need not exist
        if settings.analysis_level == "group":
            from bidsfit.run.group import run_group

            return run_group(settings)
        from bidsfit.run.participant import run_participants

        return run_participants(settings)
    except BidsfitError as error:
        if arguments.verbosity >= 2:
            traceback.print_exc()
        print(f"bidsfit: error: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print(f"bidsfit: error: {OutOfMemoryError('The run was refused memory.')}", file=sys.stderr)
        return ExitCode.FAILED
    except OSError as error:  # a folder that went away, a disk that was taken off
        if arguments.verbosity >= 2:
            traceback.print_exc()
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"bidsfit: error: a file could not be read or written. {what}.", file=sys.stderr)
        return ExitCode.FAILED


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM (of schedulers and containers) end this process and its children.

    No exception is raised, as libraries would treat it as a failure and go on. Files are written atomically and locks
    end with their process, so the same command can continue.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        from bidsfit.parallel import end_children

        if os.getpid() == owner:  # else a process that was forked from this one, and says nothing
            os.write(2, b"bidsfit: interrupted; the same command resumes from the work folder.\n")
        end_children()
        os._exit(128 + number)  # as shells have it

    owner = os.getpid()

    wanted = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    earlier = {number: signal.signal(number, stop) for number in wanted}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line on top of the options of ``--config-file``, if given."""
    parser = build_parser()
    given = parser.parse_args(words)
    if given.config_file is None:
        return given
    from bidsfit.run.settings import config_words

    file_words = config_words(Path(given.config_file), list(vars(given)))
    configured = parser.parse_args([given.bids_dir, given.output_dir, given.analysis_level, *file_words])
    for name, value in vars(given).items():
        if value == parser.get_default(name):  # options that add up (-d, -v) are replaced, not added to
            parser.set_defaults(**{name: getattr(configured, name)})
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
