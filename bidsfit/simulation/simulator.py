"""Simulator of training voxels: parameters drawn from a distribution, and their noisy signals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.information import bound_of_voxels
from bidsfit.models.signal_model import SignalModel, as_real
from bidsfit.models.space import ParameterSpace
from bidsfit.noise import NoiseKind, add_noise, rician_mean
from bidsfit.simulation.distributions import Distribution, Tissues
from bidsfit.simulation.images import ImageVoxels, as_single
from bidsfit.simulation.patches import Patches, PatchKind, Surroundings, with_presence

#: An average of more Rician magnitudes than this is taken for Gaussian, with their mean and variance.
FEW = 8

#: Steps of a training whose voxels are simulated at a time, if they are not more than so many.
STEPS, VOXELS = 16, 1 << 18

if TYPE_CHECKING:
    from torch import Tensor

#: Whose images a training takes voxels of.
Scope = Literal["participant", "dataset"]
#: What signals are shown in units of.
Unit = Literal["noise", "reference"]

Array = TypeVar("Array", NDArray, "Tensor")
Other = TypeVar("Other", NDArray, "Tensor")


@dataclass(frozen=True)
class Noise:
    """Noise of the training signals.

    Parameters
    ----------
    snr : float
        S0 / standard deviation of one measurement, or instead of S0 the largest signal (see `Simulator.brightness`);
        infinite without noise.
    kind : {"gaussian", "rician"}
    lowest : bool
        Whether images of the lowest b-value are noisy too; they are not in Gyori et al.
    """

    snr: float
    kind: NoiseKind = "gaussian"
    lowest: bool = True

    def __post_init__(self) -> None:
        if not self.snr > 0:
            raise ValueError(f"The SNR of the training must be above 0, found {self.snr}.")
        if self.kind not in get_args(NoiseKind):
            raise ValueError(f"Unknown kind of noise {self.kind!r}; valid: {', '.join(get_args(NoiseKind))}.")


@dataclass(frozen=True)
class Simulation:
    """Choices of a simulation: the section ``simulation`` of a recipe.

    Parameters
    ----------
    snr_range : (lowest, highest), optional
        Draw the SNR of every voxel from this range instead of using that of `Noise`.
    snr_spacing : {"log", "uniform"}, optional
        Whether the logarithm of the SNR is uniform in its range (default), or the SNR itself.
    snr_levels : sequence of float, optional
        Draw the SNR of every voxel from these values, with equal probability.
    snr : {"images"}, optional
        Draw the SNR of every voxel from those of the voxels of the images that will be fitted.
    signals : {"images"}, optional
        Train on the measured signals of these images instead of simulated ones: their parameters are not known, and
        noise and S0 are their own.
    filter : {"kaandorp2021"}, optional
        Train on those voxels only whose signals decay, see `bidsfit.simulation.images.ImageVoxels.decaying`.
    unit : {"noise", "reference"}, optional
        Show the estimator signals in units of the standard deviation of the noise, so that it sees S0 and SNR. By
        default signals are relative to the reference of the model, such as that of the lowest b-value, which is not
        shown itself where it is always 1; with "reference" it is.
    scope : {"participant", "dataset"}, optional
        Whose images these are: those of the participant (default), or all of the run.
    s0_spread : float, optional
        Draw S0 from a log-normal distribution with median 1 and this standard deviation of the logarithm; the noise
        level stays that of S0 = 1. By default every S0 is 1.
    s0_range : (lowest, highest), optional
        Draw S0 uniformly from this range instead.
    realisations : int
        Noisy copies of every voxel.
    samples : int, optional
        Number of voxels of a fixed set, from which every step draws at random. By default every step draws new voxels.
    set_noise : {"fresh", "fixed"}
        Whether voxels of the fixed set get new noise at every step or keep theirs.
    patches : {"smooth", "pieces", "scattered", "fractal"}, optional
        How neighbours are related if the architecture reads them, see `bidsfit.simulation.patches.Patches`; "smooth" by
        default.
    tissues : mapping of tissue to mapping of parameter to (lower, upper), optional
        Draw parameters from normal distributions in these tissues, see `bidsfit.simulation.distributions.Tissues`, and
        not from the distribution of the estimator; S0 as well, if all of them tell.
    labels : {"mle-rician", "mle-gaussian"}, optional
        Targets are maximum-likelihood fits of the noisy signals, with Rician or Gaussian noise, instead of the truth.
        Voxels whose fit ended at a bound have no weight.
    label_share : float, optional
        Targets are this share of the fit plus the rest of the truth; the squared error then has the gradient of the
        same mixture of two squared errors (the hybrid of Epstein et al.). By default the fit alone.
    label_bounds : mapping of parameter to (lower, upper), optional
        Bounds of the fits, in the units of the model, where they are not those of the training: a parameter that is
        true near its bound would lose half of its fits to it.
    """

    snr_range: tuple[float, float] | None = None
    snr_spacing: Literal["log", "uniform"] | None = None
    snr_levels: tuple[float, ...] | None = None
    snr: Literal["images"] | None = None
    signals: Literal["images"] | None = None
    filter: Literal["kaandorp2021"] | None = None
    unit: Unit | None = None
    scope: Scope | None = None
    s0_spread: float | None = None
    s0_range: tuple[float, float] | None = None
    realisations: int = 1
    samples: int | None = None
    set_noise: Literal["fresh", "fixed"] = "fresh"
    patches: PatchKind | None = None
    tissues: Mapping[str, Mapping[str, tuple[float, float]]] | None = None
    labels: Literal["mle-rician", "mle-gaussian"] | None = None
    label_share: float | None = None
    label_bounds: Mapping[str, tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and (self.samples is None or self.set_noise != "fixed"):
            raise ValueError(
                "labels are fits of every training voxel: they need a fixed set, with a number of `samples` and "
                "`set_noise: fixed`."
            )
        if self.label_share is not None and (self.labels is None or not 0 < self.label_share <= 1):
            raise ValueError("label_share is the share of the labels in the targets, above 0 to 1, and needs labels.")
        if self.label_bounds is not None and self.labels is None:
            raise ValueError("label_bounds are those of the fits that are labels, and needs labels.")
        given = [name for name in ("snr_range", "snr_levels", "snr") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                "The SNR of the training has a range (snr_range), levels (snr_levels) or is that of the images (snr), "
                f"only one of these; found {' and '.join(given)}."
            )
        if self.scope is not None and not self.takes_images:
            raise ValueError(
                "scope says whose images the training takes, and it takes none; give `signals: images` or "
                "`snr: images`."
            )
        if self.filter is not None and self.signals is None:
            raise ValueError("filter chooses among measured signals; give `signals: images`.")
        own = ("signals", "filter", "unit", "scope")
        others = [one.name for one in fields(self) if one.name not in own and getattr(self, one.name) != one.default]
        if self.signals is not None and others:
            raise ValueError(f"Measured signals (signals: images) are as they are; leave out {', '.join(others)}.")
        values = (1.0,) if self.snr_range is self.snr_levels else self.snr_range or self.snr_levels or ()
        if not values or not all(0 < value < np.inf for value in values):
            raise ValueError(f"SNRs of the training must be finite numbers above 0, found {values}.")
        for name in ("snr_range", "s0_range"):
            pair = getattr(self, name)
            if pair is not None and not 0 < pair[0] < pair[1] < np.inf:
                raise ValueError(f"{name} must be the lowest and the highest value, found {pair}.")
        if self.snr_spacing is not None and self.snr_range is None:
            raise ValueError("snr_spacing is that of a range of SNRs; give snr_range.")
        if self.s0_spread is not None and self.s0_range is not None:
            raise ValueError("S0 of the training has a spread (s0_spread) or a range (s0_range), not both.")

    @property
    def takes_images(self) -> bool:
        """Whether it needs voxels of the images that will be fitted."""
        return self.snr is not None or self.signals is not None

    def sigma(
        self, n: int, snr: float, rng: np.random.Generator, images: ImageVoxels | None = None
    ) -> NDArray[np.float64]:
        """Noise levels of n voxels, shape (n,), for this SNR or those that the simulation draws."""
        if self.snr is not None:
            if images is None:
                raise ValueError("The SNRs of the training are those of images, and no image was given.")
            return images.draw_sigma(n, rng)
        if self.snr_levels is not None:
            return 1 / rng.choice(self.snr_levels, n)
        if self.snr_range is not None:
            if self.snr_spacing == "uniform":
                return np.asarray(1 / rng.uniform(*self.snr_range, n))
            low, high = np.log(self.snr_range)
            return np.asarray(np.exp(-rng.uniform(low, high, n)))
        return np.full(n, 1 / snr)

    def s0(self, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
        """S0 of voxels."""
        if self.s0_range is not None:
            return np.asarray(rng.uniform(*self.s0_range, shape))
        return np.ones(shape) if self.s0_spread is None else np.exp(self.s0_spread * rng.standard_normal(shape))


@dataclass(frozen=True)
class Batch(Generic[Array]):
    """Simulated voxels: NumPy arrays, or torch tensors of 32 bits.

    For an estimator that reads neighbours the voxels are the centres of patches; only the features cover whole patches,
    shape (n, n_realisations, x, y, z, n_features + 1), see `bidsfit.simulation.patches.with_presence`.

    Attributes
    ----------
    truth : shape (n, n_parameters)
        Parameters except the scale, in the units of the parameter table.
    s0 : shape (n,)
    sigma : shape (n,)
        Standard deviation of the noise of one measurement.
    clean : shape (n, n_averages)
        Averaged signals without noise.
    noisy : shape (n, n_realisations, n_averages)
        Of measured voxels (`Simulation.signals`) clean and noisy signals are what was measured, relative to the
        reference of the model, S0 is 1, and truth, targets and bound are NaN.
    features : shape (n, n_realisations, n_features)
        Input of the estimator computed from the noisy signals, see `Features`.
    targets : shape (n, n_realisations or 1, n_parameters)
        What the estimator is trained to output: by default the truth.
    cube : shape (n, n_realisations or 1, n_parameters)
        The targets in the unit cube of the parameter space.
    weights : shape (n, n_realisations or 1, 1)
        Weight of each voxel in the loss; 1 by default.
    bound : shape (n, n_parameters)
        Cramér-Rao bound at the noise level of the voxel, infinite where the signal does not determine a parameter; NaN
        unless the objective needs it.
    unit : shape (n, n_realisations)
        What the noisy signals were divided by to become features.
    """

    truth: Array
    s0: Array
    sigma: Array
    clean: Array
    noisy: Array
    features: Array
    targets: Array
    cube: Array
    weights: Array
    bound: Array
    unit: Array

    def map(self, function: Callable[[Array], Other]) -> Batch[Other]:
        """The batch with a function applied to every array."""
        return Batch(*(function(getattr(self, part.name)) for part in fields(self)))

    def __getitem__(self, rows: Any) -> Batch[Array]:
        """Some of its voxels."""
        return self.map(lambda array: array[rows])

    def split(self, size: int, axis: int = 0) -> Iterator[Batch[Array]]:
        """Consecutive batches of at most ``size`` voxels, which are along ``axis`` of all arrays."""
        for start in range(0, self.truth.shape[axis], size):
            rows: Any = (*[slice(None)] * axis, slice(start, start + size))
            yield self[rows]


def together(batches: Sequence[Batch[NDArray]]) -> Batch[NDArray]:
    """Batches of the same shape as one of 32 bits, along a new first dimension."""
    return Batch(
        *(as_single(np.stack(arrays)) for arrays in zip(*(vars(batch).values() for batch in batches), strict=True))
    )


@dataclass(frozen=True)
class Voxels:
    """Voxels, or patches of them, without noise; the first dimension of all arrays is theirs.

    Attributes
    ----------
    truth, s0, clean
        As of `Batch`, of patches with the dimensions of the patch after the first.
    sigma : ndarray, shape (n,)
    present : ndarray of bool
        Which voxels are inside the mask: those of a patch may be missing.
    bound : ndarray, shape (n, n_parameters)
        As of `Batch`, of the central voxels of patches.
    """

    truth: NDArray[np.float64]
    s0: NDArray[np.float64]
    sigma: NDArray[np.float64]
    clean: NDArray[np.float64]
    present: NDArray[np.bool_]
    bound: NDArray[np.float64]

    def some(self, rows: NDArray[np.integer]) -> Voxels:
        return Voxels(*(array[rows] for array in vars(self).values()))


#: Makes targets, shape (n, n_parameters), of noisy signals (n, n_averages) and noise levels (n,), and says of which
#: voxels they can be used, shape (n,).
Labeller = Callable[[NDArray, NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.bool_]]]

#: Voxels that every step draws from: with noise, or to be measured anew.
FixedSet = Batch[NDArray] | Voxels


#: Voxels of which one is typical.
TYPICAL = 1000


class Simulator:
    """Draws parameters and simulates their measurement.

    Parameters
    ----------
    acquisition : Acquisition
        Averaged acquisition as of `Estimator.averaged`: an entry that stands for n measurements has the noise of their
        average.
    reach : (x, y, z)
        Neighbours on each side of a voxel that the estimator reads.
    label : callable, optional
        Makes targets of noisy signals: see `Labeller`. By default they are the truth.
    bound : bool
        Whether batches hold the Cramér-Rao bound.
    images : ImageVoxels, optional
        Voxels of images, for a simulation that takes them.
    """

    def __init__(
        self,
        distribution: Distribution,
        acquisition: Acquisition,
        noise: Noise,
        simulation: Simulation = Simulation(),
        reach: tuple[int, int, int] = (0, 0, 0),
        label: Labeller | None = None,
        bound: bool = False,
        images: ImageVoxels | None = None,
    ) -> None:
        drawn = simulation.snr_range or simulation.snr_levels or simulation.snr
        if bound and np.isinf(noise.snr) and not drawn:
            raise ValueError("Errors relative to the Cramér-Rao bound need noise, and the training has none.")
        if simulation.unit == "noise" and np.isinf(noise.snr) and not drawn:
            raise ValueError("Signals in units of the noise (unit: noise) need noise, and the training has none.")
        self.label, self.bound, self.images = label, bound, images
        self.distribution = distribution
        self.acquisition = acquisition
        self.noise = noise
        self.simulation = simulation
        kind = simulation.patches or "smooth"
        self.patches = Patches(distribution, reach, kind, simulation.s0) if any(reach) else None

    @property
    def space(self) -> ParameterSpace:
        return self.distribution.space

    @cached_property
    def brightness(self) -> float:
        """Signal to which SNRs refer, where S0 is 1: the largest of a typical voxel if the model refers to it; else 1.

        Echoes at small flip angles are a few per cent of S0, which they never reach.
        """
        if self.space.model.reference != "largest":
            return 1.0
        sample = self.distribution.sample(TYPICAL, np.random.default_rng(0))
        return float(np.median(np.abs(self._clean(sample)).max(axis=-1)))

    @cached_property
    def features(self) -> Features:
        return Features(self.space.model, self.acquisition, self.simulation.unit)

    @property
    def seen(self) -> ImageVoxels | None:
        """Voxels of images whose measured signals are what it draws; None if it simulates."""
        return None if self.simulation.signals is None else self.images

    def draw(self, n: int, rng: np.random.Generator) -> Batch[NDArray]:
        """Draw n voxels; of images, from those that are not held out."""
        if self.seen is not None:
            return self._of_images(self.seen, rng.choice(np.flatnonzero(~self.seen.held_out), n))
        return self._measured(self.voxels(n, rng), rng)

    def held_out(self, n: int, rng: np.random.Generator) -> Batch[NDArray]:
        """Draw n voxels to validate on; of images, those that are held out, at most n."""
        if self.seen is not None:
            return self._of_images(self.seen, rng.permutation(np.flatnonzero(self.seen.held_out))[:n])
        return self.draw(n, rng)

    def _of_images(self, images: ImageVoxels, rows: NDArray[np.integer]) -> Batch[NDArray]:
        """Measured voxels as a batch; what nobody knows of them is NaN."""
        signals, sigma, n = images.signals[rows], images.sigma[rows], len(rows)
        noisy, unknown = signals[:, None], np.full((n, 1, len(self.space.names)), np.nan)
        one, weights = unknown[:, 0], np.ones((n, 1, 1))
        shown = noisy if self.patches is None else images.patches(rows, self.patches.reach)[:, None]
        features = self.features(shown, sigma)
        if self.patches is not None:
            features = with_presence(features)
        unit = self.features.unit(noisy, sigma)
        return Batch(one, np.ones(n), sigma, signals, noisy, features, unknown, unknown, weights, one, unit)

    def fixed_set(self, rng: np.random.Generator) -> FixedSet | None:
        """The set of voxels that all steps draw from, if the simulation has one; a batch where its noise is fixed."""
        if self.simulation.samples is None:
            return None
        voxels = self.voxels(self.simulation.samples, rng)
        return together([self._measured(voxels, rng)])[0] if self.simulation.set_noise == "fixed" else voxels

    def stream(
        self,
        size: int,
        steps: int,
        rngs: Sequence[np.random.Generator],
        fixed: FixedSet | None = None,
    ) -> Iterator[Batch[NDArray]]:
        """Batches for ``steps`` training steps of ``size`` voxels for each of several networks that train together.

        Parameters
        ----------
        rngs : sequence of Generator
            One for each network, whose voxels it draws.
        fixed : FixedSet, optional
            As of `fixed_set`.

        Yields
        ------
        Batch
            With 32 bits; the first dimension of its arrays is the network, the second the voxels of several steps.
        """

        def drawn(rng: np.random.Generator, n: int) -> Batch[NDArray]:
            if fixed is None:
                return self.draw(n, rng)
            rows = rng.integers(len(fixed.truth), size=n)
            return self._measured(fixed.some(rows), rng) if isinstance(fixed, Voxels) else fixed[rows]

        block = max(min(STEPS, VOXELS // size), 1)
        for start in range(0, steps, block):
            yield together([drawn(rng, min(block, steps - start) * size) for rng in rngs])

    def measure(
        self,
        parameters: NDArray[np.float64],
        rng: np.random.Generator,
        repeats: int = 1,
        sigma: NDArray[np.float64] | None = None,
        around: tuple[Surroundings, NDArray[np.float64]] | None = None,
    ) -> NDArray[np.float64]:
        """Noisy averages at S0 = 1, shape (n * repeats, n_averages).

        The standard deviation of the noise of one measurement is ``sigma``, shape (n,), or that of the SNR of `Noise`.
        All repeats of the first voxel come first. For an estimator that reads neighbours the result covers patches,
        shape (n * repeats, x, y, z, n_averages), of constant parameters; or of two tissues: ``around`` are the
        surroundings of the central voxels, and the parameters of the other tissue, shape (n, n_parameters).
        """
        clean = np.repeat(self._clean(parameters), repeats, axis=0)
        level = np.full(len(parameters), self.brightness / self.noise.snr) if sigma is None else sigma
        level = np.repeat(level, repeats)
        if self.patches is None:
            return self._with_noise(clean, level, rng)
        shape = (len(clean), *self.patches.shape, clean.shape[-1])
        patches: NDArray = np.broadcast_to(clean[:, None, None, None], shape)
        if around is not None:
            other = np.repeat(self._clean(around[1]), repeats, axis=0)[:, None, None, None]
            patches = np.where(self.patches.alike(around[0])[..., None], patches, other)
        patches = patches.reshape(-1, clean.shape[-1])
        return self._with_noise(patches, np.repeat(level, len(patches) // len(clean)), rng).reshape(shape)

    def _clean(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.space.model.signal(self.space.with_scale(parameters), self.acquisition)

    def voxels(self, n: int, rng: np.random.Generator) -> Voxels:
        """Draw n voxels without noise, and what is to be estimated of them; other simulations override this."""
        p = len(self.space.names)
        s0 = None
        if self.patches is not None:
            truth, s0 = self.patches.draw(n, rng)
            present = self.patches.present(n, rng)
        elif isinstance(self.distribution, Tissues):
            tissue = self.distribution.draw_tissue(n, rng)
            truth, s0 = self.distribution.draw(tissue, rng), self.distribution.draw_scale(tissue, rng)
            present = np.full(n, True)
        else:
            truth, present = self.distribution.sample(n, rng), np.full(n, True)
        grid = truth.shape[:-1]
        s0 = self.simulation.s0(grid, rng) if s0 is None else s0
        sigma = self.brightness * self.simulation.sigma(n, self.noise.snr, rng, self.images)
        clean = s0[..., None] * self._clean(truth.reshape(-1, p)).reshape(*grid, -1)
        return Voxels(truth, s0, sigma, clean, present, self.bounds_of(truth, s0, sigma))

    def bounds_of(
        self, truth: NDArray[np.float64], s0: NDArray[np.float64], sigma: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """`Batch.bound` of voxels, or of the middle of patches."""
        middle: Any = (slice(None), *(self.patches.reach if self.patches is not None else ()))
        inside = truth[middle]
        return self.bounds(inside, sigma / s0[middle]) if self.bound else np.full(inside.shape, np.nan)

    def _measured(self, voxels: Voxels, rng: np.random.Generator) -> Batch[NDArray]:
        """Add noise to voxels and return them as a batch."""
        n, copies = len(voxels.truth), self.simulation.realisations
        clean = np.repeat(voxels.clean, copies, axis=0)
        rows = clean.reshape(-1, clean.shape[-1])
        noisy = self._with_noise(rows, np.repeat(voxels.sigma, len(rows) // n), rng)
        noisy = noisy.reshape(n, copies, *clean.shape[1:])
        features, unit = self.features(noisy, voxels.sigma), self.features.unit(noisy, voxels.sigma)
        middle: Any = (slice(None),)
        if self.patches is not None:
            middle = (slice(None), *self.patches.reach)
            features = with_presence(features, np.broadcast_to(voxels.present[:, None], features.shape[:-1]))
        truth, s0, noisy = voxels.truth[middle], voxels.s0[middle], noisy[(slice(None), *middle)]
        targets, weights = truth[:, None], np.ones((n, 1, 1))
        if self.label is not None:
            share = self.simulation.label_share or 1.0
            found, usable = self.label(noisy.reshape(n * copies, -1), np.repeat(voxels.sigma, copies))
            targets = share * found.reshape(n, copies, -1) + (1 - share) * targets
            weights = usable.reshape(n, copies, 1).astype(float)
        cube = self.space.to_cube(targets)
        clean, unit = voxels.clean[middle], unit[(slice(None), *middle)]
        return Batch(truth, s0, voxels.sigma, clean, noisy, features, targets, cube, weights, voxels.bound, unit)

    def bounds(self, parameters: NDArray[np.float64], sigma: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cramér-Rao bound, shape (n, n_parameters), of parameters at S0 = 1 with noise levels, shape (n,)."""
        model = self.space.model
        fixed = (*self.space.held, *(() if self.noise.lowest or model.scale is None else (model.scale,)))
        rows = self.space.with_scale(parameters)
        found = bound_of_voxels(model, rows, self.acquisition, sigma, self.noise.kind, fixed=fixed)
        return found[:, self.space.places]

    def _with_noise(
        self, clean: NDArray[np.float64], sigma: float | NDArray, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        if not np.any(sigma):
            return clean
        noisy = noisy_averages(clean, self.acquisition, sigma, self.noise.kind, rng)
        if not self.noise.lowest:
            lowest = self.features.lowest
            noisy[:, lowest] = clean[:, lowest]
        return noisy


def noisy_averages(
    clean: NDArray[np.float64],
    acquisition: Acquisition,
    sigma: float | NDArray[np.float64],
    kind: NoiseKind,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Averages of repeated noisy measurements of ``clean`` signals, shape (n, n_averages).

    The weights of the acquisition are the numbers of measurements averaged; ``sigma``, a number or shape (n,), is the
    standard deviation of the noise of one.
    """
    counts, each = acquisition.weights, np.asarray(sigma)[..., None]
    if kind == "gaussian":
        return add_noise(clean, each / np.sqrt(counts), kind, rng)
    noisy = np.empty_like(clean)
    for j, count in enumerate(counts.astype(int)):
        column = clean[:, j]
        if count <= FEW:
            noisy[:, j] = add_noise(np.repeat(column[:, None], count, axis=1), each, kind, rng).mean(axis=1)
        else:
            mean = rician_mean(column, sigma)
            variance = (column**2 + 2 * sigma**2 - mean**2) / count
            noisy[:, j] = mean + np.sqrt(variance) * rng.standard_normal(column.size)
    return noisy


class Features:
    """Features computed from averaged signals: signals divided by the reference of the model, or by the noise level.

    If the reference is the signal of the lowest b-value, that feature is constant and left out, unless there are
    several such signals (at several echo times). Complex signals give real parts, then imaginary parts;
    if the model has a phase, the largest has the phase 0.

    Parameters
    ----------
    model : SignalModel
    acquisition : Acquisition
        Averaged.
    unit : {"noise", "reference"}, optional
        See `Simulation`.
    """

    def __init__(self, model: SignalModel, acquisition: Acquisition, unit: Unit | None = None) -> None:
        self._model, self._acquisition, self._unit = model, acquisition, unit
        lowest = acquisition.b_values == acquisition.b_values.min()
        self.lowest = lowest if model.reference == "lowest b" else np.full(len(acquisition), False)
        constant = unit is None and self.lowest.sum() == 1
        self._shown = ~self.lowest if constant else np.full(len(acquisition), True)

    def unit(self, signals: NDArray, sigma: NDArray | None = None) -> NDArray:
        """What averaged signals (n, ..., n_averages) are divided by, shape (n, ...).

        ``sigma``, shape (n,), is the standard deviation of the noise of one measurement, where it is the unit.
        """
        if self._unit != "noise":
            return self._model.reference_signal(signals, self._acquisition)
        if sigma is None:
            raise ValueError("Features in units of the noise need its standard deviation.")
        return np.broadcast_to(sigma.reshape(-1, *[1] * (signals.ndim - 2)), signals.shape[:-1])

    def __call__(self, signals: NDArray, sigma: NDArray | None = None) -> NDArray[np.float32]:
        """Features (n, ..., n_features) of averaged signals (n, ..., n_averages); arguments as of `unit`."""
        unit = self.unit(signals, sigma)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(
                as_real(self._model.turned(signals)[..., self._shown] / unit[..., None]), dtype=np.float32
            )

    def __len__(self) -> int:
        return int(self._shown.sum()) * (1 + self._model.complex_valued)

    @property
    def counts(self) -> NDArray[np.float64]:
        """Measurements that every feature is the average of, shape (n_features,)."""
        return np.tile(self._acquisition.weights[self._shown], 1 + self._model.complex_valued)
