"""Description of a plan as text; images with the same plan are described once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap

from bidsfit.acquisition import protocol_in_words
from bidsfit.bids.names import parse_name
from bidsfit.planning.plan import ImagePlan, ParticipantPlan, is_done
from bidsfit.run.replacing import Replaced, find_replaced

#: Entities by which images differ that are otherwise alike.
OWN = ("sub", "ses", "run")

#: How many names stand for a group of images where all would be too many.
SOME = 3


def describe_plan(plans: Sequence[ParticipantPlan], output_dir: Path, *, overwrite: bool = False) -> str:
    """The plan as text, with images that are done already and outputs that ``overwrite`` moves away."""
    lines = []
    for group in alike(plans, decisions):
        shape = " x ".join(map(str, group[0].shape))
        if len(group) == 1:
            lines += [f"{names(group)[0]}  {shape}", *decisions(group[0])]
        else:
            lines += [f"{len(group)} images  {shape}", *wrap(", ".join(names(group)), 116, initial_indent="  ")]
            lines += [general(line, group[0]) for line in decisions(group[0])]
        replaced = {
            names([image])[0]: one for image in group if overwrite and (one := find_replaced(image, output_dir))
        }
        lines += [f"    moved away first{_of(name, group)}: {one.in_words}" for name, one in replaced.items()]
        done = [image for image in group if is_done(image, output_dir) and names([image])[0] not in replaced]
        if done:
            which = (
                f"{len(done)} of them: " + ", ".join(names(done)) if len(done) < len(group) else "all maps are there"
            )
            lines += [f"    done before, {which}"]
    lines += [f"sub-{plan.label} left out: {problem}" for plan in plans for problem in (*plan.problems, *plan.unmet)]
    return "\n".join(lines)


def _of(name: str, group: Sequence[ImagePlan]) -> str:
    """Which images of a group are meant, if there are several."""
    return f", {name}" if len(group) > 1 else ""


def summarise_plan(plans: Sequence[ParticipantPlan]) -> str:
    """Summary of a run that starts: fits of every image, and why others are left out."""
    lines = []
    for group in alike(plans, fits):
        first, *others = fits(group[0])
        some = ", ".join(names(group)[:SOME]) + (f" and {len(group) - SOME} more" if len(group) > SOME else "")
        lines += [f"{some if len(group) == 1 else f'{len(group)} images ({some})'}: {first}", *others]
    return "\n".join(lines)


def alike(plans: Sequence[ParticipantPlan], words: Callable[[ImagePlan], list[str]]) -> list[list[ImagePlan]]:
    """Groups of images whose descriptions are equal except for their names."""
    groups: dict[tuple[object, ...], list[ImagePlan]] = {}
    for plan in plans:
        for image in plan.images:
            said = (image.shape, *(general(line, image) for line in words(image)))
            groups.setdefault(said, []).append(image)
    return list(groups.values())


def general(line: str, image: ImagePlan) -> str:
    """A line with the parts specific to an image replaced by an asterisk."""
    for key, label in parse_name(image.image.name).entities.items():
        if key in OWN:
            line = re.sub(rf"(?<![a-zA-Z0-9]){key}-{re.escape(label)}(?![a-zA-Z0-9])", f"{key}-*", line)
    return line


def names(images: Sequence[ImagePlan]) -> list[str]:
    """Names of images as shown to users."""
    return [image.image.title for image in images]


def decisions(image: ImagePlan) -> list[str]:
    """Decisions about an image and their reasons."""
    lines = [f"    protocol: {protocol_in_words(image.acquisition)}", _mask(image)]
    if image.chain is not None:
        lines += [f"    {step.step.title.lower()}: {step.in_words}" for step in image.chain.steps]
    for row in image.support:
        verb = "fit" if row["fitted"] else "leave out"
        with_ = ", ".join(fit.name for fit in image.fits if fit.model == row["name"])
        lines.append(f"    {verb} {row['name']}{f' with {with_}' if with_ else ''}: {row['reason']}")
    lines += [f"    table of regions: {one.words}, of {one.uri}" for one in image.segmentations]
    return lines + [f"    {words}" for words in (*trainings_in_words(image), *image.remarks)]


def describe_replaced(replaced: Sequence[Replaced]) -> str:
    """Which outputs were moved, where to and why."""
    return "\n".join(f"{names([one.image])[0]}: moved to {one.folder}: {one.in_words}" for one in replaced)


def fits(image: ImagePlan) -> list[str]:
    """Fits of an image in one line, then their training data, and what is left out."""
    lines = [", ".join(f"{fit.model} ({fit.name})" for fit in image.fits)]
    lines += [f"  {words}" for words in (image.image.no_mask, *image.remarks) if words]
    lines += [f"  {words}" for words in trainings_in_words(image)]
    for row in image.support:
        if not row["fitted"]:
            lines.append(f"  not {row['name']}, {row['reason']}")
        elif not row["complete"]:
            lines.append(f"  {row['name']}, {row['reason']}")
    return lines


def _mask(image: ImagePlan) -> str:
    return f"    mask: {image.mask_name}{f'. {image.image.no_mask}' if image.image.no_mask else ''}"


def trainings_in_words(plan: ImagePlan) -> list[str]:
    """Training data of the trained estimators of an image, without repetitions."""
    return list(dict.fromkeys(f"{f.name}: {f.training_in_words}" for f in plan.fits if f.training_in_words))
