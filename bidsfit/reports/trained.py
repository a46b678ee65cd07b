"""What reports say and show of a trained estimator: its training, and its bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Status
from bidsfit.fitting import FitNumbers
from bidsfit.models.priors import prior_from
from bidsfit.models.signal_model import SignalModel
from bidsfit.reports.trust import READS
from bidsfit.reports.words import percent
from bidsfit.training.bundle import Bundle

#: Share of the voxels unlike all of the training above which the report warns.
MANY_UNLIKE = 0.05

#: Images of a training that are named.
MOST_NAMES = 5

#: Samples of the training that are drawn.
SAMPLES = 20_000

#: Arrows along each axis, at most.
MOST_ARROWS = 11

#: Two to this power combinations of the other parameters are averaged over, where the table is not a grid.
OTHERS = 6


def training_row(bundle: Bundle) -> dict[str, Any]:
    """The entry `FitRecord.training` of a trained estimator."""
    facts = bundle.facts
    return {
        "distribution": distribution_in_words(facts["Distribution"]),
        "participants": list(facts["Participants"]),
        "snr": facts["Noise"]["SNR"],
        "noise": facts["Noise"]["Kind"],
        "images": images_in_words(facts["Images"]) if "Images" in facts else "",
        "measured": "Digest" in facts.get("Images", {}),
        "recipe": recipe_in_words(facts["Recipe"]),
        "seconds": facts["Training"]["Seconds"],
        "device": facts["Training"]["Device"],
        "converged": bool(facts["Training"]["Converged"]),
        "file": "" if bundle.path is None else bundle.path.name,
    }


def recipe_in_words(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """The settings of a recipe in words, by section."""
    parts = []
    for section, content in facts.items():
        choices = [f"{key.replace('_', ' ')} {value}" for key, value in content.items()]
        parts.append(f"{section}: {', '.join(choices).removeprefix('name ')}")
    return "; ".join(parts)


def images_in_words(facts: Mapping[str, Any]) -> str:
    """The images that a training took voxels of, and the SNR of these."""
    counts, snr = facts["Voxels"], facts["SNR"]
    names = [_file_of(name).partition(".")[0] for name in counts]
    listed = ", ".join([*names[:MOST_NAMES], *(["…"] if len(names) > MOST_NAMES else [])])
    images = f"{len(names)} images" if len(names) > 1 else "an image"
    return (
        f"{sum(counts.values()):,} voxels of {images} ({listed}), whose SNR is {snr[0]:.3g} to {snr[-1]:.3g} "
        f"(median {snr[len(snr) // 2]:.3g})"
    )


def _file_of(name: str) -> str:
    """Name of a file without its folders."""
    return name.rpartition("/")[2]


def distribution_in_words(facts: Mapping[str, Any]) -> str:
    """Description of a distribution."""
    if facts["Kind"] == "uniform":
        return "every plausible combination of parameters alike"
    if facts["Kind"] == "prior":
        return "the priors: " + "; ".join(f"{name} {prior_from(prior)}" for name, prior in facts["Priors"].items())
    if facts["Kind"] == "tissues":
        return f"normal distributions in {' and '.join(facts['Tissues'])}"
    if facts["Kind"] == "mixture":
        parts = zip(facts["Weights"], facts["Parts"], strict=True)
        return " and ".join(f"{percent(weight)} {distribution_in_words(part)}" for weight, part in parts)
    tissue = {"wm": "the white matter", "gm": "the grey matter"}.get(facts["Origin"].get("Tissue", ""), "the brain")
    left_out = facts["Origin"].get("LeftOut", [])
    without = f" (without {', '.join(left_out)})" if left_out else ""
    return f"the pooled fits of {sum(facts['Voxels'].values()):,} voxels in {tissue} of healthy participants{without}"


def too_few(model: SignalModel, acquisition: Acquisition) -> list[str]:
    """A warning where a trained estimator has a protocol that the model itself would not be fitted to, or none."""
    missing = model.support(acquisition).missing
    return [
        f"The protocol is too small for a fit of {model.name} without training ({'; '.join(missing)}). What the "
        "signals do not tell is that of the training: look at the response before you compare tissues or sessions."
    ] * bool(missing)


def training_warnings(numbers: FitNumbers, bundle: Bundle, participant: str, image: str = "") -> list[str]:
    """Warnings about an estimator's training for one image, given by its URI; ``participant`` with ``sub-``."""
    warnings = []
    seen = bundle.facts.get("Images", {})
    if "Digest" in seen and _file_of(image) not in map(_file_of, seen["Voxels"]):
        warnings.append(
            f"The estimator was trained on the measured signals of other images ({images_in_words(seen)}): tissue that "
            "these do not show was not in its training."
        )
    if participant in bundle.facts["Participants"]:
        warnings.append(
            "The estimator was trained on a pool that holds this participant: its estimates lean on the participant's "
            "own fits. Run with --leave-one-out."
        )
    if any(bundle.recipe.architecture.reach):
        warnings.append(f"Look at small structures and edges with care: {READS}")
    unlike = numbers.share(Status.UNLIKE_TRAINING)
    if unlike > MANY_UNLIKE:
        warnings.append(
            f"The signals of {percent(unlike)} of the voxels lie farther from those of their estimates than in the "
            "training: they are drawn towards what the estimator was trained on. The status map shows where."
        )
    if not bundle.facts["Training"]["Converged"]:
        warnings.append(
            "The training had not converged when it stopped: a longer one would give other estimates. Choose a recipe "
            "with more steps (--training-recipe)."
        )
    return warnings
