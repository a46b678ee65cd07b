"""Kinds of figures of papers: each draws one picture of a run of `bidsfit.laboratory.paper` and writes its numbers.

The numbers are a CSV file with the name of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.evaluation.experiments import Evaluation, Setting, sinks, tissue_errors, true_points
from bidsfit.laboratory.bench import setting_in_words
from bidsfit.laboratory.evaluation import (
    NETWORK_VARIATION,
    QUANTITIES,
    RELATIVE,
    between_trainings,
    box_groups,
    course_of,
    draw_pairs,
    mean_numbers,
)
from bidsfit.laboratory.gallery import axes_of, draw_sd
from bidsfit.laboratory.paper import Reproduction
from bidsfit.laboratory.patients import PatientSlice, draw_differences, draw_lesion, estimated_maps, simulated_patient
from bidsfit.models.signal_model import SignalModel
from bidsfit.reports.boxes import PERCENTILES, Case, plot_boxes
from bidsfit.reports.contrasts import Contrast, plot_contrasts
from bidsfit.reports.errors import Course, Section, plot_courses, plot_sections
from bidsfit.reports.learning import plot_choices, plot_learning
from bidsfit.reports.spaces import BiasArrows, Density, plot_bias, plot_distributions
from bidsfit.simulation.distributions import Distribution
from bidsfit.training.bundle import read_bundle

#: Noise realisations of a contrast, samples of a distribution that is drawn, and of one that estimators are tested on.
AT_POINTS, SAMPLES, TESTED = 20_000, 100_000, 1_000
#: Differences from the usual tissue below this share of the bounds are no contrast.
LEAST_CONTRAST = 0.02

Points = Mapping[str, tuple[float, ...]]
NOWHERE: Points = MappingProxyType({})


@dataclass(frozen=True)
class Entry:
    """An estimator in a setting.

    Parameters
    ----------
    label : str
        Name in the paper; those of one figure differ.
    estimator : str
        Name in the package.
    setting : Setting
    seed : int
        Added to the seed of the training, for another initialisation.
    """

    label: str
    estimator: str
    setting: Setting
    seed: int = 0


def evaluated(
    run: Reproduction, entries: Sequence[Entry], truth: NDArray[np.float64] | None = None
) -> dict[str, Evaluation]:
    """Bias and spread at true parameters, shape (n, n_parameters), or over the grid of the paper, by label."""
    return {entry.label: _evaluated(run, entry, truth) for entry in entries}


def _evaluated(run: Reproduction, entry: Entry, truth: NDArray[np.float64] | None = None) -> Evaluation:
    seed = run.bench.seed
    points = true_points(entry.setting.space, run.points) if truth is None else truth
    bench = replace(run.bench, seed=seed + entry.seed)
    return bench.evaluate(entry.estimator, entry.setting, points, repeats=run.repeats, seed=seed)


def average(run: Reproduction, model: SignalModel, tissue: str) -> NDArray[np.float64]:
    """Median of the parameters of a pool ("wm", "gm"), shape (n_parameters,)."""
    pooled: Any = run.bench.pools[model.name, tissue]
    return np.asarray(np.median(pooled.samples, axis=0), dtype=float)


def densities(
    run: Reproduction, name: str, *, setting: Setting, distributions: Mapping[str, str], points: Points = NOWHERE
) -> None:
    """Densities of training distributions, by title, of what an estimator is trained on; with points and tissues."""
    found = {
        title: run.bench.training_samples(estimator, setting, SAMPLES) for title, estimator in distributions.items()
    }
    samples = {title: values for title, values in found.items() if values is not None}
    marks = {label: (point[0], point[1]) for label, point in points.items()}
    for tissue in ("WM", "GM"):
        x, y = average(run, setting.space.model, tissue.lower())
        marks[tissue] = float(x), float(y)
    first, second = axes_of(setting.space).values()
    caption = "What estimators are trained on. Dots: abnormalities (numbers), and the median of white and grey matter."
    panels = [Density(title, values) for title, values in samples.items()]
    run.gallery.draw(name, "Training distributions", caption, plot_distributions, panels, (first, second), marks)
    names = setting.space.names
    columns = ["distribution", *(f"{p}_{q}" for p in names for q in ("mean", "sd", *(f"p{k}" for k in PERCENTILES)))]
    rows = [
        [title, *(x for v in values.T for x in (v.mean(), v.std(), *np.percentile(v, PERCENTILES)))]
        for title, values in samples.items()
    ]
    run.gallery.table(name, columns, rows)


def quivers(
    run: Reproduction,
    name: str,
    *,
    entries: Sequence[Entry],
    points: Points = NOWHERE,
    thirds: Sequence[float] = (),
    columns: int = 3,
) -> None:
    """Arrows from the truth to the mean estimate.

    With three parameters they lie in the plane of the first two, in one row for each of ``thirds``, values of the third
    parameter, and the colour is its bias.
    """
    found = evaluated(run, entries)
    space = entries[0].setting.space
    axes = list(axes_of(space).values())
    panels = []
    for third in thirds or (None,):
        for entry in entries:
            one = found[entry.label]
            if third is None:
                training = run.bench.training_samples(entry.estimator, entry.setting)
                drawn = sinks(one.truth, one.mean, space)
                panels.append(BiasArrows(entry.label, one.truth, one.mean, training, drawn))
            else:
                here = np.isclose(one.truth[:, 2], third)
                title = f"{entry.label}, {axes[2].label} = {third:g}"
                truth, mean, bias = one.truth[here, :2], one.mean[here, :2], one.bias[here, 2]
                panels.append(BiasArrows(title, truth, mean, None, np.empty((0, 2)), bias))
    caption = (
        f"Arrows lead from the true parameters to the mean estimate; their colour is the bias of {axes[2].label}."
        if thirds
        else "Arrows lead from the true parameters to the mean estimate; contours enclose the middle 50 % and 90 % of "
        "the training distribution. In a sink, the estimates of many truths gather."
    )
    marks = {label: (point[0], point[1]) for label, point in points.items()}
    scale = f"bias of {axes[2].words}" if thirds else ""
    options: dict[str, Any] = {"columns": columns, "scale": scale}
    run.gallery.draw(name, "Bias", caption, plot_bias, panels, (axes[0], axes[1]), marks, **options)
    write_numbers(run, name, entries, found)


def spread(run: Reproduction, name: str, *, entries: Sequence[Entry]) -> None:
    """Standard deviation over the space of true parameters, of entries of one setting."""
    found = evaluated(run, entries)
    draw_sd(run.gallery, name, f"Standard deviation, {setting_in_words(entries[0].setting)}", entries[0].setting, found)
    write_numbers(run, name, entries, found)


def write_numbers(run: Reproduction, name: str, entries: Sequence[Entry], found: Mapping[str, Evaluation]) -> None:
    """Write truth, mean, standard deviation and error of every estimator at every point."""
    names = entries[0].setting.space.names
    columns = ["estimator", *(f"{quantity}_{p}" for quantity in ("true", "mean", "sd", "rmse") for p in names)]
    rows = (
        [label, *line] for label, one in found.items() for line in np.hstack([one.truth, one.mean, one.sd, one.rmse])
    )
    run.gallery.table(name, columns, rows)


def boxes(run: Reproduction, name: str, *, entries: Sequence[Entry], points: Points) -> None:
    """Box plots of the estimates at points, named "Abnormality <key>", of entries of one setting."""
    setting = entries[0].setting
    usual, labels = average(run, setting.space.model, "wm"), {entry.estimator: entry.label for entry in entries}
    cases, rows = [], []
    for key, point in points.items():
        truth = np.array(point)
        groups = box_groups(run.bench, setting, list(labels), truth, run.repeats)
        shown = [replace(group, name=labels[estimator]) for estimator, group in groups]
        cases.append(Case(f"Abnormality {key}", truth, shown, usual))
        for group in shown:
            for j, parameter in enumerate(setting.space.names):
                quantiles = np.nanpercentile(group.estimates[:, j], PERCENTILES)
                rows.append([key, parameter, group.name, truth[j], usual[j], *quantiles, group.cohen_d[j]])
    columns = ("abnormality", "parameter", "estimator", "truth", "white_matter", *(f"p{k}" for k in PERCENTILES), "d")
    caption = (
        "Estimates of the abnormalities over the noise, and above each box Cohen's d between them and the noised "
        "truth: the truth with the scatter of the Cramér-Rao bound, as an efficient estimator without bias has it."
    )
    words = setting_in_words(setting)
    options = {"subtitle": words, "usual": "median of the fits of white matter"}
    axes = tuple(axes_of(setting.space).values())
    run.gallery.draw(name, f"Abnormalities, {words}", caption, plot_boxes, cases, axes, **options)
    run.gallery.table(name, columns, rows)


@dataclass(frozen=True)
class Someone:
    """A simulated participant who is in no pool: the one after ``others``, healthy or with a lesion."""

    others: int
    lesion: str | None = None

    def slice(self, run: Reproduction, setting: Setting) -> PatientSlice:
        """The slice with the largest part of the lesion, or of its place."""
        lesion = self.lesion
        return simulated_patient(
            setting.space, lesion=lesion, healthy=lesion is None, seed=run.bench.seed, others=self.others
        )


def maps(run: Reproduction, name: str, *, entries: Sequence[Entry], who: Someone, window: float | None = None) -> None:
    """Maps of a participant, with the part around the lesion; ``window`` as of `draw_lesion`."""
    setting, labels = entries[0].setting, {entry.estimator: entry.label for entry in entries}
    patient = who.slice(run, setting)
    title = f"Maps, {setting_in_words(setting)}"
    draw_lesion(run.bench, run.gallery, name, title, setting, patient, list(labels), labels.__getitem__, window)
    rows = []
    for estimator, label in {"": "truth", **labels}.items():
        found = estimated_maps(run.bench, setting, patient, estimator) if estimator else patient.truth
        for tissue, region in patient.tissue.items():
            for parameter, values in found.items():
                if region.any():
                    rows.append([label, parameter, tissue, np.nanmedian(values[region]), np.nanstd(values[region])])
    run.gallery.table(name, ("estimator", "parameter", "tissue", "median", "sd"), rows)


def differences(run: Reproduction, name: str, *, reference: Entry, entries: Sequence[Entry], who: Someone) -> None:
    """Differences of the maps of a participant from those of a reference, with the mean absolute error in tissues."""
    setting = reference.setting
    labels = {entry.estimator: entry.label for entry in (reference, *entries)}
    patient = who.slice(run, setting)
    title = f"Differences of maps, {setting_in_words(setting)}"
    draw_differences(run.bench, run.gallery, name, title, setting, patient, list(labels), labels.__getitem__)
    maps = {estimator: estimated_maps(run.bench, setting, patient, estimator) for estimator in labels}
    rows = [
        [labels[entry.estimator], parameter, tissue, error]
        for entry in entries
        for parameter, errors in tissue_errors(maps[entry.estimator], maps[reference.estimator], patient.tissue).items()
        for tissue, error in errors.items()
    ]
    run.gallery.table(name, ("estimator", "parameter", "tissue", "mae"), rows)


def learning(run: Reproduction, name: str, *, entry: Entry) -> None:
    """Loss of a network during the training."""
    path = run.bench.obtain(entry.estimator, entry.setting)
    curve = read_bundle(path, machine=False).curve
    steps, training, validation = curve.values()
    best = run.bench.training_facts(entry.estimator, entry.setting)["Training"]["BestStep"]
    caption = "Loss of the training and of the validation samples; every step draws new samples."
    label = "mean squared error"
    run.gallery.draw(name, entry.label, caption, plot_learning, steps, training, validation, best, label=label)
    run.gallery.table(name, list(curve), np.stack(list(curve.values()), axis=1).tolist())


def layers(run: Reproduction, name: str, *, entries: Sequence[Entry], depths: Sequence[int]) -> None:
    """Root mean square error, over the grid of true parameters, of networks with other numbers of hidden layers."""
    rows, drawn = [], {}
    names = entries[0].setting.space.names
    for entry in entries:
        recipe = run.bench.task(entry.estimator, entry.setting).recipe
        errors = []
        for depth in depths:
            perceptron: Any = recipe.architecture
            other = replace(recipe, architecture=replace(perceptron, hidden_layers=depth))
            recipes = dict.fromkeys(("network", "network-noise-free"), other)
            found = evaluated(replace(run, bench=replace(run.bench, recipes=recipes)), [entry])[entry.label]
            errors.append(found.rmse.mean(axis=0))
            rows.append([entry.label, depth, *errors[-1]])
        drawn[entry.label] = dict(zip(names, np.transpose(errors), strict=True))
    caption = "Root mean square error, mean over the grid of true parameters, against the number of hidden layers."
    options = {"choice": "hidden layers", "errors": "RMSE"}
    axes = axes_of(entries[0].setting.space)
    run.gallery.draw(name, "Depth of networks", caption, plot_choices, depths, drawn, axes, **options)
    run.gallery.table(name, ("estimator", "hidden_layers", *(f"rmse_{p}" for p in names)), rows)


def contrasts(run: Reproduction, name: str, *, levels: Mapping[str, Sequence[Entry]], points: Points) -> None:
    """How much of the difference between a tissue and white matter each estimator leaves, at levels of noise.

    It is the difference of the mean estimates over that of the truths. Labels of entries are the same at all levels.
    """
    drawn, rows = [], []
    for level, entries in levels.items():
        left, error = {}, {}
        setting = entries[0].setting
        usual = average(run, setting.space.model, "wm")
        names = setting.space.names
        for entry in entries:
            places = [usual, *map(np.array, points.values())]
            found = [
                run.bench.estimate(
                    entry.estimator, setting, setting.measure(place[None], AT_POINTS, run.bench.seed + i)
                )
                for i, place in enumerate(places)
            ]
            means = np.array([np.nanmean(one, axis=0) for one in found])
            spread = np.array([np.nanstd(one, axis=0) for one in found]) / np.sqrt(AT_POINTS)
            true = np.array(places[1:]) - usual
            true[np.abs(true) < LEAST_CONTRAST * setting.space.span] = np.nan
            left[entry.label] = ((means[1:] - means[0]) / true).T
            error[entry.label] = (np.hypot(spread[1:], spread[0]) / np.abs(true)).T
            for j, parameter in enumerate(names):
                for i, key in enumerate(points):
                    numbers = (true[i, j], left[entry.label][j, i], error[entry.label][j, i])
                    rows.append([level, key, parameter, entry.label, *numbers])
        drawn.append(Contrast(level, left, error))
    columns = ("noise", "abnormality", "parameter", "estimator", "true_contrast", "left", "standard_error")
    caption = (
        "Difference between the mean estimates of an abnormality and of white matter (the median of the fits of white "
        "matter), as a share of the true difference. Differences below 2 % of the range of a parameter are left out."
    )
    parameters = [axis.label for axis in axes_of(setting.space).values()]
    tissues = [f"abnormality {key}" for key in points]
    run.gallery.draw(name, "What is left of the contrast", caption, plot_contrasts, drawn, parameters, tissues)
    run.gallery.table(name, columns, rows)


def courses(
    run: Reproduction,
    name: str,
    *,
    entries: Sequence[Entry],
    own: tuple[str, Mapping[str, Entry]] | None = None,
    tested: Distribution | None = None,
) -> None:
    """Bias, standard deviation and error against every true parameter: their means over the others.

    ``own`` is the title of a line that every parameter has from an entry of its own. Truths are those of the grid, or
    drawn from ``tested`` and put into bins.
    """
    space, seed = entries[0].setting.space, run.bench.seed
    truth = None if tested is None else tested.sample(TESTED, np.random.default_rng(seed))
    lines = {entry.label: dict.fromkeys(space.names, entry) for entry in entries}
    if own is not None:
        lines[own[0]] = dict(own[1])
    drawn: dict[str, dict[str, Course]] = {}
    rows, counts = [], {}
    for title, line in lines.items():
        drawn[title] = {}
        for j, parameter in enumerate(space.names):
            found = _evaluated(run, line[parameter], truth)
            course, counts[parameter] = course_of(found, space, j)
            drawn[title][parameter] = course
            numbers = zip(course.truth, *course.errors, counts[parameter].tolist(), strict=True)
            rows += [[title, parameter, *each] for each in numbers]
    caption = "Bias, standard deviation and root mean square error of every parameter against its true value: " + (
        "means over the other parameters, which have all values of a grid."
        if tested is None
        else "means of the truths in each bin, and below how many they are."
    )
    words = setting_in_words(entries[0].setting)
    options = {"counts": None if tested is None else counts}
    run.gallery.draw(name, f"Errors, {words}", caption, plot_courses, drawn, axes_of(space), **options)
    run.gallery.table(name, ("estimator", "parameter", "truth", "bias", "sd", "rmse", "truths"), rows)


def planes(run: Reproduction, name: str, *, entries: Sequence[Entry], shown: Sequence[tuple[str, str]] = ()) -> None:
    """Arrows from the truth to the mean estimate in planes of two parameters: means over the values of the others.

    A row for each entry, with the slopes of the mean estimates over the truths; by default all planes.
    """
    space = entries[0].setting.space
    axes, drawn, rows = axes_of(space), [], []
    for label, found in evaluated(run, entries).items():
        numbers = found.summary(space.names)
        for pair in shown or combinations(space.names, 2):
            where = [space.names.index(parameter) for parameter in pair]
            truth, inverse = np.unique(found.truth[:, where], axis=0, return_inverse=True)
            index = inverse.ravel()
            mean = np.stack([np.bincount(index, found.mean[:, j]) / np.bincount(index) for j in where], axis=1)
            for parameter, values in zip(pair, mean.T, strict=True):
                ends = [*axes[parameter].limits, *values.tolist()]
                axes[parameter] = replace(axes[parameter], limits=(min(ends), max(ends)))
            slopes = ", ".join(f"{axes[parameter].label} {numbers[f'slope_{parameter}']:.2f}" for parameter in pair)
            title = f"{label}\nslopes: {slopes}"
            drawn.append((pair, BiasArrows(title, truth, mean, None, np.empty((0, 2)))))
            rows += [[label, *pair, *t, *m] for t, m in zip(truth, mean, strict=True)]
    panels, limits = [panel for _, panel in drawn], [(axes[first], axes[second]) for (first, second), _ in drawn]
    caption = (
        "Arrows lead from the true parameters to the mean estimate, over the noise and the values of the parameters "
        "that are not shown. A slope is that of the mean estimate over the truth: 1 where differences between truths "
        "show whole, 0 where the estimate is always the same."
    )
    columns = min(len(entries) if len(shown) == 1 else len(drawn) // len(entries), 3)
    run.gallery.draw(name, "Mapping of the truth", caption, plot_bias, panels, limits, {}, columns=columns)
    names = ("estimator", "first", "second", "true_first", "true_second", "mean_first", "mean_second")
    run.gallery.table(name, names, rows)


def pairs(run: Reproduction, name: str, *, first: Entry, second: Entry) -> None:
    """Densities of the errors of two entries over the grid of truths, one against the other."""
    found = evaluated(run, [first, second])
    draw_pairs(run.gallery, name, first.setting.space, found)
    write_numbers(run, name, [first, second], found)


def sections(
    run: Reproduction, name: str, *, first: Entry, second: Entry, parameter: str, places: tuple[int, int]
) -> None:
    """Errors of one of three parameters by two entries: along it, and differences where it has two of its values."""
    found, space = evaluated(run, [first, second]), first.setting.space
    axes, j = axes_of(space), space.names.index(parameter)
    others = [k for k in range(len(space.names)) if k != j]
    one, other = found.values()
    differences = [(a - b)[:, j] for a, b in zip(one[2:5], other[2:5], strict=True)]
    levels, cuts = np.unique(one.truth[:, j]), []
    for level in levels[list(places)]:
        here = one.truth[:, j] == level
        cuts.append(Section(float(level), one.truth[here][:, others], [values[here] for values in differences]))
    lines = {label: course_of(each, space, j)[0] for label, each in found.items()}
    caption = (
        f"Errors of {parameter}: in the middle against its true value (means over the other parameters), and at two of "
        "these, marked by lines, the differences over the other parameters."
    )
    plane = tuple(axes[space.names[k]] for k in others)
    run.gallery.draw(name, "Differences", caption, plot_sections, lines, tuple(cuts), axes[parameter], plane)
    columns = (parameter, *(space.names[k] for k in others), "bias", "sd", "rmse")
    rows = [[c.level, *p, *d] for c in cuts for p, *d in zip(c.plane, *c.differences, strict=True)]
    run.gallery.table(name, columns, rows)


def choices(run: Reproduction, name: str, *, entries: Mapping[float, Entry], choice: str) -> None:
    """Mean errors over the grid against a choice of the training, by its value."""
    space = next(iter(entries.values())).setting.space
    found = evaluated(run, list(entries.values()))
    means = {value: found[entry.label].summary(space.names) for value, entry in entries.items()}
    titles = {"bias": "bias, without its sign", "sd": "standard deviation", "rmse": "root mean square error"}
    drawn = {
        title: {parameter: [one[f"{key}_{parameter}"] for one in means.values()] for parameter in space.names}
        for key, title in titles.items()
    }
    caption = f"Means over the grid of true parameters, against {choice}."
    options = {"choice": choice}
    run.gallery.draw(name, "Errors", caption, plot_choices, list(means), drawn, axes_of(space), **options)
    rows = [[v, p, *(one[f"{key}_{p}"] for key in titles)] for v, one in means.items() for p in space.names]
    run.gallery.table(name, ("value", "parameter", *titles), rows)


def averages(run: Reproduction, name: str, *, entries: Sequence[Entry]) -> None:
    """Table of means over the grid, a row for each entry and parameter, and one of rank correlations."""
    rows, correlations, quantities = [], [], (*QUANTITIES, *RELATIVE)
    for entry in entries:
        setting = entry.setting
        found = mean_numbers(setting, _evaluated(run, entry), run.repeats)
        first = (entry.label, setting.noise.snr)
        for parameter in setting.space.names:
            rows.append([*first, parameter, *(found[f"{quantity}_{parameter}"] for quantity in quantities)])
        rho = {key.removeprefix("rho_"): value for key, value in found.items() if key.startswith("rho_")}
        correlations.append([*first, *rho.values()])
    run.table(name, "Means over the grid of true parameters", ("estimator", "snr", "parameter", *quantities), rows)
    caption = "Rank correlation between estimates over the grid, without its sign"
    run.table(f"{name}-correlations", caption, ("estimator", "snr", *rho), correlations)


def variation(run: Reproduction, name: str, *, entries: Sequence[Entry]) -> None:
    """Table of how far three trainings from different seeds (two in a quick run) are apart, a row for each entry."""
    names, rows, trainings = entries[0].setting.space.names, [], 2 if run.quick else 3
    for entry in entries:
        truth = true_points(entry.setting.space, run.points)
        apart = between_trainings(run.bench, entry.estimator, entry.setting, truth, run.repeats, trainings)
        rows.append([entry.label, entry.setting.noise.snr, *apart.tolist()])
    run.table(name, f"{NETWORK_VARIATION}; {trainings} trainings", ("estimator", "snr", *names), rows)


@dataclass(frozen=True)
class Number:
    """A number of an entry, over the grid of true parameters.

    Parameters
    ----------
    entry : Entry
    quantity : {"bias", "course", "sd", "rmse", "slope"}
        Mean of the bias without its sign, standard deviation or error; slope of the mean estimate over the truth. Of
        "course", the bias is averaged over the other parameters before its sign is taken away.
    parameter : str
    between : (lowest, highest), optional
        True values of the parameter that count.
    """

    entry: Entry
    quantity: str
    parameter: str
    between: tuple[float, float] = (-np.inf, np.inf)

    def value(self, run: Reproduction) -> float:
        """Its value, from the bench of a run."""
        found, space = _evaluated(run, self.entry), self.entry.setting.space
        j, (low, high) = space.names.index(self.parameter), self.between
        here = (low <= found.truth[:, j]) & (found.truth[:, j] <= high)
        chosen = Evaluation(*(values[here] for values in found))
        if self.quantity == "course":
            return float(np.abs(course_of(chosen, space, j)[0].errors[0]).mean())
        return chosen.summary(space.names)[f"{self.quantity}_{self.parameter}"]


@dataclass(frozen=True)
class Claim:
    """A statement of a paper: that a number is below each of others.

    Parameters
    ----------
    text : str
    smallest : Number
    others : sequence of Number
    """

    text: str
    smallest: Number
    others: Sequence[Number]


def verdicts(run: Reproduction, name: str, *, claims: Sequence[Claim]) -> None:
    """Table of statements of a paper with our numbers, and whether they hold."""
    rows = []
    for claim in claims:
        least = claim.smallest
        value = least.value(run)
        other, label = min(
            (one.value(run), one.entry.label + f", {one.parameter}" * (one.parameter != least.parameter))
            for one in claim.others
        )
        about = (claim.text, least.entry.setting.noise.snr, least.quantity, least.parameter, least.entry.label)
        rows.append([*about, value, label, other, "holds" if value < other else "does not hold"])
    columns = ("claim", "snr", "quantity", "parameter", "smaller", "value", "larger", "other", "result")
    run.table(name, "Claims beside our numbers", columns, rows)
