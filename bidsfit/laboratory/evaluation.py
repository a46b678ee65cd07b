"""Comparison of estimators on simulated signals: tables, figures, and sections of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import protocol_in_words
from bidsfit.bids.units import FILE_UNITS, REPORT_UNITS
from bidsfit.evaluation.experiments import Evaluation, Setting, efficiency, floor, noised_truth, true_points
from bidsfit.exceptions import UsageError
from bidsfit.laboratory.bench import Bench
from bidsfit.laboratory.gallery import Gallery, axes_of, draw_bias, draw_maps, draw_sd
from bidsfit.laboratory.patients import SHAPE, draw_differences, draw_lesion, simulated_patient
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.tissue import RECIPES
from bidsfit.reports.errors import Course, plot_courses, plot_pairs
from bidsfit.reports.evaluation import Case, Group, plot_boxes
from bidsfit.reports.laboratory import LaboratorySection, Table
from bidsfit.trust.metrics import cohen_d, network_variation, rank_correlation

#: What is measured of every parameter, in its unit; and what has none.
QUANTITIES = {
    "rmse": "Root mean square error",
    "bias": "Bias, without its sign",
    "sd": "Standard deviation over the noise",
}
RELATIVE = {
    "nrmse": "Root mean square error relative to the mean truth",
    "slope": "Slope of the mean estimate over the truth (1: differences between truths show whole)",
    "bias2crb": "Squared bias relative to the squared Cramér-Rao bound",
    "variancecrb": "Variance relative to the squared Cramér-Rao bound (below 1: shrinkage)",
}

NETWORK_VARIATION = "CV_NET: standard deviation between trainings from different seeds, relative to the mean truth"

#: Different true values of a parameter that are shown one by one, and bins of more.
MOST_LEVELS, LEVELS = 50, 11
#: Estimators of which every two are compared at all truths.
MOST_PAIRED = 3
#: Parameters that fit beside each other in a figure.
MOST_COLUMNS = 6
#: Combinations that box plots show at most.
MOST_CASES = 4


def named_points(space: ParameterSpace, words: Iterable[Sequence[str]]) -> dict[str, NDArray[np.float64]]:
    """Parameter combinations from ``PARAMETER=VALUE`` words in the units of files.

    Raises
    ------
    UsageError
        If a parameter is missing, unknown or outside the space.
    """
    points: dict[str, NDArray[np.float64]] = {}
    for combination in words:
        values: dict[str, float] = {}
        for word in combination:
            name, _, number = word.partition("=")
            try:
                values[name] = float(number) / FILE_UNITS[space.model[name].unit].factor
            except (KeyError, ValueError) as error:
                raise UsageError(f"--at takes PARAMETER=VALUE of {', '.join(space.names)}; found {word!r}.") from error
        if set(values) != set(space.names):
            raise UsageError(f"--at needs each of {', '.join(space.names)} once; found {' '.join(combination)}.")
        point = np.array([values[name] for name in space.names])
        if not space.contains(point[None])[0]:
            raise UsageError(f"--at {' '.join(combination)} lies outside the bounds or constraints of the model.")
        points[" ".join(combination)] = point
    if len(points) > MOST_CASES:
        raise UsageError(f"--at may be given up to {MOST_CASES} times, found {len(points)}.")
    return points


def evaluate_estimators(
    bench: Bench,
    gallery: Gallery,
    setting: Setting,
    names: Sequence[str],
    *,
    points: int,
    repeats: int,
    trainings: int = 1,
    at: dict[str, NDArray[np.float64]],
    lesion: str | None = None,
    patient_shape: tuple[int, int, int] = SHAPE,
) -> list[LaboratorySection]:
    """Bias, standard deviation and error of estimators over the space, and box plots at named combinations.

    Parameters
    ----------
    gallery : Gallery
        Receives figures and CSV tables.
    points : int
        As of `true_points`.
    repeats : int
        Noise realisations per point.
    trainings : int
        From so many seeds every estimator that the bench trains is trained, to tell how far apart the results are.
    at : mapping of title to ndarray, shape (n_parameters,)
    lesion : str, optional
        Lesion of the simulated patient, if the model has a phantom; by default its first.
    patient_shape : tuple of int
        Voxels of the patient.
    """
    space = setting.space
    patient = None
    if space.model.name in RECIPES or lesion is not None:
        patient = simulated_patient(space, lesion=lesion, seed=bench.seed, shape=patient_shape)
    truth = true_points(space, points, bench.seed)
    found = {name: bench.evaluate(name, setting, truth, repeats=repeats, seed=bench.seed) for name in names}
    means = mean_tables(gallery, setting, found, repeats)
    taught = [name for name in names if bench.is_taught(name)]
    if trainings > 1 and taught:
        rows = [[name, *between_trainings(bench, name, setting, truth, repeats, trainings).tolist()] for name in taught]
        gallery.table("trainings", ["estimator", *space.names], rows)
        means.append(Table(f"{NETWORK_VARIATION}; {trainings} trainings", ["estimator", *space.names], rows))
    for name, evaluation in found.items():
        write_points(gallery, space, name, evaluation)
    if len(space.names) in (2, 3):
        training = {name: bench.training_samples(name, setting) for name in names}
        caption = "From the true parameters to the mean estimate."
        draw_bias(gallery, "bias", "Bias", caption, space, found, training, {})
        draw_sd(gallery, "sd", "Standard deviation", setting, found)
        draw_maps(gallery, "rmse", "Root mean square error", "Over the noise, at every truth.", space, found, "rmse")
    if len(space.names) <= MOST_COLUMNS:
        caption = "Means over the other parameters, against the true value of each."
        lines = {
            name: {p: course_of(one, space, j)[0] for j, p in enumerate(space.names)} for name, one in found.items()
        }
        gallery.draw("courses", "Errors along each parameter", caption, plot_courses, lines, axes_of(space))
        for first, second in combinations(names, 2) if len(names) <= MOST_PAIRED else ():
            draw_pairs(gallery, f"pairs_{first}_{second}", space, {name: found[name] for name in (first, second)})
    remark = ""
    if len(space.names) not in (2, 3):
        remark = (
            f"Maps of bias, standard deviation and error over the space are drawn of two or three parameters, and "
            f"{space.model.name} has {len(space.names)}. The files points_*.csv hold the numbers of all "
            f"{len(truth):,} combinations of true parameters."
        )
    if at:
        draw_boxes(bench, gallery, setting, names, at, repeats)
    if patient is not None:
        draw_lesion(bench, gallery, "lesion", "A lesion", setting, patient, names)
        if len(names) > 1:
            draw_differences(bench, gallery, "differences", "Differences between maps", setting, patient, names)
    return [
        LaboratorySection("Means over the space of true parameters", remark, tables=means),
        LaboratorySection("Figures", figures=tuple(gallery.figures)),
    ]


def course_of(found: Evaluation, space: ParameterSpace, j: int) -> tuple[Course, NDArray[np.int64]]:
    """Mean errors of parameter j at each of its true values, or in bins where these are many, and numbers of truths."""
    truth = found.truth[:, j]
    levels, index = np.unique(truth, return_inverse=True)
    if len(levels) > MOST_LEVELS:
        low, high = space.bounds[j]
        index = np.clip((truth - low) / (high - low) * LEVELS, 0, LEVELS - 1).astype(int)
        levels = low + (np.arange(LEVELS) + 0.5) * (high - low) / LEVELS
    counts = np.bincount(index, minlength=len(levels))
    with np.errstate(invalid="ignore"):
        means = [np.bincount(index, one[:, j], len(levels)) / counts for one in (found.bias, found.sd, found.rmse)]
    return Course(levels, means), counts


def draw_pairs(gallery: Gallery, name: str, space: ParameterSpace, evaluations: Mapping[str, Evaluation]) -> None:
    """Densities of the errors of two estimators over all truths, one against the other."""
    (first, one), (second, other) = evaluations.items()
    errors = {
        parameter: tuple([of.bias[:, j], of.sd[:, j], of.rmse[:, j]] for of in (one, other))
        for j, parameter in enumerate(space.names)
    }
    caption = "Errors at every combination of true parameters, by one estimator against those by the other."
    gallery.draw(name, f"{first} and {second}, all truths", caption, plot_pairs, first, second, errors, axes_of(space))


def between_trainings(
    bench: Bench, name: str, setting: Setting, truth: NDArray[np.float64], repeats: int, trainings: int
) -> NDArray[np.float64]:
    """CV_NET of an estimator, shape (n_parameters,): see `network_variation`.

    Seeds of the trainings are that of the bench and those after it; all see the same signals, the first realisation of
    the noise at every truth, shape (n, n_parameters).
    """
    benches = (replace(bench, seed=bench.seed + k) for k in range(trainings))
    found = [one.evaluate(name, setting, truth, repeats=repeats, seed=bench.seed).first for one in benches]
    return network_variation(np.stack(found), truth)


def mean_tables(gallery: Gallery, setting: Setting, found: dict[str, Evaluation], repeats: int) -> list[Table]:
    """Tables of means over the grid, one row per estimator: one CSV file, and one table per quantity for the page."""
    space, names = setting.space, setting.space.names
    summaries = {name: mean_numbers(setting, evaluation, repeats) for name, evaluation in found.items()}
    keys = list(next(iter(summaries.values())))
    gallery.table("means", ["estimator", *keys], [[name, *means.values()] for name, means in summaries.items()])

    def table(caption: str, columns: Iterable[str], chosen: Sequence[str]) -> Table:
        return Table(caption, ["estimator", *columns], [[e, *(m[key] for key in chosen)] for e, m in summaries.items()])

    tables = [
        table(
            caption,
            (_with_unit(space, name) if quantity in QUANTITIES else name for name in names),
            [f"{quantity}_{name}" for name in names],
        )
        for quantity, caption in (QUANTITIES | RELATIVE).items()
        if f"{quantity}_{names[0]}" in keys
    ]
    pairs = [key for key in keys if key.startswith("rho_")]
    if pairs:
        words = (" and ".join(key.split("_")[1:]) for key in pairs)
        tables.append(table("Rank correlation between estimates, without its sign", words, pairs))
    return tables


def mean_numbers(setting: Setting, evaluation: Evaluation, repeats: int) -> dict[str, float]:
    """`Evaluation.summary`, means of the errors relative to the bound where there is noise, and rank correlations."""
    names = setting.space.names
    found = evaluation.summary(names)
    if np.isfinite(setting.noise.snr) and repeats > 1:
        bound = floor(setting, evaluation.truth)
        relative = efficiency(evaluation, bound, repeats)
        for key, values in (("bias2crb", relative.bias), ("variancecrb", relative.variance)):
            means = np.mean(values, axis=0, where=np.isfinite(bound))
            found |= {f"{key}_{name}": float(mean) for name, mean in zip(names, means, strict=True)}
    if len(names) > 1:
        rho = rank_correlation(evaluation.first)
        found |= {f"rho_{names[i]}_{names[j]}": float(rho[i, j]) for i, j in combinations(range(len(names)), 2)}
    return found


def _with_unit(space: ParameterSpace, name: str) -> str:
    """A parameter with the unit of its numbers in tables."""
    unit = REPORT_UNITS[space.model[name].unit].name
    return f"{name} ({unit})" if unit else name


def in_words(setting: Setting, repeats: int) -> dict[str, str]:
    """Acquisition, noise and parameters as text, for the head of a page."""
    acquisition, noise, space = setting.acquisition, setting.noise, setting.space
    level = "none"
    if np.isfinite(noise.snr):
        level = f"SNR {noise.snr:g} (S0 / standard deviation of one measurement), {noise.kind.capitalize()}"
        level += "" if noise.lowest else ", none at the lowest b-value"
        level += f"; {repeats:,} realisations of each combination of parameters"
    bounds = zip(space.names, space.bounds, strict=True)
    ranges = [f"{_with_unit(space, name)} {low:g} to {high:g}" for name, (low, high) in bounds]
    return {
        "Protocol": protocol_in_words(acquisition),
        "Noise": level,
        "Parameters": ", ".join(ranges),
    }


def write_points(gallery: Gallery, space: ParameterSpace, name: str, evaluation: Evaluation) -> None:
    """Write all numbers of one estimator, one row per point."""
    quantities = [f"{quantity}_{p}" for quantity in ("mean", "bias", "sd", "rmse") for p in space.names]
    columns = [evaluation.truth, evaluation.mean, evaluation.bias, evaluation.sd, evaluation.rmse]
    gallery.table(f"points_{name}", [*space.names, *quantities], np.concatenate(columns, axis=1).tolist())


def box_groups(
    bench: Bench, setting: Setting, names: Sequence[str], point: NDArray[np.float64], repeats: int
) -> list[tuple[str, Group]]:
    """Estimates of one combination by every estimator, with Cohen's d against the noised truth."""
    expected = noised_truth(setting, point, repeats, bench.seed + 1)
    signals = setting.measure(point[None], repeats, bench.seed)
    groups = []
    for name in names:
        estimates = bench.estimate(name, setting, signals)
        effect = np.array([cohen_d(estimates[:, j], expected[:, j]) for j in range(point.size)])
        groups.append((name, Group(name, estimates, effect)))
    return groups


def draw_boxes(
    bench: Bench,
    gallery: Gallery,
    setting: Setting,
    names: Sequence[str],
    at: dict[str, NDArray[np.float64]],
    repeats: int,
) -> None:
    """Box plots at named combinations."""
    cases = [
        Case(title, point, [group for _, group in box_groups(bench, setting, names, point, repeats)])
        for title, point in at.items()
    ]
    caption = (
        "Estimates over the noise, and above each box Cohen's d between them and the noised truth: the truth with the "
        "scatter of the Cramér-Rao bound. Dashed: the truth."
    )
    gallery.draw("boxes", "Named combinations", caption, plot_boxes, cases, tuple(axes_of(setting.space).values()))
