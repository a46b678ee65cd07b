"""Volumes that do not belong: empty ones, appended maps, and those of other scans or b-values.

Volumes are compared in a sample of voxels of any tissue. They may differ as far as diffusion allows: the signal decays
with b no faster than in free water, and varies with direction no more than in coherent fibres. So noise at high b,
directional contrast and lost slices do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from bidsfit.acquisition import COLUMNS, Acquisition
from bidsfit.preprocessing.registration import Reference, VoxelGrid, rigid_generators

#: Volumes of the lowest b-values that show where the signal is, and voxels of a sample.
LOWEST_VOLUMES = 9
SAMPLE = 20_000

#: Fewer voxels tell nothing of how alike volumes look.
ENOUGH_VOXELS = 200
#: Slices with fewer are not judged on their own; and the mean of a slice counts as at least this share of the largest.
ENOUGH_IN_SLICE, LEAST_SHARE = 20, 0.2

#: Brighter or darker than expected by this factor is no signal of the b-value. A weighted volume may have lost signal
#: by movement, in all its slices.
TOO_BRIGHT, TOO_DARK, LOST = 1.5, 1.5, 5.0

#: Up to this b-value (s/mm^2) movement costs no signal, and directions show no contrast.
NOT_WEIGHTED = 10.0

#: Diffusivity (mm^2/s) of free water at the temperature of the body, and how much the diffusivity of half of the voxels
#: may differ between directions.
FASTEST, ANISOTROPY = 3.2e-3, 1.7e-3

#: So many other volumes of a shell show its directional contrast: it is at most so many times their range.
MANY_VOLUMES, RANGES = 6, 4.0

#: Signals below this share of those of the lowest b-values are taken for it: the noise decides there.
FLOOR = 0.01

#: A volume without others of its b-value is compared with so many of the nearest b-values on either side.
NEIGHBOURS = 2

#: Directions within this angle (degrees) give pictures that look alike.
ALIKE = 35.0
#: So do all directions up to this b-value (s/mm^2).
HARDLY_WEIGHTED = 200.0

#: Correlations of others with those most like them, from which on they tell how a shell looks; and below which share of
#: them a volume shows something else. It must show something: neighbouring voxels are alike.
TYPICAL, UNLIKE, STRUCTURED = 0.6, 0.5, 0.4
#: Without weighting there is no contrast of directions: what is not explained is at most so many times the typical,
#: and so much more.
UNEXPLAINED, MORE = 3.0, 0.03

#: Along an axis of fewer voxels nothing moves that could be followed; the smallest voxel counts as so large (mm), so
#: that small animals are registered as heads are.
FEWEST_SLICES, VOXEL = 5, 2.0
#: Scales of a registration that need not be exact.
SCALES = (0, 1, 2)
#: A volume has moved where its correlation gains so much by it, and reaches this share of the typical.
GAIN, MOVED = 0.1, 0.7


def find_strangers(
    volume: Callable[[int], NDArray], acquisition: Acquisition, voxel_sizes: ArrayLike = (VOXEL, VOXEL, VOXEL)
) -> dict[int, str]:
    """Volumes that are empty, or not diffusion images of their b-value, with the reason for each.

    Parameters
    ----------
    volume : callable
        Returns a volume by its index, shape (x, y, z).
    voxel_sizes : array_like, shape (3,)
        mm.

    Notes
    -----
    The level of a volume is its median ratio to the median image of the lowest b-values. It is compared with the levels
    of its shell, or of the nearest b-values if the shell has fewer than two others, and must contradict most of them.
    The likeness of two volumes is the correlation of their deviations within slices. A volume is compared with the most
    similar one of its shell and of a similar direction, relative to the likeness of the others among themselves; before
    it is rejected it is registered to them, as it may have moved.
    """
    lowest = np.argsort(acquisition.b_values, kind="stable")[:LOWEST_VOLUMES]
    mask = tissue(np.stack([volume(int(k)) for k in lowest], axis=-1))
    places = _sample(mask)
    signals = np.empty((places[0].shape[1], len(acquisition)), dtype=np.float32)
    beside = np.empty_like(signals)
    for k in range(len(acquisition)):
        values = volume(k)
        signals[:, k], beside[:, k] = (values[tuple(where)] for where in places)
    found = _empty(signals)
    if len(found) == len(acquisition):
        return {}
    volumes = _ComparedVolumes(volume, acquisition, _Sample(mask, places[0], signals, beside), np.asarray(voxel_sizes))
    for search in (volumes.of_another_level, volumes.of_another_look):
        while True:
            kept = np.setdiff1d(np.arange(len(acquisition)), list(found))
            worst = search(kept)
            if worst is None:
                break
            found[worst[0]] = worst[1]
    return dict(sorted(found.items()))


def tissue(pictures: NDArray) -> NDArray[np.bool_]:
    """Voxels above Otsu's threshold in the median of the scaled volumes (x, y, z, m); all if there is no contrast."""
    from dipy.segment.threshold import otsu

    finite = np.where(np.isfinite(pictures), pictures, 0.0)
    common = np.median(finite / _scales(finite.reshape(-1, finite.shape[-1])), axis=-1)
    positive = common > 0
    if np.ptp(common) == 0 or not positive.any():
        return np.ones(common.shape, dtype=bool)
    above = np.asarray(common > otsu(np.clip(common, 0, np.percentile(common[positive], 99))))
    return above if above.any() else positive


def _sample(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Evenly sampled voxels of a mask, and for each its neighbour along the first axis, if all have one in the mask."""
    pairs = np.zeros_like(mask)
    pairs[:-1] = mask[:-1] & mask[1:]
    step = int(pairs.any())
    voxels = np.argwhere(pairs if step else mask).T
    voxels = voxels[:, :: -(-voxels.shape[1] // SAMPLE)]
    return voxels, voxels + np.array([[step], [0], [0]])


@dataclass(frozen=True)
class _Sample:
    """Signals (n_voxels, n) of sampled voxels of a mask and of their neighbours, and their places (3, n)."""

    mask: NDArray[np.bool_]
    voxels: NDArray[np.intp]
    signals: NDArray[np.float32]
    beside: NDArray[np.float32]


def _empty(signals: NDArray) -> dict[int, str]:
    """Volumes without signal."""
    finite = np.isfinite(signals)
    values = np.where(finite, signals, 0.0)
    alike = np.ptp(values, axis=0) == 0
    found = {}
    for k in range(signals.shape[1]):
        if not finite[:, k].any():
            found[k] = "it holds no finite value"
        elif not values[:, k].any():
            found[k] = "it holds only zeros"
        elif alike[k] and np.mean(alike) < 0.5 and len(signals) >= ENOUGH_VOXELS:
            found[k] = "it holds one and the same value wherever the others show signal"
    return found


def _scales(values: NDArray) -> NDArray[np.float64]:
    """Mean of the positive values of each column; 1 if there are none."""
    positive = np.where(values > 0, values, 0.0)
    count = (values > 0).sum(axis=0)
    return np.where(count > 0, positive.sum(axis=0) / np.maximum(count, 1), 1.0)


class _ComparedVolumes:
    """Volumes of an image that are compared with one another."""

    def __init__(
        self, volume: Callable[[int], NDArray], acquisition: Acquisition, sample: _Sample, voxel_sizes: NDArray
    ) -> None:
        self.volume = volume
        self.sample = sample
        self.b = acquisition.b_values
        self.shell = np.zeros(self.b.size, dtype=int)
        self.echo = np.zeros(self.b.size)
        for number, shell in enumerate(acquisition.shells):
            self.shell[shell.indices] = number
            self.echo[shell.indices] = shell.values.get("TE") or 0.0
        self.nominal = np.array([acquisition.shells[number].b_value for number in self.shell])
        self.sine, self.directed = _angles(acquisition)
        self.values = np.where(np.isfinite(sample.signals), sample.signals, 0.0).astype(float)
        self.slices = np.unique(sample.voxels[2], return_inverse=True)[1]
        self.level = self._levels()
        shape = sample.mask.shape
        affine = np.diag([*(VOXEL * voxel_sizes / voxel_sizes.min()), 1.0])
        self.grid = VoxelGrid(affine, sample.mask, tuple(axis for axis in range(3) if shape[axis] < FEWEST_SLICES))
        self.moved: set[int] = set()

    def _levels(self) -> NDArray[np.float64]:
        """Logarithm of the ratio of each volume to the lowest b-values, at least that of `FLOOR`.

        The median over each slice, then that of the brighter slices, as others may have lost signal.
        """
        lowest = np.argsort(self.b, kind="stable")[:LOWEST_VOLUMES]
        common = np.median(self.values[:, lowest] / _scales(self.values[:, lowest]), axis=1)
        inside = common > 0
        if not inside.any():
            return np.zeros(self.b.size)
        ratios, slices = self.values[inside] / common[inside, None], self.slices[inside]
        counts = np.bincount(slices)
        judged = np.flatnonzero(counts >= min(ENOUGH_IN_SLICE, counts.max()))
        of_slices = [np.median(ratios[slices == number], axis=0) for number in judged]
        level = np.percentile(of_slices, 75, axis=0, method="higher")
        first = level[lowest[: max(3, lowest.size // 2)]]
        return np.log(np.maximum(level, max(FLOOR * float(np.median(first)), np.finfo(float).tiny)))

    def _peers(self, k: int, kept: NDArray) -> tuple[NDArray, bool]:
        """Volumes that volume k is compared with, and whether they are of its shell."""
        others = kept[(kept != k) & (self.echo[kept] == self.echo[k])]
        mates = others[self.shell[others] == self.shell[k]]
        if mates.size >= 2:
            return mates, True
        below = others[self.nominal[others] < self.nominal[k]]
        above = others[self.nominal[others] > self.nominal[k]]
        below = below[np.argsort(-self.nominal[below], kind="stable")]
        above = above[np.argsort(self.nominal[above], kind="stable")]
        short = 2 * NEIGHBOURS - min(below.size, NEIGHBOURS), 2 * NEIGHBOURS - min(above.size, NEIGHBOURS)
        return np.concatenate([mates, below[: short[1]], above[: short[0]]]), False

    def of_another_level(self, kept: NDArray) -> tuple[int, str] | None:
        """The volume whose level contradicts the largest share of its peers, if that is most of them."""
        worst: tuple[float, float, int, str] | None = None
        for k in kept:
            peers, of_shell = self._peers(k, kept)
            if peers.size < 2:
                continue
            higher = self.level[k] - self.level[peers]
            contrast = self._contrast(k, peers, of_shell)
            down = FASTEST * np.maximum(self.nominal[peers] - self.nominal[k], 0)
            up = FASTEST * np.maximum(self.nominal[k] - self.nominal[peers], 0)
            is_map = of_shell and not self.directed[k] and contrast.max() == 0  # without a direction among others
            may_lose = self.nominal[k] > NOT_WEIGHTED and not is_map
            bright = higher > np.log(TOO_BRIGHT) + down + contrast
            dark = -higher > np.log(LOST if may_lose else TOO_DARK) + up + contrast
            share, size = max(bright.mean(), dark.mean()), float(np.abs(np.median(higher)))
            if share > 0.5 and (worst is None or (share, size) > worst[:2]):
                factor = f"{np.exp(np.median(higher)):.2g}"
                of = f"of the other volumes of b = {self.nominal[k]:.0f} s/mm²"
                of = of if of_shell else "of the volumes of the nearest b-values, which no decay explains"
                worst = share, size, int(k), f"its signal is {factor} times that {of}"
        return None if worst is None else worst[2:]

    def _contrast(self, k: int, peers: NDArray, of_shell: bool) -> NDArray[np.float64]:
        """Largest difference of levels (logarithms) that directions explain."""
        lower = np.minimum(self.nominal[peers], self.nominal[k])
        contrast = np.where(lower > NOT_WEIGHTED, lower * ANISOTROPY * self.sine[k, peers], 0.0)
        if of_shell and peers.size >= MANY_VOLUMES:
            spread = np.percentile(self.level[peers], [5, 95])
            contrast = np.minimum(contrast, RANGES * float(np.ptp(spread)))
        return contrast

    def of_another_look(self, kept: NDArray) -> tuple[int, str] | None:
        """The volume that looks unlike its peers while these look alike."""
        if len(self.values) < ENOUGH_VOXELS or kept.size < 4:
            return None
        beside = np.where(np.isfinite(self.sample.beside), self.sample.beside, 0.0)
        values = self._within_slices(self.values[:, kept])
        correlation = np.full((self.b.size, self.b.size), -1.0)
        correlation[np.ix_(kept, kept)] = _correlations(values, values)
        structure = np.zeros(self.b.size)
        structure[kept] = np.diag(_correlations(values, self._within_slices(beside[:, kept])))
        sets = {int(k): self._alike(k, self._peers(k, kept)[0]) for k in kept}
        likeness = np.full(self.b.size, np.nan)
        of_any = np.full(self.b.size, np.nan)  # whatever the direction
        for k, like in sets.items():
            likeness[k] = _likeness(correlation, k, like[self.directed[like] | (not self.directed[k])])
            of_any[k] = _likeness(correlation, k, self._peers(k, kept)[0])
        candidates: list[tuple[float, int, str]] = []
        for k, like in sets.items():
            peers, of_shell = self._peers(k, kept)
            others = (likeness if self.directed[k] else of_any)[peers]
            others = others[np.isfinite(others)]
            if like.size == 0 or others.size < (2 if of_shell else 3) or structure[k] < STRUCTURED or k in self.moved:
                continue
            typical, most = float(np.percentile(others, 25)), _likeness(correlation, k, like)
            least = UNLIKE * typical
            if of_shell and self.nominal[k] <= NOT_WEIGHTED:
                least = max(least, 1 - UNEXPLAINED * (1 - typical) - MORE)
            if typical < TYPICAL or most >= least:
                continue
            moved = self._when_moved(k, like)
            if moved > min(least, MOVED * typical) and moved > most + GAIN:
                self.moved.add(int(k))
                continue
            of = f"the other volumes of b = {self.nominal[k]:.0f} s/mm²" if of_shell else "its neighbours in b"
            words = f"it does not look like {of} (correlation {most:.2f}, between them {typical:.2f})"
            candidates.append((most / typical, int(k), words))
        return min(candidates)[1:] if candidates else None

    def _when_moved(self, k: int, like: NDArray) -> float:
        """Likeness of volume k to the mean of others after registration."""
        like = like[:LOWEST_VOLUMES]
        picture = np.mean([np.nan_to_num(self.volume(int(j))) for j in like], axis=0)
        own = np.nan_to_num(self.volume(k))
        found = Reference([picture], self.grid).match(own, np.eye(4), rigid_generators(self.grid), SCALES)
        backward = np.linalg.inv(self.grid.affine) @ found.transform @ self.grid.affine
        places = backward[:3, :3] @ self.sample.voxels + backward[:3, 3:]
        values = np.column_stack(
            [map_coordinates(own, places, order=1, mode="nearest"), picture[tuple(self.sample.voxels)]]
        )
        return float(_correlations(*np.hsplit(self._within_slices(values), 2))[0, 0])

    def _alike(self, k: int, peers: NDArray) -> NDArray:
        """Peers that volume k should resemble: of similar direction, or hardly diffusion-weighted."""
        lower = np.minimum(self.nominal[peers], self.nominal[k])
        similar = self.sine[k, peers] <= np.sin(np.deg2rad(ALIKE))
        return peers[similar | (lower <= HARDLY_WEIGHTED)]

    def _within_slices(self, values: NDArray) -> NDArray[np.float64]:
        """Relative deviations of values from the mean of their slice, so that slices that lost signal count equally.

        Bright fluid and the noise of slices with little signal are clipped.
        """
        values = np.clip(values, *np.percentile(values, [2, 98], axis=0))
        counts = np.bincount(self.slices)
        means = np.zeros((counts.size, values.shape[1]))
        np.add.at(means, self.slices, values)
        means /= counts[:, None]
        scales = np.maximum(np.abs(means), LEAST_SHARE * np.abs(means).max(axis=0))
        return (values - means[self.slices]) / np.where(scales > 0, scales, 1.0)[self.slices]


def _correlations(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """Correlations of the columns of two arrays; 0 for constant columns."""

    def standard(values: NDArray) -> NDArray:
        values = values - values.mean(axis=0)
        length = np.sqrt(np.einsum("ij,ij->j", values, values))
        return values / np.where(length > 0, length, np.inf)

    return standard(first).T @ standard(second)


def _likeness(correlation: NDArray, k: int, others: NDArray) -> float:
    """Correlation of volume k with the most similar of others, or with their mean; NaN without others."""
    if others.size == 0:
        return np.nan
    own = correlation[k, others]
    return float(max(own.max(), own.sum() / np.sqrt(max(correlation[np.ix_(others, others)].sum(), 1e-12))))


def _angles(acquisition: Acquisition) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Sine of the angle between the directions of each two volumes, and which volumes have a direction.

    It is 0 if one of the two has none although others do (a map has none, and a trace image lies between the
    directions), and 1 if no directions are known.
    """
    n = len(acquisition)
    table = np.zeros((n, 3)) if acquisition.directions is None else np.nan_to_num(acquisition.directions)
    lengths = np.linalg.norm(table, axis=1)
    directed = (lengths > 0) & (acquisition.b_values > COLUMNS["b"].absolute)
    if not directed.any():
        return 1.0 - np.eye(n), directed
    unit = table / np.where(lengths > 0, lengths, 1.0)[:, None]
    sine = np.sqrt(np.clip(1 - (unit @ unit.T) ** 2, 0, 1))
    return np.where(directed[:, None] & directed[None], sine, 0.0), directed
