"""The group level: pool the fits of healthy participants, for estimators that are trained on them."""

from __future__ import annotations

from bidsfit.bids.inputs import describes_derivative, open_dataset
from bidsfit.bids.outputs import prepare_dataset
from bidsfit.bids.participants import healthy_participants
from bidsfit.cli.participant import say
from bidsfit.cli.settings import Settings
from bidsfit.exceptions import UnknownNameError, UnusableInputError
from bidsfit.workflows.group import plan_poolings, pool_fits
from bidsfit.workflows.plan import bounds_of_models


def run_group(settings: Settings) -> int:
    """Run the group level; return the exit code.

    Raises
    ------
    BidsfitError
        Where nothing can be pooled.
    """
    is_derivative = describes_derivative(settings.bids_dir)
    healthy, chosen = healthy_participants(settings.bids_dir, settings.healthy)
    wanted = [label.removeprefix("sub-") for label in settings.participant_label]
    for label in wanted:
        if label not in healthy:
            raise UnknownNameError(f"healthy participant ({chosen})", label, healthy)
    if not settings.output_dir.is_dir():
        raise UnusableInputError(
            f"{settings.output_dir} does not exist: the group level pools the maps that the participant level leaves "
            f"there. Run first: bidsfit {settings.bids_dir} {settings.output_dir} participant --estimators lsq"
        )
    labels = sorted(wanted) or healthy
    poolings, left_out = plan_poolings(
        settings.output_dir,
        labels,
        settings.model,
        bounds=bounds_of_models(settings.bounds or {}),
        bids_dir=settings.bids_dir,
    )
    say(f"Healthy ({chosen}): {len(labels)} participant{'s' if len(labels) != 1 else ''}.")
    for words in left_out:
        say(f"  left out, {words}")
    if settings.dry_run:
        for pooling in poolings:
            say(f"{pooling.model.name}: would pool the fits of {', '.join(image.image for image in pooling.images)}.")
        return 0
    raw = open_dataset(settings.bids_dir, "raw", derivative=is_derivative, participants=labels)
    segmentations = [
        open_dataset(path, name, derivative=True, participants=labels)
        for name, path in (settings.derivatives or {}).items()
    ]
    prepare_dataset(settings.output_dir, raw, segmentations)
    for pooling in poolings:
        for words in pool_fits(pooling, settings.output_dir, segmentations, healthy=chosen):
            say(words)
    return 0
