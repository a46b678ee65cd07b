"""Experiments on simulated signals with known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.stats import qmc

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Estimator
from bidsfit.models.space import ParameterSpace
from bidsfit.parallel import Progress, part_of
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise, Simulator
from bidsfit.trust.metrics import accuracy

#: A sink reaches this far, as a fraction of the bounds, and holds at least this share of the grid.
REACH, SHARE = 0.06, 0.04
#: How often the mean estimate is taken for the truth again.
ITERATIONS = 10


@dataclass(frozen=True)
class Setting:
    """Parameter space, averaged acquisition and noise of an experiment.

    Parameters
    ----------
    space : ParameterSpace
    acquisition : Acquisition
        An entry that stands for n measurements has the noise of their average.
    noise : Noise
    """

    space: ParameterSpace
    acquisition: Acquisition
    noise: Noise

    @property
    def simulator(self) -> Simulator:
        """Simulator of signals of this setting."""
        return Simulator(Uniform(self.space), self.acquisition, self.noise)

    def measure(self, truth: NDArray[np.float64], repeats: int, seed: int) -> NDArray[np.float64]:
        """Noisy averages, shape (n_points * repeats, n_averages): all repeats of the first point come first."""
        return self.simulator.measure(truth, np.random.default_rng(seed), repeats)

    def estimate(
        self,
        estimator: Estimator,
        signals: NDArray[np.float64],
        threads: int = 1,
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """Estimated parameters except the scale, shape (n, n_parameters); ``progress`` as of `Estimator.estimate`."""
        sigma = None if np.isinf(self.noise.snr) else self.simulator.brightness / self.noise.snr
        found = estimator.estimate(signals, self.acquisition, sigma, threads=threads, progress=progress)
        return np.stack([found.parameters[name] for name in self.space.names], axis=1)


class Evaluation(NamedTuple):
    """Mean, bias and spread of an estimator at every point, each of shape (n_points, n_parameters).

    ``first`` are the estimates of the first noise realisation.
    """

    truth: NDArray[np.float64]
    mean: NDArray[np.float64]
    bias: NDArray[np.float64]
    sd: NDArray[np.float64]
    rmse: NDArray[np.float64]
    first: NDArray[np.float64]

    def summary(self, names: tuple[str, ...]) -> dict[str, float]:
        """Numbers of every parameter over all points.

        ``rmse_<name>``, ``bias_<name>`` (without its sign) and ``sd_<name>`` are means. ``nrmse_<name>`` is the root
        mean square error over all points, relative to the mean truth. ``slope_<name>`` is the slope of the mean
        estimate over the truth by least squares: 1 where differences between truths show whole, 0 where the estimate is
        always the same (Epstein et al., MELBA 2024).
        """
        rest = self.truth - self.truth.mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers = {
                "rmse": self.rmse.mean(axis=0),
                "bias": np.abs(self.bias).mean(axis=0),
                "sd": self.sd.mean(axis=0),
                "nrmse": np.sqrt((self.rmse**2).mean(axis=0)) / self.truth.mean(axis=0),
                "slope": (rest * self.mean).sum(axis=0) / (rest**2).sum(axis=0),
            }
        return {f"{key}_{name}": float(v[j]) for key, v in numbers.items() for j, name in enumerate(names)}


class Efficiency(NamedTuple):
    """Squared bias and variance relative to the squared Cramér-Rao bound, each of shape (n_points, n_parameters)."""

    bias: NDArray[np.float64]
    variance: NDArray[np.float64]


def efficiency(evaluation: Evaluation, bound: NDArray[np.float64], repeats: int) -> Efficiency:
    """How near the errors of an estimator are to the bound (Mao et al., arXiv 2312.11468).

    Of an unbiased estimator the variance is at least 1; one below 1 is the sign of shrinkage.

    Parameters
    ----------
    evaluation : Evaluation
    bound : ndarray, shape (n_points, n_parameters)
        As of `floor`; where it is infinite both are 0.
    repeats : int
        Noise realisations per point, for which the squared bias is corrected, so that it may be negative.
    """
    variance = evaluation.sd**2 * repeats / (repeats - 1)
    return Efficiency((evaluation.bias**2 - variance / repeats) / bound**2, variance / bound**2)


def evaluate(
    estimator: Estimator,
    setting: Setting,
    truth: NDArray[np.float64],
    *,
    repeats: int,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Bias, standard deviation and root mean square error of an estimator at true parameters.

    Parameters
    ----------
    estimator : Estimator
    setting : Setting
    truth : ndarray, shape (n_points, n_parameters)
    repeats : int
        Noise realisations per point.
    seed : int
        Estimators evaluated with the same seed see the same signals.
    threads : int
    progress : callable, optional
        Called with the fraction that is done.
    """
    rows = []
    per_step = max(200_000 // repeats, 1)
    for start in range(0, len(truth), per_step):
        part = truth[start : start + per_step]
        signals = setting.measure(part, repeats, seed + start)
        own = part_of(progress, start / len(truth), (start + len(part)) / len(truth))
        found = setting.estimate(estimator, signals, threads, own)
        rows.append([(*accuracy(found[:, j], part[:, j]), found[::repeats, j]) for j in range(part.shape[1])])
    columns = [
        np.stack([np.concatenate([row[j][k] for row in rows]) for j in range(truth.shape[1])], axis=1) for k in range(5)
    ]
    return Evaluation(truth, *columns)


def true_points(space: ParameterSpace, points: int | Sequence[int] = 21, seed: int = 0) -> NDArray[np.float64]:
    """True parameters that cover a space, shape (n, n_parameters).

    With up to three parameters a grid of all combinations that meet the constraints: ``points`` values of each between
    its bounds, one number for all (but 7 of the third, as Gyori et al.) or one for each. With more parameters and one
    number for all, scrambled Sobol points between the bounds that meet the constraints; their number before is the
    power of two below the cube of ``points``.
    """
    p = len(space.names)
    if p > 3 and isinstance(points, int):
        cube = qmc.Sobol(p, rng=seed).random_base2(int(3 * np.log2(points)))
        found = space.bounds[:, 0] + space.span * cube
        return found[space.contains(found)]
    counts = ([points, points, 7] if p == 3 else [points] * p) if isinstance(points, int) else points
    axes = [np.linspace(low, high, k) for (low, high), k in zip(space.bounds, counts, strict=True)]
    found = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, p)
    return found[space.contains(found)]


def sinks(truth: NDArray[np.float64], mean: NDArray[np.float64], space: ParameterSpace) -> NDArray[np.float64]:
    """Points of attraction: where the estimates of many truths gather, shape (n_sinks, 2), the largest first.

    The mean estimate of every point is taken for a truth, ten times in a row; a sink is a small disc that many points
    have reached. An estimator with little bias has none. ``truth`` and ``mean``, shape (n_points, 2), must be on a full
    regular grid of two parameters.
    """
    axes = [np.unique(column) for column in truth.T]
    shape = tuple(axis.size for axis in axes)
    if int(np.prod(shape)) != len(truth):
        raise ValueError("Sinks are sought on a full grid of two parameters.")
    follow = RegularGridInterpolator(axes, mean.reshape(*shape, 2))
    lows, highs = [axis[0] for axis in axes], [axis[-1] for axis in axes]
    places = truth
    for _ in range(ITERATIONS):
        places = follow(np.clip(places, lows, highs))
    left, found = places / space.span, []
    while len(left):
        near = np.linalg.norm(left[:, None] - left[None], axis=2) < REACH
        most = near[near.sum(axis=1).argmax()]
        if most.sum() < SHARE * len(truth):
            break
        found.append(left[most].mean(axis=0) * space.span)
        left = left[~most]
    return np.array(found).reshape(-1, 2)


def floor(setting: Setting, truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cramér-Rao bound at every truth, shape (n_points, n_parameters); infinite where nothing is determined."""
    sigma = setting.simulator.brightness / setting.noise.snr
    return np.zeros_like(truth) if sigma == 0 else setting.simulator.bounds(truth, np.full(len(truth), sigma))


def noised_truth(setting: Setting, point: NDArray[np.float64], repeats: int, seed: int) -> NDArray[np.float64]:
    """Estimates of an efficient unbiased estimator, shape (repeats, n_parameters).

    They are the true point, shape (n_parameters,), plus scatter according to the Cramér-Rao bound.
    """
    scatter = np.random.default_rng(seed).standard_normal((repeats, point.size))
    bound = floor(setting, point[None])[0]
    spread = np.where(np.isfinite(bound), bound, setting.space.span)
    return np.clip(point + spread * scatter, setting.space.bounds[:, 0], setting.space.bounds[:, 1])


def tissue_errors(
    maps: Mapping[str, NDArray[np.float64]], reference: Mapping[str, NDArray[np.float64]], tissue: Mapping[str, NDArray]
) -> dict[str, dict[str, float]]:
    """Mean absolute difference from a reference, by parameter and tissue."""
    return {
        name: {
            label: float(np.nanmean(np.abs(values - reference[name])[region]))
            for label, region in tissue.items()
            if region.any()
        }
        for name, values in maps.items()
    }
