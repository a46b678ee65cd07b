"""Contribution of one measurement to the objective of a fit: for each kind of noise compiled, and on tensors of torch.

A misfit takes the measured signal, the predicted signal and a weight, and returns

- its cost (twice the negative log-likelihood up to a constant; with weight 1 / sigma^2),
- minus half its derivative with respect to the prediction (points downhill),
- half its second derivative, or a positive stand-in for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba

if TYPE_CHECKING:
    from torch import Tensor


@numba.njit(error_model="numpy", forceinline=True)
def gaussian(measured: float, predicted: float, weight: float) -> tuple[float, float, float]:
    """Weighted square of the residual."""
    residual = measured - predicted
    return weight * residual * residual, weight * residual, weight


@numba.njit(error_model="numpy")
def rician(measured: float, predicted: float, weight: float) -> tuple[float, float, float]:
    """Rician density of a magnitude (not negative); the weight is 1 / sigma^2 of one channel.

    The curvature is kept above a tenth of the Gaussian one: near the noise floor it falls to zero and below.
    """
    z = measured * predicted * weight
    log_scaled_i0, ratio = bessel_terms(z)
    residual = measured - predicted
    cost = weight * residual * residual - 2.0 * log_scaled_i0
    slope = weight * (measured * ratio - predicted)
    derivative = 0.5 if z < 1e-8 else 1.0 - ratio / z - ratio * ratio
    curvature = weight * max(1.0 - weight * measured * measured * derivative, 0.1)
    return cost, slope, curvature


@numba.njit(error_model="numpy")
def bessel_terms(z: float) -> tuple[float, float]:
    """log(I0(z) exp(-z)) and I1(z) / I0(z) for z >= 0, to about 1e-15.

    Power series of positive terms below 20; above, the asymptotic series, whose smallest term is under 1e-17 there
    (Abramowitz and Stegun 9.6.12, 9.7.1).
    """
    if z < 20.0:
        quarter = 0.25 * z * z
        term0, term1 = 1.0, 0.5 * z
        i0, i1 = term0, term1
        k = 1
        while term0 > 1e-17 * i0 or term1 > 1e-17 * i1:
            term0 *= quarter / (k * k)
            term1 *= quarter / (k * (k + 1))
            i0 += term0
            i1 += term1
            k += 1
        return math.log(i0) - z, i1 / i0
    inverse = 0.125 / z
    term0 = term1 = i0 = i1 = 1.0
    for k in range(1, 30):
        odd = (2.0 * k - 1.0) ** 2
        term0 *= odd * inverse / k
        term1 *= (odd - 4.0) * inverse / k
        i0 += term0
        i1 += term1
        if abs(term0) < 1e-17 * i0:
            break
    return math.log(i0) - 0.5 * math.log(2.0 * math.pi * z), i1 / i0


def gaussian_tensor(measured: Tensor, predicted: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`gaussian` of tensors."""
    residual = measured - predicted
    return weight * residual**2, weight * residual, weight


def rician_tensor(measured: Tensor, predicted: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`rician` of tensors."""
    import torch

    z = measured * predicted * weight
    scaled_i0 = torch.special.i0e(z)
    ratio = torch.special.i1e(z) / scaled_i0
    cost = weight * (measured - predicted) ** 2 - 2.0 * scaled_i0.log()
    derivative = (1.0 - ratio / z - ratio**2).where(z >= 1e-8, 0.5)
    curvature = weight * (1.0 - weight * measured**2 * derivative).clamp(min=0.1)
    return cost, weight * (measured * ratio - predicted), curvature
