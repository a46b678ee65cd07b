"""Distributions of parameters that estimators are trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, maximum_filter, spline_filter
from scipy.spatial import KDTree

from bidsfit.models.priors import Prior, prior_from
from bidsfit.models.signal_model import SignalModel
from bidsfit.models.space import ParameterSpace, fill

#: Bins of a histogram in each dimension (Gyori et al. 2022).
BINS = 500
#: More parameters than this, and a histogram has more bins than any pool has voxels.
MOST_HISTOGRAM_DIMENSIONS = 2
#: Neighbours within whose reach the kernel of a sample extends.
NEIGHBOURS = 16
#: How often a step of a kernel that leads out of the space is drawn again, before the sample stays where it is.
REDRAWS = 20
#: Fewer pooled voxels say nothing of a distribution.
FEWEST_SAMPLES = 100

Density = Literal["histogram", "kernel"]


class Distribution(Protocol):
    """Interface of distributions: they draw parameters and describe themselves."""

    @property
    def space(self) -> ParameterSpace: ...

    @property
    def facts(self) -> dict[str, Any]:
        """Kind and origin of the distribution, for JSON."""

    @property
    def arrays(self) -> dict[str, NDArray]:
        """Arrays that complete `facts`: the samples of a pool."""

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw n combinations of parameters, shape (n, n_parameters)."""


@dataclass(frozen=True)
class Uniform:
    """Uniform distribution over the parameter space."""

    space: ParameterSpace

    @property
    def facts(self) -> dict[str, Any]:
        return {"Kind": "uniform", "Bounds": self.space.facts}

    @property
    def arrays(self) -> dict[str, NDArray]:
        return {}

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        return self.space.sample(n, rng)


@dataclass(frozen=True)
class Informed:
    """Draws from the prior of each parameter, independent of the others but for the constraints of the space.

    A model may draw all together instead (`SignalModel.draw`).

    Parameters
    ----------
    space : ParameterSpace
    priors : mapping of name to Prior
        As of `bidsfit.models.priors.priors_of`. Parameters with uniform priors are drawn as `Uniform` draws them.
    """

    space: ParameterSpace
    priors: Mapping[str, Prior]

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "Kind": "prior",
            "Bounds": self.space.facts,
            "Priors": {name: prior.facts for name, prior in self.priors.items()},
        }

    @property
    def arrays(self) -> dict[str, NDArray]:
        return {}

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        accept = self.space.within if self.space.model.draws_plausible else self.space.contains
        return fill(n, self._propose, accept, rng)

    def _propose(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        if self.space.model.draw is not None:
            return self.space.model.draw(n, rng)
        found = self.space.propose(n, rng)
        for j, name in enumerate(self.space.names):
            if self.priors[name].distribution != "uniform":
                found[:, j] = self.priors[name].sample(n, rng)
        return found


@dataclass(frozen=True)
class Tissues:
    """Normal distributions of the parameters in tissues, as in paper III of Kaandorp's thesis.

    A tissue has a range of every parameter: its middle is the mean, and half its width the standard deviation. What
    lies outside the space is drawn again.

    Parameters
    ----------
    space : ParameterSpace
    ranges : mapping of tissue to mapping of parameter to (lower, upper)
        In the units of the parameter table. The scale may be among them, where 1 is that of the SNR; it is above 0.

    Raises
    ------
    ValueError
        If a tissue lacks a parameter, or names one that the model does not have.
    """

    space: ParameterSpace
    ranges: Mapping[str, Mapping[str, tuple[float, float]]]

    def __post_init__(self) -> None:
        known = {*self.space.names, *filter(None, [self.space.model.scale])}
        for tissue, ranges in self.ranges.items():
            if not set(self.space.names) <= set(ranges) <= known:
                raise ValueError(
                    f"The tissue {tissue!r} must have ranges of {', '.join(self.space.names)}, found "
                    f"{', '.join(ranges)}."
                )

    @property
    def facts(self) -> dict[str, Any]:
        ranges = {tissue: {name: list(pair) for name, pair in own.items()} for tissue, own in self.ranges.items()}
        return {"Kind": "tissues", "Bounds": self.space.facts, "Tissues": ranges}

    @property
    def arrays(self) -> dict[str, NDArray]:
        return {}

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        return self.draw(self.draw_tissue(n, rng), rng)

    def draw_tissue(self, n: int, rng: np.random.Generator) -> NDArray[np.integer]:
        """Numbers of tissues, shape (n,), all as likely."""
        return rng.integers(len(self.ranges), size=n)

    def draw(self, tissue: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.float64]:
        """Parameters, shape (n, n_parameters), of voxels of tissues given by their numbers, shape (n,)."""
        return self._drawn(tissue, self.space.names, self.space.contains, rng)

    def draw_scale(self, tissue: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.float64] | None:
        """Their scales, shape (n,); None if the tissues do not tell."""
        name = self.space.model.scale
        if name is None or not all(name in own for own in self.ranges.values()):
            return None
        return self._drawn(tissue, (name,), lambda rows: rows[:, 0] > 0, rng)[:, 0]

    def _drawn(
        self, tissue: NDArray[np.integer], names: Sequence[str], accept: Any, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        found = np.empty((len(tissue), len(names)))
        for i, own in enumerate(self.ranges.values()):
            low, high = np.array([own[name] for name in names]).T
            here = tissue == i

            def propose(n: int, rng: np.random.Generator, low: NDArray = low, high: NDArray = high) -> NDArray:
                return (low + high) / 2 + (high - low) / 2 * rng.standard_normal((n, len(low)))

            if here.any():
                found[here] = fill(int(here.sum()), propose, accept, rng)
        return found


@dataclass(frozen=True)
class Pooled:
    """Distribution of the fits of voxels of several participants, smoothed to a density.

    Parameters
    ----------
    space : ParameterSpace
    samples : ndarray, shape (n, n_parameters)
        Fitted parameters; those outside the space are left out.
    participant : ndarray of int, shape (n,)
        Index into ``participants``: whose voxel it is.
    participants : sequence of str
        Labels of all participants in the pool.
    density : {"histogram", "kernel"}, optional
        "histogram", the default for one or two parameters: 500 bins per dimension, interpolated cubically and clipped
        at 0, as Gyori et al. [1]_. "kernel", the default for more, because nearly all bins of a histogram would be
        empty: a random sample of the pool plus Gaussian noise as wide as the distance to its 16th neighbour, so that
        the width follows the local density [2]_.
    origin : mapping
        Dataset, tissue and maps that the samples come from, for JSON.

    References
    ----------
    .. [1] Gyori NG et al. Magnetic Resonance in Medicine 2022;87:932-947.
    .. [2] Breiman L, Meisel W, Purcell E. Variable kernel estimates of multivariate densities. Technometrics
       1977;19:135-144.
    """

    space: ParameterSpace
    samples: NDArray[np.floating]
    participant: NDArray[np.integer]
    participants: tuple[str, ...]
    density: Density | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rounded = np.asarray(self.samples, dtype=np.float32)
        inside = self.space.contains(rounded)  # rounded first, so that what is written and read again is the same
        for name, value in (
            ("samples", rounded[inside]),
            ("participant", np.asarray(self.participant, dtype=np.int32)[inside]),
            ("participants", tuple(self.participants)),
        ):
            object.__setattr__(self, name, value)
        if len(self.samples) < FEWEST_SAMPLES:
            raise ValueError(
                f"A pool needs at least {FEWEST_SAMPLES} fitted voxels inside the bounds, found {len(self.samples)}."
            )
        first, last = self.participant.min(), self.participant.max()
        if first < 0 or last >= len(self.participants):
            raise ValueError(
                f"A pool has participants from 0 to {len(self.participants) - 1}, found {first} to {last}."
            )
        few = len(self.space.names) <= MOST_HISTOGRAM_DIMENSIONS
        if self.density is None:
            object.__setattr__(self, "density", "histogram" if few else "kernel")
        if self.density == "histogram" and not few:
            raise ValueError(f"A histogram is of at most {MOST_HISTOGRAM_DIMENSIONS} parameters; take 'kernel'.")

    @property
    def facts(self) -> dict[str, Any]:
        shape = (
            {"Density": "histogram", "Bins": BINS}
            if self.density == "histogram"
            else {"Density": "kernel", "Neighbours": NEIGHBOURS}
        )
        counts = np.bincount(self.participant, minlength=len(self.participants)).tolist()
        return {
            "Kind": "pooled",
            "Bounds": self.space.facts,
            **shape,
            "Participants": list(self.participants),
            "Voxels": dict(zip(self.participants, counts, strict=True)),
            "Origin": dict(self.origin),
        }

    @property
    def arrays(self) -> dict[str, NDArray]:
        return {"samples": self.samples, "participant": self.participant}

    def without(self, participant: str) -> Pooled:
        """The pool without one participant.

        Raises
        ------
        ValueError
            If nobody or too few samples are left.
        """
        place = self.participants.index(participant)
        keep = self.participant != place
        others = tuple(name for name in self.participants if name != participant)
        if not others:
            raise ValueError(f"The pool holds {participant} alone; without that participant nothing is left.")
        moved = self.participant[keep] - (self.participant[keep] > place)
        origin = {**self.origin, "LeftOut": [*self.origin.get("LeftOut", []), participant]}
        return Pooled(self.space, self.samples[keep], moved, others, self.density, origin)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        return fill(n, self._smoothed if self.density == "kernel" else self._binned, self.space.contains, rng)

    @cached_property
    def _within(self) -> NDArray[np.float64]:
        """The samples clipped to their bounds, which rounding to 32 bits may have crossed."""
        return np.asarray(np.clip(self.samples.astype(float), self.space.bounds[:, 0], self.space.bounds[:, 1]))

    def _smoothed(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw from the kernels. Each is truncated at the bounds by itself, so that samples there keep their weight."""
        chosen = rng.integers(len(self.samples), size=n)
        found, rest = self._within[chosen], np.arange(n)
        for _ in range(REDRAWS):
            steps = rng.standard_normal((rest.size, len(self.space.names))) * self._reach[chosen[rest], None]
            moved = self._within[chosen[rest]] + steps * self.space.span
            inside = self.space.contains(moved)
            found[rest[inside]], rest = moved[inside], rest[~inside]
            if not rest.size:
                break
        return found

    @cached_property
    def _reach(self) -> NDArray[np.float64]:
        """Width of the kernel of every sample, relative to the bounds."""
        scaled = self.samples / self.space.span
        neighbours = min(NEIGHBOURS, len(scaled) - 1)
        distance, _ = KDTree(scaled).query(scaled, k=[neighbours + 1])  # the first is the sample itself
        return distance[:, 0] / np.sqrt(scaled.shape[1])

    def _binned(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw from the interpolated histogram.

        The paper proposes uniformly and rejects against the largest density. Here every bin has its own bound, which
        rejects fewer proposals and gives the same distribution.
        """
        spline, cumulative, largest = self._histogram
        cell = rng.permutation(np.searchsorted(cumulative, np.sort(rng.random(n)), side="right"))  # sorted is faster
        place = np.stack(np.unravel_index(cell, spline.shape)) + rng.random((spline.ndim, n)) - 0.5
        density = map_coordinates(spline, place, order=3, mode="nearest", prefilter=False)
        kept = rng.random(n) * largest[cell] < density
        return self.space.bounds[:, 0] + (place.T[kept] + 0.5) / BINS * self.space.span

    @cached_property
    def _histogram(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Spline coefficients, cumulative weights of the bins, and an upper bound of the density in each bin."""
        counts, _ = np.histogramdd(self._within, bins=BINS, range=self.space.bounds.tolist())
        spline = spline_filter(counts, order=3, mode="nearest")
        # A spline never exceeds the largest of the coefficients that it is a mean of: five along each dimension here.
        largest = np.clip(maximum_filter(spline, size=5, mode="nearest"), 0, None).ravel()
        return spline, np.cumsum(largest) / largest.sum() * (1 + 1e-12), largest


@dataclass(frozen=True)
class Mixture:
    """Mixture of distributions with given probabilities, by default equal."""

    parts: tuple[Distribution, ...]
    weights: tuple[float, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.weights) or not np.isclose(sum(self.weights), 1) or min(self.weights) < 0:
            raise ValueError(f"A mixture needs a weight for each part, with a sum of 1; found {self.weights}.")

    @property
    def space(self) -> ParameterSpace:
        return self.parts[0].space

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "Kind": "mixture",
            "Bounds": self.space.facts,
            "Weights": list(self.weights),
            "Parts": [part.facts for part in self.parts],
        }

    @property
    def arrays(self) -> dict[str, NDArray]:
        return {f"{i}.{name}": array for i, part in enumerate(self.parts) for name, array in part.arrays.items()}

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        counts = rng.multinomial(n, self.weights)
        drawn = np.concatenate([part.sample(int(k), rng) for part, k in zip(self.parts, counts, strict=True) if k])
        return rng.permutation(drawn)


def distribution_from(facts: Mapping[str, Any], arrays: Mapping[str, NDArray], model: SignalModel) -> Distribution:
    """Rebuild a distribution from its ``facts`` and ``arrays``; raise `ValueError` if they describe none."""
    try:
        space = ParameterSpace(model, {name: (low, high) for name, (low, high) in facts["Bounds"].items()})
        if facts["Kind"] == "uniform":
            return Uniform(space)
        if facts["Kind"] == "prior":
            return Informed(space, {name: prior_from(prior) for name, prior in facts["Priors"].items()})
        if facts["Kind"] == "tissues":
            return Tissues(space, facts["Tissues"])
        if facts["Kind"] == "pooled":
            participants = tuple(facts["Participants"])
            return Pooled(
                space, arrays["samples"], arrays["participant"], participants, facts["Density"], facts["Origin"]
            )
        if facts["Kind"] == "mixture":
            parts = []
            for i, part in enumerate(facts["Parts"]):
                own = {name.removeprefix(f"{i}."): a for name, a in arrays.items() if name.startswith(f"{i}.")}
                parts.append(distribution_from(part, own, model))
            return Mixture(tuple(parts), tuple(facts["Weights"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"The description of a distribution is incomplete: {error!r}.") from error
    raise ValueError(
        f"Unknown kind of distribution {facts['Kind']!r}; valid: uniform, prior, tissues, pooled, mixture."
    )


def participants_of(facts: Mapping[str, Any]) -> list[str]:
    """Participants whose voxels a distribution contains; empty for a simulated one."""
    found = {name for part in facts.get("Parts", []) for name in participants_of(part)}
    return sorted(found | set(facts.get("Participants", [])))


def digest(distribution: Distribution) -> str:
    """SHA-256 of a distribution with its samples, by which trained estimators are found again."""
    found = hashlib.sha256(json.dumps(distribution.facts, sort_keys=True).encode())
    for name, array in sorted(distribution.arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def usable_voxels(
    space: ParameterSpace, values: NDArray[np.floating], most: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Rows of fitted parameters that are finite and inside the space; of more than ``most``, so many at random."""
    usable = np.asarray(values[np.isfinite(values).all(axis=1)], dtype=np.float32)
    usable = usable[space.contains(usable)]
    return rng.permutation(usable)[:most] if len(usable) > most else usable


def pool(
    space: ParameterSpace, fits: Mapping[str, NDArray[np.floating]], *, most: int, seed: int, origin: Mapping[str, Any]
) -> Pooled:
    """Pool the fitted voxels of participants, at most the same number of each.

    Parameters
    ----------
    fits : mapping of participant to ndarray, shape (n_voxels, n_parameters)
        Rows that are NaN or outside the space are left out.
    most : int
        Largest number of voxels in the pool, divided equally among the participants.
    seed : int
        Seed of the choice of voxels if there are more.
    origin : mapping
        Where they come from, for JSON.
    """
    if not fits:
        raise ValueError("A pool needs at least one participant.")
    rng = np.random.default_rng(seed)
    share = max(most // len(fits), 1)
    chosen: dict[str, NDArray[np.floating]] = {}
    for name, values in fits.items():
        chosen[name] = usable_voxels(space, values, share, rng)
    counts = [len(values) for values in chosen.values()]
    return Pooled(
        space,
        np.concatenate(list(chosen.values())),
        np.repeat(np.arange(len(chosen)), counts),
        tuple(chosen),
        origin={**origin, "Seed": seed},
    )
