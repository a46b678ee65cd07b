"""``bidsfit-lab validate``: whether maps are called and described as BIDS and BEP016 ask."""

from __future__ import annotations

import argparse
from pathlib import Path

from bidsfit.exceptions import InvalidDatasetError, ToolError


def add_validate(commands: argparse._SubParsersAction) -> None:
    """Add the command ``validate``."""
    parser = commands.add_parser(
        "validate",
        help="check an output folder with the BIDS validator",
        description="Check a dataset, such as an output folder, with the BIDS validator and a schema that knows maps "
        "of models (BEP016) and their uncertainty. Without these terms the validator takes every map for a wrong name.",
    )
    parser.add_argument("folder", type=Path, metavar="DATASET", help="folder with a dataset_description.json")
    parser.set_defaults(run=run_validate)


def run_validate(arguments: argparse.Namespace) -> None:
    """Run the command; raise `InvalidDatasetError` with the errors, if there are some."""
    from bidsfit.bids.validation import EXECUTABLE, errors_of, listed

    if not (arguments.folder / "dataset_description.json").is_file():
        raise InvalidDatasetError(f"{arguments.folder} has no dataset_description.json. Name the folder of a dataset.")
    found = errors_of(arguments.folder, extended=True)
    if found is None:
        raise ToolError(f"{EXECUTABLE} cannot be run here. Install it: pip install bids-validator-deno.")
    if found:
        raise InvalidDatasetError(
            f"{arguments.folder} is not valid BIDS {listed([f'  {place}: {text}' for place, text in found])}"
        )
    print(f"{arguments.folder} is valid BIDS, with the terms of BEP016.")
