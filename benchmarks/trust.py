"""Whether the trust maps are true: expected errors, intervals and flags against what simulation and a scanner show.

Sections, all by default:

- ``reliability``: bias and standard deviation that are expected at a truth and at an estimate, beside those of repeated
  noise at truths that the table has not seen.
- ``surroundings``: the same of IVIM by estimators that read neighbours, in a homogeneous region, at an edge and in a
  lesion of one voxel.
- ``intervals``: coverage, width, interval score and CRPS of every kind of interval, in and off the distribution.
- ``water``: a bottle of water in a real scanner, where every voxel has the same diffusivity; and a brain whose
  directions are fitted in two halves.
- ``power``: misfit and domain beside the likelihood-ratio test that knows what was added to the signal.
- ``lesions``: the four abnormalities of Gyori et al. 2022: what of them survives in the map, and whether a flag tells.

Truths are drawn from the priors of the models (three of four) and uniformly within their bounds, noise is Rician, and
the performance of every estimator is that of ``--trust light``. Simulations and trained estimators are kept in the
cache folder (BIDSFIT_CACHE_DIR), so that a second run is faster.
"""

from __future__ import annotations

from _common import figure_folder, figure_options, machine, options, percent, sphere, table, use_cores  # isort: skip

from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accuracy import acquisition_of, tissues
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import chi2, norm, rankdata

from bidsfit import LeastSquares, companions, estimators, models
from bidsfit.acquisition import Acquisition
from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.images import image_shape, open_image, read_data, read_mask
from bidsfit.estimators.estimator import Estimate, Estimator
from bidsfit.evaluation.experiments import Setting
from bidsfit.files import cache_folder
from bidsfit.laboratory.bench import Bench
from bidsfit.laboratory.gyori2022 import ABNORMALITIES, bench_of, setting
from bidsfit.laboratory.paper import Options
from bidsfit.laboratory.patients import simulated_patient
from bidsfit.models.space import ParameterSpace
from bidsfit.noise import sigma_from_repeats
from bidsfit.reports.canvas import ACCENT, INK, WARM, page, save, styled
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Features, Noise, Simulator, noisy_averages
from bidsfit.training.inference import Inverter
from bidsfit.training.recipe import load_recipe, recipe_facts
from bidsfit.training.store import Store
from bidsfit.trust import monte_carlo as simulated
from bidsfit.trust.cache import cached_performance
from bidsfit.trust.flags import Flag, flags
from bidsfit.trust.misfit import look_at_signals
from bidsfit.trust.monte_carlo import (
    Size,
    estimates_of,
    least_squares_beside,
    simulate,
    space_of,
    truths_of,
)
from bidsfit.trust.performance import Errors, Expected, Performance, judged_of, judged_places, values_of

Array = NDArray[np.float64]

CASES = {
    "ivim": ("lsq", "segmented", "mle", "bayes", "net-prior", "forest-prior"),
    "smt2": ("lsq", "mle", "bayes", "net-prior", "forest-prior"),
    "smt3": ("lsq", "mle", "bayes", "net-prior", "forest-prior"),
    "dti": ("lsq", "mle", "bayes", "net-prior", "forest-prior"),
    "dki": ("lsq", "mle", "net-prior", "forest-prior"),
}
#: Estimators that read neighbours.
SPATIAL = ("attention-prior", "conv-prior")
#: Models of the sections on intervals and on signals of another origin.
VOXELWISE = ("ivim", "smt2", "smt3")
#: Shells of the others, in s/mm^2, with as many directions each, beside one image at b = 0.
SHELLS, DIRECTIONS = {"dti": (1000,), "dki": (1000, 2000)}, 30
RECIPES_OF = {"net": "network-quick", "forest": "forest-quick", **estimators.SPATIAL}
#: SNR of the training, and range in which everything is judged.
TRAINING_SNR, LOWEST, HIGHEST = 25.0, 5.0, 50.0
#: Probability of a false alarm at which tests are compared, and the quantile of a normal variable above it.
FALSE_ALARMS = 0.02
SEED = 2026
#: Size of the simulations of a quick run.
SMALL = Size(512, 16, 4, 128)


class Subject(NamedTuple):
    """An estimator, its averaged protocol and its simulated performance."""

    estimator: Estimator
    acquisition: Acquisition
    performance: Performance

    @property
    def space(self) -> ParameterSpace:
        return self.performance.space


class Looked(NamedTuple):
    """What is told of estimates: their parameters (n, n_parameters), what is expected, flags and unlikeness."""

    estimate: Estimate
    parameters: Array
    expected: Expected
    flags: NDArray[np.uint8]


def main() -> None:
    parser = options(__doc__, voxels=4000)
    figure_options(parser)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default all)")
    parser.add_argument("--models", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--estimators", nargs="+", default=list(CASES["ivim"]), choices=list(CASES["ivim"]))
    parser.add_argument("--repeats", type=int, default=200, help="noise realisations of a truth (default %(default)s)")
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown sections: {', '.join(sorted(unknown))}; valid: {', '.join(SECTIONS)}")
    if arguments.quick:
        arguments.voxels, arguments.repeats = 400, 40
        simulated.LIGHT = simulated.OF_COSTLY = SMALL
    use_cores(1)
    print(f"{machine()}; {arguments.voxels:,} voxels, {arguments.repeats} repeats; seed {SEED}.\n")
    for name in arguments.sections or SECTIONS:
        print(f"## {name}\n")
        SECTIONS[name](arguments)


# What is judged


def chosen(arguments: Namespace, models_: tuple[str, ...] = tuple(CASES)) -> Iterator[tuple[str, str]]:
    """Models with estimators, as the options choose."""
    for model in arguments.models:
        for name in CASES[model]:
            if model in models_ and name in arguments.estimators:
                yield model, name


@cache
def subject(model: str, name: str, protocol: str = "dense", **given: Any) -> Subject:
    """An estimator with its performance, trained if needed."""
    own = models.get(model)
    made: Any = estimators.get(name)
    acquisition = acquisition_of(model, protocol) if model in VOXELWISE else shells_of(model)
    kind = RECIPES_OF.get(name.partition("-")[0])
    if kind is not None:
        given = {"snr": TRAINING_SNR, "recipe": recipe_facts(load_recipe(kind)), **given}
        plan = made(own, **given)
        task = plan.task(plan.averaged(acquisition), TRAINING_SNR)
        given["trained"] = Store(cache_folder() / "benchmarks").obtain(task, name)
    estimator: Estimator = made(own, **given)
    averaged = estimator.averaged(acquisition)
    estimator.warm_up(averaged)
    return Subject(estimator, averaged, cached_performance(estimator, averaged, "light"))


def shells_of(model: str) -> Acquisition:
    """The measurements of a model of directions."""
    b_values, shell = SHELLS[model], sphere(DIRECTIONS)
    return Acquisition([0, *np.repeat(b_values, DIRECTIONS)], np.vstack([np.zeros((1, 3)), *[shell] * len(b_values)]))


def draw(subject: Subject, n: int, rng: np.random.Generator, snr: float | None = None) -> tuple[Array, Array]:
    """Truths (n, n_parameters) and noise levels (n,), of one SNR or log-uniformly of all that are judged."""
    level = np.full(n, snr) if snr else np.exp(rng.uniform(np.log(LOWEST), np.log(HIGHEST), n))
    return truths_of(subject.space).sample(n, rng), 1 / level


def measured(subject: Subject, truth: Array, sigma: Array, rng: np.random.Generator, repeats: int = 1) -> Array:
    """Averages with Rician noise, shape (n * repeats, n_averages)."""
    simulator = Simulator(Uniform(subject.space), subject.acquisition, Noise(np.inf, "rician"))
    return simulator.measure(truth, rng, repeats, sigma)


def noisy(subject: Subject, clean: Array, sigma: Array, rng: np.random.Generator) -> Array:
    """Signals of any origin with Rician noise."""
    return noisy_averages(clean, subject.acquisition, sigma, "rician", rng)


def estimated(subject: Subject, signals: Array, sigma: Array) -> Array:
    """All parameters of the model, shape (n, n_parameters of the model)."""
    return subject.estimator.estimate(signals, subject.acquisition, sigma).points


def looked(subject: Subject, signals: Array, sigma: Array) -> Looked:
    """Estimates with what is told of them."""
    estimator = subject.estimator
    estimate = estimator.estimate(signals, subject.acquisition, sigma)
    beside = least_squares_beside(estimator) if subject.performance.beside else None
    seen = look_at_signals(estimator, estimate, signals, subject.acquisition, sigma, beside)
    expected = subject.performance.expected(estimate.points, sigma, seen.scores, seen.beside)
    return Looked(estimate, estimate.points, expected, flags(estimator, estimate, expected, sigma, seen.outside))


def show(header: list[str], rows: Iterable[list[str]]) -> None:
    """Print a table line by line, as its rows are found."""
    print(table(header, []).rstrip())
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


# Sections


def reliability(arguments: Namespace) -> None:
    """Expected errors beside those of repeated noise."""
    print(
        "Correlation, and slope of what repeated noise shows over what is expected (wanted: above .9, and .9 to 1.1). "
        "At the truth; and at one estimate, taken for the truth, and averaged over the truths that it may come from.\n"
    )
    places = ("at the truth", "estimate as truth", "averaged")
    header = ["model, estimator, parameter", *(f"{what} {place}" for place in places for what in ("bias", "SD"))]
    show(header, (row for model, name in chosen(arguments) for row in reliable(model, name, arguments)))


def reliable(model: str, name: str, arguments: Namespace) -> Iterator[list[str]]:
    """Rows of an estimator, one a parameter or, of tensors, a quantity that is derived."""
    rng, one = np.random.default_rng([SEED, 1]), subject(model, name)
    n, repeats = (
        np.array([arguments.voxels, arguments.repeats]) // (1 if name in ("lsq", "segmented") else 2)
    ).tolist()
    truth, sigma = draw(one, n, rng)
    signals = measured(one, truth, sigma, rng, repeats)
    repeated = estimated(one, signals, np.repeat(sigma, repeats)).reshape(n, repeats, -1)
    found: list[Errors | Expected] = [
        one.performance.errors(one.space.with_scale(truth), sigma),
        one.performance.errors(repeated[:, 0], sigma),
        looked(one, signals[::repeats], sigma).expected,
    ]
    values, known = (values_of(one.space.model, p) for p in (repeated, one.space.with_scale(truth)))
    biases, sds = values.mean(axis=1) - known, values.std(axis=1, ddof=1)
    for quantity, j in zip(judged_of(one.space), judged_places(one.space), strict=True):
        cells = [
            agreement(told[quantity], shown[:, j])
            for errors in found
            for told, shown in ((errors.bias, biases), (errors.sd, sds))
        ]
        yield [f"{model}, {name}, {quantity}", *cells]


def surroundings(arguments: Namespace) -> None:
    """Expected errors of estimators that read neighbours beside those of repeated noise, where a voxel may lie."""
    print(
        "Correlation, and slope of what repeated noise shows over what the maps tell, a mean over surroundings. "
        "Share of the 95 % intervals that hold the truth: of the maps, of the place itself, of a homogeneous region.\n"
    )
    header = ["estimator, place, parameter", "bias", "SD", "intervals", "of the place", "of a region", "response there"]
    show(header, (row for name in SPATIAL for row in surrounded(name, arguments)))


def surrounded(name: str, arguments: Namespace) -> Iterator[list[str]]:
    """Rows of an estimator, one for each of the surroundings and parameter."""
    rng, one = np.random.default_rng([SEED, 8]), subject("ivim", name)
    bundle, n, repeats = one.estimator.trained, arguments.voxels // 4, arguments.repeats // 4
    invert = Inverter(bundle.recipe, bundle.machine, one.space, one.acquisition)
    simulator = Simulator(Uniform(one.space), one.acquisition, Noise(np.inf, "rician"), reach=one.estimator.reach)
    (truth, sigma), (other, _) = draw(one, n, rng), draw(one, n, rng)
    fit_beside = estimates_of(least_squares_beside(one.estimator), one.acquisition)
    for place, own in one.performance.surroundings.items():
        around = None if place == "homogeneous" else (place, other)
        patches = simulator.measure(truth, rng, repeats, sigma, around)
        found = invert(patches, sigma=np.repeat(sigma, repeats)).parameters.reshape(n, repeats, -1)
        beside = fit_beside(patches[::repeats, *one.estimator.reach], sigma)
        judged = (one.performance, own, one.performance.surroundings["homogeneous"])
        told, *others = (each.expected(found[:, 0], sigma, beside=beside) for each in judged)
        for j, parameter in enumerate(one.space.names):
            values = found[:, :, one.estimator.model.names.index(parameter)]
            bias, sd = values.mean(axis=1) - truth[:, j], values.std(axis=1, ddof=1)
            held = [
                (each.lower[parameter] <= truth[:, j]) & (truth[:, j] <= each.upper[parameter])
                for each in (told, *others)
            ]
            yield [
                f"{name}, {place}, {parameter}",
                agreement(told.bias[parameter], bias),
                agreement(told.sd[parameter], sd),
                *(percent(each.mean()) for each in held),
                f"{np.median(others[0].response[:, j, j]):.2f}",
            ]


def agreement(told: Array, shown: Array) -> str:
    """Correlation, and slope of the second over the first."""
    good = np.isfinite(told) & np.isfinite(shown)
    correlation = np.corrcoef(told[good], shown[good])[0, 1]
    return f"{correlation:.2f} / {np.polyfit(told[good], shown[good], 1)[0]:.2f}"


#: SNRs of the tables of intervals.
SNRS = (5.0, 10.0, 20.0, 50.0)


def intervals(arguments: Namespace) -> None:
    """Coverage, width and scores of 95 % intervals."""
    print(
        "Voxels whose 95 % interval holds the truth (wanted: 93 to 97 %), and the median width in standard deviations "
        "over the noise at the truth (3.92 where errors are normal). Over all SNRs: the interval score, and the CRPS "
        "of the normal distribution with this interval, both relative to the standard deviation of the truths.\n"
    )
    header = ["model, protocol, estimator, interval, parameter", *(f"SNR {snr:g}" for snr in SNRS), "score", "CRPS"]
    cases = [(*case, protocol) for protocol in ("dense", "clinical") for case in chosen(arguments, VOXELWISE)]
    show(header, (row for case in cases for row in interval_rows(*case, arguments.voxels // 2)))
    off_distribution(arguments)


def interval_rows(model: str, name: str, protocol: str, n: int) -> Iterator[list[str]]:
    """Rows of an estimator, one a kind of interval and parameter."""
    one = subject(model, name, protocol)
    kinds: dict[str, list[tuple[Array, Array, Array, Array]]] = {}
    for snr in SNRS:
        rng = np.random.default_rng([SEED, 2, int(snr)])
        truth, sigma = draw(one, n, rng, snr)
        signals = measured(one, truth, sigma, rng)
        sds = one.performance.errors(one.space.with_scale(truth), sigma).sd
        sd = np.stack([sds[parameter] for parameter in one.space.names], axis=1)
        for kind, (low, high) in intervals_of(one, signals, sigma).items():
            kinds.setdefault(kind, []).append((truth, sd, low, high))
    for kind, found in kinds.items():
        for j, parameter in enumerate(one.space.names):
            label = f"{model}, {protocol}, {name}, {kind}, {parameter}"
            yield [label, *interval_cells(found, j, one.performance)]


def intervals_of(one: Subject, signals: Array, sigma: Array) -> dict[str, tuple[Array, Array]]:
    """Ends of the intervals (n, n_parameters) by kind: the estimator's own, and those of simulation."""
    found: dict[str, tuple[Array, Array]] = {}
    names = one.space.names
    own = [one.estimator.intervals] + ["profile"] * (one.estimator.intervals == "wald")
    for kind in own:
        if kind == "conformal":
            continue
        estimator: Any = one.estimator
        if kind == "profile":
            estimator = type(estimator)(estimator.model, intervals="profile")
        judged = companions(estimator, estimator.estimate(signals, one.acquisition, sigma), sigma)
        found[kind] = tuple(np.stack([judged[key][p] for p in names], axis=1) for key in ("q025", "q975"))  # type: ignore[assignment]
    expected = looked(one, signals, sigma).expected
    found["conformal"] = tuple(np.stack([end[p] for p in names], axis=1) for end in (expected.lower, expected.upper))  # type: ignore[assignment]
    return found


def interval_cells(found: list[tuple[Array, Array, Array, Array]], j: int, performance: Performance) -> list[str]:
    """Coverage and width at every SNR, and scores over all."""
    cells, scores, losses = [], [], []
    bounds = performance.space.bounds[j]
    for truth, sd, low, high in found:
        x, lower, upper = truth[:, j], np.clip(low[:, j], *bounds), np.clip(high[:, j], *bounds)
        good = np.isfinite(lower) & np.isfinite(upper)
        x, lower, upper = x[good], lower[good], upper[good]
        held = (lower <= x) & (x <= upper)
        cells.append(f"{100 * held.mean():.1f} %, {np.median((upper - lower) / sd[good, j]):.1f}")
        missed = np.maximum(lower - x, 0) + np.maximum(x - upper, 0)
        scores.append(upper - lower + 2 / 0.05 * missed)
        losses.append(crps(x, (lower + upper) / 2, (upper - lower) / (2 * norm.ppf(0.975))))
    spread = performance.spreads[performance.quantities.index(performance.space.names[j])]
    return [*cells, f"{np.concatenate(scores).mean() / spread:.2f}", f"{np.concatenate(losses).mean() / spread:.3f}"]


def crps(truth: Array, mean: Array, sd: Array) -> Array:
    """Continuous ranked probability score of normal distributions (Gneiting and Raftery 2007)."""
    sd = np.maximum(sd, 1e-9)
    z = (truth - mean) / sd
    return np.asarray(sd * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)))


def off_distribution(arguments: Namespace) -> None:
    """Coverage where truths or signals are not what the intervals were made for."""
    print(
        "Off the distribution, SNR 5 to 50: conformal intervals that hold the truth; voxels that are flagged as misfit "
        "or outside the training; and intervals that hold the truth where neither flag is raised.\n"
    )
    header = ["model, estimator, truth", "held", "flagged", "held where not flagged"]
    cases = chosen(arguments, VOXELWISE)
    show(header, (row for case in cases for row in off_distribution_rows(*case, arguments.voxels)))


def off_distribution_rows(model: str, name: str, n: int) -> Iterator[list[str]]:
    """Rows of an estimator, one an origin of the signals."""
    one, rng = subject(model, name), np.random.default_rng([SEED, 3])
    b, names = one.acquisition.b_values / 1000, one.space.names
    signal = one.estimator.model.signal
    truth, sigma = draw(one, n, rng)
    clean = signal(one.space.with_scale(truth), one.acquisition)
    cases = {
        "in distribution": (truth, clean),
        "20 % free water": (truth, 0.8 * clean + 0.2 * np.exp(-3 * b)),
        "10 % that does not diffuse": (truth, 0.9 * clean + 0.1),
    }
    if model == "ivim":
        published = np.array([[tissue.truth[p] for p in names] for tissue in tissues(model)])
        there = np.clip(published[rng.integers(len(published), size=n)], *one.space.bounds.T)
        cases["published tissues"] = there, signal(one.space.with_scale(there), one.acquisition)
    for case, (true, signals) in cases.items():
        found = looked(one, noisy(one, signals, sigma, rng), sigma)
        flagged = (found.flags & (Flag.MISFIT | Flag.OUTSIDE_TRAINING)) > 0
        lower, upper = found.expected.lower, found.expected.upper
        held = {p: (lower[p] <= true[:, j]) & (true[:, j] <= upper[p]) for j, p in enumerate(names)}
        every, clear = (", ".join(f"{p} {100 * h[where].mean():.0f} %" for p, h in held.items())
                        for where in (slice(None), ~flagged))  # fmt: skip
        yield [f"{model}, {name}, {case}", every, percent(flagged.mean()), clear]


# A real scanner

#: Degree of the polynomial of the position that takes slow drift out of a map.
DEGREE = 4


def water(arguments: Namespace) -> None:
    """A bottle of water: one diffusivity everywhere."""
    folder = arguments.data / "ds-water"
    images = sorted(folder.glob("sub-*/dwi/*_dwi.nii.gz"))
    if not images:
        print(f"Skipped water: there is no dataset ds-water in {arguments.data} (see --data).\n")
    else:
        print(
            "D of the model `adc` in water; bias in 10⁻³ and SDs in 10⁻⁵ mm²/s. The reference, from which biases are "
            f"measured and which intervals are to hold, is a polynomial of the position (degree {DEGREE}) through the "
            "map of `mle` up to b = 1400. Scatter: over the voxels, such a polynomial through the map taken out. "
            "Misfit at 2 % false alarms, and flags. Noise: scatter of the measurements of a b-value up to 700 s/mm².\n"
        )
    rows = []
    for path in images[: 1 if arguments.quick else None]:
        signals, acquisition, places = read_voxels(path)
        reference = smooth(water_subject("mle", 1400, signals, acquisition)[1].estimate.parameters["D"], places)
        for largest in (1400, 2000):
            for name in ("mle", "lsq"):
                cells = water_cells(water_subject(name, largest, signals, acquisition), places, reference)
                rows.append([f"{path.name.split('_')[1]}, b ≤ {largest:g}, {name}", *cells])
    if rows:
        header = [
            "image, estimator",
            "bias",
            "expected bias",
            "stated SD",
            "expected SD",
            "scatter",
            "own interval holds",
        ]
        header += ["conformal holds", "misfit at 2 %", "misfit", "biased", "other flags"]
        print(table(header, rows))
    halves(arguments)


def read_voxels(path: Path) -> tuple[Array, Acquisition, Array]:
    """Signals of the mask, the acquisition, and positions from -1 to 1."""
    stem = path.name.removesuffix(".nii.gz")
    image: Any = open_image(path)
    acquisition = read_acquisition(path.with_name(f"{stem}.bval"), path.with_name(f"{stem}.bvec"))
    found = sorted((path.parents[2] / "derivatives/masks").glob(f"sub-*/dwi/{stem.removesuffix('_dwi')}*_mask.nii.gz"))
    mask = read_mask(found[0], image, path)
    signals = read_data(image, path).astype(float).reshape(image_shape(image, len(acquisition), path))[mask]
    places = np.argwhere(mask) / (np.array(mask.shape) - 1) * 2 - 1
    good = np.isfinite(signals).all(axis=1) & (signals > 0).all(axis=1)
    return signals[good], acquisition, places[good]


def smooth(values: Array, places: Array) -> Array:
    """Values of a polynomial of the position fitted to a map, voxels far off left out."""
    powers = [q for q in np.ndindex(*[DEGREE + 1] * 3) if sum(q) <= DEGREE]
    terms = np.column_stack([np.prod(places**q, axis=1) for q in powers])
    good = np.isfinite(values)
    for _ in range(3):
        fitted = terms @ np.linalg.lstsq(terms[good], values[good], rcond=None)[0]
        off = np.abs(values - fitted)
        good = off < 5 * np.median(off) / norm.ppf(0.75)
    return np.asarray(fitted)


def water_subject(name: str, largest: float, signals: Array, acquisition: Acquisition) -> tuple[Subject, Looked, Array]:
    """Estimates of the model `adc` up to a largest b-value, what is told of them, and the noise level."""
    made: Any = estimators.get(name)
    estimator: Estimator = made(replace(models.get("adc"), maximum_b=largest))  # type: ignore[type-var]
    one_way = np.tile([1.0, 0.0, 0.0], (len(acquisition), 1))  # in water all directions repeat one another
    noise = sigma_from_repeats(signals, Acquisition(acquisition.b_values, directions=one_way), maximum_b=800)
    assert noise is not None
    sigma = np.full(len(signals), noise.sigma)
    one = Subject(estimator, acquisition, cached_performance(estimator, estimator.averaged(acquisition), "light"))
    return one, looked(one, signals, sigma), sigma


def water_cells(given: tuple[Subject, Looked, Array], places: Array, reference: Array) -> list[str]:
    """What is said of D in the voxels of water, and what they show beside the reference."""
    one, found, sigma = given
    judged, d, expected = companions(one.estimator, found.estimate, sigma), found.parameters[:, 1], found.expected
    local = smooth(d, places)
    scatter = np.median(np.abs(d - local)) / norm.ppf(0.75)
    ends = [(judged["q025"]["D"], judged["q975"]["D"]), (expected.lower["D"], expected.upper["D"])]
    shares = [np.mean((low <= reference) & (reference <= high)) for low, high in ends]
    nominal = norm.ppf(1 - FALSE_ALARMS / 2)  # of the larger of two scores
    other = ~(Flag.MISFIT | Flag.BIASED)
    raised = [found.flags & flag > 0 for flag in (Flag.MISFIT, Flag.BIASED, other)]
    shares += [np.mean(where) for where in (expected.misfit > nominal, *raised)]
    return [
        f"{np.mean(d - reference):+.4f}",
        f"{np.median(expected.bias['D']):+.4f}",
        *(f"{100 * value:.2f}" for value in (np.median(judged["sd"]["D"]), np.median(expected.sd["D"]), scatter)),
        *(f"{100 * share:.1f} %" for share in shares),
    ]


def halves(arguments: Namespace) -> None:
    """A real brain fitted twice, each time from half of its directions."""
    images = sorted((arguments.data / "ds-brain-2shell").glob("sub-*/dwi/*_dwi.nii.gz"))
    if not images:
        print(f"Skipped the brain: there is no dataset ds-brain-2shell in {arguments.data} (see --data).\n")
        return
    signals, acquisition, _ = read_voxels(images[0])
    estimator = estimators.get("lsq")(models.get("smt2"))
    b, found = acquisition.b_values, []
    noise = sigma_from_repeats(signals, acquisition)
    assert noise is not None
    for start in (0, 1):
        rows = np.concatenate([np.flatnonzero(b == value)[start::2] for value in np.unique(b)])
        part, own = acquisition.select(rows), signals[:, rows]
        estimate = estimator.estimate(own, part, noise.sigma)
        sigma = np.full(len(own), noise.sigma)
        one = Subject(estimator, part, cached_performance(estimator, estimator.averaged(part), "light"))
        expected = looked(one, own, sigma).expected.sd
        found.append(
            (estimate.parameters, companions(estimator, estimate, noise.sigma)["sd"], expected, estimate.status)
        )
    print(
        "A real brain (smt2, lsq), fitted from either half of its directions: scatter of the difference of the two, "
        "over what the SDs of both say (1: they are true); medians over the voxels inside the bounds.\n"
    )
    inside = (found[0][3] == 1) & (found[1][3] == 1)
    rows_ = []
    for name in ("vcyl", "lambda"):
        apart = (found[0][0][name] - found[1][0][name])[inside]
        cells = [
            np.median(np.abs(apart / np.hypot(found[0][k][name], found[1][k][name])[inside])) / norm.ppf(0.75)
            for k in (1, 2)
        ]
        rows_.append([name, f"{inside.sum():,}", *(f"{cell:.2f}" for cell in cells)])
    print(table(["parameter", "voxels", "over stated SD", "over expected SD"], rows_))
    print("The cord has one volume of every b-value: nothing in it is repeated.\n")


# Power

#: What is added to the signals of a model, and how much of it; see `alternatives`.
AMOUNTS = {
    "third compartment": (0.05, 0.1, 0.2, 0.4),
    "dot": (0.02, 0.05, 0.1, 0.2),
    "corrupted volume": (2.0, 3.0, 4.0, 6.0),
    "more noise": (1.15, 1.3, 1.6, 2.0),
    "other b-value": (0.02, 0.05, 0.1, 0.2),
}
WORDS = {
    "third compartment": "Share of free water",
    "dot": "Share that does not diffuse",
    "corrupted volume": "Shift of one average (SD)",
    "more noise": "Noise (times what is said)",
    "other b-value": "Largest b-value larger by",
}
#: Models and estimators of the power curves.
TESTED = (("ivim", "lsq"), ("ivim", "net-prior"), ("smt2", "lsq"), ("smt2", "net-prior"), ("smt3", "lsq"))


class Test(NamedTuple):
    """Power at 2 % false alarms and area under the curve, of ours and of the ideal test."""

    power: float
    ideal: float
    area: float
    ideal_area: float


def power(arguments: Namespace) -> None:
    """Misfit and domain beside the likelihood-ratio test that knows what was added."""
    print(
        f"Power at {100 * FALSE_ALARMS:g} % false alarms / that of the ideal test, and area under the curve / that "
        "of the ideal test. That knows what was added, but not the parameters: a normal score along what the model "
        "cannot follow. For more noise it is the chi-squared test, and for a corrupted average, of which nobody knows "
        "which it is, the largest residual over its own standard deviation.\n"
    )
    found: dict[tuple[str, str, float], dict[str, list[Test]]] = {}
    for model, name in TESTED:
        if model in arguments.models and name in arguments.estimators:
            for snr in (10.0, 25.0, 50.0):
                found[model, name, snr] = powers(subject(model, name), snr, 3 * arguments.voxels)
    for kind, amounts in AMOUNTS.items():
        rows = [
            [f"{model}, {name}, SNR {snr:g}", *(f"{t.power:.2f} / {t.ideal:.2f}" for t in tests[kind]),
             *(f"{t.area:.2f} / {t.ideal_area:.2f}" for t in tests[kind])]
            for (model, name, snr), tests in found.items()
        ]  # fmt: skip
        print(f"{WORDS[kind]}:\n")
        header = [f"power, {amount:g}" for amount in amounts] + [f"area, {amount:g}" for amount in amounts]
        print(table(["model, estimator", *header], rows))
    if found:
        print(f"Figure: {draw_power(found, figure_folder(arguments) / 'trust-power.png')}\n")
    foreign(arguments)


def powers(one: Subject, snr: float, n: int) -> dict[str, list[Test]]:
    """Tests of everything that may be wrong with the signals."""
    rng = np.random.default_rng([SEED, 4, int(snr)])
    truth = truths_of(one.space).parts[0].sample(n, rng)  # type: ignore[attr-defined]
    sigma, model = np.full(n, 1 / snr), one.estimator.model
    clean = model.signal(one.space.with_scale(truth), one.acquisition)
    null = suspicion(one, noisy(one, clean, sigma, rng), sigma)
    found: dict[str, list[Test]] = {}
    for kind, amounts in AMOUNTS.items():
        for amount in amounts:
            signals, level = altered(one, kind, amount, clean, truth, sigma, rng)
            ours = suspicion(one, noisy(one, signals, level, rng), sigma)
            if kind == "corrupted volume":
                ideal, ideal_area = any_average(one, truth, amount, rng)
            elif kind == "more noise":
                freedom = max(len(one.acquisition) - len(model.names), 1)
                limit = chi2.ppf(1 - FALSE_ALARMS, freedom)
                ideal = chi2.sf(limit / amount**2, freedom)
                ideal_area = area(
                    chi2.rvs(freedom, size=n, random_state=0), chi2.rvs(freedom, size=n, random_state=1) * amount**2
                )
            else:
                apart = beyond(one, signals[:1000], snr)
                ideal = norm.sf(norm.ppf(1 - FALSE_ALARMS) - apart).mean()
                ideal_area = norm.cdf(apart / np.sqrt(2)).mean()
            limit = np.quantile(null, 1 - FALSE_ALARMS)
            found.setdefault(kind, []).append(
                Test(float(np.mean(ours > limit)), float(ideal), area(null, ours), float(ideal_area))
            )
    return found


def altered(
    one: Subject, kind: str, amount: float, clean: Array, truth: Array, sigma: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Signals and noise levels with something wrong."""
    b, weights = one.acquisition.b_values / 1000, one.acquisition.weights
    if kind == "third compartment":
        return (1 - amount) * clean + amount * np.exp(-3 * b), sigma
    if kind == "dot":
        return (1 - amount) * clean + amount, sigma
    if kind == "corrupted volume":
        shifted, rows = clean.copy(), np.arange(len(clean))
        which = rng.choice(np.flatnonzero(b > 0), len(clean))
        shifted[rows, which] += amount * sigma / np.sqrt(weights[which])
        return shifted, sigma
    if kind == "more noise":
        return clean, amount * sigma
    other = np.where(b == b.max(), (1 + amount) * b, b) * 1000
    moved = Acquisition(other, counts=weights, n_directions=one.acquisition.n_directions)
    return one.estimator.model.signal(one.space.with_scale(truth), moved), sigma


def suspicion(one: Subject, signals: Array, sigma: Array) -> Array:
    """How suspicious signals are: misfit, and where it is known the distance from the training, the larger of both."""
    found = looked(one, signals, sigma)
    score = np.nan_to_num(found.expected.misfit, nan=-np.inf)
    domain = getattr(one.estimator, "domain", None)
    if domain is None:
        return score
    model = one.estimator.model
    features = Features(model, one.acquisition)
    s0 = found.parameters[:, model.scale_index]
    snr = np.fmax(s0, 1e-9) / sigma
    far = domain.distances(features(signals) * np.sqrt(features.counts), snr)
    limit = np.interp(np.log(snr), np.log(domain.bands), domain.limits)
    return np.maximum(score, norm.ppf(0.99) + far - limit)  # a distance at its limit has a probability of 1 %


def beyond(one: Subject, signals: Array, snr: float) -> Array:
    """How far signals without noise lie from any of the model, in standard deviations of the noise."""
    model = one.estimator.model
    estimate = LeastSquares(model).estimate(signals, one.acquisition, np.full(len(signals), 1e-3))
    nearest = model.signal(estimate.points, one.acquisition)
    return np.asarray(np.linalg.norm((signals - nearest) * np.sqrt(one.acquisition.weights), axis=1) * snr)


def any_average(one: Subject, truth: Array, amount: float, rng: np.random.Generator) -> tuple[float, float]:
    """Power and area of the likelihood-ratio test for one shifted average, whichever it is; the model linearised.

    It is the largest residual over its standard deviation, which is smaller where the average decides the fit.
    """
    model, truth = one.estimator.model, one.space.with_scale(truth[:2000])
    weights, signal = np.sqrt(one.acquisition.weights), model.signal(truth, one.acquisition)
    steps = 1e-5 * np.maximum(np.abs(truth), 0.01)
    slopes = [
        (model.signal(truth + steps * unit, one.acquisition) - signal) / steps[:, [j]] * weights
        for j, unit in enumerate(np.eye(truth.shape[1]))
    ]
    q = np.linalg.qr(np.stack(slopes, axis=2))[0]
    left = np.eye(len(weights)) - q @ q.transpose(0, 2, 1)  # what the fit leaves of a signal
    share = np.einsum("nii->ni", left)
    largest = []
    for shift in (0.0, amount):
        noise = rng.standard_normal((10, *signal.shape))
        which = rng.choice(np.flatnonzero(one.acquisition.b_values > 0), noise.shape[:2])[..., None]
        np.put_along_axis(noise, which, np.take_along_axis(noise, which, 2) + shift, 2)
        residual = np.einsum("nij,rnj->rni", left, noise)
        known = np.sqrt(np.maximum(share, 1e-9))
        largest.append(np.abs(np.where(share > 0.02, residual / known, 0)).max(axis=2).ravel())
    limit = np.quantile(largest[0], 1 - FALSE_ALARMS)
    return float(np.mean(largest[1] > limit)), area(*largest)


def area(null: Array, other: Array) -> float:
    """Area under the curve of hits over false alarms."""
    ranks = rankdata(np.concatenate([null, other]))[len(null) :]
    return float((ranks.sum() / len(other) - (len(other) + 1) / 2) / len(null))


@styled
def draw_power(found: dict[tuple[str, str, float], dict[str, list[Test]]], path: Path) -> Path:
    """A column for each thing that may be wrong, a row for each model and estimator; SNR 25."""
    shown = {key[:2]: tests for key, tests in found.items() if key[2] == 25}
    figure = page(height=1.9 * len(shown) + 0.5, width=12)
    panels = figure.subplots(len(shown), len(AMOUNTS), squeeze=False, sharey=True)
    for line, ((model, name), tests) in zip(panels, shown.items(), strict=True):
        for panel, (kind, amounts) in zip(line, AMOUNTS.items(), strict=True):
            panel.plot(
                amounts,
                [t.ideal for t in tests[kind]],
                color=INK,
                linestyle="--",
                marker="o",
                markersize=3,
                label="ideal",
            )
            panel.plot(amounts, [t.power for t in tests[kind]], color=ACCENT, marker="o", markersize=3, label="bidsfit")
            panel.axhline(FALSE_ALARMS, color=WARM, linewidth=0.7)
            panel.set(ylim=(0, 1.03))
            if panel in panels[-1]:
                panel.set_xlabel(WORDS[kind])
        line[0].set_ylabel(f"{model}, {name}\npower")
    panels[0, 0].legend()
    return save(figure, path)


def foreign(arguments: Namespace) -> None:
    """Tissue that a network was not trained for: domain and misfit beside the ratio of the two densities of signals."""
    if "smt2" not in arguments.models:
        return
    print(
        "Foreign tissue (vcyl .4 to .8, lambda .3 to .8 um²/ms, where the healthy have none) in the eyes of a network "
        "trained on simulated healthy participants; the ideal test knows both distributions of the signals.\n"
    )
    bench, rows = laboratory(), []
    for snr in (5.0, 25.0):
        place = setting("smt2", snr)
        rng = np.random.default_rng([SEED, 5])
        one = lesion_subject(bench, "net-healthy", place)
        healthy = bench.pools["smt2", "healthy"].sample(arguments.voxels + 4096, rng)
        low, high = np.array([0.4, 0.3]), np.array([0.8, 0.8])
        strange = rng.uniform(low, high, (arguments.voxels + 4096, 2))
        sigma = np.full(arguments.voxels, 1 / snr)
        signals = [place.simulator.measure(truth[4096:], rng) for truth in (healthy, strange)]
        null, ours = (suspicion(one, part, sigma) for part in signals)
        clean = [place.simulator.measure(t[:4096], rng, sigma=np.zeros(4096)) for t in (healthy, strange)]
        scale = np.sqrt(place.acquisition.weights) * snr
        scale[0] = 0  # S0 has no noise

        def ratio(part: Array, clean: list[Array] = clean, scale: Array = scale) -> Array:
            near = [logsumexp(-(((part * scale)[:, None] - (c * scale)[None]) ** 2).sum(-1) / 2, axis=1) for c in clean]
            return np.asarray(near[1] - near[0])

        best = [np.concatenate([ratio(rows_) for rows_ in np.array_split(part, 40)]) for part in signals]
        powers_ = [np.mean(b > np.quantile(a, 1 - FALSE_ALARMS)) for a, b in ((null, ours), best)]
        rows.append(
            [f"SNR {snr:g}", f"{powers_[0]:.2f} / {powers_[1]:.2f}", f"{area(null, ours):.3f} / {area(*best):.3f}"]
        )
    print(table(["net-healthy", "power / ideal", "area / ideal"], rows))


# Lesions

#: Every kind of estimator of the paper.
LESION_ESTIMATORS = ("lsq", "net-uniform", "net-healthy", "net-mixed", "net-wm", "forest-uniform", "forest-healthy")
#: Differences from white matter below this share of the bounds are no contrast.
LEAST_CONTRAST = 0.02


@cache
def laboratory() -> Bench:
    """Quickly trained estimators of the paper, with pools of two simulated participants."""
    return bench_of(Options(cache_folder() / "benchmarks", quick=True))


def lesion_subject(bench: Bench, name: str, place: Setting) -> Subject:
    """An estimator of the paper; the performance of one that was not trained is simulated with the paper's noise."""
    estimator = bench.estimator(name, place)
    stored: Performance | None = getattr(estimator, "performance", None)
    if stored is None:
        noise = Noise(np.inf, place.noise.kind, place.noise.lowest)
        simulator = Simulator(truths_of(space_of(estimator)), place.acquisition, noise)
        stored = simulate(estimates_of(estimator, place.acquisition), simulator, size=simulated.LIGHT)
    return Subject(estimator, place.acquisition, stored)


def lesions(arguments: Namespace) -> None:
    """What is left of an abnormality in the map, and whether a flag says so."""
    patient = simulated_patient(ParameterSpace(models.get("smt2")), lesion="abnormality-3", seed=0)
    white = {name: float(np.median(values[patient.tissue["WM"]])) for name, values in patient.truth.items()}
    print(
        f"White matter has vcyl {white['vcyl']:.3f} and lambda {white['lambda']:.3f} µm²/ms. Bias and SD over "
        f"{arguments.voxels:,} noise realisations; survives: the difference of the mean estimates from those of white "
        "matter over the true one; response: the smaller one of both parameters. Flags: share of the realisations. "
        "Wanted: flagged in 90 % where |bias| is above half the SD or less than half of the contrast survives (yes in "
        "the column `needs a flag`).\n"
    )
    bench = laboratory()
    header = ["estimator, abnormality", "bias vcyl", "bias lambda", "SD vcyl", "SD lambda", "survives vcyl"]
    header += [
        "survives lambda",
        "response",
        "needs a flag",
        "flagged",
        *(str(flag.name).lower() for flag in LESION_FLAGS),
    ]
    cases = [(name, setting("smt2", snr)) for snr in (5.0, 25.0) for name in LESION_ESTIMATORS]
    show(header, (row for case in cases for row in lesion_rows(bench, *case, white, arguments)))
    print(f"Figure: {draw_lesion(bench, white, figure_folder(arguments) / 'trust-lesion.png')}\n")


@styled
def draw_lesion(bench: Bench, white: dict[str, float], path: Path) -> Path:
    """Abnormality 3 as a disc in white matter at SNR 5: maps of lambda, and flags that say something of the errors."""
    place, names, size = setting("smt2", 5.0), ("lsq", "net-uniform", "net-healthy"), 48
    x, y = np.mgrid[:size, :size] - (size - 1) / 2
    inside = np.hypot(x, y).ravel() < size / 4
    normal = [white[name] for name in place.space.names]
    truth = np.where(inside[:, None], ABNORMALITIES["3"], normal)
    rng = np.random.default_rng(SEED)
    signals, sigma = place.simulator.measure(truth, rng), np.full(size**2, 0.2)
    many = [place.simulator.measure(np.tile(point, (20_000, 1)), rng) for point in (ABNORMALITIES["3"], normal)]
    figure = page(height=5.6, width=10)
    panels = figure.subplots(2, len(names) + 1)
    limits = {"vmin": normal[1] - 0.8, "vmax": normal[1] + 0.8, "cmap": "gray"}
    shown = panels[0, 0].imshow(truth[:, 1].reshape(size, size), **limits)
    panels[0, 0].set_title("Truth")
    panels[1, 0].remove()
    for name, (above, below) in zip(names, panels[:, 1:].T, strict=True):
        one = lesion_subject(bench, name, place)
        found = looked(one, signals, sigma)
        values, flagged = found.parameters[:, 2], (found.flags & sum(LESION_FLAGS)) > 0
        there, beside = (estimated(one, part, np.full(20_000, 0.2))[:, 2].mean() for part in many)
        survives = (there - beside) / (ABNORMALITIES["3"][1] - normal[1])
        above.imshow(values.reshape(size, size), **limits)
        above.set_title(f"{name}\n{100 * survives:.0f} % survives, SD {values[inside].std():.2f}", fontsize=10)
        below.imshow(flagged.reshape(size, size), vmin=0, vmax=1, cmap="Reds")
        below.set_title(f"Flags: {100 * flagged[inside].mean():.0f} % of the lesion", fontsize=10)
    for panel in panels[:, 1:].flat:
        panel.set(xticks=[], yticks=[])
    panels[0, 0].set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=panels[0].tolist(), label="λ (µm²/ms)", shrink=0.8)
    return save(figure, path)


def lesion_rows(
    bench: Bench, name: str, place: Setting, white: dict[str, float], arguments: Namespace
) -> Iterator[list[str]]:
    """Rows of an estimator, one an abnormality."""
    one = lesion_subject(bench, name, place)
    for label, point in ABNORMALITIES.items():
        cells = lesion_cells(one, place, np.array(point), white, arguments.voxels)
        yield [f"SNR {place.noise.snr:g}, {name}, {label}", *cells]


#: Flags that say something of the errors; of the others a low SNR is known beforehand.
LESION_FLAGS = (Flag.MISFIT, Flag.OUTSIDE_TRAINING, Flag.AT_BOUND, Flag.UNDETERMINED, Flag.LOW_RESPONSE, Flag.BIASED)


def lesion_cells(one: Subject, place: Setting, point: Array, white: dict[str, float], n: int) -> list[str]:
    """Errors, contrast and flags of one abnormality."""
    rng = np.random.default_rng([SEED, 6])
    normal = np.array([white[name] for name in place.space.names])
    sigma = np.full(n, 1 / place.noise.snr)
    there, beside = (place.simulator.measure(np.tile(truth, (n, 1)), rng) for truth in (point, normal))
    found = looked(one, there, sigma)
    values, others = found.parameters[:, 1:], estimated(one, beside, sigma)[:, 1:]
    bias, sd = values.mean(axis=0) - point, values.std(axis=0)
    true = point - normal
    counts = np.abs(true) > LEAST_CONTRAST * place.space.span
    survives = (values.mean(axis=0) - others.mean(axis=0)) / np.where(counts, true, np.nan)
    needs = np.any(np.abs(bias) > sd / 2) or np.any(survives[counts] < 0.5)
    raised = [(found.flags & flag > 0).mean() for flag in LESION_FLAGS]
    response = min(response_at(one, place, point, j, n) for j in range(len(point)))
    any_raised = (found.flags & sum(LESION_FLAGS) > 0).mean()
    return [
        *(f"{value:+.3f}" for value in bias),
        *(f"{value:.3f}" for value in sd),
        *(f"{100 * share:.0f} %" if known else "" for share, known in zip(survives, counts, strict=True)),
        f"{response:.2f}",
        "yes" if needs else "",
        f"{100 * any_raised:.0f} %",
        *(f"{100 * share:.0f} %" for share in raised),
    ]


def response_at(one: Subject, place: Setting, point: Array, j: int, n: int) -> float:
    """Change of the mean estimate of a parameter per change of its truth: a tenth of the bounds, the same noise."""
    low, high = (np.clip(point[j] + side * place.space.span[j] / 10, *place.space.bounds[j]) for side in (-0.5, 0.5))
    means = []
    for value in (low, high):
        truth, rng = np.tile(point, (n, 1)), np.random.default_rng([SEED, 7])
        truth[:, j] = value
        signals = place.simulator.measure(truth, rng)
        means.append(estimated(one, signals, np.full(n, 1 / place.noise.snr))[:, 1 + j].mean())
    return float((means[1] - means[0]) / (high - low))


SECTIONS: dict[str, Callable[[Namespace], None]] = {
    "reliability": reliability,
    "surroundings": surroundings,
    "intervals": intervals,
    "water": water,
    "power": power,
    "lesions": lesions,
}


if __name__ == "__main__":
    main()
