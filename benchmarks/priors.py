"""How much the prior decides: posterior means of IVIM with other priors, and intervals off the prior.

The first table tells how far the posterior mean moves, in standard deviations of the posterior and in per cent of the
parameter, where all priors of the organ are made half or twice as wide; voxels are drawn from the organ's own prior.
The second draws voxels from the prior of one organ and fits them with the preset of another: the share of voxels whose
95 % interval holds the truth, and the root mean square error relative to that with the own preset.
"""

from __future__ import annotations

from _common import machine, options, table, use_cores  # isort: skip

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bidsfit import Bayesian, models
from bidsfit.acquisition import Acquisition
from bidsfit.models.organs import GENERAL, ORGANS
from bidsfit.models.priors import Prior, beta, priors_of
from bidsfit.models.space import ParameterSpace, bounds_of
from bidsfit.simulation.distributions import Informed

B_VALUES = (0, 0, 5, 10, 10, 20, 20, 30, 50, 75, 100, 150, 200, 300, 400, 500, 600, 700, 800)
NAMES = ("D", "f", "Dstar")


def main() -> None:
    parser = options(__doc__, voxels=1000)
    parser.add_argument("--snr", type=float, nargs="+", default=[10, 30, 100])
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.voxels, arguments.snr = 100, [30]
    use_cores(1)
    print(f"{machine()}; {arguments.voxels} voxels each, Gaussian noise of known level, the dense protocol.\n")
    print("Distance that the posterior mean moves, root mean square, in standard deviations of the posterior:\n")
    rows = [
        [f"`{organ}`, SNR {snr:g}", *moved(organ, snr, arguments.voxels)]
        for organ in (GENERAL, *ORGANS)
        for snr in arguments.snr
    ]
    header = [f"{name}, {width}" for width in ("half as wide", "twice as wide") for name in NAMES]
    print(table(["preset", *header], rows))
    for snr in arguments.snr:
        print(
            f"Truth of the organ in the row, preset of the column, SNR {snr:g}: intervals that hold D/f/D*, %; "
            "error of D relative to the own preset:\n"
        )
        presets = (GENERAL, *ORGANS)
        print(table(["truth", *presets], [[f"`{o}`", *crossed(o, presets, snr, arguments.voxels)] for o in ORGANS]))


def drawn(organ: str, snr: float, n: int) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64], Acquisition]:
    """True parameters from the prior of an organ, noisy signals, and the acquisition."""
    model, rng, acquisition = models.get("ivim", organ), np.random.default_rng(7), Acquisition(B_VALUES)
    space = ParameterSpace(model)
    samples = Informed(space, priors_of(model, bounds_of(model))).sample(n, rng)
    clean = model.signal(space.with_scale(samples), acquisition)
    return dict(zip(space.names, samples.T, strict=True)), clean + rng.normal(0, 1 / snr, clean.shape), acquisition


def widened(priors: Mapping[str, Prior], factor: float) -> dict[str, Prior]:
    """The priors with the standard deviation (of the logarithm, where they are log-normal) times a factor."""
    found = {}
    for name, prior in priors.items():
        if prior.distribution == "lognorm":
            changed = {**prior.arguments, "s": prior.arguments["s"] * factor}
            found[name] = Prior("lognorm", prior.bounds, changed)
        else:
            a, b = prior.arguments["a"], prior.arguments["b"]
            mean, sd = a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
            found[name] = beta(mean, min(sd * factor, 0.95 * np.sqrt(mean * (1 - mean)))).within(*prior.bounds)
    return found


def moved(organ: str, snr: float, n: int) -> list[str]:
    """Shifts of the posterior mean by narrower and wider priors."""
    model = models.get("ivim", organ)
    _, signals, acquisition = drawn(organ, snr, n)
    own = Bayesian(model)
    usual = own.estimate(signals, acquisition, 1 / snr)
    cells = []
    for factor in (0.5, 2.0):
        other = Bayesian(model, priors=widened(own.priors, factor)).estimate(signals, acquisition, 1 / snr)
        for name in NAMES:
            shift = other.parameters[name] - usual.parameters[name]
            cells.append(f"{np.sqrt(np.nanmean((shift / usual.statistics['sd'][name]) ** 2)):.2f}")
    return cells


def crossed(truth: str, presets: tuple[str, ...], snr: float, n: int) -> list[str]:
    """Coverage and error of voxels of one organ with each preset."""
    true, signals, acquisition = drawn(truth, snr, n)
    errors, cells = {}, {}
    for preset in presets:
        found = Bayesian(models.get("ivim", preset)).estimate(signals, acquisition, 1 / snr)
        low, high = found.statistics["q025"], found.statistics["q975"]
        held = [np.mean((low[name] <= true[name]) & (true[name] <= high[name])) for name in NAMES]
        errors[preset] = np.sqrt(np.nanmean((found.parameters["D"] - true["D"]) ** 2))
        cells[preset] = "/".join(f"{100 * share:.0f}" for share in held)
    return [f"{cells[preset]}; {errors[preset] / errors[truth]:.2f}" for preset in presets]


if __name__ == "__main__":
    main()
