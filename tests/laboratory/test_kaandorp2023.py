"""The paper, with trainings of seconds."""

import csv

import numpy as np
import pytest

from bidsfit.laboratory import kaandorp2023
from bidsfit.laboratory.gallery import Gallery
from bidsfit.laboratory.kaandorp2023 import (
    DISTRIBUTIONS,
    PAPER,
    SNR,
    Course,
    bench_of,
    curves_of,
    learn,
    task,
)
from bidsfit.laboratory.paper import Options, Reproduction


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A quick run of 6 epochs of 5 steps in parts of 4 epochs, tested on 200 curves."""
    for name, value in {
        "EPOCH": 5,
        "EPOCHS_QUICK": 6,
        "PART": 4,
        "EPOCHS_LONG": 40,
        "VALIDATION": 200,
        "TESTED_QUICK": 200,
        "PATIENTS": 1,
        "POOLED": 500,
    }.items():
        monkeypatch.setattr(kaandorp2023, name, value)
    return Reproduction(bench_of(Options(tmp_path, quick=True)), Gallery(tmp_path), quick=True)


def test_a_training_goes_on_where_its_last_part_ended(run, monkeypatch):
    """A longer training has the parts of a shorter one; what is kept is not trained again."""
    distribution = DISTRIBUTIONS["uniform"](run)
    curves = curves_of(run, distribution)
    shorter = learn(run, "unsupervised", distribution, curves, 4)
    done, fit = [], kaandorp2023.fit
    monkeypatch.setattr(
        kaandorp2023, "fit", lambda made, **options: done.append(options["start"]) or fit(made, **options)
    )
    longer = learn(run, "unsupervised", distribution, curves, 8)
    assert [len(start) for start in done] == [1]  # the second part alone, from the weights of the first
    np.testing.assert_array_equal(longer.validation[:4], shorter.validation)
    assert len(longer.validation) == 8
    assert longer.validation[4] < 1.5 * longer.validation[3] < longer.validation[0]
    for key, values in shorter.numbers.items():
        np.testing.assert_array_equal(longer.numbers[key][: len(values)], values)
    assert longer.epochs[-1] == 8


def test_an_early_stop_waits_for_ten_epochs():
    losses = np.concatenate([[5.0, 4.0, 4.5], [4.4] * 8, [3.0], [3.5] * 12, [1.0]])
    course = Course(np.array([1, 10, 20]), {}, losses)
    assert course.stop == 12  # 4.0 is improved on after ten epochs; 3.0 after 13
    assert [course.epochs[course.nearest(epoch)] for epoch in (1, 3, 4, 30)] == [1, 1, 10, 20]


def test_curves_are_those_of_the_paper(run):
    """S0 is uniform up to 1, noise is 1/200 of the largest, and least squares predicts signals within the noise."""
    distribution = DISTRIBUTIONS["uniform"](run)
    batch = task(run, "supervised", distribution, 1, 0).simulator.draw(20_000, np.random.default_rng(0))
    assert batch.s0.min() < 0.01
    assert 0.99 < batch.s0.max() <= 1
    assert batch.s0.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(batch.sigma, 1 / SNR)
    bright = batch.s0 > 0.5
    assert (batch.noisy[:, 0] - batch.clean)[bright].std() == pytest.approx(1 / SNR, rel=0.05)
    fits = curves_of(run, distribution).least_squares
    assert fits["signals"] == pytest.approx(np.sqrt(12 / 16), rel=0.05)  # 16 measurements, 4 parameters
    assert fits["from_lsq_D"] == 0


def test_the_supervised_network_learns_s0_as_well(run):
    """All four parameters count in its loss, in units of their ranges: with another S0 the same output costs more."""
    import torch

    made = task(run, "supervised", DISTRIBUTIONS["uniform"](run), 1, 0)
    batch = made.simulator.draw(50, np.random.default_rng(0)).map(lambda a: torch.from_numpy(np.asarray(a, np.float32)))
    outputs = torch.cat([batch.cube, batch.s0[:, None, None]], dim=-1)
    outputs[..., 2] = batch.truth[:, None, 2] / 97  # an absolute value counts from 0, not from the lower bound
    objective = made.recipe.objective
    assert float(objective.loss(outputs, batch, made.simulator)) == pytest.approx(0, abs=1e-9)
    outputs[..., 3] += 0.1
    assert float(objective.loss(outputs, batch, made.simulator)) == pytest.approx(0.1**2 / 4, rel=1e-3)


def test_figures_and_tables_are_made(run, tmp_path):
    PAPER.figures["patients"].parts[""](run, "figure-patients")
    assert (tmp_path / "figure-patients.png").stat().st_size > 8_000
    with (tmp_path / "figure-patients-moments.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["learning"] for row in rows] == ["least squares"] + ["supervised"] * 3 + ["unsupervised"] * 3
    stop = rows[4]
    assert (stop["moment"], stop["paper_epoch"], stop["paper_rho"]) == ("early stop", "181", "0.73")
    assert rows[5]["paper_epoch"] == "1552"


def test_what_takes_days_is_made_only_by_name():
    assert list(PAPER.chosen()) == ["figure-uniform", "figure-patients"]
    assert list(PAPER.chosen(figures=["long"])) == ["figure-long"]
