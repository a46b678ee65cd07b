"""Monte-Carlo simulation of the errors of an estimator.

True parameters and SNRs are drawn, each is measured and estimated many times, and smooth functions are put through what
comes out: a `bidsfit.trust.performance.Performance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import LEVEL, Estimator
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.models.priors import priors_of
from bidsfit.models.space import ParameterSpace, bounds_of
from bidsfit.noise import NoiseKind
from bidsfit.parallel import Progress
from bidsfit.simulation.distributions import Distribution, Informed, Mixture, Uniform
from bidsfit.simulation.patches import Surroundings
from bidsfit.simulation.simulator import Noise, Simulator
from bidsfit.trust.misfit import SCORES, misfit_scores
from bidsfit.trust.performance import (
    HIGHEST_SNR,
    KNOTS,
    LARGE_BIAS,
    LEAST,
    LOWEST_SNR,
    Performance,
    bias_unit,
    coordinates,
    judged_of,
    judged_places,
    limits_of,
    places_of,
    quantities_of,
    values_of,
)
from bidsfit.trust.smoothing import Smoother

#: Share of the truths that are drawn from the priors of the model; the others are uniform within the bounds.
FROM_PRIOR = 0.75
#: Truths whose estimates are simulated at a time; of patches, eight times as many voxels, for repeats are few.
BLOCK = 512
#: Estimates of every truth that the functions of the estimate are put through.
PAIRS = 8
#: Points of a difference quotient lie so far apart: the standard deviation there, between these shares of the bounds.
STEPS = 0.02, 0.2
#: Responses of wide quantities are cut here: beyond, a few estimates at a far bound decide the mean.
RESPONSES = -1.0, 2.0
#: Share of the truths that widens the intervals to hold what they must, and bands of SNR in which it does.
HELD_OUT, BANDS = 0.25, 4
#: Of errors divided by what is expected of their size: the least variance that is told, and the largest error that
#: counts for the centre of the intervals.
LEAST_VARIANCE, MOST_ERROR = 0.05, 5.0
#: Probabilities below the ends of an interval.
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
#: Of a standard normal variable: the median of its square, and minus the mean of the logarithm of its absolute value.
MEDIAN_SQUARE, LOG_OF_NORMAL = 0.4549, 0.6352


class Size(NamedTuple):
    """How much is simulated.

    Attributes
    ----------
    truths : int
    repeats : int
        Noise realisations of every truth.
    neighbours : int
        Those of the two neighbours of a truth along every parameter.
    centres : int
        Kernels of the smooth functions.
    """

    truths: int
    repeats: int
    neighbours: int
    centres: int


LIGHT, FULL = Size(4096, 64, 16, 512), Size(16384, 64, 16, 1024)
#: More parameters than these are many.
MANY_PARAMETERS = 10
#: For estimators that take tens of times as long as others, for models of many parameters or with orientations, whose
#: fits begin at a large grid, and for what costs most: a model that is a function, whose every signal is a simulation.
OF_COSTLY, OF_FUNCTION = Size(2048, 32, 4, 512), Size(512, 16, 4, 128)
#: For functions with more free parameters than these, whose fits take tens of times as long as those of others.
FEW_PARAMETERS, OF_LARGE_FUNCTION = 8, Size(256, 8, 2, 64)
#: For estimators whose every estimate takes a patch. What surrounds a voxel scatters their errors, so that many truths
#: are worth more than many repeats.
OF_PATCHES = Size(2048, 12, 4, 256)

#: Estimates all parameters of the model (n, n_parameters), from averaged signals (n, n_averages) and the standard
#: deviation of the noise of one measurement (n,).
Estimate = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def obstacle(estimator: Estimator, full: bool = True) -> str:
    """Why the performance of an estimator is not simulated, fully or lightly; empty if it is."""
    if not hasattr(estimator, "trained"):
        if any(estimator.reach):
            return "it reads the neighbours of a voxel"
        if not full and _fits_large_function(estimator):
            return "that takes about an hour of a core, once for a protocol. --trust full does it"
    model = estimator.model
    known = (*model.axis_angles, model.phase)
    if any(parameter.kind != "scalar" and parameter.name not in known for parameter in model.parameters):
        return "its model has angles"
    if estimator.learns:
        return "it learns its prior from the image itself"
    try:
        space_of(estimator)
    except ValueError as error:
        return str(error)
    return ""


def space_of(estimator: Estimator) -> ParameterSpace:
    """The space of the parameters that an estimator may find."""
    model = estimator.model
    return ParameterSpace(model, {n: tuple(b) for n, b in zip(model.names, estimator.bounds.tolist(), strict=True)})


def truths_of(space: ParameterSpace) -> Distribution:
    """What the truths are drawn from: the priors of the model, and uniformly within the bounds.

    Of many parameters, hardly any combination between the bounds is tissue, so that only the priors are drawn from.
    """
    priors = priors_of(space.model, bounds_of(space.model, space.facts))  # type: ignore[arg-type]
    informed = Informed(space, priors)
    if len(space.names) > MANY_PARAMETERS:
        return informed
    return Mixture((informed, Uniform(space)), (FROM_PRIOR, 1 - FROM_PRIOR))


def performance_of(
    estimator: Estimator,
    acquisition: Acquisition,
    *,
    kind: NoiseKind = "rician",
    known: bool = True,
    size: Size | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> Performance:
    """Simulate the performance of an estimator.

    Parameters
    ----------
    estimator : Estimator
        One that takes the Rician bias out of the averages is judged on averages with Gaussian noise.
    acquisition : Acquisition
        As it is averaged for the fit (`Estimator.averaged`).
    kind : {"rician", "gaussian"}
        Noise of one measurement.
    known : bool
        Whether the estimator is told its level.
    size : Size, optional
        By default that of `size_of`.
    seed, threads : int
    progress : callable, optional
        Called with the fraction that is done.
    """
    if estimator.debias:
        estimator, kind = copy(estimator), "gaussian"
        estimator.debias = False
    other = least_squares_beside(estimator) if estimator.model.support(acquisition) else None
    return simulate(
        estimates_of(estimator, acquisition, known, threads),
        Simulator(truths_of(space_of(estimator)), acquisition, Noise(np.inf, kind)),
        beside=None if other is None else estimates_of(other, acquisition, known, threads),
        size=size or size_of(estimator),
        seed=seed,
        progress=progress,
    )


def least_squares_beside(estimator: Estimator) -> LeastSquares | None:
    """Least squares, where its fit of the same signals tells more of the errors than the estimate alone.

    That is so for estimators that do not maximise a likelihood themselves. For a model that is a function it would take
    too long, and a protocol of few directions does not support it.
    """
    if estimator.likelihood is not None:
        return None
    return least_squares_of(space_of(estimator), averaging=estimator.averaging, debias=estimator.debias)


def least_squares_of(space: ParameterSpace, **options: Any) -> LeastSquares | None:
    """Least squares within a space; None for a model that is a function."""
    bounds = {name: (low, high) for name, (low, high) in space.facts.items()}
    return LeastSquares(space.model, bounds=bounds, intervals="none", **options) if space.model.compiled else None


def estimates_of(estimator: Estimator, acquisition: Acquisition, known: bool = True, threads: int = 1) -> Estimate:
    """What estimates all parameters of averaged signals as an estimator does, told the noise or not."""

    def estimate(signals: NDArray[np.float64], sigma: NDArray[np.float64]) -> NDArray[np.float64]:
        return estimator.estimate(signals, acquisition, sigma if known else None, threads=threads).points

    return estimate


def size_of(estimator: Estimator, full: bool = False) -> Size:
    """How much is simulated for an estimator: lightly, or fully."""
    if not estimator.model.compiled:
        return OF_LARGE_FUNCTION if _fits_large_function(estimator) else OF_FUNCTION
    model = estimator.model
    if estimator.costly or model.axis_angles or len(model.names) > MANY_PARAMETERS:
        return LIGHT if full else OF_COSTLY
    return FULL if full else LIGHT


def _fits_large_function(estimator: Estimator) -> bool:
    return not estimator.model.compiled and estimator.n_free > FEW_PARAMETERS


class Drawn(NamedTuple):
    """What simulation finds at n truths.

    Attributes
    ----------
    truths : ndarray, shape (n, n_parameters)
    sigma : ndarray, shape (n,)
        Noise, where the scale of the signal is 1.
    known, bias, sd : ndarray, shape (n, n_quantities)
        True quantities, mean error and standard deviation of their estimates.
    tails : ndarray, shape (n, 2, n_quantities)
        Quantiles of the estimates, in standard deviations from their mean.
    response : ndarray, shape (n, n_judged, n_judged)
        Change of the mean estimate of the first judged quantity per true change of the second.
    some, beside : ndarray, shape (n, PAIRS, n_parameters of the model)
        Some of the estimates, and the fits that stand beside them or else these estimates.
    scores : ndarray, shape (n, PAIRS, SCORES)
        Of the misfit of the latter.
    """

    truths: NDArray[np.float64]
    sigma: NDArray[np.float64]
    known: NDArray[np.float64]
    bias: NDArray[np.float64]
    sd: NDArray[np.float64]
    tails: NDArray[np.float64]
    response: NDArray[np.float64]
    some: NDArray[np.float64]
    beside: NDArray[np.float64]
    scores: NDArray[np.float64]


def simulate(
    estimate: Estimate,
    simulator: Simulator,
    *,
    beside: Estimate | None = None,
    size: Size = LIGHT,
    seed: int = 0,
    progress: Progress | None = None,
) -> Performance:
    """Simulate the performance of what estimates all parameters from averaged signals.

    That of an estimator that reads neighbours is simulated in three surroundings, see `Performance.surroundings`. At an
    edge and around a lesion is a second draw of the truths, of the same S0, so that nothing but the parameters tells
    the two tissues.

    Parameters
    ----------
    estimate : callable
    simulator : Simulator
        Gives protocol, kind of noise and the distribution of the truths; SNRs are drawn uniformly in the logarithm.
    beside : callable, optional
        Estimates that stand beside those of ``estimate``, of the same signals.
    size : Size
    seed : int
        Of truths and noise.
    progress : callable, optional
    """

    def drawn(place: Surroundings, rng: np.random.Generator) -> Drawn:
        return _draw(estimate, simulator, beside, size, seed, place, rng, progress)

    def performance(drawn: Drawn, rng: np.random.Generator) -> Performance:
        return _performance(drawn, simulator, beside is not None, size, seed, rng)

    rng = np.random.default_rng(seed)
    if simulator.patches is None:
        return performance(drawn("homogeneous", rng), rng)
    found = {place: drawn(place, np.random.default_rng(seed)) for place in get_args(Surroundings)}
    order = rng.permutation(len(found) * size.truths)
    together = Drawn(*(np.concatenate(arrays)[order] for arrays in zip(*found.values(), strict=True)))
    own = {place: performance(one, np.random.default_rng(seed)) for place, one in found.items()}
    return replace(performance(together, rng), surroundings=own)


def _draw(
    estimate: Estimate,
    simulator: Simulator,
    beside: Estimate | None,
    size: Size,
    seed: int,
    surroundings: Surroundings,
    rng: np.random.Generator,
    progress: Progress | None,
) -> Drawn:
    """Draw truths, and estimate each from many noisy signals."""
    space, model, acquisition, n = simulator.space, simulator.space.model, simulator.acquisition, size.truths
    truths = simulator.distribution.sample(n, rng)
    sigma = simulator.brightness * np.exp(-rng.uniform(np.log(LOWEST_SNR), np.log(HIGHEST_SNR), n))
    other = None if surroundings == "homogeneous" else simulator.distribution.sample(n, rng)
    known = values_of(model, space.with_scale(truths))
    least = LEAST * _spreads(known)
    judged = judged_of(space)
    p, own = len(judged), judged_places(space)
    span = np.ptp(limits_of(space, _knots(space, truths)), axis=1)
    wide = np.array([model.quantity(name).wide for name in judged])
    shortest = STEPS[0] * np.where(wide, known[:, own], span)
    found = Drawn(
        truths,
        sigma,
        known,
        bias=np.empty_like(known),
        sd=np.empty_like(known),
        tails=np.empty((n, 2, known.shape[1])),
        response=np.empty((n, p, p)),
        some=np.empty((n, PAIRS, len(model.names))),
        beside=np.empty((n, PAIRS, len(model.names))),
        scores=np.empty((n, PAIRS, SCORES)),
    )

    def measured(
        rows: slice, truths: NDArray[np.float64], repeats: int, *seeds: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Signals of patches or voxels, and their estimates (n, repeats, n_parameters)."""
        around = None if other is None else (surroundings, other[rows])
        noise = np.random.default_rng([seed, rows.start, *seeds])
        signals = simulator.measure(truths, noise, repeats, sigma[rows], around)
        return signals, estimate(signals, np.repeat(sigma[rows], repeats)).reshape(len(truths), repeats, -1)

    block = BLOCK if simulator.patches is None else max(8 * BLOCK // math.prod(simulator.patches.shape), 1)
    for start in range(0, n, block):
        rows = slice(start, start + block)
        signals, estimates = measured(rows, truths[rows], size.repeats)
        values = values_of(model, estimates)
        mean, found.sd[rows] = values.mean(axis=1), values.std(axis=1, ddof=1)
        found.bias[rows], spread = mean - known[rows], np.maximum(found.sd[rows], least)
        quantiles = np.quantile(values, TAILS, axis=1, method="normal_unbiased")
        found.tails[rows] = np.moveaxis((quantiles - mean) / spread, 0, 1)

        signals = signals.reshape(len(signals), -1, signals.shape[-1])
        signals = signals[:, signals.shape[1] // 2]  # of a patch; or the only voxel
        signals = signals.reshape(len(values), size.repeats, -1)[:, :PAIRS].reshape(-1, signals.shape[-1])
        level, some = np.repeat(sigma[rows], PAIRS), estimates[:, :PAIRS]
        fits = some.reshape(len(signals), -1) if beside is None else beside(signals, level)
        scores = misfit_scores(model, acquisition, signals, fits, level[:, None] ** 2 / acquisition.weights)
        found.some[rows], found.beside[rows] = some, fits.reshape(some.shape)
        found.scores[rows] = scores.reshape(len(values), PAIRS, SCORES)

        step = np.clip(found.sd[rows][:, own], shortest[rows], STEPS[1] * span)
        for j in range(p):
            sides = _neighbours(space, truths[rows], judged[j], step[:, j])
            means = [  # the noise of both neighbours is the same
                values_of(model, measured(rows, side, size.neighbours, 1)[1]).mean(axis=1)[:, own] for side in sides
            ]
            low, high = (values_of(model, space.with_scale(side))[:, own[j]] for side in sides)
            with np.errstate(invalid="ignore", divide="ignore"):
                response = (means[1] - means[0]) / (high - low)[:, None]
            found.response[rows, :, j] = np.where(wide, np.clip(response, *RESPONSES), response)
        if progress is not None:
            progress(min(start + block, n) / n)
    return found


def _performance(
    drawn: Drawn, simulator: Simulator, beside: bool, size: Size, seed: int, rng: np.random.Generator
) -> Performance:
    """Put smooth functions through what was drawn."""
    space, model = simulator.space, simulator.space.model
    names, n = quantities_of(model), len(drawn.truths)
    own = judged_places(space)
    truths, sigma, bias, sd = drawn.truths, drawn.sigma, drawn.bias, drawn.sd
    spreads = _spreads(drawn.known)
    knots = _knots(space, truths)

    held_out = np.arange(n) >= (1 - HELD_OUT) * n
    relative_sd = sd / spreads + LEAST
    unit = bias_unit(model, relative_sd)
    errors = np.column_stack([bias / spreads / unit, np.log(relative_sd)])
    response = drawn.response.reshape(n, -1)
    usable = np.isfinite(np.column_stack([errors, response])).all(axis=1)
    at = coordinates(places_of(space, space.with_scale(truths)), simulator.brightness / sigma, knots)
    centres = at[usable][: size.centres]
    at_truth = Smoother.fit(at[usable], np.column_stack([errors, drawn.tails.reshape(n, -1)])[usable], centres)
    fitted, q = usable & ~held_out, len(names)
    trial = Smoother.fit(at[fitted], errors[fitted], centres)(at[usable & held_out])
    off = trial - errors[usable & held_out]
    off[:, :q] /= (relative_sd / unit)[usable & held_out]
    chance = np.repeat([1 / size.repeats, 1 / (2 * size.repeats)], q)  # variance of the simulated values themselves
    own_error = np.sqrt(np.maximum(np.median(off**2, axis=0) / MEDIAN_SQUARE - chance, 0))

    pairs, others = (found.reshape(-1, len(model.names)) for found in (drawn.some, drawn.beside))
    level, misfit = np.repeat(sigma, PAIRS), drawn.scores.reshape(-1, SCORES)
    scale = np.ones(len(pairs)) if model.scale is None else pairs[:, model.scale_index]
    finite = np.isfinite(np.hstack([pairs, others, misfit])).all(axis=1)
    good = np.flatnonzero(np.repeat(usable, PAIRS) & finite & (scale > 0))
    fit_rows = ~held_out[good // PAIRS]
    snrs = (simulator.brightness * scale / level)[good]
    where = coordinates(places_of(space, pairs[good]), snrs, knots)
    snr = where[~fit_rows, -1]
    if beside:
        stands = coordinates(places_of(space, others[good]), snrs, knots)
        where = np.column_stack([where, stands[:, :-1]])
    centres = where[rng.permutation(len(where))[: size.centres]]
    misfit = misfit[good]
    large = np.abs(bias) > LARGE_BIAS * np.maximum(sd, LEAST * spreads)
    targets = [errors[:, q:], np.log(np.hypot(bias, sd) / spreads + LEAST), response, large[:, own]]
    told = Smoother.fit(where, np.column_stack([np.column_stack(targets)[good // PAIRS], misfit]), centres)
    expected = told(where)
    usual = np.maximum(np.exp(expected[:, q : 2 * q]) - LEAST, LEAST)  # size of errors there
    shift = (bias / spreads)[good // PAIRS] / bias_unit(model, usual, every=not beside)
    mean = Smoother.fit(where, shift, centres)
    around = usual[:, own] * spreads[own]
    error = (drawn.known[good // PAIRS] - values_of(model, pairs[good]))[:, own] / around
    spread = np.log((misfit - expected[:, -SCORES:]) ** 2 + LEAST**2) / 2 + LOG_OF_NORMAL
    more = np.column_stack([spread, np.clip(error, -MOST_ERROR, MOST_ERROR)])
    rest = Smoother.fit(where[fit_rows], more[fit_rows], centres)
    error -= rest(where)[:, SCORES:]
    size_of_error = np.log(error**2 + LEAST_VARIANCE) / 2  # its mean is not decided by a few large errors
    width = Smoother.fit(where[fit_rows], size_of_error[fit_rows], centres)
    standard = error[~fit_rows] / np.exp(width(where[~fit_rows]))
    order = np.array_split(np.argsort(snr), BANDS)
    return Performance(
        space=space,
        spreads=spreads,
        knots=knots,
        at_truth=at_truth,
        at_estimate=Smoother(centres, np.hstack([s.coefficients for s in (mean, told, rest, width)])),
        bands=np.array([np.median(snr[band]) for band in order]),
        tails=np.stack([np.quantile(standard[band], TAILS, axis=0) for band in order]),
        facts={
            "Truths": n,
            "Repeats": size.repeats,
            "SNR": [LOWEST_SNR, HIGHEST_SNR],
            **({"Brightness": simulator.brightness} if model.reference == "largest" else {}),
            "Noise": simulator.noise.kind,
            "Seed": seed,
            "ErrorOfBias": dict(zip(names, own_error[:q].round(4).tolist(), strict=True)),
            "ErrorOfSD": dict(zip(names, own_error[q:].round(4).tolist(), strict=True)),
        },
    )


def _spreads(known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviations of true quantities (n, n_quantities); 1 where they do not vary."""
    found = known.std(axis=0)
    return np.where(found > 0, found, 1.0)


def _knots(space: ParameterSpace, truths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of what errors are functions of, over the truths; see `Performance.knots`."""
    return np.asarray(np.quantile(places_of(space, space.with_scale(truths)), np.linspace(0, 1, KNOTS), axis=0))


def _neighbours(
    space: ParameterSpace, truths: NDArray[np.float64], name: str, step: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The truths with a judged quantity half a step lower and higher, where that lies inside the space.

    A derived quantity is changed along its gradient, where that leads to at least half of the wanted change: below a
    small FA, the gradient leads through isotropy to an FA that is higher again.
    """
    model, way = space.model, np.array([name == other for other in space.names], dtype=float)
    derived = name not in model.names
    if derived:
        before = [quantity.name for quantity in model.derived].index(name)
        component = sum(quantity.components for quantity in model.derived[:before])
        way = model.derivation.gradients(space.with_scale(truths))[:, component, space.places]
        steepness = (way**2).sum(axis=1, keepdims=True)  # none at an end of its range
        way = np.divide(way, steepness, out=np.zeros_like(way), where=steepness > 0)
    moved = []
    for sign in (-0.5, 0.5):
        there = truths + sign * step[:, None] * way
        good = space.contains(there)
        if derived:
            old, new = (model.derivation.values(space.with_scale(rows))[name] for rows in (truths, there))
            good &= sign * (new - old) >= step / 4
        moved.append(np.where(good[:, None], there, truths))
    return moved[0], moved[1]
