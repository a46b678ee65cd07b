"""Regions of interest: masks and segmentations of derivative datasets on the grid of a map."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from bidsfit.bids.images import open_image, read_data, same_grid
from bidsfit.bids.inputs import Folder, inherited
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.names import FOLDERS, parse_name
from bidsfit.bids.tissues import LIKELY, NAMES, tissue_indices
from bidsfit.exceptions import UnusableInputError
from bidsfit.files import read_tsv

#: The region that needs no file: all voxels of the mask that was fitted.
WHOLE = "whole"

#: Classes of tissue, which are called so whatever the files call them.
TISSUES = tuple(NAMES)

#: Kinds of file, the best first: one label a voxel, one mask a region, one probability a region.
SUFFIXES = ("dseg", "mask", "probseg")

#: Entities that a file may have and the image need not.
APART = ("desc-", "label-", "space-", "res-", "den-", "seg-", "atlas-", "scale-", "hemi-")


class Condition(NamedTuple):
    """Condition for a parameter to be meaningful: another one is at least some value."""

    label: str
    least: float


#: D* is not determined where hardly any blood flows: it counts where f is 5 % or more.
CONDITIONS = {"Dstar": Condition("f", 0.05)}


@dataclass(frozen=True)
class RegionFile:
    """A file with regions for some images of a participant.

    Attributes
    ----------
    dataset : Folder
        Dataset of the file.
    kind : str
        One of `SUFFIXES`.
    """

    path: Path
    dataset: Folder
    kind: str

    @property
    def uri(self) -> str:
        return self.dataset.uri(self.path)

    @cached_property
    def words(self) -> frozenset[str]:
        """Entities that determine to which images it belongs."""
        return frozenset(word for word in parse_name(self.path.name).words if not word.startswith(APART))

    @cached_property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """Names of its regions with their labels; no labels for a mask of one region."""
        if self.kind == "dseg":
            return labelled_regions(self.path, self.dataset)
        entities = parse_name(self.path.name).entities
        if "label" not in entities:
            return {}
        name = region_name(entities["label"])
        return {f"{name}_{entities['hemi']}" if "hemi" in entities else name: ()}


@dataclass(frozen=True)
class Regions:
    """Regions of one image.

    Attributes
    ----------
    masks : dict of str to ndarray of bool
        Non-empty masks on the grid of the image.
    sources : dict of str to str
        BIDS URI of the file of each region.
    remarks : tuple of str
        What could not be used, in words that hold for other images too.
    """

    masks: dict[str, NDArray[np.bool_]]
    sources: dict[str, str]
    remarks: tuple[str, ...] = ()


def region_files(datasets: Sequence[Folder], participant: str) -> list[RegionFile]:
    """Files of a participant (label without ``sub-``) with regions, sorted by dataset, kind and name."""
    found = []
    for dataset in datasets:
        mine = []
        for folder, _, names in os.walk(dataset.root / f"sub-{participant}"):
            for name in names:
                parsed = parse_name(name)
                image = parsed.extension in (".nii", ".nii.gz") and name.startswith("sub-")
                if parsed.suffix in SUFFIXES and image:
                    mine.append(RegionFile(Path(folder, name), dataset, parsed.suffix))
        found += sorted(mine, key=lambda file: (SUFFIXES.index(file.kind), file.path.name))
    return found


def find_regions(files: Sequence[RegionFile], image: str, like: SpatialImage, wanted: Sequence[str] = ()) -> Regions:
    """Regions of an image on its grid.

    A file belongs to an image if all its entities are those of the image. Files of the session and acquisition are
    preferred to those of the participant, then earlier datasets, then segmentations to masks. Names are compared
    without case.

    Parameters
    ----------
    files : sequence of RegionFile
        As of `region_files`.
    image : str
        Entities of the image (sub-01_ses-1).
    like : SpatialImage
        Image with the grid; files on other grids are skipped.
    wanted : sequence of str
        Names in any case; empty means all. `WHOLE` is ignored.
    """
    asked = {name.lower() for name in wanted}
    entities = set(parse_name(image).words)
    masks: dict[str, NDArray[np.bool_]] = {}
    sources: dict[str, str] = {}
    chosen: dict[str, RegionFile] = {}
    passed: dict[str, str] = {}
    remarks = []
    fitting = sorted((file for file in files if file.words <= entities), key=lambda file: -len(file.words))
    for file in fitting:
        try:
            regions = file.regions
        except UnusableInputError as error:
            remarks.append(str(error))
            continue
        names = {name: labels for name, labels in regions.items() if not asked or name.lower() in asked}
        for name in names:
            first = chosen.get(name.lower())
            if first and (first.words, first.dataset, first.kind) == (file.words, file.dataset, file.kind):
                remarks.append(f"the region {name} is in {_generic(first)} and in {_generic(file)}: the first is used")
        names = {name: labels for name, labels in names.items() if name.lower() not in chosen}
        if not names:
            continue
        try:
            data = _on_grid(file.path, like)
        except UnusableInputError as error:
            remarks.append(str(error))
            continue
        if data is None:  # of another image, such as an anatomical one
            passed |= {name: _generic(file) for name in names if name not in passed}
            continue
        for name, labels in names.items():
            mask = np.isin(data, labels) if labels else data > LIKELY
            if mask.any():
                masks[name], sources[name], chosen[name.lower()] = mask, file.uri, file
    missing: dict[str, list[str]] = {}
    for name in sorted(name for name in passed if name.lower() not in chosen):
        missing.setdefault(passed[name], []).append(name)
    for file_name, names_of in missing.items():
        remarks.append(
            f"{file_name} ({_listed(names_of)}) lies on another grid than the maps; resample it to that of the image"
        )
    there = {name.lower() for name in masks} | {name.lower() for name in passed}
    remarks += [f"there is no region {name}" for name in wanted if name.lower() not in {*there, WHOLE}]
    return Regions(masks, sources, tuple(dict.fromkeys(remarks)))


def _on_grid(path: Path, like: SpatialImage) -> NDArray | None:
    """A volume on the grid of an image; None if it is on another."""
    image = open_image(path)
    shape = like.shape[:3]
    if image.shape[:3] != shape or np.prod(image.shape) != np.prod(shape) or not same_grid(image, like, shape):
        return None
    return read_data(image, path).reshape(shape)


def labelled_regions(path: Path, dataset: Folder) -> dict[str, tuple[int, ...]]:
    """Regions of a ``dseg`` with their labels, from its table or sidecar; tissues also under standard names."""
    found: dict[str, list[int]] = {}
    for name, label in lookup(path, dataset):
        if label != 0 and region_name(name) not in TISSUES:
            found.setdefault(name, []).append(label)
    regions = {name: tuple(labels) for name, labels in found.items()}
    for tissue in TISSUES:
        if labels := tissue_indices(path, dataset, tissue):
            regions[tissue] = tuple(labels)
    return regions


def region_name(name: str) -> str:
    """Standard name of a tissue region; other names are unchanged."""
    return next((tissue for tissue, names in NAMES.items() if name.strip().lower() in names), name.strip())


def lookup(path: Path, dataset: Folder) -> Iterator[tuple[str, int]]:
    """Names and labels of a ``dseg``."""
    for table in inherited(path, dataset, ".tsv"):
        for row in read_tsv(table):
            name = (row.get("name") or row.get("abbreviation") or "").strip()
            if name and (row.get("index") or "").strip().isdecimal():
                yield name, int(row["index"])
        return
    for sidecar in inherited(path, dataset, ".json"):
        content = read_sidecar(sidecar)
        for key in ("Levels", "LabelMap"):
            if isinstance(content.get(key), dict):
                for left, right in content[key].items():
                    name, label = (str(right), left) if str(left).isdecimal() else (str(left), right)
                    if str(label).isdecimal():
                        yield name, int(label)
                return


def _generic(file: RegionFile) -> str:
    """Name of a file without participant and session, for remarks that hold for several."""
    return parse_name(file.path.name).without(*FOLDERS, "run")


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
