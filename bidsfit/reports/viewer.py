"""The viewer of a report: signals and maps of the voxels of one image, small enough to be embedded, and its script.

Volumes are put on axes that point right, anterior and superior, and cropped around the mask. Numbers are those of the
files, quantised to 16 bits, compressed and written as text.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from nibabel.orientations import inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import DirectionAverage, Shell, column_of
from bidsfit.bids.images import open_image, read_data
from bidsfit.estimators.estimator import Status
from bidsfit.exceptions import UnknownNameError
from bidsfit.fitting import curve_axis
from bidsfit.models.signal_model import SignalModel
from bidsfit.models.symbolic import SymbolicModel
from bidsfit.reports.canvas import robust_limits
from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.direction_colours import BRIGHTEST, in_scanner
from bidsfit.reports.direction_colours import COLOURS as DIRECTION_COLOURS
from bidsfit.reports.measured import MeasuredVoxels
from bidsfit.reports.mosaics import status_colour
from bidsfit.reports.page import TEMPLATES
from bidsfit.reports.records import FitRecord, ImageRecord
from bidsfit.reports.slices import MOST_SLICES, Slices, to_canonical
from bidsfit.trust.flags import Flag

#: Which voxels a report holds: all (of fewer slices where they are too many), those of the slices of its figures, none.
ReportVoxels = Literal["all", "slices", "none"]

#: Bytes of a report; its viewers hold fewer slices where it would be larger.
MOST_BYTES = 10_000_000

#: Codes of values that are no finite numbers; the others are numbers.
NOT_A_NUMBER, INFINITE, MINUS_INFINITE = 65535, 65534, 65533
#: Codes of numbers: of estimates and signals, and of companions, of which three digits are told.
MANY_CODES, FEW_CODES = 65533, 4096
#: Where the largest magnitude exceeds the median one so many times, codes are even in the inverse hyperbolic sine.
WIDE = 100.0

#: Colours of a scale, evenly spaced; and colour maps that can be chosen.
STOPS = 33
COLOUR_MAPS = ("gray", "viridis", "magma", "cividis", "RdBu_r", "Reds")


def packed(values: NDArray, codes: int = MANY_CODES) -> dict[str, Any]:
    """Values as text: codes of 16 bits, compressed, in base64.

    A value is ``offset + step * code``, or its hyperbolic sine times ``wide`` where this is not 0. The low bytes of all
    codes come first, which compresses better.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    finite = values[np.isfinite(values)]
    size = np.abs(finite[finite != 0])
    wide = float(np.median(size)) if size.size and size.max() > WIDE * np.median(size) else 0.0
    scaled = np.arcsinh(values / wide) if wide else values
    known = scaled[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    step = (high - low) / (codes - 1) or 1.0
    found = np.full(values.shape, NOT_A_NUMBER, dtype="<u2")
    found[np.isfinite(values)] = np.rint((known - low) / step)
    found[np.isposinf(values)], found[np.isneginf(values)] = INFINITE, MINUS_INFINITE
    halves = found.view(np.uint8).reshape(-1, 2).T.tobytes()
    return {"offset": low, "step": step, "wide": wide, "data": _as_text(halves)}


def unpacked(array: Mapping[str, Any]) -> NDArray[np.float64]:
    """The values that `packed` wrote, as the script of the viewer reads them."""
    halves = np.frombuffer(gzip.decompress(base64.b64decode(array["data"])), dtype=np.uint8)
    codes = np.ascontiguousarray(halves.reshape(2, -1).T).view("<u2").ravel()
    values = array["offset"] + array["step"] * codes
    values = np.sinh(values) * array["wide"] if array["wide"] else values
    for code, value in ((NOT_A_NUMBER, np.nan), (INFINITE, np.inf), (MINUS_INFINITE, -np.inf)):
        values[codes == code] = value
    return values


def _as_text(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


@dataclass(frozen=True)
class Grid:
    """The voxels that a viewer holds: a crop of the reoriented volumes, of some slices.

    Attributes
    ----------
    stored : ndarray of bool, shape (x, y, z)
        Mask as stored.
    affine : ndarray, shape (4, 4)
        Of the volumes as stored.
    axis : int
        Axis perpendicular to the slices, in the reoriented volume.
    crop : tuple of slice
        In the reoriented volume.
    slices : tuple of int
        Indices of the slices in the crop.
    """

    stored: NDArray[np.bool_]
    affine: NDArray
    axis: int
    crop: tuple[slice, ...]
    slices: tuple[int, ...]

    @classmethod
    def around(cls, mask: NDArray[np.bool_], affine: NDArray, only_shown: bool = False) -> Grid:
        """All slices of the mask, or those of the figures only, with some of what lies around it."""
        shown = Slices.around(mask, affine, count=MOST_SLICES if only_shown else mask.size, margin=0.15, padding=4)
        present = np.flatnonzero(to_canonical(mask, affine).any(axis=tuple({0, 1, 2} - {shown.axis})))
        first, last = int(present[0]), int(present[-1])
        crop = list(shown.window)
        crop.insert(shown.axis, slice(first, last + 1))
        indices = shown.indices if only_shown else range(first, last + 1)
        return cls(mask, np.asarray(affine), shown.axis, tuple(crop), tuple(i - first for i in indices))

    def every(self, step: int) -> Grid:
        """Of so many slices, one: the middle one."""
        return replace(self, slices=self.slices[step // 2 :: step] or self.slices[:1])

    def volume(self, volume: NDArray) -> NDArray:
        """The part of a volume that is held."""
        return to_canonical(volume, self.affine)[self.crop].take(self.slices, axis=self.axis)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        return self.volume(self.stored)

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """For every voxel of the mask that is held, x first, its place among the voxels of the stored mask."""
        places = np.full(self.stored.size, -1)
        places[self.stored.ravel("F")] = np.arange(np.count_nonzero(self.stored))
        held = self.volume(places.reshape(self.stored.shape, order="F"))
        return np.asarray(held.ravel("F")[self.mask.ravel("F")])

    def facts(self) -> dict[str, Any]:
        """For the script: size, slices, and the way from the crop to stored indices and to millimetres."""
        to_stored = inv_ornt_aff(io_orientation(self.affine), self.stored.shape) @ _shift(self.crop)
        return {
            "size": list(self.mask.shape),
            "axis": self.axis,
            "slices": list(self.slices),
            "toStored": to_stored.tolist(),
            "toMillimetres": (self.affine @ to_stored).tolist(),
        }


def _shift(crop: Sequence[slice]) -> NDArray:
    matrix = np.eye(4)
    matrix[:3, 3] = [cut.start for cut in crop]
    return matrix


@dataclass(frozen=True)
class Viewer:
    """What a page needs of the viewer of one image.

    Attributes
    ----------
    data : str
        JSON for its script.
    equations : dict of name to str
        JavaScript of the models whose curves it draws.
    remark : str
        What it does not hold, in words; may be empty.
    """

    data: str
    equations: dict[str, str]
    remark: str = ""


def make_viewer(
    folder: Path,
    image: ImageRecord,
    fits: Sequence[FitRecord],
    *,
    voxels: ReportVoxels = "all",
    most: float = MOST_BYTES,
) -> Viewer | None:
    """Build the viewer of an image from its maps; None if there is nothing to show.

    Parameters
    ----------
    folder : Path
        That the paths in the records are relative to.
    image, fits
        Records.
    voxels : {"all", "slices", "none"}
    most : float
        Bytes that it may fill. Where they do not suffice, single measurements are left out, then slices.
    """
    if voxels == "none" or not image.voxels or not (folder / image.voxels).exists():
        return None
    content = _Content(folder, image, fits)
    mask, affine = content.measured.mask, content.measured.affine
    grid = Grid.around(mask, affine, only_shown=voxels == "slices")
    sample = grid.every(max(len(grid.slices) // 4, 1))  # tells how much all slices would fill
    size = len(content.as_json(sample)) * len(grid.slices) / len(sample.slices)
    step, single = max(math.ceil(size / most), 1), size < most
    while len(data := content.as_json(grid.every(step), single)) > most and step < len(grid.slices):
        step, single = step + (not single), False
    held, there = len(grid.every(step).slices), len(Grid.around(mask, affine).slices)
    remark = ""
    if held < there:
        why = f"so that the page stays below {MOST_BYTES // 1_000_000} MB" if step > 1 else "as --report-voxels asked"
        remark = f"Here are {held} of {there} slices, {why}; the files hold all."
    return Viewer(data, content.equations, remark)


class _Content:
    """All that the viewer of an image may hold."""

    def __init__(self, folder: Path, image: ImageRecord, fits: Sequence[FitRecord]) -> None:
        self.image, self.measured = image, MeasuredVoxels.load(folder / image.voxels)
        self.inside = self.measured.mask.ravel("F")
        self.average = DirectionAverage(self.measured.acquisition)
        self.maps = [{row["key"]: values for row, values in self._read(folder, fit)} for fit in fits]
        self.fits = [fit for fit, maps in zip(fits, self.maps, strict=True) if maps]
        self.maps = list(filter(None, self.maps))
        self.models = {fit.model: model for fit in self.fits if (model := _known_model(fit.model))}
        self.equations = {n: m.javascript for n, m in self.models.items() if isinstance(m, SymbolicModel)}

    def _read(self, folder: Path, fit: FitRecord) -> Iterator[tuple[dict[str, Any], NDArray]]:
        """The maps of a fit on the grid of the image: rows of the record, and values in the units of reports.

        Of an axis, the three colours of its direction, as bright as its weight.
        """
        found: dict[str, NDArray] = {}
        for row in sorted(fit.maps, key=lambda row: bool(row["frame"])):  # weights before the axes that they belong to
            path = folder / row["path"]
            if not path.exists():
                continue
            volume = np.asarray(read_data(open_image(path), path), dtype=np.float32)
            if row.get("volume") is not None and volume.ndim == 4:
                volume = volume[..., row["volume"]]
            if volume.shape[:3] != self.measured.mask.shape or volume.shape[3:] != ((3,) if row["frame"] else ()):
                continue
            values = volume.reshape(self.inside.size, -1, order="F")[self.inside] * np.float32(row["factor"])
            if row["frame"]:
                values = np.abs(in_scanner(values, self.measured.affine, row["frame"]))
                weight = found.get(row["weight"])
                values = values if weight is None else values * np.clip(weight / BRIGHTEST, 0, 1)
            found[row["key"]] = values
            yield row, values if row["frame"] else values[:, 0]

    def as_json(self, grid: Grid, single: bool = False) -> str:
        """Everything on a grid, as JSON that can stand inside a script element."""
        measured, order = self.measured, grid.order
        reference = grid.volume(np.nan_to_num(measured.reference)).ravel("F")
        shells = [_shell_words(shell) for shell in measured.acquisition.shells]
        lowest = "lowest b-value" if "b" in measured.acquisition.columns else shells[0]["words"]
        colours = {row["colours"] for fit in self.fits for row in fit.maps} | set(COLOUR_MAPS)
        content = {
            "name": self.image.name,
            **grid.facts(),
            "mask": packed(grid.mask.ravel("F")),
            "reference": packed(reference, 256) | {"limits": np.percentile(reference, [1, 99.7]).tolist()},
            "lowest": lowest,
            "signal": self._signal_facts(),
            "shells": [
                words
                | {"mean": packed(mean[order]), "spread": packed(spread[order], FEW_CODES)}
                | {"limits": list(robust_limits(mean))}
                for words, mean, spread in zip(shells, measured.mean, measured.spread, strict=True)
            ],
            "measurements": [packed(row[order]) for row in measured.measurements] if single else [],
            "models": {name: self._design(model) for name, model in self.models.items()},
            "fits": [
                {
                    "model": fit.model,
                    "estimator": fit.estimator,
                    "listed": [row["name"] for row in fit.parameters],
                    "colour": estimator_colour(i),
                    "maps": [self._map(row, maps[row["key"]][order]) for row in fit.maps if row["key"] in maps],
                }
                for i, (fit, maps) in enumerate(zip(self.fits, self.maps, strict=True))
            ],
            "status": {int(s): {"name": _name(s), "words": s.message, "colour": status_colour(s)} for s in Status},
            "flags": {int(f): {"name": _name(f), "words": f.message} for f in Flag},
            "colours": {name: _stops(name) for name in sorted(colours)},
        }
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.replace("<", "\\u003c")  # inside a script element, only "<" could end it

    @staticmethod
    def _map(row: Mapping[str, Any], values: NDArray) -> dict[str, Any]:
        told = {name: row[name] for name in ("key", "parameter", "statistic", "title", "unit", "limits", "colours")}
        if row["frame"]:
            return told | {"words": DIRECTION_COLOURS, "channels": [packed(part, 256) for part in values.T]}
        return told | packed(values, FEW_CODES if row["statistic"] else MANY_CODES)

    def _signal_facts(self) -> dict[str, Any]:
        """Label and values of the horizontal axis, and which shell every single measurement belongs to."""
        name, values = _axis(self.average.acquisition.columns)
        column = column_of(name)
        return {
            "label": column.label,
            "x": values.tolist(),
            "rows": self.average.rows.tolist(),
            "measuredX": self.measured.acquisition.columns[name].tolist(),
        }

    def _design(self, model: SignalModel) -> dict[str, Any]:
        """Variables of a model in internal units: of the shells or of single measurements, and of a fine curve.

        Of a model without an equation there are none, as the page cannot compute its signals.
        """
        acquisition, name = self.measured.acquisition, _axis(self.average.acquisition.columns)[0]
        used = np.isin(np.arange(len(self.average.acquisition)), self.average.rows[model.usable(acquisition)])
        by_direction = "direction" in model.variables
        fine = curve_axis(model, self.average.acquisition)[2] if name in model.variables else None
        shown = acquisition if by_direction else self.average.acquisition
        return {
            "parameters": list(model.names),
            "scale": model.scale,
            "design": model.design(shown).tolist() if isinstance(model, SymbolicModel) else [],
            "byDirection": by_direction,
            "used": used.tolist(),
            "curve": None if fine is None else {"x": fine[0].tolist(), "design": model.design(fine[1]).tolist()},
        }


def _name(code: Status | Flag) -> str:
    return str(code.name).lower().replace("_", " ")


def _axis(columns: Mapping[str, NDArray]) -> tuple[str, NDArray]:
    """Name and values of the variable that signals are drawn against."""
    varying = [name for name, values in columns.items() if np.ptp(values) > column_of(name).absolute]
    name = "b" if "b" in columns else (varying or list(columns))[0]
    return name, columns[name]


def _shell_words(shell: Shell) -> dict[str, Any]:
    words = ", ".join(column_of(name).in_words([value]) for name, value in shell.values.items())
    return {"words": words, "measurements": shell.n_measurements, "directions": shell.n_directions}


def _known_model(name: str) -> SignalModel | None:
    """A model that is installed."""
    try:
        return models.get(name)
    except UnknownNameError:
        return None


def _stops(name: str) -> str:
    """A colour map as hexadecimal digits, six for each of its colours."""
    colours = matplotlib.colormaps[name](np.linspace(0, 1, STOPS), bytes=True)[:, :3]
    return str(np.ascontiguousarray(colours).tobytes().hex())


def script_of(equations: Mapping[str, str]) -> str:
    """The script of all viewers of a page, with the equations of their models."""
    functions = ",\n".join(f"{json.dumps(n)}: (() => {{\n{code}return signal;\n}})()" for n, code in equations.items())
    own = (TEMPLATES / "viewer.js").read_text(encoding="utf-8")
    return f"(() => {{\n'use strict';\nconst EQUATIONS = {{\n{functions}}};\n{own}}})();\n"


def allowed(script: str, pictures: str = "data:") -> str:
    """Content security policy of a page: its own script and pictures from some places, and nothing else."""
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src {pictures}; "
        "base-uri 'none'; form-action 'none'"
    )
