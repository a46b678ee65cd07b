"""Series of images that differ in one setting of the scanner, one file a measurement: echo times, flip angles, ..."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from bidsfit.acquisition import COLUMNS, Acquisition, Column, require_basis
from bidsfit.bids.acquisitions import is_value
from bidsfit.bids.images import SAME_GRID, open_image, read_data, same_grid
from bidsfit.bids.names import parse_name, phase_beside
from bidsfit.exceptions import UnusableInputError
from bidsfit.models.pulses import SHAPES, root_mean_square_b1


@dataclass(frozen=True)
class Kind:
    """A kind of series.

    Attributes
    ----------
    entity : str
        Key of the entity that tells its files apart.
    fields : tuple of str
        Metadata that are required of them, by BIDS if it knows the kind.
    beside : str
        Suffix of an image of fmap/ that helps to fit it, if there is one.
    refused : str
        ``PulseSequenceType`` with this word in it is another kind of image.
    magnitudes : bool
        Whether negative values, of images whose polarity was restored, are turned into magnitudes.
    signed : bool
        Whether signals may be negative, so that other images must tell the signs of magnitudes (see `polarity_of`).
    train : bool
        Whether its images are those of all repetitions of a train of pulses, or coefficients of these, and complex:
        real parts with imaginary parts beside them. The metadata of each tell of the whole train (`train_metadata`):
        beside ``fields`` those of the variables of a model, which decide by which models it can be fitted.
    numbered : bool
        Whether the label of the entity begins with a label of the series, and only the number at its end tells files
        apart: acq-qmt1, acq-qmt2.
    also : str
        Key of another entity in which its files may differ.
    fewest : int
        Files that are fewer are images of another kind.
    """

    entity: str
    fields: tuple[str, ...]
    beside: str = ""
    refused: str = ""
    magnitudes: bool = False
    signed: bool = False
    train: bool = False
    numbered: bool = False
    also: str = ""
    fewest: int = 1


#: Field with the time between excitations.
EXCITATION = "RepetitionTimeExcitation"

#: Fields of saturation: whether there is any, its offset, and the root mean square of its amplitude, which is ours.
STATE, OFFSET, AMPLITUDE = "MTState", "MTOffsetFrequency", "MTB1RMS"

#: Field with the number of excitations of a readout.
SHOTS = "NumberShots"

#: Fields with the basis of the coefficients of a train of pulses.
BASIS, BASIS_IMAGINARY = "TemporalBasis", "TemporalBasisImaginary"

#: Repetition times (s) between excitations by small angles are shorter; longer ones are told in another unit.
LONGEST_REPETITION = 2.0

#: What is part of a repetition.
WITHIN_REPETITION = ("EchoTime", "PulseDuration")

#: Letters of values in a message, at most.
MOST_SHOWN = 60

#: Kinds of series, by BIDS suffix.
SERIES = {
    "IRT1": Kind("inv", ("InversionTime",), magnitudes=True),
    "MESE": Kind("echo", ("EchoTime",)),
    "MEGRE": Kind("echo", ("EchoTime",)),
    "MP2RAGE": Kind(
        "inv",
        ("InversionTime", "FlipAngle", EXCITATION, "RepetitionTimePreparation", SHOTS),
        beside="TB1map",
        signed=True,
    ),
    "MRF": Kind("desc", ("FlipAngle", EXCITATION), beside="TB1map", train=True),
    # A pair with and without saturation tells the ratio of both, and no more.
    "MTR": Kind("acq", (STATE,), beside="TB1map", refused="SSFP", numbered=True, also="mt", fewest=3),
    "VFA": Kind("flip", ("FlipAngle", EXCITATION), beside="TB1map", refused="SSFP"),
}

#: Medians of maps of the transmit field, as a share of the nominal flip angle, lie between these.
LEAST_FIELD, MOST_FIELD = 0.2, 3.0

#: The columns that metadata tell, by field.
FIELDS = {c.field: c for c in COLUMNS.values() if c.field and c.name != "b"}

#: Units of the fields, in words.
UNITS = {field: c.unit if c.field_factor == 1 else "seconds" for field, c in FIELDS.items() if c.unit}


def group_series(paths: Iterable[Path], suffix: str) -> list[tuple[Path, ...]]:
    """Files of one suffix, as series: those that agree in every entity but that of the kind, in its ascending order.

    Of a suffix that is no series, every file is one.
    """
    if suffix not in SERIES:
        return [(path,) for path in paths]
    kind, groups = SERIES[suffix], dict[str, list[Path]]()
    for path in paths:
        groups.setdefault(series_name(path, suffix), []).append(path)
    return [
        tuple(sorted(files, key=lambda path: _place(path, kind.entity)))
        for files in groups.values()
        if len(files) >= kind.fewest
    ]


def series_name(path: Path, suffix: str) -> str:
    """What the names of all files of a series share, with the suffix."""
    kind, words = SERIES[suffix], []
    for word in parse_name(path.name).words:
        key, _, label = word.partition("-")
        if key == kind.entity and kind.numbered and (shared := label.rstrip("0123456789")):
            words.append(f"{key}-{shared}")
        elif key not in (kind.entity, kind.also):
            words.append(word)
    return "_".join([*words, suffix])


def endings(suffix: str, acquisition: Acquisition) -> list[str]:
    """What the names of the files of a series end with: ``echo-1_MESE``, or ``acq-qmt1_mt-on_MTR``.

    Those of a train are coefficients, of which these are the real parts: ``part-real_desc-coef01_MRF``.
    """
    kind, n = SERIES[suffix], len(acquisition)
    if kind.train:
        return [f"part-real_{kind.entity}-coef{k + 1:02d}_{suffix}" for k in range(n)]
    label = "qmt" if kind.numbered else ""
    states = [f"{kind.also}-{'on' if a > 0 else 'off'}_" for a in acquisition.columns.get("saturation", ())] or [""] * n
    return [f"{kind.entity}-{label}{k + 1}_{states[k]}{suffix}" for k in range(n)]


def _place(path: Path, key: str) -> tuple[int, str]:
    label = parse_name(path.name).entities.get(key, "")
    return (number_of(label), label)


def number_of(label: str) -> int:
    """The number that a label is or ends with, such as coef07; 0 where there is none."""
    digits = re.search("[0-9]*$", label)
    return int(digits[0]) if digits and digits[0] else 0


def series_metadata(found: Mapping[Path, Mapping[str, Any]], suffix: str) -> dict[str, Any]:
    """Metadata of a series: what all files agree in, and a list with one number a file for the fields of `COLUMNS`.

    Parameters
    ----------
    found : mapping of Path to dict
        Metadata of every file, in the order of the series.

    Raises
    ------
    UnusableInputError
        If a file lacks the entity of the kind, or a field that BIDS requires is missing or invalid.
    """
    key, also = SERIES[suffix].entity, SERIES[suffix].also
    if SERIES[suffix].train:
        return train_metadata(found, suffix)
    for path, metadata in found.items():
        name = parse_name(path.name)
        if key not in name.entities:
            last = [word for word in name.words if also and word.startswith(f"{also}-")]
            renamed = [*(word for word in name.words if word not in last), f"{key}-1", *last, suffix]
            raise UnusableInputError(
                f"{path} has no {key}- in its name, by which {'' if also else 'BIDS tells '}the files of {suffix} "
                f"{'are told ' if also else ''}apart; each holds one volume. Split or rename it: "
                f"{'_'.join(renamed)}{name.extension}."
            )
        sequence = str(metadata.get("PulseSequenceType", ""))
        if SERIES[suffix].refused and SERIES[suffix].refused in sequence.upper():
            raise UnusableInputError(
                f"{path}: PulseSequenceType is {sequence!r}, which no model describes: {suffix} is taken for "
                "that of spoiled gradient echoes. Leave it out with --bids-filter-file."
            )
        for field in SERIES[suffix].fields:
            if field not in metadata:
                other = field.removesuffix("Excitation")
                known = f" (if excitations are evenly spaced: {other}, {metadata[other]})" if other in metadata else ""
                unit = f", in {UNITS[field]}," if field in UNITS else ""
                raise UnusableInputError(
                    f"{path} has no {field} in its metadata, which BIDS requires of {suffix}. Write it{unit} to "
                    f"{path.name.split('.')[0]}.json{known}."
                )
            column = FIELDS.get(field)
            if column is not None and not is_value(metadata[field], column):
                raise UnusableInputError(
                    f"{path}: {field} is {metadata[field]!r}; expected {_values_in_words(column)}."
                )
            if field == EXCITATION and metadata[field] > LONGEST_REPETITION:
                raise UnusableInputError(
                    f"{path}: {field} is {metadata[field]:g}; expected seconds, at most {LONGEST_REPETITION:g} between "
                    f"the excitations of {suffix}."
                )
    if SHOTS in SERIES[suffix].fields:
        found = {path: {**metadata, **_shots(path, metadata)} for path, metadata in found.items()}
        _require_readouts_in_order(found)
    if STATE in SERIES[suffix].fields:
        found = _with_saturation(found)
    first, *others = found.values()
    common = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    fields = [field for field in FIELDS if all(field in metadata for metadata in found.values())]
    return common | {field: [metadata[field] for metadata in found.values()] for field in fields}


def train_metadata(found: Mapping[Path, Mapping[str, Any]], suffix: str) -> dict[str, Any]:
    """Metadata of the images of a train of pulses, or of coefficients of these.

    ``FlipAngle`` is a list with one value for each repetition, the other fields of `FIELDS` that are there are such
    lists or one value for all. With a ``TemporalBasis``, a list for each coefficient with one number for each
    repetition (its imaginary part in ``TemporalBasisImaginary``, 0 by default), the images are coefficients: the
    conjugate of the basis times the signals of the repetitions. Without, there is an image for each repetition.

    Returns
    -------
    dict
        What all files agree in, with lists for all fields of the train, and their length as ``Frames``.

    Raises
    ------
    UnusableInputError
        If files are missing or differ in these fields, or a field is missing or invalid.
    """
    kind = SERIES[suffix]
    first, metadata = next(iter(found.items()))
    told = [_with_excitations(one) for one in found.values()]
    for name in kind.fields:
        if name not in told[0]:
            raise UnusableInputError(
                f"{first} has no {name} in its metadata: of a fingerprint it must tell a list of {UNITS[name]}, one "
                "for each repetition, or one number for all. Write it to a sidecar that all of its files share, such "
                f"as {_shared_sidecar(first, suffix)}."
            )
    for name in (*FIELDS, BASIS, BASIS_IMAGINARY):
        for path, one in zip(found, told, strict=True):
            if one.get(name) != told[0].get(name):
                raise UnusableInputError(
                    f"{path} and {first.name} differ in {name}, and are of one train of pulses. Write it once, to "
                    f"{_shared_sidecar(first, suffix)}."
                )
    train = {name: told[0][name] for name in dict.fromkeys((*kind.fields, *FIELDS)) if name in told[0]}
    n = len(train["FlipAngle"]) if isinstance(train["FlipAngle"], list) else 0
    for name, values in train.items():
        train[name] = values if isinstance(values, list) else [values] * n
        if not (n and len(train[name]) == n and all(is_value(value, FIELDS[name]) for value in train[name])):
            raise UnusableInputError(
                f"{first}: {name} must be a list of {_values_in_words(FIELDS[name])}, one for each repetition ("
                f"{n or 'as many as there are flip angles'}); found {_shown(values)}."
            )
    spacing = np.asarray(train[EXCITATION])
    if np.median(spacing) > LONGEST_REPETITION:
        raise UnusableInputError(
            f"{first}: the repetition times of a train of pulses are below {LONGEST_REPETITION:g} s; found "
            f"{_shown(train['RepetitionTimeExcitation'])}. They are in seconds."
        )
    for name in WITHIN_REPETITION:
        if name in train and np.any(np.asarray(train[name]) >= spacing):
            raise UnusableInputError(
                f"{first}: repetition times must be longer than {FIELDS[name].plural}; found "
                f"{_shown(train['RepetitionTimeExcitation'])} and {name} {_shown(train[name])}. Both are in seconds."
            )
    basis = _basis(first, told[0].get(BASIS), told[0].get(BASIS_IMAGINARY), n)
    expected = n if basis is None else len(basis)
    numbers = [number_of(parse_name(path.name).entities.get(kind.entity, "")) for path in found]
    if numbers != list(range(1, expected + 1)):
        what = "repetition" if basis is None else f"coefficient (row of {BASIS})"
        raise UnusableInputError(
            f"{first}: there must be a file for each {what}, numbered in desc- from 1 to {expected}; found "
            f"{len(numbers)}, numbered {_shown(numbers)}."
        )
    common = {k: v for k, v in metadata.items() if all(other.get(k) == v for other in found.values())}
    return common | train | {"Frames": n} | ({} if basis is None else {BASIS: basis})


def _values_in_words(column: Column) -> str:
    """What values of a field can be: "degrees, not negative and at most 360"."""
    if column.flag:
        return "true or false"
    least = "not negative" if column.zero else "positive"
    return f"{UNITS.get(column.field, 'numbers')}, {least} and at most {column.largest / column.field_factor:g}"


def _with_excitations(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with RepetitionTime, which of a train is the time between its excitations, under the name of that."""
    if "RepetitionTime" in metadata and EXCITATION not in metadata:
        return {**metadata, EXCITATION: metadata["RepetitionTime"]}
    return dict(metadata)


def _basis(path: Path, real: Any, imaginary: Any, n_frames: int) -> list[list[list[float]]] | None:
    """Rows of a temporal basis, real and imaginary part of each element; None where there is none."""
    if real is None:
        return None
    try:
        parts = [np.asarray(real, dtype=float), np.asarray(real if imaginary is None else imaginary, dtype=float)]
        if imaginary is None:
            parts[1] = np.zeros_like(parts[0])
        require_basis((parts[0] + 1j * parts[1]).T, n_frames)
    except (ValueError, TypeError) as error:
        raise UnusableInputError(
            f"{path}: {BASIS} must hold a list for each coefficient, with a number for each of the {n_frames} "
            f"repetitions. {str(error)[:1].upper()}{str(error)[1:]}"
        ) from error
    return np.stack(parts, axis=-1).tolist()


def _shared_sidecar(path: Path, suffix: str) -> str:
    """Name of a sidecar that all files of a train inherit."""
    return f"{parse_name(path.name).without('desc', 'part').split('.')[0].removesuffix(f'_{suffix}')}_{suffix}.json"


def _shown(values: Any) -> str:
    """Values in a message, cut short."""
    text = str(values)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def imaginary_of(files: Sequence[Path]) -> tuple[Path, ...]:
    """Imaginary parts beside real parts.

    Raises
    ------
    UnusableInputError
        If one is missing.
    """
    found = tuple(path.with_name(path.name.replace("_part-real_", "_part-imag_")) for path in files)
    for path, other in zip(files, found, strict=True):
        if not other.exists():
            raise UnusableInputError(f"{path} is the real part of a complex image, and {other.name} is not beside it.")
    return found


def _shots(path: Path, metadata: Mapping[str, Any]) -> dict[str, float]:
    """Excitations before the centre of k-space, and from it on.

    ``NumberShots`` holds both, or is the number of partitions, of which a partial Fourier acquisition leaves out some
    before the centre (BIDS, appendix on quantitative MRI).
    """
    told = metadata[SHOTS]
    if not isinstance(told, list):
        told = [told]
    numbers = [value for value in told if isinstance(value, int | float) and not isinstance(value, bool) and value > 0]
    if len(numbers) != len(told) or len(told) not in (1, 2):
        raise UnusableInputError(
            f"{path}: {SHOTS} is {metadata[SHOTS]!r}; expected two positive numbers, of excitations before and after "
            "the centre of k-space, or the number of partitions."
        )
    if len(numbers) == 1:
        share = metadata.get("SlicePartialFourier", metadata.get("PartialFourier", 1))
        share = share if isinstance(share, int | float) and 0.5 < share <= 1 else 1
        numbers = [numbers[0] * (share - 0.5), numbers[0] / 2]
    return {f"{SHOTS}Before": float(numbers[0]), f"{SHOTS}After": float(numbers[1])}


def _require_readouts_in_order(found: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse readouts that begin before the inversion or the end of another, or that the next inversion ends."""
    end = 0.0
    for path, metadata in found.items():
        spacing, time = metadata[EXCITATION], metadata["InversionTime"]
        start = time - metadata[f"{SHOTS}Before"] * spacing
        before, end = end, time + metadata[f"{SHOTS}After"] * spacing
        if start < before or end > metadata["RepetitionTimePreparation"]:
            raise UnusableInputError(
                f"{path}: with its {SHOTS} and RepetitionTimeExcitation the readout lasts from {start:.3g} to "
                f"{end:.3g} s after the inversion; expected from {before:.3g} s or later, up to "
                f"RepetitionTimePreparation, {metadata['RepetitionTimePreparation']:.3g} s. Is one of these wrong?"
            )


def _with_saturation(found: Mapping[Path, Mapping[str, Any]]) -> dict[Path, dict[str, Any]]:
    """Metadata with offset and amplitude of the saturation of every file.

    Without saturation the amplitude is 0, and the offset, on which nothing depends then, that of the farthest other.
    """
    told = {path: {**metadata, **_saturation(path, metadata)} for path, metadata in found.items()}
    farthest = max((metadata[OFFSET] for metadata in told.values() if metadata[AMPLITUDE] > 0), default=None)
    if farthest is not None:
        for metadata in told.values():
            metadata[OFFSET] = metadata[OFFSET] if metadata[AMPLITUDE] > 0 else farthest
    return told


def _saturation(path: Path, metadata: Mapping[str, Any]) -> dict[str, float]:
    """Offset and amplitude of the saturation of a file; the amplitude alone, 0, without any."""
    state, named = metadata[STATE], parse_name(path.name).entities.get("mt")
    if not isinstance(state, bool) or named != ("on" if state else "off"):
        raise UnusableInputError(
            f"{path}: {STATE} is {state!r}; expected true for files called mt-on, and false for mt-off."
        )
    if not state:
        return {AMPLITUDE: 0.0}

    def number(field: str, unit: str, most: float, default: float | None = None) -> float:
        value = metadata.get(field, default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            size = abs(value) if field == OFFSET else value
            if 0 < size <= most:
                return size
        raise UnusableInputError(
            f"{path}: {field} is {value!r}; expected a number{unit and f' of {unit}'}, at most {most:g}. A fit needs "
            f"{OFFSET}, and either {AMPLITUDE} (root mean square of B1 over the time between pulses, in µT), or "
            "MTFlipAngle, MTPulseDuration, MTPulseShape and RepetitionTimeExcitation, with MTPulseBandwidth for a "
            f"Gaussian. Write them to {path.name.split('.')[0]}.json."
        )

    offset = number(OFFSET, "Hz", COLUMNS["offset"].largest)
    if AMPLITUDE in metadata:
        return {OFFSET: offset, AMPLITUDE: number(AMPLITUDE, "µT", COLUMNS["saturation"].largest)}
    angle, duration = number("MTFlipAngle", "degrees", 1e4), number("MTPulseDuration", "seconds", 10)
    spacing = number(EXCITATION, "seconds", 1000) / number("MTNumberOfPulses", "", 1e4, default=1)
    shape = metadata.get("MTPulseShape")
    if shape not in SHAPES:
        raise UnusableInputError(
            f"{path}: MTPulseShape is {shape!r}, from which the power of the pulse does not follow; it does for "
            f"{', '.join(SHAPES)}. Write {AMPLITUDE}, the root mean square of B1 over the time between pulses in µT, "
            f"to {path.name.split('.')[0]}.json."
        )
    if duration > spacing:
        raise UnusableInputError(
            f"{path}: its pulses last {duration:g} s (MTPulseDuration), and one begins every {spacing:g} s "
            "(RepetitionTimeExcitation / MTNumberOfPulses). Is one of these wrong?"
        )
    bandwidth = number("MTPulseBandwidth", "Hz", 1e6) if shape != "HARD" else 1.0
    return {OFFSET: offset, AMPLITUDE: root_mean_square_b1(angle, duration, spacing, shape, bandwidth)}


def polarity_of(files: Sequence[Path]) -> tuple[Path, ...]:
    """Images that tell the signs of magnitudes: their phases if all have one, else the UNIT1 image of the series.

    Raises
    ------
    UnusableInputError
        If there are neither.
    """
    phases = [phase for path in files if (phase := phase_beside(path))]
    if len(phases) == len(files):
        return tuple(phases)
    name = parse_name(files[0].name)
    stem = "_".join(word for word in name.words if word.split("-")[0] not in ("inv", "part"))
    found = [files[0].with_name(f"{stem}_UNIT1{extension}") for extension in (".nii.gz", ".nii")]
    unit = next((path for path in found if path.exists()), None)
    if unit is None:
        raise UnusableInputError(
            f"{files[0]} is a magnitude, and its sign is not known: neither phases of all files (part-phase beside "
            f"part-mag) nor {found[0].name} is there. Put one of them beside it."
        )
    return (unit,)


def read_covariate(path: Path, like: SpatialImage) -> NDArray[np.float64]:
    """A map of the transmit field on the grid of an image, as a share of the nominal flip angle; NaN where unknown.

    It may be in per cent, as BIDS recommends, or a factor. From another grid it is interpolated linearly in space;
    zeros, and what lies between them and other voxels, are unknown.

    Raises
    ------
    UnusableInputError
        If it cannot be read, or its values are neither.
    """
    image = open_image(path)
    values = np.asarray(read_data(image, path), dtype=float).reshape(image.shape[:3])
    values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    typical = float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan
    unit = next((unit for unit in (1.0, 100.0) if LEAST_FIELD < typical / unit < MOST_FIELD), None)
    if unit is None:
        raise UnusableInputError(
            f"{path} holds no map of the transmit field: its median is {typical:g}; expected near 100 (per cent of the "
            "nominal flip angle) or near 1."
        )
    shape = like.shape[:3]
    if not (values.shape == shape and same_grid(image, like, shape)):
        from nibabel.processing import resample_from_to

        given = Nifti1Image(values, image.affine)
        values = np.asarray(resample_from_to(given, (shape, like.affine), order=1, cval=np.nan).dataobj)
    return values / unit


def series_shape(paths: Sequence[Path]) -> tuple[int, int, int, int]:
    """Shape (x, y, z, n) of a series.

    Raises
    ------
    UnusableInputError
        If a file holds several volumes, or does not lie on the grid of the first.
    """
    images = [open_image(path) for path in paths]
    shapes = [tuple(image.shape) + (1,) * (3 - len(image.shape)) for image in images]
    for path, image, shape in zip(paths, images, shapes, strict=True):
        if any(size > 1 for size in shape[3:]):
            raise UnusableInputError(
                f"{path} has shape {shape}; a file of a series holds one volume of three dimensions."
            )
        if shape[:3] != shapes[0][:3] or not same_grid(image, images[0], shape[:3]):
            raise UnusableInputError(
                f"{path} lies on another grid than {paths[0].name}: its shape is {shape[:3]} and that of the first "
                f"{shapes[0][:3]}, or their affines differ by more than {SAME_GRID} voxel. Resample the files of the "
                "series to one grid."
            )
    x, y, z = shapes[0][:3]
    return x, y, z, len(paths)
