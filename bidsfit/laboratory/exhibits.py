"""Kinds of figures of papers: each draws one picture of a run of `bidsfit.laboratory.paper` and writes its numbers.

The numbers are a CSV file with the name of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.evaluation.experiments import Evaluation, Setting, sinks, tissue_errors, true_points
from bidsfit.laboratory.bench import setting_in_words
from bidsfit.laboratory.evaluation import box_groups
from bidsfit.laboratory.gallery import axes_of, draw_sd
from bidsfit.laboratory.paper import Reproduction
from bidsfit.laboratory.patients import PatientSlice, draw_differences, draw_lesion, estimated_maps, simulated_patient
from bidsfit.models.signal_model import SignalModel
from bidsfit.reports.boxes import PERCENTILES, Case, plot_boxes
from bidsfit.reports.contrasts import Contrast, plot_contrasts
from bidsfit.reports.learning import plot_depths, plot_learning
from bidsfit.reports.spaces import BiasArrows, Density, plot_bias, plot_distributions
from bidsfit.training.bundle import read_bundle

#: Noise realisations of every truth of a grid and of every box, those of a contrast, and samples of a distribution.
REPEATS, AT_POINTS, SAMPLES = 10_000, 20_000, 100_000
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


def evaluated(run: Reproduction, entries: Sequence[Entry]) -> dict[str, Evaluation]:
    """Bias and spread over the grid of true parameters, by label."""
    seed, repeats = run.bench.seed, run.repeats(REPEATS)
    return {
        entry.label: replace(run.bench, seed=seed + entry.seed).evaluate(
            entry.estimator, entry.setting, true_points(entry.setting.space), repeats=repeats, seed=seed
        )
        for entry in entries
    }


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
        groups = box_groups(run.bench, setting, list(labels), truth, run.repeats(REPEATS))
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
    run.gallery.draw(name, "Depth of networks", caption, plot_depths, depths, drawn, axes_of(entries[0].setting.space))
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
