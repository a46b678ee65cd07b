"""Radio-frequency pulses: what their metadata say of the field that they apply."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from bidsfit.acquisition import GYROMAGNETIC_RATIO

#: Shapes of saturation pulses that their duration and bandwidth determine, as BIDS calls them.
Shape = Literal["HARD", "GAUSSIAN", "GAUSSHANN"]
SHAPES: tuple[Shape, ...] = get_args(Shape)

#: Points of a pulse at which its shape is averaged.
POINTS = 1000


def root_mean_square_b1(
    flip_angle: float, duration: float, spacing: float, shape: Shape = "HARD", bandwidth: float = math.inf
) -> float:
    """Amplitude of the continuous wave of the mean power of a train of pulses, in microtesla.

    Parameters
    ----------
    flip_angle : float
        Of each pulse on resonance, degrees.
    duration, spacing : float
        Of each pulse, and from one to the next, seconds.
    shape : {"HARD", "GAUSSIAN", "GAUSSHANN"}
        Constant, Gaussian, or Gaussian times a Hann window of the length of the pulse.
    bandwidth : float
        Full width at half maximum of the spectrum of the Gaussian, Hz.
    """
    time = (np.arange(POINTS) + 0.5) / POINTS - 0.5
    curve = np.ones(POINTS)
    if shape != "HARD":
        width = math.sqrt(2 * math.log(2)) / (math.pi * bandwidth * duration)
        curve = np.exp(-((time / width) ** 2) / 2)
    if shape == "GAUSSHANN":
        curve *= np.cos(np.pi * time) ** 2
    largest = math.radians(flip_angle) / (duration * curve.mean())  # rad/s
    return float(largest * math.sqrt((curve**2).mean() * duration / spacing) / 1000 / GYROMAGNETIC_RATIO)
