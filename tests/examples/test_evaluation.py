"""The laboratory evaluates estimators of the examples, trained ones among them, by a table of the protocol."""

import csv

import numpy as np
import pytest

from bidsfit.cli.lab import main
from bidsfit.phantom.directions import spread_directions

N = 60
TABLES = {
    "tensor": {"b": [0] * 4 + [1000] * 30}
    | dict(zip(("gx", "gy", "gz"), np.vstack([np.zeros((4, 3)), spread_directions(30)]).T, strict=True)),
    "inversionrecovery": {"TI": [30, 100, 200, 400, 800, 1500, 3000, 6000]},
    "fisp": {
        "flip_angle": 5 + 55 * np.abs(np.sin(np.pi * np.arange(N) / 30)),
        "TR": 12 + np.cos(np.arange(N) / 7),
        "TE": [2.0] * N,
        "TI": [20.0] * N,
    },
}
BOUNDS = {
    "tensor": [f"D{axis}=0.0002,0.0022" for axis in ("xx", "yy", "zz")]
    + [f"D{axes}=-0.0006,0.0006" for axes in ("xy", "xz", "yz")],
    "inversionrecovery": ["T1=0.3,3"],
    "fisp": ["phase=-1,1", "T1=0.5,2", "T2=0.04,0.2"],
}
RECIPE = """
simulation: {samples: 4096}
architecture: {name: perceptron, units: 32, hidden_layers: 2}
objective: {name: parameters}
schedule: {steps: 200, batch: 256, peak_rate: 0.01, validation: 1024, checks: 2}
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", TABLES)
def test_estimators_of_the_examples_are_evaluated(plugin, few_draws, monkeypatch, model, tmp_path):
    if model == "fisp":
        monkeypatch.setattr("fingerprinting.ORDERS", 20)  # enough for T2 of 200 ms
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
