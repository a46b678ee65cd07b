"""What is known of the errors of an estimator, at a truth and at an estimate.

It comes from a simulation (`bidsfit.trust.monte_carlo`), through whose results smooth functions are put. Read at a
truth, they give the bias and the standard deviation there. The truth of a voxel is not known; where an estimate may
come from several truths, what is expected is the mean over them, as drawn: for that, other functions are put through
the same values at the estimates. An estimate that does not maximise a likelihood, such as that of a network, does not
hold all that its signal tells: there the least-squares fit of the same signal stands beside it, and what is expected
depends on both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from bidsfit.models.signal_model import SignalModel
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.patches import Surroundings
from bidsfit.trust.misfit import SCORES
from bidsfit.trust.smoothing import Smoother

#: Range of SNRs that are simulated, of S0 or of the largest signal (`Performance.brightness`); beyond it, what is known
#: at its ends is told.
LOWEST_SNR, HIGHEST_SNR = 3.0, 300.0
#: Quantiles of every coordinate of the truths, between which it is stretched to be uniform.
KNOTS = 33
#: A bias is large beyond this share of the standard deviation.
LARGE_BIAS = 0.5
#: Voxels of which errors are expected at a time.
CHUNK = 8192
#: No error is told apart from none below this share of the spread of the truths.
LEAST = 1e-4


class Errors(NamedTuple):
    """What estimates of true parameters are like, by quantity; arrays of shape (n,).

    Attributes
    ----------
    bias, sd : dict of quantity to ndarray
        Mean error, and standard deviation over the noise.
    q025, q975 : dict of quantity to ndarray
        Quantiles of the estimates.
    """

    bias: dict[str, NDArray[np.float64]]
    sd: dict[str, NDArray[np.float64]]
    q025: dict[str, NDArray[np.float64]]
    q975: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Expected:
    """What is expected of the errors of estimates, averaged over the truths that they may come from.

    Attributes
    ----------
    bias, sd, rmse : dict of quantity to ndarray, shape (...)
    response : ndarray, shape (..., n_parameters, n_parameters)
        Change of the mean estimate of the first per change of the truth of the second.
    biased : dict of parameter to ndarray, shape (...)
        Share of the truths whose bias is large (`LARGE_BIAS`).
    lower, upper : dict of parameter to ndarray, shape (...)
        95 % interval: where the truth lies in 95 % of the draws that gave such an estimate.
    misfit : ndarray, shape (...)
        The larger of the scores of `bidsfit.trust.misfit.misfit_scores`, in standard deviations above what is expected;
        NaN where they are.
    """

    bias: dict[str, NDArray[np.float64]]
    sd: dict[str, NDArray[np.float64]]
    rmse: dict[str, NDArray[np.float64]]
    response: NDArray[np.float64]
    biased: dict[str, NDArray[np.float64]]
    lower: dict[str, NDArray[np.float64]]
    upper: dict[str, NDArray[np.float64]]
    misfit: NDArray[np.float64]


@dataclass(frozen=True)
class Performance:
    """What simulation tells of the errors of an estimator for one protocol, as functions of parameters and SNR.

    Attributes
    ----------
    space : ParameterSpace
    spreads : ndarray, shape (n_quantities,)
        Standard deviations of the truths of the quantities: parameters and scalar derived quantities.
    knots : ndarray, shape (n_knots, n_judged)
        Quantiles of the coordinates of the truths in the unit cube, or of the judged quantities themselves where the
        parameters are auxiliary (`judged_of`).
    at_truth, at_estimate : Smoother
        The second is of the coordinates of the estimate; and of those of the least-squares fit of the same signal, if
        what is expected depends on it (`beside`).
    bands : ndarray, shape (n_bands,)
        Median SNR of the bands of `tails`.
    tails : ndarray, shape (n_bands, 2, n_judged)
        Ends of the intervals, in typical errors: geometric means of their size.
    facts : dict
        How it was simulated, and how well the functions tell what they were not fitted to; for JSON.
    surroundings : mapping of surroundings to Performance
        Of an estimator that reads neighbours: the same where a voxel lies in a homogeneous region, at an edge, and in
        a lesion of its own. All else is then a mean over these three, each as likely before the signal is seen.
    """

    space: ParameterSpace
    spreads: NDArray[np.float64]
    knots: NDArray[np.float64]
    at_truth: Smoother
    at_estimate: Smoother
    bands: NDArray[np.float64]
    tails: NDArray[np.float64]
    facts: dict[str, Any] = field(default_factory=dict)
    surroundings: Mapping[Surroundings, Performance] = field(default_factory=dict)

    @property
    def brightness(self) -> float:
        """Signal to which the simulated SNRs refer, where the scale is 1; see `Simulator.brightness`."""
        return float(self.facts.get("Brightness", 1.0))

    @property
    def quantities(self) -> list[str]:
        return quantities_of(self.space.model)

    @property
    def beside(self) -> bool:
        """Whether what is expected also depends on the least-squares fit of the signal."""
        return self.at_estimate.centres.shape[1] > len(self.judged) + 1

    @property
    def judged(self) -> list[str]:
        return judged_of(self.space)

    @cached_property
    def limits(self) -> NDArray[np.float64]:
        """Range of the truths of the judged quantities, shape (n_judged, 2)."""
        return limits_of(self.space, self.knots)

    def errors(self, parameters: NDArray[np.float64], sigma: NDArray[np.float64]) -> Errors:
        """Errors at true parameters (n, n_parameters of the model) and noise levels (n,)."""
        scale = self._scale(parameters)
        bias, spread, *tails = np.split(self.at_truth(self._coordinates(parameters, sigma)), 4, axis=1)
        bias, sd = bias * bias_unit(self.space.model, np.exp(spread), scale), self._sd(spread, scale)
        mean = values_of(self.space.model, parameters) + bias
        return Errors(*map(self._named, (bias, sd, *(mean + sd * tail for tail in tails))))

    def expected(
        self,
        parameters: NDArray[np.float64],
        sigma: NDArray[np.float64],
        scores: NDArray[np.float64] | None = None,
        beside: NDArray[np.float64] | None = None,
        *,
        threads: int = 1,
    ) -> Expected:
        """What is expected at estimates; NaN where they are, or where the noise is not known.

        Parameters
        ----------
        parameters : ndarray, shape (..., n_parameters of the model)
        sigma : ndarray, shape (...)
            Standard deviation of the noise of one measurement.
        scores : ndarray, shape (..., 2), optional
            Of `bidsfit.trust.misfit.misfit_scores`.
        beside : ndarray, shape (..., n_parameters of the model), optional
            The least-squares fit of the same signals, if what is expected depends on it.
        threads : int
        """
        if self.beside and beside is None:
            raise ValueError(
                "What is expected of this estimator depends on the least-squares fit of the same signals; give it."
            )
        beside = parameters if beside is None else beside
        shape, p, noise = sigma.shape, len(self.judged), sigma.ravel()
        points, other = (values.reshape(sigma.size, -1) for values in (parameters, beside))
        own = np.full((sigma.size, SCORES), np.nan) if scores is None else scores.reshape(sigma.size, SCORES)
        known = np.flatnonzero(np.isfinite(points).all(axis=1) & np.isfinite(other).all(axis=1) & (noise > 0))
        columns: list[NDArray[np.float64]] = []
        for start in range(0, max(len(known), 1), CHUNK):
            rows = known[start : start + CHUNK]
            found = self._expected(points[rows], noise[rows], own[rows], other[rows], threads)
            columns = columns or [np.full((sigma.size, *values.shape[1:]), np.nan) for values in found]
            for column, values in zip(columns, found, strict=True):
                column[rows] = values
        bias, sd, rmse, response, biased, lower, upper, misfit = (c.reshape(*shape, *c.shape[1:]) for c in columns)
        return Expected(
            bias=self._named(bias),
            sd=self._named(sd),
            rmse=self._named(rmse),
            response=response.reshape(*shape, p, p),
            **{
                name: dict(zip(self.judged, np.moveaxis(found, -1, 0), strict=True))
                for name, found in (("biased", biased), ("lower", lower), ("upper", upper))
            },
            misfit=misfit,
        )

    def _expected(
        self,
        parameters: NDArray[np.float64],
        sigma: NDArray[np.float64],
        scores: NDArray[np.float64],
        beside: NDArray[np.float64],
        threads: int,
    ) -> tuple[NDArray[np.float64], ...]:
        """The columns of `Expected` at finite estimates (n, n_parameters of the model)."""
        p, q, scale = len(self.judged), len(self.quantities), self._scale(parameters)
        own = judged_places(self.space)
        points = self._coordinates(parameters, sigma)
        level = points[:, -1]
        if self.beside:
            points = np.column_stack([points, self._coordinates(beside, sigma)[:, :-1]])
        bias, spread, error, response, biased, usual, apart, first, second = np.split(
            self.at_estimate(points, threads), np.cumsum([q, q, q, p * p, p, SCORES, SCORES, p]), axis=1
        )
        sd = self._sd(spread, scale)
        rmse = np.maximum(np.exp(error) - LEAST, 0) * scale
        around = np.maximum(rmse, LEAST * scale)[:, own]
        width = np.exp(second)
        estimates, ends = values_of(self.space.model, parameters)[:, own], []
        for end in (0, 1):
            tail = np.stack([np.interp(level, self.bands, self.tails[:, end, j]) for j in range(p)], axis=1)
            ends.append(np.clip(estimates + around * (first + width * tail), *self.limits.T))
        above = ((scores - usual) / np.exp(apart)).max(axis=1)
        size = np.maximum(np.exp(error) - LEAST, LEAST)
        bias = bias * bias_unit(self.space.model, size, scale, every=not self.beside)
        return bias, sd, rmse, response, np.clip(biased, 0, 1), *ends, above

    def _named(self, columns: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return dict(zip(self.quantities, np.moveaxis(columns, -1, 0), strict=True))

    def _scale(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unit of the errors, shape (n, n_quantities): errors of the scale of the signal are relative to it."""
        model, found = self.space.model, np.tile(self.spreads, (len(parameters), 1))
        if model.scale is not None:
            found[:, self.quantities.index(model.scale)] *= parameters[:, model.scale_index]
        return found

    def _sd(self, logarithms: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviations; that of a quantity between limits is at most half their distance (Popoviciu)."""
        found = np.maximum(np.exp(logarithms) - LEAST, 0) * scale
        own = judged_places(self.space)
        found[:, own] = np.minimum(found[:, own], np.ptp(self.limits, axis=1) / 2)
        return found

    def _coordinates(self, parameters: NDArray[np.float64], sigma: NDArray[np.float64]) -> NDArray[np.float64]:
        s0 = 1.0 if self.space.model.scale is None else parameters[:, self.space.model.scale_index]
        return coordinates(places_of(self.space, parameters), s0 * self.brightness / sigma, self.knots)

    def dump(self) -> bytes:
        """Its content as that of a file, in which nothing can be executed."""
        from safetensors.numpy import save

        facts, arrays = self.facts, self._arrays
        if self.surroundings:
            facts = facts | {"Surroundings": {place: one.facts for place, one in self.surroundings.items()}}
        for place, one in self.surroundings.items():
            arrays |= {f"{place}/{name}": array for name, array in one._arrays.items()}
        return save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, {"facts": json.dumps(facts)})

    @property
    def _arrays(self) -> dict[str, NDArray[np.float64]]:
        """Its arrays by name, without those of its surroundings."""
        arrays = {name: getattr(self, name) for name in ("spreads", "knots", "bands", "tails")}
        for name in ("at_truth", "at_estimate"):
            arrays |= {f"{name}.{part}": array for part, array in getattr(self, name).arrays.items()}
        return arrays

    @classmethod
    def load(cls, content: bytes, space: ParameterSpace) -> Performance:
        """Read what `dump` wrote.

        Raises
        ------
        ValueError
            If it is damaged or of another space.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(content)
        except SafetensorError as error:
            raise ValueError(f"the performance of an estimator cannot be read ({error})") from error
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["facts"])
        found = {}
        for place, own in facts.pop("Surroundings", {}).items():
            if place not in get_args(Surroundings):
                raise ValueError(f"the performance of an estimator is that in surroundings of the kind {place!r:.20}")
            names = [name for name in arrays if name.startswith(f"{place}/")]
            found[place] = cls._of({name.partition("/")[2]: arrays.pop(name) for name in names}, own, space)
        return replace(cls._of(arrays, facts, space), surroundings=found)

    @classmethod
    def _of(cls, arrays: dict[str, NDArray], facts: dict[str, Any], space: ParameterSpace) -> Performance:
        """The performance of these `_arrays` and facts; raise `ValueError` if it is none."""
        p, q = len(judged_of(space)), len(quantities_of(space.model))
        functions = {"at_truth": 4 * q, "at_estimate": 3 * q + p * p + 3 * p + 2 * SCORES}
        parts: dict[str, dict[str, NDArray]] = {
            name: {part: arrays.pop(f"{name}.{part}") for part in ("centres", "coefficients")} for name in functions
        }
        dimensions = {"at_truth": [p + 1], "at_estimate": [p + 1, 2 * p + 1]}
        smooth = {name: Smoother.of(parts[name], dimensions[name], n) for name, n in functions.items()}
        shapes = {name: array.shape for name, array in arrays.items()}
        n = len(arrays["bands"])
        if shapes != {"spreads": (q,), "knots": (KNOTS, p), "bands": (n,), "tails": (n, 2, p)}:
            raise ValueError(f"the performance of an estimator has arrays of other shapes than {shapes}")
        if not all(np.isfinite(a).all() for a in (*arrays.values(), *(a for s in parts.values() for a in s.values()))):
            raise ValueError("the performance of an estimator has numbers that are not finite")
        return cls(space, facts=facts, **arrays, **smooth)  # type: ignore[arg-type]


def quantities_of(model: SignalModel) -> list[str]:
    """Names of the quantities of a model whose bias and standard deviation are told: those that reports are about."""
    return [quantity.name for quantity in model.reported]


def judged_of(space: ParameterSpace) -> list[str]:
    """Names of the quantities whose errors are told fully, with response and interval, and as functions of which.

    They are the free parameters without the scale; where some are auxiliary, those that are not, and what is derived.
    Of tensors, whose errors hardly depend on their orientation if the gradient directions are even, they are FA, MD, AD
    and RD: what is told is a mean over all orientations.
    """
    model = space.model
    if not model.auxiliary:
        return list(space.names)
    return [q.name for q in model.reported if q.name not in (model.scale, *space.held)]


def judged_places(space: ParameterSpace) -> list[int]:
    """Where the judged quantities stand among all, of which bias and standard deviation are told."""
    names = quantities_of(space.model)
    return [names.index(name) for name in judged_of(space)]


def places_of(space: ParameterSpace, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """What errors are functions of, shape (n, n_judged), from parameters (n, n_parameters of the model)."""
    if not space.model.auxiliary:
        return space.to_cube(parameters[:, space.places])
    return values_of(space.model, parameters)[:, judged_places(space)]


def limits_of(space: ParameterSpace, knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Range of the truths of the judged quantities, shape (n_judged, 2), from the quantiles of `Performance.knots`."""
    return knots[[0, -1]].T if space.model.auxiliary else space.bounds


def coordinates(cube: NDArray[np.float64], snr: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates (n, n_parameters + 1), nearly uniform from 0 to 1 over the truths; the last is that of the SNR."""
    level = np.log(np.clip(snr, LOWEST_SNR, HIGHEST_SNR) / LOWEST_SNR) / np.log(HIGHEST_SNR / LOWEST_SNR)
    ranks = np.linspace(0, 1, len(knots))
    columns = []
    for j in range(cube.shape[1]):
        places, first = np.unique(knots[:, j], return_index=True)
        columns.append(np.interp(cube[:, j], places, ranks[first]))
    return np.stack([*columns, np.broadcast_to(level, len(cube))], axis=1)


def bias_unit(
    model: SignalModel, size: NDArray[np.float64], scale: NDArray[np.float64] | float = 1.0, every: bool = False
) -> NDArray[np.float64]:
    """Unit in which the bias of the quantities is learned, shape (n, n_quantities): of wide ones the size of errors.

    The bias of the others is in the unit ``scale``, in which ``size``, shape (n, n_quantities), is given. At estimates
    ``every`` one is in the size of errors, so that a bias that is small in low noise is told as such, unless the fit
    beside the estimate shows the bias by its distance.
    """
    wide = np.array([every or model.quantity(name).wide for name in quantities_of(model)])
    return np.where(wide, size, 1.0) * scale


def values_of(model: SignalModel, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantities (..., n_quantities) of parameters (..., n_parameters), see `quantities_of`."""
    rows = parameters.reshape(-1, parameters.shape[-1])
    values = dict(zip(model.names, rows.T, strict=True)) | model.derivation.values(rows)
    names = quantities_of(model)
    found = np.stack([values[name] for name in names], axis=-1)
    return found.reshape(*parameters.shape[:-1], len(names))  # of no voxel, too
