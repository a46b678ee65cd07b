"""``bidsfit-lab``: commands that need only simulated data.

A command is a function that adds its parser and names the function that runs it; it is listed in `COMMANDS`. Slow
imports happen when a command runs, so that ``--help`` and ``--version`` are fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bidsfit import __version__
from bidsfit.cli.lab_evaluate import add_evaluate
from bidsfit.cli.lab_fit import add_fit
from bidsfit.cli.lab_phantom import add_phantom
from bidsfit.cli.lab_reproduce import add_reproduce
from bidsfit.cli.lab_slurm import add_slurm_script
from bidsfit.cli.lab_train import add_recipes, add_train
from bidsfit.cli.lab_validate import add_validate
from bidsfit.cli.options import Parser, hyphenated
from bidsfit.exceptions import BidsfitError, ExitCode


def main(argv: Sequence[str] | None = None) -> int:
    """Run the laboratory's command line.

    Returns
    -------
    int
        One of `ExitCode`; a message on stderr says why it is not 0.
    """
    parser = Parser(prog="bidsfit-lab", description="The laboratory: simulated data with known truth.")
    parser.add_argument("--version", action="version", version=f"bidsfit-lab {__version__}")
    parser.add_argument("-vv", "--traceback", action="store_true", help="show where an error was raised")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    arguments = parser.parse_args(hyphenated(sys.argv[1:] if argv is None else argv))
    try:
        arguments.run(arguments)
    except (BidsfitError, OSError) as error:
        if arguments.traceback:
            raise
        print(f"bidsfit-lab: error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, BidsfitError) else ExitCode.FAILED
    return ExitCode.OK


#: The commands, in the order of the help.
COMMANDS = (add_phantom, add_recipes, add_train, add_evaluate, add_fit, add_reproduce, add_validate, add_slurm_script)

if __name__ == "__main__":
    sys.exit(main())
