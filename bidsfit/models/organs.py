"""Presets of organs: bounds, starting values and priors of intravoxel incoherent motion, from published values.

A prior is meant to hold 95 % of the voxels of the organ, healthy and diseased. It covers the published means and their
spread between people, which for D* are an order of magnitude apart in most organs. Bounds are wider: they also admit
what an image of the organ shows beside its tissue, up to free water in D. Starting values are quantiles of the prior.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bidsfit.models.parameter import Parameter
    from bidsfit.models.signal_model import SignalModel

#: Probabilities of the prior at which fits start.
STARTS = (0.02, 0.16, 0.5, 0.84, 0.98)
#: The preset where none is chosen: the table of the model itself.
GENERAL = "general"


class Tissue(NamedTuple):
    """Published mean values of a tissue; None where a work does not give one.

    Attributes
    ----------
    name : str
    D : float
        um^2/ms.
    f : float
    Dstar : float
        um^2/ms.
    reference : str
        Key of the bibliography.
    """

    name: str
    D: float | None
    f: float | None
    Dstar: float | None
    reference: str


@dataclass(frozen=True, kw_only=True)
class Organ:
    """Preset of one organ for intravoxel incoherent motion.

    Parameters
    ----------
    title : str
        Name in sentences, with its article.
    words : tuple of str
        Words of BodyPart (BIDS) or BodyPartExamined (DICOM) that mean it, in small letters.
    tissues : tuple of Tissue
        The published values that the priors are made to cover.
    D, Dstar : (low, high)
        Between which 95 % of the voxels lie, um^2/ms: log-normal priors. By default those of the model.
    f : (mean, standard deviation), optional
        Of a Beta prior.
    largest_f, largest_Dstar : float
        Upper bounds.
    """

    title: str
    words: tuple[str, ...]
    tissues: tuple[Tissue, ...]
    D: tuple[float, float]
    f: tuple[float, float] | None = None
    Dstar: tuple[float, float] | None = None
    largest_f: float = 0.7
    largest_Dstar: float = 200.0  # noqa: N815

    @property
    def references(self) -> tuple[str, ...]:
        """Keys of the bibliography, each once."""
        return tuple(dict.fromkeys(tissue.reference for tissue in self.tissues))

    def expected(self, parameter: Parameter) -> Parameter:
        """A parameter of the model with the bounds, prior and starting values of this organ."""
        from bidsfit.models.priors import beta, log_normal

        prior, (low, high) = parameter.prior, parameter.bounds
        match parameter.name:
            case "D":
                prior = log_normal(*self.D)
            case "f":
                prior, high = beta(*self.f) if self.f else prior, self.largest_f
            case "Dstar":
                prior, high = log_normal(*self.Dstar) if self.Dstar else prior, self.largest_Dstar
        if isinstance(prior, str) or (prior, high) == (parameter.prior, parameter.bounds[1]):
            return parameter
        start = tuple(float(f"{value:.3g}") for value in prior.within(low, high).quantile(STARTS))
        return replace(parameter, bounds=(low, high), prior=prior, start=start)


#: Presets by name.
ORGANS: Mapping[str, Organ] = {
    "brain": Organ(
        title="the brain",
        words=("brain", "cranium", "head", "neuro", "skull"),
        tissues=(
            Tissue("grey matter", 0.81, 0.044, 84, "rydhog2014"),
            Tissue("white matter", 0.86, 0.033, 76, "rydhog2014"),
            Tissue("cortical grey matter", None, 0.066, None, "vieni2020"),
            Tissue("grey matter, middle of a range", 1.25, 0.15, 16.5, "kaandorp2025"),
            Tissue("white matter, middle of a range", 0.8, 0.055, 9, "kaandorp2025"),
        ),
        D=(0.5, 2.2),
        f=(0.06, 0.05),
        Dstar=(6, 120),
        largest_f=0.5,
    ),
    "spine": Organ(
        title="the spinal cord",
        words=("cord", "cspine", "ctspine", "lspine", "lsspine", "spinal", "spine", "tlspine", "tspine"),
        tissues=(
            Tissue("spinal cord", 0.41, 0.178, 28.9, "osipi"),
            Tissue("white matter (mean diffusivity)", 0.93, None, None, "bosma2012"),
            Tissue("grey matter (mean diffusivity)", 1.8, None, None, "bosma2012"),
        ),
        D=(0.3, 2.2),
        f=(0.12, 0.08),
        Dstar=(6, 120),
        largest_f=0.5,
    ),
    "heart": Organ(
        title="the heart",
        words=("heart",),
        tissues=(
            Tissue("myocardium", 2.4, 0.15, 80, "delattre2012"),
            Tissue("myocardium", 1.51, 0.131, 13.1, "spinner2017"),
        ),
        D=(1.0, 2.8),
        f=(0.14, 0.08),
        Dstar=(6, 150),
    ),
    "liver": Organ(
        title="the liver",
        words=("liver",),
        tissues=(
            Tissue("liver", 1.5, 0.11, 100, "osipi"),
            Tissue("liver, slower of two kinds of flow", 1.26, None, 43.8, "wurnig2018"),
            Tissue("liver, faster of two kinds of flow", 1.26, None, 270, "wurnig2018"),
            Tissue("liver, mild dysfunction", None, 0.29, None, "ding2018"),
        ),
        D=(0.6, 2.0),
        f=(0.2, 0.1),
        Dstar=(10, 300),
        largest_Dstar=300.0,
    ),
    "kidney": Organ(
        title="the kidneys",
        words=("kidney", "kidneys"),
        tissues=(
            Tissue("cortex", 2.12, 0.097, 20, "vanbaalen2017"),
            Tissue("medulla", 2.09, 0.158, 19, "vanbaalen2017"),
            Tissue("cortex, slower of two kinds of flow", 2.26, None, 23.8, "wurnig2018"),
            Tissue("medulla", 1.57, None, None, "wurnig2018"),
            Tissue("medulla (transverse)", 1.72, None, None, "sigmund2012"),
        ),
        D=(1.0, 2.8),
        f=(0.15, 0.1),
        Dstar=(5, 100),
    ),
    "pancreas": Organ(
        title="the pancreas",
        words=("pancreas",),
        tissues=(
            Tissue("pancreas", 1.3, 0.15, 10, "osipi"),
            Tissue("tumour", 1.32, 0.055, 94, "klaassen2018"),
            Tissue("tumour, least squares", 1.35, 0.131, 52, "kaandorp2021"),
            Tissue("tumour, Bayesian", 1.18, 0.204, 8.6, "kaandorp2021"),
        ),
        D=(0.7, 2.2),
        f=(0.15, 0.1),
        Dstar=(6, 120),
    ),
    "spleen": Organ(
        title="the spleen",
        words=("spleen",),
        tissues=(
            Tissue("spleen", 1.3, 0.2, 30, "taimouri2015"),
            Tissue("spleen", 0.91, None, 69.8, "wurnig2018"),
        ),
        D=(0.5, 1.8),
        f=(0.15, 0.1),
        Dstar=(8, 150),
    ),
    "prostate": Organ(
        title="the prostate",
        words=("prostate",),
        tissues=(
            Tissue("peripheral zone", 1.78, None, None, "pesapane2017"),
            Tissue("cancer", 0.88, None, None, "pesapane2017"),
        ),
        D=(0.5, 2.6),
        largest_f=0.5,
    ),
    "breast": Organ(
        title="the breast",
        words=("breast",),
        tissues=(
            Tissue("fibroglandular tissue", 2.36, None, None, "sigmund2011"),
            Tissue("ductal carcinoma", 1.14, 0.105, 14.9, "sigmund2011"),
            Tissue("other cancer", 1.18, 0.069, 16.1, "sigmund2011"),
        ),
        D=(0.6, 2.9),
        f=(0.08, 0.06),
        Dstar=(5, 60),
        largest_f=0.5,
    ),
    "muscle": Organ(
        title="skeletal muscle",
        words=("calf", "leg", "muscle", "thigh"),
        tissues=(Tissue("muscle at rest", 1.46, 0.111, 29.7, "englund2022"),),
        D=(0.9, 2.2),
        f=(0.11, 0.07),
        Dstar=(6, 120),
        largest_f=0.5,
    ),
}


def in_organ(model: SignalModel, organ: str) -> SignalModel:
    """The model with the bounds, starting values and priors of an organ in its parameter table.

    A model of another family than intravoxel incoherent motion has no presets and is returned unchanged.

    Parameters
    ----------
    model : SignalModel
    organ : str
        "general" or a key of `ORGANS`.
    """
    if organ == GENERAL or not has_presets(model):
        return model
    return replace(model, parameters=tuple(map(ORGANS[organ].expected, model.parameters)), organ=organ)


def has_presets(model: SignalModel) -> bool:
    """Whether the parameter table of a model depends on the organ."""
    return "ivim" in (model.name, model.variant_of)


def organ_of(words: Iterable[str]) -> str:
    """The organ that any of some words of BodyPart means; "general" if none is known."""
    said = set(words)
    return next((name for name, organ in ORGANS.items() if said & set(organ.words)), GENERAL)


def preset_in_words(organ: str) -> str:
    """Name of a preset, in words."""
    return "bounds and priors " + (f"of {ORGANS[organ].title}" if organ in ORGANS else "wide enough for any organ")


def preset_facts(model: SignalModel) -> dict[str, Any]:
    """Preset of a model for sidecars; empty if it has none.

    Bounds are those of the estimator, which a user may have changed, and so is the prior of a Bayesian one.
    """
    if not has_presets(model):
        return {}
    from bidsfit.models.priors import priors_of
    from bidsfit.models.space import bounds_of

    shape = [p for p in model.parameters if p.name != model.scale]
    organ = ORGANS.get(model.organ)
    return {
        "Organ": model.organ,
        "OrganPreset": {
            "StartingValues": {p.name: list(p.start) for p in shape},
            "Priors": {name: str(prior) for name, prior in priors_of(model, bounds_of(model)).items()},
            "Units": {p.name: p.unit for p in shape},
            "References": list(organ.references if organ else model.references),
        },
    }
