"""What papers that are made again share."""

import csv
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.evaluation.experiments import Setting
from bidsfit.exceptions import UnknownNameError
from bidsfit.laboratory import PAPERS
from bidsfit.laboratory.bench import Bench
from bidsfit.laboratory.exhibits import AT_POINTS, Entry, contrasts
from bidsfit.laboratory.gallery import Gallery
from bidsfit.laboratory.paper import Exhibit, Options, Paper, Reproduction, reproduce
from bidsfit.models.space import ParameterSpace
from bidsfit.reports.laboratory import LaboratoryFigure
from bidsfit.simulation.simulator import Noise


def write(run, name):
    run.table(name, "Realisations", ("used",), [(run.repeats,), (replace(run, realisations=100).repeats,)])


def draw(run, name):
    run.gallery.figures.append(LaboratoryFigure(f"{name}.png", "A picture"))


PAPER = Paper(
    title="A paper",
    lead="It is short.",
    bench=lambda options: Bench(options.folder),
    tables={"1": Exhibit("Numbers of realisations.", {"A": write, "B": write})},
    figures={"S1": Exhibit("One picture.", {"": draw}), "contrast": Exhibit("Two pictures.", {"A": draw, "B": draw})},
)


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_paper_is_a_declaration(tmp_path):
    exhibits = PAPER.chosen(tables=["1"])
    page = reproduce(PAPER, Options(tmp_path, quick=True), exhibits, {"command": "bidsfit-lab reproduce"})
    text = page.read_text()
    for words in ("A paper", "It is short.", "A quick run", "Table 1", "Numbers of realisations."):
        assert words in text
    for letter in "AB":
        assert [row["used"] for row in read(tmp_path / f"table-1{letter}.csv")] == ["100", "50"]
    text = reproduce(PAPER, Options(tmp_path), PAPER.chosen(), {}).read_text()
    assert [text.count(f"<h3>{title}") for title in ("A picture", "A: A picture", "B: A picture")] == [1, 1, 1]
    assert [row["used"] for row in read(tmp_path / "table-1A.csv")] == ["10000", "100"]


def test_tables_and_figures_are_chosen_by_their_numbers():
    assert list(PAPER.chosen()) == ["table-1", "figure-S1", "figure-contrast"]
    assert list(PAPER.chosen(figures=["s1", "Contrast"])) == ["figure-S1", "figure-contrast"]
    with pytest.raises(UnknownNameError, match=r"table of the paper.*'2'.*Valid: 1"):
        PAPER.chosen(tables=["2"])
    with pytest.raises(UnknownNameError, match=r"figure of the paper.*'S2'.*Valid: S1, contrast"):
        PAPER.chosen(figures=["S2"])


@pytest.mark.parametrize("name", PAPERS.built_in)
def test_papers_of_the_package_are_found_by_name(name):
    assert isinstance(PAPERS.get(name), Paper)


def test_an_estimator_that_halves_every_difference_leaves_half_of_the_contrast(tmp_path):
    """And the standard error of the mean is that of the scatter that it was given."""
    usual, point, scatter = np.array([0.6, 1.9]), (0.4, 1.92), 0.1
    acquisition = Acquisition([0.0, 1000, 2000], counts=[1, 32, 32], n_directions=[1, 32, 32])
    setting = Setting(ParameterSpace(models.get("smt2")), acquisition, Noise(25.0, "gaussian", lowest=False))
    rng = np.random.default_rng(0)

    def estimate(estimator, setting, signals):
        """Halfway from the usual tissue to the truth, with scatter; the signals tell which truth it is."""
        expected = setting.space.model.signal(setting.space.with_scale(np.array([usual, point])), acquisition)
        lesion = np.linalg.norm(signals.mean(axis=0) - expected, axis=1).argmin() == 1
        truth = (usual + np.array(point)) / 2 if lesion else usual
        return truth + scatter * rng.standard_normal((len(signals), 2))

    pools = {("smt2", "wm"): SimpleNamespace(samples=np.tile(usual, (101, 1)))}
    run = Reproduction(SimpleNamespace(pools=pools, seed=0, estimate=estimate), Gallery(tmp_path), quick=True)
    entry = Entry("half", "half", setting)
    partial(contrasts, levels={"SNR 25": [entry]}, points={"1": point})(run, "contrast")
    vcyl, diffusivity = read(tmp_path / "contrast.csv")
    error = float(vcyl["standard_error"])
    assert error == pytest.approx(np.sqrt(2) * scatter / np.sqrt(AT_POINTS) / 0.2, rel=0.03)
    assert float(vcyl["left"]) == pytest.approx(0.5, abs=4 * error)
    assert diffusivity["left"] == "nan"  # the truths differ by less than 2 % of the range
    assert (tmp_path / "contrast.svg").stat().st_size > 10_000
