"""What each step of the preprocessing does to the maps, against the truth of simulated raw images.

For each step an image with what the step is for, and one without it (clean, but noisy): the error of every parameter
without the step and with it. Then all imperfections together, and the whole chain. The noise is that of a scanner
(Rician) except where the Rician bias itself would hide what a step does. Of complex signals, the real part without the
smooth phase stands against the magnitude without its Rician bias; both are denoised.

    python benchmarks/preprocessing.py                 # both models, about half an hour on two cores
    python benchmarks/preprocessing.py --model ivim --shape 48 48 10
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from bidsfit import models
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.noise import correct_rician_image, rician_sigma_map
from bidsfit.phantom.cohort import Cohort, Participant
from bidsfit.phantom.imperfections import NONE, RAW, Imperfections
from bidsfit.preprocessing import likeness
from bidsfit.preprocessing.denoising import denoise_mppca
from bidsfit.preprocessing.motion import estimate_motion
from bidsfit.preprocessing.phase import real_part
from bidsfit.preprocessing.resampling import resample
from bidsfit.preprocessing.ringing import remove_ringing
from bidsfit.preprocessing.susceptibility import estimate_field
from bidsfit.preprocessing.trajectory import motion_parameters

#: Protocols: b-values and numbers of directions.
PROTOCOLS = {
    "ivim": ((0, 0, 0, 0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 400, 600, 800), 3),
    "smt2": ((0, 0, 0, 0, 0, 0, 0, 0, 1000, 2000, 3500, 5000), 12),
}

#: Parameters that are told of.
PARAMETERS = {"ivim": ("D", "f"), "smt2": ("vcyl", "lambda")}

AXIS = 1  # of the phase encoding


@dataclass
class Scan:
    """A simulated image on its way through the steps."""

    cohort: Cohort
    participant: Participant
    data: NDArray
    region: NDArray
    sigma: NDArray | None = None
    shift: NDArray | None = None
    transforms: NDArray | None = None

    @classmethod
    def of(cls, cohort: Cohort) -> Scan:
        """The first session of the first participant."""
        participant = next(iter(cohort.participants()))
        region = binary_dilation(participant.head.mask, iterations=3)
        data = np.abs(cohort.complex_scan(participant, 1)) if cohort.phase else cohort.scan(participant, 1)
        return cls(cohort, participant, data, region)

    @property
    def affine(self) -> NDArray:
        return self.cohort.truth(self.participant, 1).affine


def denoise(scan: Scan, threads: int) -> Scan:
    data, sigma = denoise_mppca(scan.data, scan.region, threads=threads)
    return replace(scan, data=data, sigma=sigma)


def gibbs(scan: Scan, threads: int) -> Scan:
    return replace(scan, data=remove_ringing(scan.data, threads=threads))


def rician(scan: Scan, threads: int) -> Scan:
    """With the level that MP-PCA finds; the signals as they are, or denoised where that was done."""
    denoised, sigma = (scan.data, scan.sigma) if scan.sigma is not None else denoise_mppca(scan.data, scan.region)
    level = rician_sigma_map(sigma, denoised, threads=threads)
    return replace(scan, data=correct_rician_image(scan.data, level, threads=threads))


def magnitude(scan: Scan, threads: int) -> Scan:
    """What magnitudes get in place of their phase."""
    return rician(denoise(scan, threads), threads)


def phase(scan: Scan, threads: int) -> Scan:
    signals = scan.cohort.complex_scan(scan.participant, 1)
    return denoise(replace(scan, data=real_part(np.abs(signals), np.angle(signals))), threads)


def susceptibility(scan: Scan, threads: int) -> Scan:
    """From the reversed pair; a scan without a field has one too."""
    distorted = scan.cohort.imperfections.off_resonance
    with_pair = scan.cohort if distorted else replace(scan.cohort, imperfections=replace(NONE, off_resonance=1e-6))
    pair = {polarity: v.mean(axis=-1) for polarity, v in with_pair.reversed_phase(scan.participant, 1).items()}
    field = estimate_field(pair[-1], pair[1], scan.affine, AXIS, threads=threads)
    if field.negligible:
        return scan
    still = np.tile(np.eye(4), (scan.data.shape[3], 1, 1))
    return replace(scan, data=resample(scan.data, scan.affine, still, field.shift, AXIS).data)


def motion(scan: Scan, threads: int, shift: NDArray | None = None) -> Scan:
    acquisition = scan.cohort.acquisition
    axis, still = AXIS if shift is not None else None, np.tile(np.eye(4), (scan.data.shape[3], 1, 1))
    unmoved = resample(scan.data, scan.affine, still, shift, axis)
    found = estimate_motion(
        unmoved.data,
        scan.affine,
        acquisition.b_values,
        scan.region,
        directions=acquisition.directions,
        axis=AXIS,
        threads=threads,
    )
    placed, transforms = resample(scan.data, scan.affine, found.transforms, shift, axis), found.transforms
    inside = scan.region & placed.covered & unmoved.covered
    gain = likeness.gain(unmoved.data, placed.data, acquisition.b_values, inside, acquisition.directions)
    if gain <= likeness.LEAST_GAIN:
        placed, transforms = unmoved, still
    return replace(scan, data=np.where(placed.covered[..., None], placed.data, np.nan), transforms=transforms)


def whole(scan: Scan, threads: int) -> Scan:
    """All steps in the order of the app; motion and field with one interpolation."""
    scan = rician(gibbs(denoise(scan, threads), threads), threads)
    if not scan.cohort.imperfections.off_resonance:
        return motion(scan, threads)
    pair = {k: v.mean(axis=-1) for k, v in scan.cohort.reversed_phase(scan.participant, 1).items()}
    return motion(scan, threads, estimate_field(pair[-1], pair[1], scan.affine, AXIS, threads=threads).shift)


#: Step, its function, what it is for, and the noise of its images (SNR, kind).
CASES: tuple[tuple[str, Callable[[Scan, int], Scan], Imperfections, float, str], ...] = (
    ("denoise", denoise, NONE, 20, "gaussian"),
    ("gibbs", gibbs, Imperfections(gibbs=True), 30, "gaussian"),
    ("rician", magnitude, NONE, 10, "rician"),
    *(("phase", phase, NONE, snr, "rician") for snr in (5, 10, 20)),
    ("susceptibility", susceptibility, Imperfections(off_resonance=40), 30, "gaussian"),
    ("motion", motion, Imperfections(motion=2, rotation=2, eddy=1), 20, "gaussian"),
    ("whole chain", whole, RAW, 20, "rician"),
)


def errors(scan: Scan, model: str) -> dict[str, tuple[float, float]]:
    """Median size and root mean square of the errors over the brain, by parameter."""
    mask = scan.participant.head.mask & np.isfinite(scan.data).all(axis=-1)
    found = LeastSquares(models.get(model)).estimate(scan.data[mask].astype(float), scan.cohort.acquisition)
    result = {}
    for name in PARAMETERS[model]:
        apart = found.parameters[name] - scan.participant.head.parameters[name][mask]
        result[name] = float(np.nanmedian(np.abs(apart))), float(np.sqrt(np.nanmean(apart**2)))
    return result


def motion_error(scan: Scan) -> str:
    """How far estimated motion lies from the true one, relative to the first volume."""
    if scan.transforms is None:
        return ""
    truth = scan.cohort.truth(scan.participant, 1).transforms
    apart = np.array([np.linalg.inv(a) @ b for a, b in zip(truth, scan.transforms, strict=True)])
    parameters = np.abs(motion_parameters(apart, np.zeros(3)))
    millimetres, degrees = parameters[:, :3].max(axis=1), np.rad2deg(parameters[:, 3:]).max(axis=1)
    return (
        f"motion found within {np.median(millimetres):.2f} mm, {np.median(degrees):.2f} degrees in the median; "
        f"95 % within {np.percentile(millimetres, 95):.2f} mm, {np.percentile(degrees, 95):.2f} degrees"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=PROTOCOLS, nargs="+", default=list(PROTOCOLS))
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 96, 16))
    parser.add_argument(
        "--step", nargs="+", default=list(dict.fromkeys(case[0] for case in CASES)), help="default: all"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a small run that shows that the command works")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape = (24, 24, 6)
    print("| model | step | image | parameter | median error without | with | change | RMSE without | with | change |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for model in arguments.model:
        b_values, n_directions = PROTOCOLS[model]
        for step, function, imperfections, snr, noise in CASES:
            if step not in arguments.step:
                continue
            for image, present in (("with it", imperfections), ("clean", NONE))[: 1 + (imperfections != NONE)]:
                cohort = Cohort(
                    model,
                    n_healthy=1,
                    n_patients=0,
                    shape=tuple(arguments.shape),
                    b_values=tuple(map(float, b_values)),
                    n_directions=n_directions,
                    snr=snr,
                    noise=noise,
                    seed=arguments.seed,
                    imperfections=present,
                    phase=step == "phase",
                )
                scan = Scan.of(cohort)
                start = time.perf_counter()
                after = function(scan, arguments.threads)
                seconds = time.perf_counter() - start
                before = magnitude(scan, arguments.threads) if step == "phase" else scan
                left, right = errors(before, model), errors(after, model)
                for name in PARAMETERS[model]:
                    cells = []
                    for k in range(2):
                        without, now = left[name][k], right[name][k]
                        cells += [f"{without:.4f}", f"{now:.4f}", f"{100 * (now / without - 1):+.1f} %"]
                    row = (model, step, f"SNR {snr:g}" if step == "phase" else image, name, *cells)
                    print(f"| {' | '.join(row)} |", flush=True)
                words = motion_error(after)
                print(f"<!-- {step}, {image}: {seconds:.0f} s{'; ' + words if words else ''} -->", flush=True)


if __name__ == "__main__":
    main()
