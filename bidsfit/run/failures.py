"""Explanation of failures to users: which image and step failed, why, and what to do."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from bidsfit.exceptions import ConflictError, DiskFullError, OutOfMemoryError, UnusableInputError
from bidsfit.files import FULL, no_space
from bidsfit.planning.plan import ImagePlan, ParticipantPlan
from bidsfit.preprocessing.steps import STEPS
from bidsfit.workflows.participant import image_part
from bidsfit.workflows.training import fit_name, node_name, takes_level

#: How a traceback shows an error that bidsfit raised on purpose: its class, and its message up to what Nipype adds.
ON_PURPOSE = re.compile(
    r"^\s*bidsfit\.exceptions\.(\w+): (.+?)(?=\s*(?:When creating this crashfile|During the creation of this)|\Z)",
    re.MULTILINE | re.DOTALL,
)

#: The same for an error of the system that has to do with space, and the file where it names one.
NO_SPACE = re.compile(rf"\[Errno (?:{'|'.join(map(str, FULL))})\][^\n']*(?:'([^\n]+)')?|requested and \d+ written")

#: Bytes below which a disk counts as full, whatever a step that fails says of it.
NOTHING = 100_000

#: How a traceback shows that memory was refused: to Python and NumPy, to torch, or by the system.
NO_MEMORY = re.compile(
    r"^\s*(?:\S+\.)?\w*MemoryError\b(?!.*CUDA)|allocate memory|\[Errno 12\]|failed to map segment from shared object$",
    re.MULTILINE,
)

#: What failed, by class of the error.
TITLES = {
    UnusableInputError.__name__: "An image cannot be used",
    ConflictError.__name__: "Maps that were made otherwise were not overwritten",
}

#: Nodes of an image's workflow, in words.
WORDS = {
    "scan": "reading the image",
    "volumes": "looking for volumes that do not belong",
    "prepare": "reading the image, and finding its mask and noise level",
    "plot_image": "drawing the image",
    "assess": "assessing the quality of the image",
    "write_tissue": "writing the tissue segmentation",
    "write_mask": "writing the mask",
    "write_noise": "writing the noise map",
}

#: Nodes of an image without which its noise level is not known, beside those of its preprocessing.
BEFORE_TRAINING = ("volumes", "scan", "prepare", "sample")

#: Nodes of the preprocessing that are none of its steps.
PREPROCESSING = {
    "load": "reading the raw image",
    "noise": "finding the noise level",
    "write": "writing the preprocessed image",
}

#: Nodes of a fit.
FIT = {
    "sample": "drawing voxels for the training for",
    "train": "training for",
    "fit": "fitting",
}


@dataclass(frozen=True)
class Crash:
    """A crash file of Nipype: full name of the node, and traceback; empty if unknown."""

    node: str
    traceback: str

    @property
    def part(self) -> str:
        """Image that the node belongs to, as of `image_part`."""
        return ".".join(self.node.split(".")[1:3])


def read_crash(path: Path) -> Crash:
    """Read a crash file, which may be incomplete."""
    text = path.read_text(errors="replace")
    node = re.match(r"Node: (\S+)", text)
    trace = re.search(r"^(?:Traceback \(|bidsfit\.exceptions\.).*", text, re.MULTILINE | re.DOTALL)
    return Crash(node[1] if node else "", trace[0].strip() if trace else "")


def step_in_words(node: str, plan: ImagePlan) -> str:
    """What a node does; ``node`` is its full name, ``bidsfit_wf.sub_01_wf.sub_01_dwi_wf.adc_lsq_wf.fit``."""
    *_, workflow, name = ["", *node.split(".")]
    if name in STEPS.available():
        return str(STEPS.get(name).doing)
    if workflow == "preprocessing_wf":
        return PREPROCESSING.get(name, f"the step {name!r} of the preprocessing")
    for fit in plan.fits:
        if workflow == fit_name(fit):
            return f"{FIT.get(name, f'the step {name!r} of')} {fit.model} ({fit.name})"
        if name == f"compare_{node_name(fit.model)}":
            return f"comparing the estimators of {fit.model}"
    return WORDS.get(name, f"the step {name!r}")


def explain(crash: Crash, plan: ImagePlan | None) -> tuple[str, str]:
    """Title and message of a failure; ``plan`` is that of its image, if known."""
    step = "A step" if plan is None else f"{step_in_words(crash.node, plan)} of {plan.image.title}"
    failed = f"A step failed: {step}" if plan is not None else "A step failed"
    on_purpose = ON_PURPOSE.search(crash.traceback)
    if on_purpose:
        return TITLES.get(on_purpose[1], failed), on_purpose[2].strip()
    lines = [line.strip() for line in crash.traceback.splitlines() if line.strip()]
    last = lines[-1] if lines else "it left no word, as its crash file was not written to the end"
    file = "" if plan is None else f"{plan.given}: "
    if NO_MEMORY.search(crash.traceback):
        return failed, str(OutOfMemoryError(f"{file}{step} was refused memory ({last})."))
    return failed, (
        f"{file}{step} met an error that bidsfit does not expect: {last}. Nothing was written in its place, and other "
        "results are not touched. Where it happened stands in the crash file."
    )


def not_trained(crash: Crash, plan: ParticipantPlan) -> str:
    """Which estimators of other images were not trained because they lack something of this image; else empty."""
    *_, workflow, name = ["", *crash.node.split(".")]
    if name not in BEFORE_TRAINING and workflow != "preprocessing_wf":
        return ""
    waiting = {
        image_part(image): {fit_name(f): f for f in image.fits if takes_level(f) or f.scope is not None}
        for image in plan.images
    }
    own = {key: f for key, f in waiting.pop(crash.part, {}).items() if name != "sample" or key == workflow}
    others = {key for fits in waiting.values() for key in fits}
    lost = [f for key, f in own.items() if key in others or f.scope == "dataset"]
    if not lost:
        return ""
    whose = "the run" if any(f.scope == "dataset" for f in lost) else f"sub-{plan.label}"
    what = "its voxels" if any(f.scope for f in lost) else "its noise level"
    return (
        f" For want of {what} {' and '.join(sorted({f.name for f in lost}))} could not be trained for the other images"
        f" of {whose}, which share the training. Leave this image out (--session-label, or --bids-filter-file)"
        + ", or give --training-snr" * any(map(takes_level, lost))
        + ", and run the same command again."
    )


def full_disk(trace: str, folder: Path) -> str:
    """Message for a step that failed because the disk was full, according to its traceback; else empty."""
    on_purpose = ON_PURPOSE.search(trace)
    if on_purpose and on_purpose[1] == DiskFullError.__name__:
        return on_purpose[2].strip()
    found = NO_SPACE.search(trace)
    if found:
        return no_space(Path(found[1] or folder))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return no_space(folder) if shutil.disk_usage(there).free < NOTHING else ""
