"""Peers side by side, speed and accuracy: every fit of IVIM and SMT that could be installed, on the same voxels.

All fit the same simulated voxels on one core, in turns (A B C A B C ..., each turn another part of the voxels), and
the median speed of the turns is given. Parameters are drawn uniformly: f 0 to 0.5, D 0 to 3, D* 3 to 100 um^2/ms; vcyl
0 to 1, lambda 0 to 3 um^2/ms. Every measurement has Rician noise (SNR of one measurement at S0), S0 is 1000. SMT has 8
images at b = 0 and 32 directions a shell, once with fibres in all directions (every direction gives the same signal,
as `mle` assumes) and once with one fibre direction in each voxel. RMSE and bias are those of the finite estimates, in
um^2/ms (10^-3 mm^2/s). Peers that are not installed are named and skipped.

IVIM, all of S0 ((1 - f) exp(-b D) + f exp(-b D*)) or converted to it:

- bidsfit: its defaults (f 0 to 1, D 0 to 3.5, D* 5 to 200 um^2/ms, D <= D*); `mle` is Rician; `mle` and `debias` get
  the noise. Once also with the bounds of IVIMNET. `bayesmap` takes its prior from the voxels of each turn.
- SciPy: `least_squares` with bidsfit's bounds (D <= D* not known), from the first signal, f 0.1, D 1, D* 10.
- DIPY: `IvimModel(fit_method="trr")`, with bidsfit's bounds and with its own (f at most 0.3); its variable projection
  searches D* from 5 to 10 only and is left out.
- ivim-mri: `nlls`, `seg` and `bayes` (2000 samples after 1000) as they come, through files as it wants them. D at most
  3; D* of `nlls` and `bayes` is without the diffusion of blood (1.75 um^2/ms), which is added here.
- IVIMNET (Kaandorp et al. 2021): its three classical fits with its own bounds (f at most 0.7, D* 5 to 200).
- ivimfit: free and segmented fit with bidsfit's bounds, S0 taken from the first signal.
- dmipy-fit: two balls with bidsfit's bounds, brute force and then gradient descent, S0 taken from b = 0.

SMT:

- bidsfit: its defaults; `mle` is Rician; `mle` and `debias` get the noise.
- SciPy: `least_squares` of the shells' averages with the same bounds, from vcyl 0.5 and lambda 1.5.
- DIPY: mean signal kurtosis (`MeanDiffusionKurtosisModel`), from which `smt2f` and `smt2di` follow: a cumulant
  expansion, meant for b-values that are not high; therefore also with b up to 2000 s/mm^2 only.
"""

from __future__ import annotations

from _common import IVIM_B_VALUES, SMT_B_VALUES, machine, options, seconds, sphere, table, use_cores  # isort: skip

import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from least_squares import equations
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bidsfit import models
from bidsfit.acquisition import Acquisition, DirectionAverage
from bidsfit.estimators.bayesian import Bayesian
from bidsfit.estimators.estimator import Estimator, Status
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.estimators.maximum_a_posteriori import MaximumAPosteriori
from bidsfit.estimators.maximum_likelihood import MaximumLikelihood
from bidsfit.estimators.segmented import Segmented
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import add_noise

S0 = 1000.0
#: Diffusion of blood in ivim-mri, um^2/ms.
BLOOD = 1.75
#: Bounds of IVIMNET, um^2/ms.
NARROW = {"f": (0.0, 0.7), "D": (0.0, 5.0), "Dstar": (5.0, 200.0)}
#: How what is not installed is installed. Some ask for an older NumPy, PyMC or PyTorch, which these fits do without.
INSTALL = {
    "dipy": "pip install dipy",
    "ivim": "pip install --no-deps ivim-mri",
    "IVIMNET": "pip install --no-deps ivimnet joblib",
    "ivimfit": "pip install --no-deps ivimfit",
    "dmipy_fit": "pip install -c constraints.txt dmipy-fit",
}

Parameters = dict[str, NDArray[np.float64]]


class Voxels(NamedTuple):
    """Simulated signals of shape (n_voxels, n_measurements), and what made them."""

    model: SignalModel
    acquisition: Acquisition
    signals: NDArray[np.float64]
    sigma: float
    truth: Parameters


#: Returns the parameters in the units of the model, and the number of voxels whose fit gave up.
Fit = Callable[[Voxels], tuple[Parameters, int]]


def main() -> None:
    parser = options(__doc__, voxels=2000)
    parser.add_argument("--repeats", type=int, default=5, help="turns (default %(default)s)")
    parser.add_argument("--snr", type=float, nargs="+", default=[50.0, 20.0])
    parser.add_argument("--models", nargs="+", choices=("ivim", "smt2"), default=["ivim", "smt2"])
    parser.add_argument("--only", default="", metavar="NAME", help="only fits whose name starts so, such as bidsfit")
    arguments = parser.parse_args()
    n, repeats = (150, 3) if arguments.quick else (arguments.voxels, arguments.repeats)
    use_cores(1)
    warnings.simplefilter("ignore")
    absent = [module for module in INSTALL if find_spec(module) is None]
    print(f"{machine()}; everything on one core.\n")
    for module in absent:
        print(f"Skipped {module}, which is not installed: {INSTALL[module]}\n")
    rng = np.random.default_rng(2024)
    cases = [("ivim", False, IVIM), ("smt2", False, SMT), ("smt2", True, SMT)]
    for name, one_fibre, peers in [case for case in cases if case[0] in arguments.models]:
        chosen = {label: peer for label, peer in peers.items() if label.startswith(arguments.only)}
        fits = {label: fit for label, (module, fit) in chosen.items() if module not in absent}
        fibres = {"ivim": "", "smt2": ", one fibre direction" if one_fibre else ", fibres in all directions"}[name]
        for snr in arguments.snr:
            print(f"{name}{fibres}, SNR {snr:g}, {n:,} voxels:\n")
            print(compare(fits, simulate(name, n, snr, one_fibre, rng), repeats))


def simulate(name: str, n: int, snr: float, one_fibre: bool, rng: np.random.Generator) -> Voxels:
    """Voxels of uniformly drawn parameters with Rician noise in every measurement."""
    model = models.get(name)
    ranges = {"f": (0, 0.5), "D": (0, 3), "Dstar": (3, 100)} if name == "ivim" else {"vcyl": (0, 1), "lambda": (0, 3)}
    truth = {parameter: rng.uniform(low, high, n) for parameter, (low, high) in ranges.items()}
    if name == "ivim":
        acquisition = Acquisition(IVIM_B_VALUES)
    else:
        counts = [8, *[32] * (len(SMT_B_VALUES) - 1)]
        acquisition = Acquisition(np.repeat(SMT_B_VALUES, counts), directions=np.vstack([sphere(k) for k in counts]))
    clean = model.signal({"S0": 1.0, **truth}, acquisition)
    if one_fibre and acquisition.directions is not None:
        axes = rng.normal(size=(n, 3))
        cosines = (axes / np.linalg.norm(axes, axis=1, keepdims=True)) @ acquisition.directions.T
        v, b_lambda = truth["vcyl"][:, None], acquisition.variable("b") * truth["lambda"][:, None]
        clean = v * np.exp(-b_lambda * cosines**2) + (1 - v) * np.exp(-b_lambda * (1 - v + v * cosines**2))
    return Voxels(model, acquisition, S0 * add_noise(clean, 1 / snr, "rician", rng), S0 / snr, truth)


def compare(fits: dict[str, Fit], voxels: Voxels, repeats: int) -> str:
    """Fit with all peers in turns; a table with a row for each."""
    n = len(voxels.signals)
    parts = [slice(k * n // repeats, (k + 1) * n // repeats) for k in range(repeats)]
    times = np.empty((len(fits), repeats))
    found: dict[str, list[tuple[Parameters, int]]] = {label: [] for label in fits}
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):  # some report a lot
        for label, fit in fits.items():  # imports and compiles; `bayesmap` wants voxels for its prior
            fit(voxels._replace(signals=np.tile(voxels.signals[:40], (10 if label in MANY else 1, 1))))
        for turn, part in enumerate(parts):
            for row, (label, fit) in enumerate(fits.items()):
                signals = voxels.signals[part]
                many = max(1, MANY.get(label, 0) // len(signals))
                some = voxels._replace(signals=np.tile(signals, (many, 1)))
                results = []
                times[row, turn] = seconds(lambda: results.append(fit(some))) / len(some.signals)  # noqa: B023
                parameters, gave_up = results[0]
                found[label].append(({p: x[: len(signals)] for p, x in parameters.items()}, gave_up // many))
    header = ["fit", "voxels a second"]
    for name in voxels.truth:
        header += [f"{name} RMSE", f"{name} bias", *([f"{name} median error"] if name == "Dstar" else [])]
    header += ["not finite", "outside", "gave up"]
    rows: list[list[object]] = []
    for row, label in enumerate(fits):
        estimated = {name: np.concatenate([part[name] for part, _ in found[label]]) for name in voxels.truth}
        finite = np.all([np.isfinite(values) for values in estimated.values()], axis=0)
        cells: list[object] = [label, f"{1 / np.median(times[row]):,.0f}"]
        for name, values in estimated.items():
            errors = (values - voxels.truth[name])[finite]
            digits = 1 if name == "Dstar" else 3
            shown = [np.sqrt(np.mean(errors**2)), errors.mean(), *([np.median(abs(errors))] if digits == 1 else [])]
            cells += [f"{value:,.{digits}f}" for value in shown]
        counts = (np.sum(~finite), np.sum(outside(voxels.model, estimated) & finite), sum(k for _, k in found[label]))
        rows.append([*cells, *[f"{100 * count / n:.1f} %" for count in counts]])
    return table(header, rows)


def outside(model: SignalModel, estimated: Parameters) -> NDArray[np.bool_]:
    """Voxels in which an estimate leaves bidsfit's bounds, or D is above D*; rounding does not count."""
    bounds = {parameter.name: parameter.bounds for parameter in model.parameters}
    beyond = [
        (values < bounds[name][0] - 1e-6) | (values > bounds[name][1] + 1e-6) for name, values in estimated.items()
    ]
    if "Dstar" in estimated:
        beyond.append(estimated["D"] > estimated["Dstar"] + 1e-6)
    return np.any(beyond, axis=0)


def ivim(f: NDArray, D: NDArray, Dstar: NDArray) -> Parameters:  # noqa: N803
    """Parameters from arrays in mm^2/s."""
    return {"f": np.asarray(f), "D": 1e3 * np.asarray(D), "Dstar": 1e3 * np.asarray(Dstar)}


def unmoved(found: Parameters, **start: float) -> int:
    """Number of voxels whose estimate is the starting point."""
    return int(np.sum(np.all([np.isclose(found[name], value, rtol=1e-9) for name, value in start.items()], axis=0)))


def bidsfit(make: Callable[[SignalModel], Estimator]) -> Fit:
    """Any estimator of bidsfit."""

    def fit(voxels: Voxels) -> tuple[Parameters, int]:
        estimate = make(voxels.model).estimate(voxels.signals, voxels.acquisition, voxels.sigma)
        return estimate.parameters, int(np.sum(estimate.status == Status.ITERATION_LIMIT))

    return fit


def scipy(voxels: Voxels) -> tuple[Parameters, int]:
    """Bounded least squares of the averages, scaled by the first."""
    average = DirectionAverage(voxels.acquisition)
    residual, _ = equations(voxels.model.name, average.acquisition)
    start = [1, 0.1, 1, 10] if voxels.model.name == "ivim" else [1, 0.5, 1.5]
    bounds = tuple(LeastSquares(voxels.model).bounds.T)
    signals = average(voxels.signals)
    results = [least_squares(residual, start, bounds=bounds, args=(y / y[0],)) for y in signals]
    points = np.array([result.x for result in results])
    return dict(zip(voxels.model.names, points.T, strict=True)), sum(result.status <= 0 for result in results)


def dipy_gradients(acquisition: Acquisition) -> object:
    directions = np.array([[1.0, 0, 0]]) if acquisition.directions is None else acquisition.directions
    b = acquisition.b_values
    vectors = np.where(b[:, None] > 0, directions, 0.0)
    return import_module("dipy.core.gradients").gradient_table(b, bvecs=vectors, b0_threshold=0)


def dipy_ivim(own_bounds: bool) -> Fit:
    def fit(voxels: Voxels) -> tuple[Parameters, int]:
        order = [voxels.model.names.index(name) for name in ("S0", "f", "Dstar", "D")]
        bounds = None if own_bounds else list(LeastSquares(voxels.model).bounds[order].T * [1, 1, 1e-3, 1e-3])
        gradients = dipy_gradients(voxels.acquisition)
        model = import_module("dipy.reconst.ivim").IvimModel(gradients, fit_method="trr", bounds=bounds)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _, f, fast, slow = model.fit(voxels.signals).model_params.T
        return ivim(f, slow, fast), sum("Bounds are violated" in str(warning.message) for warning in caught)

    return fit


def dipy_kurtosis(maximum_b: float) -> Fit:
    def fit(voxels: Voxels) -> tuple[Parameters, int]:
        used = np.flatnonzero(voxels.acquisition.b_values <= maximum_b)
        gradients = dipy_gradients(voxels.acquisition.select(used))
        model = import_module("dipy.reconst.msdki").MeanDiffusionKurtosisModel(gradients)
        fitted = model.fit(voxels.signals[:, used])
        return {"vcyl": fitted.smt2f, "lambda": 1e3 * fitted.smt2di}, 0

    return fit


def ivim_mri(method: str, blood: float) -> Fit:
    """ivim-mri, which reads and writes files."""

    def fit(voxels: Voxels) -> tuple[Parameters, int]:
        import nibabel as nib

        with tempfile.TemporaryDirectory() as folder:
            image, b_values, stem = Path(folder) / "dwi.nii", Path(folder) / "dwi.bval", f"{folder}/map"
            nib.save(nib.Nifti1Image(voxels.signals[:, None, None], np.eye(4)), image)
            np.savetxt(b_values, voxels.acquisition.b_values[None], fmt="%g")
            getattr(import_module("ivim.fit"), method)(str(image), str(b_values), "diffusive", outbase=stem)
            read = {
                name: nib.Nifti1Image.from_filename(f"{stem}_{name}.nii.gz").get_fdata().ravel()
                for name in ("f", "D", "Dstar")
            }
        found = ivim(read["f"], read["D"], read["Dstar"] + 1e-3 * blood)
        return found, unmoved(found, f=0.1, D=1.0, Dstar=10.0 + blood)

    return fit


def ivimnet(method: str) -> Fit:
    """The classical fits of IVIMNET; where its least squares fail it takes the segmented fit, with S0 exactly 1."""

    def fit(voxels: Voxels) -> tuple[Parameters, int]:
        fitting = import_module("IVIMNET.fitting_algorithms")
        b, y = voxels.acquisition.b_values, voxels.signals
        if method == "segmented":
            slow, f, fast, _ = fitting.fit_segmented_array(b, y, njobs=1)
            return ivim(f, slow, fast), int(np.sum(fast == 0))
        slow, f, fast, scale = first = fitting.fit_least_squares_array(b, y, njobs=1)
        if method == "bayes":  # the prior comes from the least squares
            settings = SimpleNamespace(fitS0=True, jobs=1)
            slow, f, fast, scale = fitting.fit_bayesian_array(b, y / y[:, :1], first, settings)
        return ivim(f, slow, fast), int(np.sum(scale == 1))

    return fit


def bounds_of_ivim(voxels: Voxels) -> NDArray[np.float64]:
    """Bounds of f, D and D* in bidsfit (rows), um^2/ms."""
    bounds = {parameter.name: parameter.bounds for parameter in voxels.model.parameters}
    return np.array([bounds[name] for name in ("f", "D", "Dstar")])


def ivimfit(segmented: bool) -> Fit:
    def fit(voxels: Voxels) -> tuple[Parameters, int]:
        low, high = (bounds_of_ivim(voxels) * [[1], [1e-3], [1e-3]]).T
        b = voxels.acquisition.b_values
        if segmented:
            function = import_module("ivimfit.segmented").fit_biexp_segmented
            bounds = {"bounds": (low[::2], high[::2]), "bounds_D": ([0, low[1]], [1, high[1]])}
        else:
            function, bounds = import_module("ivimfit.biexp").fit_biexp_free, {"bounds": (low, high)}
        found = ivim(*np.array([function(b, y, **bounds) for y in voxels.signals]).T)
        return found, 0 if segmented else unmoved(found, f=0.1, D=1.0, Dstar=10.0)

    return fit


def dmipy(voxels: Voxels) -> tuple[Parameters, int]:
    scheme = import_module("dmipy_fit.core.acquisition_scheme").acquisition_scheme_from_bvalues
    ball = import_module("dmipy_fit.signal_models.gaussian_models").G1Ball
    model = import_module("dmipy_fit.core.modeling_framework").MultiCompartmentModel([ball(), ball()])
    _, slow_bounds, fast_bounds = 1e-9 * bounds_of_ivim(voxels)  # m^2/s
    model.set_parameter_optimization_bounds("G1Ball_1_lambda_iso", slow_bounds)
    model.set_parameter_optimization_bounds("G1Ball_2_lambda_iso", fast_bounds)
    b = 1e6 * voxels.acquisition.b_values
    vectors = np.tile([1.0, 0, 0], (b.size, 1))
    fitted = model.fit(scheme(b, vectors, min_b_shell_distance=1e6, b0_threshold=0), voxels.signals).fitted_parameters
    slow, fast = (1e6 * fitted[f"G1Ball_{k}_lambda_iso"] for k in (1, 2))
    return ivim(fitted["partial_volume_1"], slow, fast), 0


#: Rows of the tables: the module a fit needs, and the fit.
IVIM: dict[str, tuple[str | None, Fit]] = {
    "bidsfit lsq": (None, bidsfit(LeastSquares)),
    "bidsfit lsq, debias": (None, bidsfit(lambda model: LeastSquares(model, debias=True))),
    "bidsfit lsq, bounds of IVIMNET": (None, bidsfit(lambda model: LeastSquares(model, bounds=NARROW))),
    "bidsfit segmented": (None, bidsfit(Segmented)),
    "bidsfit mle": (None, bidsfit(MaximumLikelihood)),
    "bidsfit bayes": (None, bidsfit(Bayesian)),
    "bidsfit bayes, bounds of IVIMNET": (None, bidsfit(lambda model: Bayesian(model, bounds=NARROW))),
    "bidsfit bayesmap": (None, bidsfit(MaximumAPosteriori)),
    "bidsfit bayesmap, bounds of IVIMNET": (None, bidsfit(lambda model: MaximumAPosteriori(model, bounds=NARROW))),
    "SciPy": (None, scipy),
    "DIPY, same bounds": ("dipy", dipy_ivim(own_bounds=False)),
    "DIPY, own bounds": ("dipy", dipy_ivim(own_bounds=True)),
    "ivim-mri nlls": ("ivim", ivim_mri("nlls", BLOOD)),
    "ivim-mri seg": ("ivim", ivim_mri("seg", 0.0)),
    "ivim-mri bayes": ("ivim", ivim_mri("bayes", BLOOD)),
    "IVIMNET least squares": ("IVIMNET", ivimnet("least squares")),
    "IVIMNET segmented": ("IVIMNET", ivimnet("segmented")),
    "IVIMNET Bayesian": ("IVIMNET", ivimnet("bayes")),
    "ivimfit free": ("ivimfit", ivimfit(segmented=False)),
    "ivimfit segmented": ("ivimfit", ivimfit(segmented=True)),
    "dmipy-fit": ("dmipy_fit", dmipy),
}
SMT: dict[str, tuple[str | None, Fit]] = {
    "bidsfit lsq": (None, bidsfit(LeastSquares)),
    "bidsfit lsq, debias": (None, bidsfit(lambda model: LeastSquares(model, debias=True))),
    "bidsfit mle": (None, bidsfit(MaximumLikelihood)),
    "bidsfit bayes": (None, bidsfit(Bayesian)),
    "bidsfit bayesmap": (None, bidsfit(MaximumAPosteriori)),
    "SciPy": (None, scipy),
    "DIPY MSDKI": ("dipy", dipy_kurtosis(np.inf)),
    "DIPY MSDKI, b up to 2000": ("dipy", dipy_kurtosis(2000.0)),
}

#: Voxels of a turn, which are repeated to as many where a fit is too fast to measure.
MANY = {label: 1000 if "bayes" in label and "map" not in label else 20_000 for label in IVIM if "bidsfit" in label}

if __name__ == "__main__":
    main()
