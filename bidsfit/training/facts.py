"""Types of the JSON content of trained estimators, used to validate it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AllowInfNan, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # that of typing tells pydantic too little before Python 3.12

Finite = Annotated[float, AllowInfNan(False)]
Positive = Annotated[Finite, Field(gt=0)]
NotNegative = Annotated[Finite, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Names = list[str]
Bounds = dict[str, Annotated[list[Finite], Field(min_length=2, max_length=2)]]


class AcquisitionFacts(TypedDict):
    """Columns of an averaged acquisition."""

    BValues: Annotated[list[NotNegative], Field(min_length=1)]  # s/mm^2
    Measurements: list[Count]
    Directions: list[Count]
    EchoTimes: NotRequired[list[Finite]]  # ms
    Columns: NotRequired[dict[str, list[Finite]]]  # in the units of bidsfit.acquisition.COLUMNS
    Vectors: NotRequired[list[list[Finite]]]  # directions, where they were not averaged
    Frames: NotRequired[AcquisitionFacts]  # of which the measurements are combinations
    Basis: NotRequired[list[list[list[Finite]]]]  # of these: real and imaginary parts


class NoiseFacts(TypedDict):
    """Noise of the training signals; an SNR of null means none."""

    SNR: Positive | None
    Kind: Literal["gaussian", "rician"]
    AtLowestBValue: bool


class UniformFacts(TypedDict):
    """See `bidsfit.simulation.distributions.Uniform`."""

    Kind: Literal["uniform"]
    Bounds: Bounds


class PriorFacts(TypedDict):
    """See `bidsfit.simulation.distributions.Informed`."""

    Kind: Literal["prior"]
    Bounds: Bounds
    Priors: dict[str, dict[str, Any]]


class TissuesFacts(TypedDict):
    """See `bidsfit.simulation.distributions.Tissues`."""

    Kind: Literal["tissues"]
    Bounds: Bounds
    Tissues: Annotated[dict[str, Bounds], Field(min_length=1)]


class OriginFacts(TypedDict, total=False):
    """Origin of pooled fits; may have more keys."""

    Tissue: str
    LeftOut: Names


class PooledFacts(TypedDict):
    """See `bidsfit.simulation.distributions.Pooled`."""

    Kind: Literal["pooled"]
    Bounds: Bounds
    Density: Literal["histogram", "kernel"]
    Participants: Names
    Origin: OriginFacts


class MixtureFacts(TypedDict):
    """See `bidsfit.simulation.distributions.Mixture`."""

    Kind: Literal["mixture"]
    Bounds: Bounds
    Weights: list[NotNegative]
    Parts: Annotated[list[Annotated[UniformFacts | PooledFacts, Field(discriminator="Kind")]], Field(min_length=1)]


class ImagesFacts(TypedDict):
    """See `bidsfit.simulation.images.ImageVoxels`."""

    Voxels: Annotated[dict[str, Count], Field(min_length=1)]
    Most: Count
    SNR: Annotated[list[Positive], Field(min_length=1)]
    Digest: NotRequired[str]  # where their signals train


class TrainingFacts(TypedDict):
    """Results of the training; may have more keys."""

    ValidationLoss: Finite  # a likelihood may be negative
    Converged: bool
    ResidualLimit: NotNegative
    Seconds: NotNegative
    Device: str
    Threads: Count


class Facts(TypedDict):
    """Content of ``estimator.json``, see `bidsfit.training.task.Task.facts` and `bidsfit.training.bundle`."""

    Format: Literal["bidsfit trained estimator"]
    Version: int
    Kind: Literal["network", "forest"]
    Model: str
    Equation: str
    Parameters: Annotated[Names, Field(min_length=1)]
    Features: Count
    Acquisition: AcquisitionFacts
    Noise: NoiseFacts
    Distribution: Annotated[
        UniformFacts | PriorFacts | TissuesFacts | PooledFacts | MixtureFacts, Field(discriminator="Kind")
    ]
    DistributionDigest: str
    Participants: Names
    Recipe: dict[str, Any]
    Seed: Annotated[int, Field(ge=0)]
    Images: NotRequired[ImagesFacts]
    Training: TrainingFacts
    Software: dict[str, str]
    Files: dict[str, str]
    Checksum: str


@cache
def _schema() -> TypeAdapter[Any]:
    return TypeAdapter(Facts)


def require_facts(content: Mapping[str, Any]) -> None:
    """Raise `ValueError` naming the first entry of ``content`` that is missing or not of the type in `Facts`."""
    try:
        _schema().validate_python(content, strict=True)
    except ValidationError as error:
        first, *_ = error.errors(include_url=False, include_input=False)
        place = ".".join(map(str, first["loc"])) or "its content"
        raise ValueError(f"{place:.100}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
