"""The laboratory evaluates estimators of the examples, trained ones among them, by a table of the protocol."""

import csv

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bidsfit import Acquisition, models
from bidsfit.cli.lab import main
from bidsfit.models.dti import ELEMENTS
from bidsfit.phantom.directions import spread_directions
from bidsfit.trained.network import Network
from bidsfit.trust.companions import companions

N = 60
TABLES = {
    "dti": {"b": [0] * 4 + [1000] * 30}
    | dict(zip(("gx", "gy", "gz"), np.vstack([np.zeros((4, 3)), spread_directions(30)]).T, strict=True)),
    "t1ir": {"TI": [30, 100, 200, 400, 800, 1500, 3000, 6000]},
    "mrffisp": {
        "flip_angle": 5 + 55 * np.abs(np.sin(np.pi * np.arange(N) / 30)),
        "TR": 12 + np.cos(np.arange(N) / 7),
        "TE": [2.0] * N,
        "TI": [20.0] * N,
    },
}
BOUNDS = {
    "dti": [f"D{axis}=0.0002,0.0022" for axis in ("xx", "yy", "zz")]
    + [f"D{axes}=-0.0006,0.0006" for axes in ("xy", "xz", "yz")],
    "t1ir": ["T1=0.3,3"],
    "mrffisp": ["T1=0.5,2", "T2=0.04,0.2"],
}
RECIPE = """
simulation: {samples: 4096}
architecture: {name: perceptron, units: 32, hidden_layers: 2}
objective: {name: parameters}
schedule: {steps: 200, batch: 256, peak_rate: 0.01, validation: 1024, checks: 2}
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", TABLES)
def test_estimators_of_the_examples_are_evaluated(few_draws, model, tmp_path):
    table, recipe = tmp_path / "table.tsv", tmp_path / "recipe.yml"
    columns = TABLES[model]
    np.savetxt(table, np.column_stack(list(columns.values())), delimiter="\t", header="\t".join(columns), comments="")
    recipe.write_text(RECIPE)
    setting = ["--model", model, "--table", str(table), "--snr", "50", "--bounds", *BOUNDS[model], "--threads", "2"]
    net, out = tmp_path / "net.zip", tmp_path / "out"
    assert main(["train", "net-uniform", *setting, "--recipe", str(recipe), "--out", str(net)]) == 0
    words = ["evaluate", *setting, "--points", "3", "--repeats", "4", "--estimators", "lsq", str(net)]
    assert main([*words, "--out", str(out)]) == 0
    with (out / "means.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["estimator"] == "lsq"
    assert second["estimator"].startswith("net-uniform-")
    assert all(float(value) >= 0 for name, value in first.items() if name != "estimator")


def test_a_network_learns_a_tensor(quickly_trained):
    """Directions are part of the file; fractional anisotropy follows from what the network says, and is judged."""
    model, directions = models.get("dti"), spread_directions(30)
    acquisition = Acquisition([0] * 4 + [1000] * 30, np.vstack([np.zeros((4, 3)), directions]))
    bounds = {name: (0.2, 2.2) if name[1] == name[2] else (-0.6, 0.6) for name in ELEMENTS}
    bundle = quickly_trained(model, acquisition, 50.0, bounds=bounds)
    estimator = Network(model, snr=50.0, noise="gaussian", bounds=bounds, trained=bundle)
    rng = np.random.default_rng(2)
    truth = estimator.space.with_scale(estimator.space.sample(400, rng)) * ([100] + [1] * 6)
    signals = model.signal(truth, acquisition) + 2 * rng.standard_normal((400, len(acquisition)))
    estimate = estimator.estimate(signals, acquisition, noise=2.0)
    known = model.derivation.values(truth)
    assert np.corrcoef(estimate.derived["FA"], known["FA"])[0, 1] > 0.6
    assert np.abs(estimate.derived["MD"] - known["MD"]).mean() < 0.1
    stated = companions(estimator, estimate, 2.0, signals=signals, acquisition=acquisition)
    assert set(stated) == {"expectedsd", "bias", "rmse", "response", "q025", "q975", "crb"}
    held = (stated["q025"]["FA"] <= known["FA"]) & (known["FA"] <= stated["q975"]["FA"])
    assert held.mean() > 0.75  # from few simulated truths: 0.78 on one processor, more on another
    other = Acquisition(acquisition.b_values, np.vstack([np.zeros((4, 3)), directions[::-1]]))
    assert estimator.missing(other) == ["it was trained for other directions"]
    turn = Rotation.from_rotvec([0.3, -0.5, 0.2])
    turned = Acquisition(acquisition.b_values, np.vstack([np.zeros((4, 3)), turn.apply(directions)]))
    assert estimator.missing(turned) == []
    found = estimator.estimate(signals, turned, noise=2.0).derived
    for name in ("FA", "MD", "AD", "RD"):
        np.testing.assert_allclose(found[name], estimate.derived[name], rtol=1e-6)
    along = np.sum(found["direction"] * turn.apply(estimate.derived["direction"]), axis=1)
    np.testing.assert_allclose(np.abs(along), 1, atol=1e-6)
