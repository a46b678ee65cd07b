"""Several estimators in one run: they stand side by side in the report, and nothing is done twice."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def compared(phantom, tmp_path_factory):
    """A run of three estimators, its words and its output folder."""
    from bidsfit.cli.app import main

    out = tmp_path_factory.mktemp("compared") / "out"
    words = [
        phantom,
        out,
        "participant",
        "--preprocess",
        "none",
        "-d",
        f"truth={phantom / 'derivatives' / 'truth'}",
        "--skip-bids-validation",
    ]
    words += [
        "--participant-label",
        "01",
        "--model",
        "ivim",
        "--estimators",
        "lsq",
        "segmented",
        "mle",
        "--nprocs",
        "1",
    ]
    words = [str(word) for word in words]
    assert main(words) == 0
    return out, words


def record_of(out):
    return json.loads((out / "sub-01/figures/sub-01_model-ivim_desc-comparison_record.json").read_text())


def test_the_record_says_how_they_differ(compared, outputs):
    out, _ = compared
    record = record_of(out)
    assert [row["name"] for row in record["estimators"]] == ["lsq", "segmented", "mle"]
    assert all(row["seconds"] > 0 and 0 < row["n_fitted"] <= row["n_voxels"] for row in record["estimators"])
    assert [parameter["name"] for parameter in record["parameters"]] == ["f", "D", "Dstar"]
    maps = {name: outputs(out).data(f"sub-01_model-ivim_param-D_desc-{name}_dwimap") for name in ("lsq", "segmented")}
    inside = outputs(out).data("sub-01_model-ivim_param-status_desc-lsq_dwimap") > 0
    apart = 1e3 * (maps["segmented"] - maps["lsq"])[inside]  # 10^-3 mm^2/s
    first, segmented, mle = record["parameters"][1]["rows"]
    assert "difference" not in first
    assert segmented["difference"] == pytest.approx(np.nanmedian(apart), rel=1e-3)
    assert segmented["absolute_difference"] == pytest.approx(np.nanmedian(np.abs(apart)), rel=1e-3)
    assert mle["correlation"] > 0.99
    assert np.isnan(segmented["sd"])  # which it does not state
    assert 0 < first["crb"] < 0.01
    assert len(record["correlations"]) == 3


def test_what_is_biased_is_named(compared):
    """At an SNR of 1000 the bias of the segmented fit is far above the noise."""
    warnings = record_of(compared[0])["warnings"]
    assert any(warning.startswith("D by segmented differs from lsq") for warning in warnings)
    assert not any("by mle differs" in warning for warning in warnings)


def test_the_report_shows_them_side_by_side(compared, outputs):
    page = outputs(compared[0]).report()
    assert "estimators side by side" in page
    assert "missing." not in page
    assert page.count('<figure class="comparison"') == 3
    assert page.count('<figure class="estimators"') == 1
    assert page.count('<figure class="uncertainty"') == 3


def test_a_figure_that_is_gone_comes_back_and_nothing_else_is_done(compared, app):
    out, words = compared
    figures = out / "sub-01" / "figures"
    lost = figures / "sub-01_model-ivim_param-D_desc-comparison_dwi.png"
    times = {path: path.stat().st_mtime_ns for path in figures.iterdir()}
    lost.unlink()
    assert app(*words).code == 0
    changed = {path.name for path in figures.iterdir() if path.stat().st_mtime_ns != times[path]}
    assert all("_desc-comparison" in name for name in changed)
    assert lost.name in changed


def test_maps_say_how_far_estimates_are_from_the_most_likely_ones(compared, outputs):
    out, _ = compared
    maps = outputs(out)
    found = maps.data("sub-01_model-ivim_param-D_stat-disagreementmle_desc-segmented_dwimap")
    inside = maps.data("sub-01_model-ivim_param-status_desc-mle_dwimap") > 0
    mle = maps.data("sub-01_model-ivim_param-D_desc-mle_dwimap")
    bound = maps.data("sub-01_model-ivim_param-D_stat-crb_desc-mle_dwimap")
    expected = np.abs(maps.data("sub-01_model-ivim_param-D_desc-segmented_dwimap") - mle)[inside] / bound[inside]
    np.testing.assert_allclose(found[inside], expected, rtol=1e-3, atol=1e-3)
    sidecar = maps.sidecar("sub-01_model-ivim_param-D_stat-disagreementmle_desc-segmented_dwimap")
    assert (sidecar["Units"], sidecar["StatisticOf"]) == ("1", "D")
    settings = sidecar["Model"]["Parameters"]
    assert (settings["Estimator"], settings["Reference"]["Estimator"]) == ("segmented", "mle")
    assert not list(out.rglob("*_stat-disagreement*_desc-mle_*"))
    rows = record_of(out)["parameters"][1]["rows"]
    assert [row["disagreement"] for row in rows] == [
        pytest.approx(
            np.nanmedian(maps.data(f"sub-01_model-ivim_param-D_stat-disagreementmle_desc-{name}_dwimap")[inside])
        )
        for name in ("lsq", "segmented")
    ] + [None]


def test_the_report_recommends_one_by_its_expected_errors(compared, outputs):
    trust = record_of(compared[0])["trust"]
    assert [parameter["name"] for parameter in trust["parameters"]] == ["f", "D", "Dstar"]
    for parameter in trust["parameters"]:
        errors = [row["rmse"] for row in parameter["rows"]]
        assert errors == sorted(errors)
        assert any(s.startswith(f"For {parameter['name']} take ") for s in trust["sentences"])
    assert trust["sentences"][-1].startswith("For all parameters together take ")
    assert "Which to take for this image" in outputs(compared[0]).report()


def test_a_map_of_disagreement_that_is_gone_comes_back(compared, app):
    out, words = compared
    lost = out / "sub-01/dwi/sub-01_model-ivim_param-f_stat-disagreementmle_desc-lsq_dwimap.nii.gz"
    kept = out / "sub-01/dwi/sub-01_model-ivim_param-f_desc-lsq_dwimap.nii.gz"
    content, time = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    assert app(*words).code == 0
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == time
