"""Voxels of images whose parameters are told by labels: what a network can be taught, and tested on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.images import image_shape, open_image, read_data, read_mask
from bidsfit.bids.inputs import find_images, open_dataset
from bidsfit.bids.names import participant_labels
from bidsfit.models.signal_model import SignalModel
from bidsfit.models.space import ParameterSpace
from bidsfit.noise import sigma_from_repeats
from bidsfit.preprocessing.masking import head_mask, tissue_shell
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.images import HELD_OUT, ImageVoxels, as_single
from bidsfit.simulation.simulator import Batch, Noise, Simulation, Simulator


@dataclass(frozen=True)
class Scan:
    """Voxels of an image.

    Attributes
    ----------
    name : str
    signals : ndarray, shape (n, n_measurements)
    positions : ndarray, shape (n, 3)
        Voxel indices.
    acquisition : Acquisition
    sigma : float
        Standard deviation of the noise of one measurement.
    """

    name: str
    signals: NDArray[np.float64]
    positions: NDArray[np.integer]
    acquisition: Acquisition
    sigma: float

    def of(self, measurements: NDArray[np.integer]) -> Scan:
        """Some of its measurements."""
        return replace(self, signals=self.signals[:, measurements], acquisition=self.acquisition.select(measurements))

    def some(self, voxels: NDArray[Any]) -> Scan:
        """Some of its voxels."""
        return replace(self, signals=self.signals[voxels], positions=self.positions[voxels])


def scans_of(root: Path, model: SignalModel) -> Iterator[Scan]:
    """The diffusion images of a dataset that support a model, as they are, in their masks or those of a head.

    Voxels with a signal that is not above 0 are left out.
    """
    raw = open_dataset(root, "raw", derivative=False)
    folders = sorted((root / "derivatives").glob("*/dataset_description.json"))
    derivatives = [open_dataset(path.parent, path.parent.name, derivative=True) for path in folders]
    for image in find_images(raw, derivatives, participant_labels(root)).images:
        acquisition = read_acquisition(image.bval, image.bvec, image.sidecar)
        if image.bval is None or not model.support(acquisition):
            continue
        opened = open_image(image.path)
        image_shape(opened, len(acquisition), image.path)
        data = read_data(opened, image.path).astype(float)
        if image.mask is None:
            lowest = acquisition.b_values == acquisition.b_values.min()
            weighted = data[..., tissue_shell(acquisition).indices].mean(axis=-1)
            mask = head_mask(data[..., lowest].mean(axis=-1), weighted, opened.header.get_zooms()[:3]).mask
        else:
            mask = read_mask(image.mask, opened, image.path)
        mask = mask & (data > 0).all(axis=-1)
        noise = sigma_from_repeats(data[mask], acquisition)
        if noise is not None:
            yield Scan(f"{root.name} {image.participant}", data[mask], np.argwhere(mask), acquisition, noise.sigma)


def evenly(directions: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """Indices of n of the unit vectors (m, 3) that repel one another least, with opposite ones identified.

    Vectors are exchanged one at a time, as long as that makes their electrostatic energy smaller.
    """
    apart = np.stack([np.linalg.norm(directions[:, None] - s * directions, axis=-1) for s in (1, -1)])
    with np.errstate(divide="ignore"):
        energy = (1 / apart).sum(axis=0)
    np.fill_diagonal(energy, 0.0)
    chosen = list(range(n))
    while True:
        best: tuple[float, int, int] = (-1e-9, 0, 0)
        for i in range(n):
            others = [k for j, k in enumerate(chosen) if j != i]
            cost = energy[:, others].sum(axis=1)
            cost[others] = np.inf
            k = int(np.argmin(cost))
            best = min(best, (float(cost[k] - cost[chosen[i]]), i, k))
        if best[0] >= -1e-9:
            return np.sort(chosen)
        chosen[best[1]] = best[2]


def voxels_of(scans: Sequence[Scan], model: SignalModel) -> ImageVoxels:
    """The voxels of images of one protocol with their positions, as trainings take them."""
    parts = []
    for scan in scans:
        unit = model.reference_signal(scan.signals, scan.acquisition)
        signals, sigma = as_single(scan.signals / unit[:, None]), (scan.sigma / unit).astype(np.float32)
        places = np.insert(scan.positions, 0, 0, axis=1)
        parts.append(ImageVoxels(signals, sigma, scan.acquisition, {scan.name: len(unit)}, positions=places))
    return ImageVoxels.pooled(parts)


class Labelled(Simulator):
    """Draws voxels of images, whose targets are labels.

    Parameters
    ----------
    space : ParameterSpace
    images : ImageVoxels
        All voxels, those that are only neighbours too.
    labels : ndarray, shape (n, n_parameters)
        Of all voxels.
    rows : ndarray of int
        The voxels that are drawn. Every tenth is held out to validate on.
    reach : (x, y, z)
        Neighbours on each side of a voxel that are read.
    """

    def __init__(
        self,
        space: ParameterSpace,
        images: ImageVoxels,
        labels: NDArray[np.float64],
        rows: NDArray[np.integer],
        reach: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        simulation, noise = Simulation(signals="images"), Noise(images.median_snr, "rician")
        super().__init__(Uniform(space), images.acquisition, noise, simulation, reach, images=images)
        self._voxels, self._labels, self._rows = images, labels, rows
        self._out = np.arange(len(rows)) % HELD_OUT == HELD_OUT - 1

    def draw(self, n: int, rng: np.random.Generator) -> Batch[NDArray]:
        return self._of_images(self._voxels, rng.choice(self._rows[~self._out], n))

    def held_out(self, n: int, rng: np.random.Generator) -> Batch[NDArray]:
        return self._of_images(self._voxels, rng.permutation(self._rows[self._out])[:n])

    def _of_images(self, images: ImageVoxels, rows: NDArray[np.integer]) -> Batch[NDArray]:
        targets = self._labels[rows][:, None]
        batch = super()._of_images(images, rows)
        return replace(batch, truth=targets[:, 0], targets=targets, cube=self.space.to_cube(targets))
