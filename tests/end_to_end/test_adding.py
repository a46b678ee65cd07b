"""Adding: runs add to a folder that holds results, or refuse; a model and a companion come with other packages."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bidsfit import Acquisition, Bayesian, LeastSquares, MaximumLikelihood, Segmented, models
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.outputs import map_outputs
from bidsfit.exceptions import UnusableInputError
from bidsfit.information import cramer_rao_bound

#: What is drawn is looked at elsewhere.
pytestmark = pytest.mark.usefixtures("blank_figures")

PROJECT = Path(__file__).resolve().parents[2]
QUICK = ("--nprocs", 1, "--skip-bids-validation")


@pytest.fixture
def run(app, tiny, masks, outputs, tmp_path):
    """``run(options...)`` on two sessions of a protocol for ADC and IVIM; ``run.out`` is what they left."""
    b_values = [0, 10, 20, 40, 80, 200, 400, 600, 800]
    for session in ("1", "2"):
        tiny.add(f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_dwi", b_values=b_values)
        masks.add_mask(f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_desc-brain_mask")

    def call(*options):
        return app(
            tiny, tmp_path / "out", "participant", "--preprocess", "none", "-d", f"masks={masks}", *QUICK, *options
        )

    call.out = outputs(tmp_path / "out")
    call.dataset = tiny
    return call


def test_another_model_is_added(run):
    """The maps of the first stay; the report and its methods hold both."""
    assert run("--model", "adc").code == 0
    first = run.out.maps()
    assert run("--model", "ivim").code == 0
    both = run.out.maps()
    assert {name: both[name] for name in first} == first
    # estimate, sd and crb; bias, expected sd, response and interval, without S0; rmse, r2, status, flags
    assert len(both) == 2 * ((2 + 4) * 3 + (1 + 3) * 5 + 2 * 4)
    report = run.out.report()
    methods = report[report.index("Methods") :]
    for title in ("Apparent diffusion coefficient", "Intravoxel incoherent motion"):
        assert title in report
        assert title in methods


def test_another_session_and_participant_are_added(run, masks):
    assert run("--model", "adc", "--session-label", "1").code == 0
    run.dataset.add("sub-02/dwi/sub-02_dwi")
    masks.add_mask("sub-02/dwi/sub-02_desc-brain_mask")
    assert run("--model", "adc", "--session-label", "2", "--participant-label", "01").code == 0
    assert run("--model", "adc", "--participant-label", "02").code == 0
    assert len(run.out.maps()) == 3 * (2 * 3 + 5 + 4)
    assert "ses-1" in run.out.report()
    assert "ses-2" in run.out.report()
    assert run.out.report("02")


def test_other_settings_are_refused_and_nothing_changes(run, unchanged):
    assert run("--model", "adc").code == 0
    for options in (("--average", "geometric"), ("--s0", "measured"), ("--bounds", "adc.D=0,0.003")):
        with unchanged(run.out.folder):
            outcome = run("--model", "adc", *options)
        assert outcome.code == 73
        assert "exists and was made with other settings" in outcome.err
        assert "Nothing is overwritten" in outcome.err


def test_another_mask_is_another_setting(run, masks, unchanged):
    assert run("--model", "adc").code == 0
    shutil.rmtree(masks / "sub-01/ses-1")
    with unchanged(run.out.folder):
        outcome = run("--model", "adc")
    assert outcome.code == 73
    assert "or with another preprocessing, mask or noise (Mask: found bids:masks:sub-01/ses-1/" in outcome.err
    assert "expected Otsu's threshold" in outcome.err


def test_another_dataset_is_refused(run, app, tmp_path, unchanged):
    assert run("--model", "adc").code == 0
    other = tmp_path / "other"
    shutil.copytree(run.dataset, other)
    with unchanged(run.out.folder):
        outcome = app(other, run.out.folder, "participant", "--preprocess", "none", *QUICK, "--model", "ivim")
    assert outcome.code == 73
    assert "holds results of another dataset" in outcome.err


def test_a_changed_image_is_fitted_again(run):
    """Out of date: the same name, and new data."""
    assert run("--model", "adc").code == 0
    first = run.out.maps()
    b_values = [0, 10, 20, 40, 80, 200, 400, 600, 800]
    data = run.dataset.signals(b_values) * 2
    run.dataset.add("sub-01/ses-1/dwi/sub-01_ses-1_dwi", b_values=b_values, data=data)
    assert run("--model", "adc").code == 0
    changed = {name for name, content in run.out.maps().items() if content != first[name]}
    assert "sub-01_ses-1_model-adc_param-S0_desc-lsq_dwimap.nii.gz" in changed
    assert not any("_ses-2_" in name for name in changed)
    s0 = run.out.data("sub-01_ses-1_model-adc_param-S0_desc-lsq_dwimap")
    np.testing.assert_allclose(s0[2, 2, 2], data[2, 2, 2, 0], rtol=1e-3)


def test_outputs_are_not_inputs_of_the_next_run(run, valid):
    """In the derivatives of the input, where a second run must not find its own maps and masks."""
    shutil.rmtree(run.dataset / "derivatives", ignore_errors=True)
    assert run("--model", "adc").code == 0
    assert valid(run.out.folder)


# --- a model and a companion of another package ----------------------------------------------------------------------


@pytest.fixture
def multi_echo(tiny, masks):
    """A dataset of one image with seven echo times, T2 = 0.08 s: ``(dataset, masks)``."""
    echo_times = np.array([0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.22])
    b_values = [0] * echo_times.size
    data = tiny.signals(b_values) * np.exp(-echo_times / 0.08)
    tiny.add("sub-01/dwi/sub-01_dwi", b_values, data, sidecar={"EchoTime": echo_times.tolist()})
    masks.add_mask("sub-01/dwi/sub-01_desc-brain_mask")
    return tiny, masks


class TestPlugin:
    acquisition = Acquisition(np.zeros(12), TE=np.repeat([20, 40, 60, 90, 140, 200], 2))

    @pytest.fixture
    def t2(self, plugin):
        return models.get("t2b0")

    def test_it_is_listed_only_where_it_is_installed(self, request):
        assert "t2b0" not in models.available()
        plugin = request.getfixturevalue("plugin")
        assert models.available()["t2b0"] == "t2b0:MODEL"
        assert "t2b0" in models.without_variants()
        assert Path(sys.modules["t2b0"].__file__).parent == plugin.folder

    @pytest.mark.parametrize("make", [LeastSquares, MaximumLikelihood, pytest.param(Bayesian, marks=pytest.mark.slow)])
    def test_estimators_reach_the_bound(self, t2, make):
        """Many noisy signals of one truth: no bias worth the name, and the spread that theory allows."""
        truth, sigma = {"S0": 1000.0, "T2": 80.0}, 10.0
        signal = t2.signal(truth, self.acquisition)
        noise = sigma * np.random.default_rng(0).standard_normal((2, 4000, len(self.acquisition)))
        estimate = make(t2).estimate(np.hypot(signal + noise[0], noise[1]), self.acquisition, noise=sigma)
        floor = cramer_rao_bound(t2, truth, self.acquisition, sigma, "rician")
        for name, value in truth.items():
            found = estimate.parameters[name]
            assert found.mean() == pytest.approx(value, rel=3e-3)
            assert found.std() == pytest.approx(floor[name], rel=0.05)

    def test_the_command_fits_it(self, plugin, multi_echo, command, outputs, tmp_path):
        dataset, masks = multi_echo
        words = (dataset, tmp_path / "out", "participant", "--preprocess", "none", "-d", f"masks={masks}", *QUICK)
        estimators = ["lsq", "mle"]
        process = command(
            *words, "--model", "t2b0", "--estimators", *estimators, env=plugin.environment, stdout=-1, stderr=-1
        )
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        left = outputs(tmp_path / "out")
        found = left.data("sub-01_model-t2b0_param-T2_desc-lsq_dwimap")
        np.testing.assert_allclose(found[1:, 1:], 0.08, rtol=1e-4)
        np.testing.assert_allclose(left.data("sub-01_model-t2b0_param-T2_desc-mle_dwimap")[1:, 1:], 0.08, rtol=1e-3)
        for estimator in estimators:
            assert left.path(f"sub-01_model-t2b0_param-T2_stat-crb_desc-{estimator}_dwimap")
        assert "t2b0 · estimators side by side" in left.report()
        assert left.sidecar("sub-01_model-t2b0_param-T2_desc-lsq_dwimap")["Units"] == "s"
        assert "Where it grows with the parameter, the model misses something there." in left.report()
        (drawn,) = left.folder.glob("sub-01/figures/*desc-lsqresiduals_dwi.png")
        assert drawn.stat().st_size > 0
        for estimator in estimators:  # the companion of the package: a map, its unit and its words
            name = f"sub-01_model-t2b0_param-T2{{}}_desc-{estimator}_dwimap".format
            relative, sd, t2 = (left.data(name(part))[1:, 1:] for part in ("_stat-cv", "_stat-sd", ""))
            np.testing.assert_allclose(relative, sd / t2, rtol=1e-5)
            assert relative.min() > 0
            sidecar = left.sidecar(name("_stat-cv"))
            assert (sidecar["Units"], sidecar["StatisticOf"]) == ("1", "T2")
            assert sidecar["Description"].startswith("Standard deviation of T2 (Transverse relaxation time;")

    def test_its_companion_has_a_unit_and_colours_of_its_own(self, plugin):
        t2, ivim, path = models.get("t2b0"), models.get("ivim"), Path("sub-01_dwi.nii.gz")
        image = InputImage(path, path, None, {}, {"subject": "01"}, "bids:raw:sub-01_dwi.nii.gz", False)
        output = map_outputs(image, t2, LeastSquares(t2))["T2_cv"]
        assert (output.unit, output.figure_range, output.quantity.colours) == ("1", (0.0, 1.0), "magma")
        assert output.title == "$T_2$ coefficient of variation"
        assert "D_cv" not in map_outputs(image, ivim, Segmented(ivim))  # it has no standard deviation


# --- a preprocessing step and a statistic of another package ---------------------------------------------------------


def test_a_step_of_another_package(plugin, app, tiny, outputs, tmp_path):
    """Where it was asked to come, undoing what it should, in plan, sidecar and report; and left out as others are."""
    b_values = [0, 500, 1000] * 5
    drift = np.linspace(1, 0.85, len(b_values))
    tiny.add("sub-01/dwi/sub-01_dwi", b_values, (tiny.signals(b_values) * drift).astype(np.float32))
    words = (tiny, tmp_path / "out", "participant", "--model", "adc", *QUICK)
    others = ("denoise", "gibbs", "rician", "susceptibility", "motion", "tissue")
    plan = app(*words, "--dry-run").out
    assert plan.index("rician bias:") < plan.index("signal drift:") < plan.index("susceptibility distortion:")
    assert app(*words, "--skip", *others).code == 0
    left = outputs(tmp_path / "out")
    settings = left.sidecar("sub-01_desc-preproc_dwi")["Preprocessing"]
    assert settings["Drift"] == "parabola"
    adc = left.data("sub-01_model-adc_param-adc_desc-lsq_dwimap")
    np.testing.assert_allclose(adc[adc > 0], 1e-3, rtol=1e-3)
    report = left.report()
    assert "from the first volume to the last the signal changed by -15.0 %" in report
    assert "Signal drift. The last volumes should change most" in report
    assert "divided out by a parabola" in report
    without = app(tiny, tmp_path / "other", *words[2:], "--skip", *others, "drift")
    assert without.code == 0
    assert not list((tmp_path / "other").rglob("*_desc-preproc_dwi.nii.gz"))


# --- an objective and an architecture of another package -------------------------------------------------------------


def test_a_recipe_names_parts_of_another_package(plugin, tmp_path, monkeypatch):
    """Trained by the command, written, read and asked; without the package the file is refused."""
    from bidsfit.cli.lab import main
    from bidsfit.laboratory.bench import estimator_of
    from bidsfit.training.bundle import read_bundle

    (tmp_path / "mine.yml").write_text(plugin.blocks("yaml")[0])
    words = ["--model", "adc", "--b-values", "0", "500", "1000", "--directions", "6", "--snr", "30", "--threads", "1"]
    path = tmp_path / "net.zip"
    assert main(["train", "net-uniform", *words, "--recipe", str(tmp_path / "mine.yml"), "--out", str(path)]) == 0
    bundle, model = read_bundle(path), models.get("adc")
    assert bundle.facts["Recipe"]["architecture"] == {"name": "polynomial", "degree": 4}
    assert bundle.facts["Recipe"]["objective"] == {"name": "likelihood"}
    assert bundle.machine["1.weight"].shape == (2, 8)
    truth = np.linspace(0.5, 2.5, 200)
    clean = model.signal({"S0": 100.0, "D": truth}, bundle.acquisition)
    noisy = clean + 100 / 30 / np.sqrt(6) * np.random.default_rng(0).standard_normal(clean.shape)
    found = estimator_of(path, model).estimate(noisy, bundle.acquisition).parameters["D"]
    assert np.sqrt(np.mean((found - truth) ** 2)) < truth.std() / 3  # who always tells the mean errs by truth.std()
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(plugin.folder)])
    with pytest.raises(UnusableInputError, match="Unknown architecture in its recipe: 'polynomial'"):
        read_bundle(path)
