"""Images of reversed phase encoding: finding the one that belongs to a diffusion image, and reading it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from bidsfit.bids.acquisitions import read_b_values
from bidsfit.bids.images import image_shape, open_image, read_data, same_grid
from bidsfit.bids.inputs import Dataset, InputImage, inherited
from bidsfit.bids.metadata import read_metadata
from bidsfit.bids.names import files_of, is_magnitude, parse_name
from bidsfit.exceptions import UnusableInputError
from bidsfit.preprocessing.susceptibility import PhaseEncoding, phase_encoding

#: Volumes of at most this b-value (s/mm^2) count as not weighted.
UNWEIGHTED = 50.0

#: Readout times that differ by less than this fraction are the same.
SAME_READOUT = 0.01

#: Where images of the reversed direction may be: folder and ends of their names.
PLACES = (("fmap", "_epi"), ("dwi", "_dwi"), ("dwi", "_sbref"))

#: Fields that say to which images a field map belongs.
LINKS = ("B0FieldIdentifier", "IntendedFor")


@dataclass(frozen=True)
class ReversedPhase:
    """A diffusion image and its image of reversed phase encoding.

    Attributes
    ----------
    path, uri : Path, str
        File and BIDS URI of the reversed image.
    volumes, own_volumes : tuple of int
        b = 0 volumes of the reversed image and of the diffusion image.
    direction, own_direction : str
        Phase-encoding directions in BIDS notation (j, j-).
    readout_time, own_readout_time : float
        Total readout times, s.
    link : str
        How they were linked: a sidecar field, or the file names.
    """

    path: Path
    uri: str
    volumes: tuple[int, ...]
    own_volumes: tuple[int, ...]
    direction: str
    own_direction: str
    readout_time: float
    own_readout_time: float
    link: str

    @property
    def own_encoding(self) -> PhaseEncoding:
        """Phase-encoding axis and sign of the diffusion image."""
        return phase_encoding(self.own_direction)

    @property
    def same_readout(self) -> bool:
        """Whether both readout times, and thus displacements, are equal."""
        return bool(np.isclose(self.readout_time, self.own_readout_time, rtol=SAME_READOUT, atol=0))

    def without(self, left_out: Collection[int]) -> ReversedPhase:
        """The pair after volumes of the diffusion image were removed; the others are renumbered."""
        kept = [k for k in self.own_volumes if k not in left_out]
        return replace(self, own_volumes=tuple(k - sum(gone < k for gone in left_out) for k in kept))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a workflow node."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return values | {"path": str(self.path)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReversedPhase:
        """Inverse of `to_dict`."""
        volumes = {key: tuple(values[key]) for key in ("volumes", "own_volumes")}
        return cls(**{**values, **volumes, "path": Path(values["path"])})


@dataclass(frozen=True)
class NoReversedPhase:
    """Why the susceptibility distortion of an image cannot be corrected.

    Attributes
    ----------
    reason : str
        Message that names the file and the field.
    present : bool
        Whether a suitable image exists, or only fields of the diffusion image are missing.
    """

    reason: str
    present: bool


@dataclass(frozen=True)
class JoinedImage:
    """An image that BIDS links to a diffusion image as a reversed one, usable or not; ``link`` says how."""

    path: Path
    sidecar: dict[str, Any]
    link: str


def joined_images(dataset: Dataset, image: InputImage) -> list[JoinedImage]:
    """Images that BIDS links to a diffusion image as reversed ones, by names and sidecars.

    Candidates are the participant's ``fmap/*_epi``, ``dwi/*_dwi`` and ``dwi/*_sbref``. The first of these links that
    exists decides: a ``B0FieldIdentifier`` equal to the ``B0FieldSource`` of the image; ``IntendedFor`` (paths below
    the participant's folder, or BIDS URIs); or, for candidates with neither field, equal session and name except
    ``dir-``.

    Parameters
    ----------
    dataset : Dataset
        Dataset of the image.

    Raises
    ------
    UnusableInputError
        For a damaged sidecar.
    """
    candidates = list(_candidates(dataset, image))
    sources = set(_words(image.path, image.sidecar, "B0FieldSource"))
    target = image.path.relative_to(dataset.root).as_posix()

    def by_identifier(path: Path, sidecar: Mapping[str, Any]) -> bool:
        return bool(sources & set(_words(path, sidecar, "B0FieldIdentifier")))

    def by_intention(path: Path, sidecar: Mapping[str, Any]) -> bool:
        intended = _words(path, sidecar, "IntendedFor")
        return target in {_target(dataset, image.participant, word) for word in intended}

    def by_name(path: Path, sidecar: Mapping[str, Any]) -> bool:
        return not any(sidecar.get(field) for field in LINKS) and _alike(image.path, path)

    kinds: dict[str, Callable[[Path, Mapping[str, Any]], bool]] = {
        "B0FieldSource": by_identifier,
        "IntendedFor": by_intention,
        "dir- in the file names": by_name,
    }
    for link, joins in kinds.items():
        if joined := [JoinedImage(*candidate, link) for candidate in candidates if joins(*candidate)]:
            return joined
    return []


def find_reversed(
    dataset: Dataset, image: InputImage, joined: Sequence[JoinedImage]
) -> ReversedPhase | NoReversedPhase:
    """Choose among the `joined_images` of a diffusion image the one of reversed phase encoding.

    Raises
    ------
    UnusableInputError
        For a damaged file: invalid JSON, a field of the wrong type, an unreadable image.
    """
    if not joined:
        return _none(image)
    own = _own(image)
    if isinstance(own, str):
        return NoReversedPhase(own, present=True)
    pairs = [_use(dataset, image, own, one) for one in joined]
    found = [pair for pair in pairs if isinstance(pair, ReversedPhase)]
    if found:
        return min(found, key=lambda pair: (not pair.same_readout, pair.path.name))
    return NoReversedPhase(" ".join(map(str, pairs)), present=True)


def read_reversed(pair: ReversedPhase, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Volumes with b = 0 of the reversed image, shape (x, y, z, n); ``shape`` is (x, y, z) of the diffusion image.

    Raises
    ------
    UnusableInputError
        If the file is damaged or does not match the diffusion image.
    """
    data = np.asarray(read_data(open_image(pair.path), pair.path), dtype=np.float32)
    if data.shape[:3] != tuple(shape) or data[0, 0, 0].size <= max(pair.volumes):
        raise UnusableInputError(
            f"{pair.path} has shape {data.shape}; expected {tuple(shape)} and {max(pair.volumes) + 1} volumes or more."
        )
    volumes = data.reshape(*shape, -1)[..., list(pair.volumes)]
    for number, volume in zip(pair.volumes, np.moveaxis(volumes, -1, 0), strict=True):
        finite = volume[np.isfinite(volume)]
        if finite.size < volume.size / 2 or np.ptp(finite) == 0:
            raise UnusableInputError(
                f"Volume {number} of {pair.path} (counted from 0) holds no picture: most of its values are not finite, "
                "or all are the same."
            )
    return np.nan_to_num(volumes, nan=0.0, posinf=0.0, neginf=0.0)


def phase_encoding_of(sidecar: Mapping[str, Any]) -> str | None:
    """Phase-encoding direction of an image; None if its metadata have no valid one."""
    direction = sidecar.get("PhaseEncodingDirection")
    try:
        phase_encoding(direction)
    except ValueError:
        return None
    return str(direction)


def readout_time(sidecar: Mapping[str, Any], length: int | None = None) -> float | None:
    """Total readout time, s, if necessary from echo spacing and number of lines; None if unknown.

    ``length`` is the number of voxels along the phase-encoding axis, used as number of lines without ``ReconMatrixPE``.
    """
    if _positive(total := sidecar.get("TotalReadoutTime")):
        return float(total)  # type: ignore[arg-type]
    spacing, lines = sidecar.get("EffectiveEchoSpacing"), sidecar.get("ReconMatrixPE", length)
    if _positive(spacing) and _positive(lines) and lines > 1:
        seconds = float(spacing) * (float(lines) - 1)  # type: ignore[arg-type]
        return seconds if isfinite(seconds) else None
    return None


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0


# --- which images belong together -----------------------------------------------------------------------------------


def _candidates(dataset: Dataset, image: InputImage) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Images of the participant that may be reversed, sorted by name, with their metadata."""
    for datatype, ending in PLACES:
        for path in files_of(dataset.root, image.participant, datatype)[0]:
            named = path.name.startswith(f"sub-{image.participant}_")
            named = named and path.name.endswith((f"{ending}.nii", f"{ending}.nii.gz"))
            if named and path != image.path and is_magnitude(path):
                sidecar, _ = read_metadata(reversed(list(inherited(path, dataset, ".json"))))
                yield path, sidecar


def _words(path: Path, sidecar: Mapping[str, Any], field: str) -> list[str]:
    """Values of a field that is a string or a list of strings."""
    value = sidecar.get(field, [])
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UnusableInputError(
            f"{field} in the sidecar of {path} is {value!r}; expected a string or a list of strings. Correct it."
        )
    return words


def _target(dataset: Dataset, participant: str, intended: str) -> str:
    """Path from the dataset root of an entry of IntendedFor; unchanged if it names another dataset."""
    if intended.startswith("bids:"):
        name, _, path = intended.removeprefix("bids:").partition(":")
        return path if name in ("", dataset.name) else intended
    path = intended.removeprefix("./").lstrip("/")
    return path if path.startswith(f"sub-{participant}/") else f"sub-{participant}/{path}"


def _alike(first: Path, second: Path) -> bool:
    """Whether names form a pair: same session, other direction, and for two dwi all else equal."""
    ours, theirs = parse_name(first.name).entities, parse_name(second.name).entities
    if "dir" not in theirs or ours.get("dir") == theirs["dir"] or ours.get("ses") != theirs.get("ses"):
        return False
    if second.parent.name == "fmap":
        return theirs.get("acq") in (None, ours.get("acq"), "dwi")
    return {**ours, "dir": "", "run": ""} == {**theirs, "dir": "", "run": ""}


def _none(image: InputImage) -> NoReversedPhase:
    if source := image.sidecar.get("B0FieldSource"):
        return NoReversedPhase(
            f"{image.path.name} has the B0FieldSource {source!r}, which is the B0FieldIdentifier of no fmap/*_epi or "
            f"dwi image of sub-{image.participant}, and no IntendedFor names it.",
            present=False,
        )
    return NoReversedPhase(
        f"No image of the reversed phase-encoding direction belongs to {image.path.name}: no fmap/*_epi or dwi image "
        f"of sub-{image.participant} is joined to it by B0FieldIdentifier, IntendedFor or dir-.",
        present=False,
    )


# --- whether they can be used ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Own:
    """Properties of the diffusion image that the pair depends on."""

    image: SpatialImage
    shape: tuple[int, ...]
    volumes: tuple[int, ...]
    encoding: PhaseEncoding
    readout: float


def _own(image: InputImage) -> _Own | str:
    assert image.bval is not None
    b_values = read_b_values(image.bval)
    opened = open_image(image.path)
    shape = image_shape(opened, b_values.size, image.path)
    volumes = tuple(int(i) for i in np.flatnonzero(b_values <= UNWEIGHTED))
    if not volumes:
        return (
            f"{image.path.name} has no volume of b = 0 (its smallest b-value is {b_values.min():g} s/mm^2), which is "
            "what images of reversed directions are compared by."
        )
    encoding = _encoding(image.path, image.sidecar)
    if isinstance(encoding, str):
        return encoding
    readout = _readout(image.path, image.sidecar, shape[encoding.axis])
    return readout if isinstance(readout, str) else _Own(opened, shape, volumes, encoding, readout)


def _use(dataset: Dataset, image: InputImage, own: _Own, joined: JoinedImage) -> ReversedPhase | str:
    """The pair, or the reason why the joined image cannot be used."""
    path, sidecar = joined.path, joined.sidecar
    encoding = _encoding(path, sidecar)
    if isinstance(encoding, str):
        return encoding
    ours, theirs = image.sidecar["PhaseEncodingDirection"], sidecar["PhaseEncodingDirection"]
    if encoding.axis != own.encoding.axis:
        return f"{path.name} is encoded along another axis ({theirs}) than {image.path.name} ({ours})."
    if encoding.sign == own.encoding.sign:
        expected = ours.removesuffix("-") if own.encoding.sign < 0 else f"{ours}-"
        return (
            f"{path.name} has the same PhaseEncodingDirection ({theirs}) as {image.path.name}; expected the reversed "
            f"one ({expected})."
        )
    opened = open_image(path)
    if tuple(opened.shape[:3]) != own.shape[:3]:
        return f"{path.name} has shape {tuple(opened.shape[:3])}, but {image.path.name} has {own.shape[:3]}."
    if not same_grid(opened, own.image, own.shape[:3]):
        return f"{path.name} lies elsewhere in space than {image.path.name}: their affines differ."
    readout = _readout(path, sidecar, own.shape[encoding.axis])
    if isinstance(readout, str):
        return readout
    n_volumes = opened.shape[3] if len(opened.shape) > 3 else 1
    volumes = tuple(range(n_volumes))
    if (bval := next(inherited(path, dataset, ".bval"), None)) is not None:
        b_values = read_b_values(bval)
        image_shape(opened, b_values.size, path)
        volumes = tuple(int(i) for i in np.flatnonzero(b_values <= UNWEIGHTED))
        if not volumes:
            return f"{path.name} has no volume of b = 0 (its smallest b-value is {b_values.min():g} s/mm^2)."
    elif path.name.split(".")[0].endswith("_dwi"):
        return f"{path.name} has no .bval file, so that its volumes of b = 0 are not known."
    return ReversedPhase(
        path=path,
        uri=dataset.uri(path),
        volumes=volumes,
        own_volumes=own.volumes,
        direction=theirs,
        own_direction=ours,
        readout_time=readout,
        own_readout_time=own.readout,
        link=joined.link,
    )


def _encoding(path: Path, sidecar: Mapping[str, Any]) -> PhaseEncoding | str:
    if "PhaseEncodingDirection" not in sidecar:
        return f"The sidecar of {path.name} has no PhaseEncodingDirection (i, i-, j, j-, k or k-)."
    try:
        return phase_encoding(sidecar["PhaseEncodingDirection"])
    except ValueError as error:
        raise UnusableInputError(f"PhaseEncodingDirection in the sidecar of {path}: {error}") from error


def _readout(path: Path, sidecar: Mapping[str, Any], length: int) -> float | str:
    found = readout_time(sidecar, length)
    if found is not None:
        return found
    if (total := sidecar.get("TotalReadoutTime")) is not None:
        return f"TotalReadoutTime of {path.name} is {total!r}; expected a positive number of seconds."
    return f"The sidecar of {path.name} has no TotalReadoutTime, nor an EffectiveEchoSpacing to derive it from."
