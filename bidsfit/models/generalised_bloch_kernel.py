"""The cycle of pulses of `bidsfit.models.generalised_bloch` for many voxels, with its derivatives, by compiled code."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.compiling import cached

#: The saturation of macromolecules is tabulated for pulses from the first to the second times their T2, and turning by
#: up to so many radians, as Chebyshev coefficients in the logarithm of the first and the square of the second.
SHORTEST, LONGEST, LARGEST_ANGLE = 2.0, 1000.0, 1.5 * math.pi

#: Derivatives are taken with respect to these parameters, in the order of the model, beside S0 and the phase.
SHARE, R1F, R2F, RX, R1S, T2S, F0, B1, LANES = range(9)
#: Factors from the units of the parameters to those of ms.
UNITS = np.array([1.0, 1e-3, 1e-3, 1e-3, 1e-3, 1.0, 2e-3 * np.pi, 1.0])

#: Below this product of rate and time a series tells a derivative of the exchange, where differences would cancel.
SLOW = 0.1

#: What is kept of every step for its derivatives; those with respect to off-resonance and B1 end in _f0 and _b1.
STEP = np.dtype(
    [(name, "f8") for name in ("wait", "half", "cosine", "sine", "even", "odd")]  # free evolution
    + [(name, "f8") for name in ("during", "slope", "a", "b", "q", "p", "q_slope", "p_slope")]  # rotation
    + [(name, "f8") for name in ("across", "across_f0", "across_b1", "along", "along_f0", "along_b1")]  # its means
    + [(name, "f8") for name in ("left_x", "left_y", "left_z", "left_z_b1", "left_s")]  # what the pulse leaves
    + [(name, "f8") for name in ("saturated", "saturated_t2s", "saturated_b1")]
    + [("turn", "c16"), ("place", "f8", (2, 5))]  # of x and y: by the state before the cycle, and 1
)


def fill_cycles(
    parameters: NDArray[np.float64],
    design: NDArray[np.float64],
    table: NDArray[np.float64],
    signals: NDArray[np.complex128],
    slopes: NDArray[np.complex128],
) -> None:
    """Fill in the signals of a cycle of pulses that is repeated until it is periodic, and their derivatives.

    The state with which a cycle begins and ends follows from the product of all steps. Derivatives are followed through
    a cycle that begins with this state; what they lack to be periodic follows from the same equations.

    Parameters
    ----------
    parameters : ndarray, shape (n_voxels, 10)
    design : ndarray, shape (n, 4)
        Flip angle (degrees), duration and repetition time (ms), and 1 for pulses with crushers, else 0.
    table : ndarray
        Chebyshev coefficients of the saturation of macromolecules.
    signals : ndarray, shape (n_voxels, n)
    slopes : ndarray, shape (n_voxels, 10, n), or of no voxel

    Both are NaN where the parameters describe no tissue.
    """
    _fill(parameters, design, table, np.empty(len(design), dtype=STEP), signals, slopes)


@cached
@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _fill(
    parameters: NDArray, design: NDArray, table: NDArray, steps: NDArray, signals: NDArray, slopes: NDArray
) -> None:
    """`fill_cycles`, with room for the steps (n,) to work in."""
    for v in range(len(parameters)):
        tissue = parameters[v, 1:9] * UNITS
        scale = parameters[v, 0] * np.exp(1j * parameters[v, 9])
        whole = _steps(tissue, design, table, steps)
        if not np.isfinite(whole).all():  # of a share below 0, which networks may estimate, and fits do not
            signals[v], slopes[v : v + 1] = np.nan, np.nan
            continue
        periodic = np.linalg.inv(np.eye(4) - whole[:, :4])
        state = periodic @ whole[:, 4].copy()
        for k in range(len(steps)):
            x, y = _after(steps[k].place, state)
            signals[v, k] = steps[k].turn * complex(x + steps[k].place[0, 4], y + steps[k].place[1, 4])
        if len(slopes) > 0:
            first = np.ascontiguousarray((periodic @ _tangents(tissue, state, steps, slopes[v])).T)
            for k in range(len(steps)):
                step, signal = steps[k], scale * signals[v, k]
                for lane in range(LANES):
                    x, y = _after(step.place, first[lane])
                    slopes[v, lane + 1, k] = scale * UNITS[lane] * step.turn * (slopes[v, lane + 1, k] + complex(x, y))
                slopes[v, R2F + 1, k] -= UNITS[R2F] * step.half * signal
                slopes[v, F0 + 1, k] += UNITS[F0] * step.half * 1j * signal
                slopes[v, 0, k] = signals[v, k] * np.exp(1j * parameters[v, 9])
                slopes[v, 9, k] = 1j * signal
        for k in range(len(steps)):
            signals[v, k] *= scale


@numba.njit(nogil=True)
def _after(place: NDArray, state: NDArray) -> tuple[float, float]:
    """The transverse state after a step, of the part that is proportional to the state before the cycle."""
    x, y = 0.0, 0.0
    for j in range(4):
        x += place[0, j] * state[j]
        y += place[1, j] * state[j]
    return x, y


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _cross(a: float, b: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Vector product of the axis (0, a, b) and a magnetisation."""
    return a * z - b * y, b * x, -a * x


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _turned(step: Any, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Magnetisation after half of the rotation of a pulse, by the formula of Rodrigues."""
    cx, cy, cz = _cross(step.a, step.b, x, y, z)
    dx, dy, dz = _cross(step.a, step.b, cx, cy, cz)
    return x + step.q * cx + step.p * dx, y + step.q * cy + step.p * dy, z + step.q * cz + step.p * dz


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _turned_on(step: Any, da: float, db: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Derivative of `_turned` where those of the axis are da and db."""
    move = step.a * da + step.b * db
    q, p = step.q_slope * move, step.p_slope * move
    cx, cy, cz = _cross(step.a, step.b, x, y, z)
    dx, dy, dz = _cross(step.a, step.b, cx, cy, cz)
    ex, ey, ez = _cross(da, db, x, y, z)
    fx, fy, fz = _cross(da, db, cx, cy, cz)
    gx, gy, gz = _cross(step.a, step.b, ex, ey, ez)
    return (
        q * cx + p * dx + step.q * ex + step.p * (fx + gx),
        q * cy + p * dy + step.q * ey + step.p * (fy + gy),
        q * cz + p * dz + step.q * ez + step.p * (fz + gz),
    )


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _exchange(tissue: NDArray) -> tuple[float, float, float, float]:
    """Mean rate at which longitudinal magnetisation is lost, half the difference, its root, and share of the water."""
    free = 1.0 - tissue[SHARE]
    lost = tissue[R1F] + tissue[RX] * tissue[SHARE], tissue[R1S] + tissue[RX] * free
    half = (lost[0] - lost[1]) / 2
    root = np.sqrt(half**2 + tissue[RX] ** 2 * tissue[SHARE] * free + 1e-24)
    return (lost[0] + lost[1]) / 2, half, root, free


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _saturate(step: Any, duration: float, slope: float, tissue: NDArray, table: NDArray, sums: NDArray) -> None:
    """Fill in the share of macromolecules that a pulse leaves, and its derivatives with respect to T2s and B1."""
    per_logarithm, ratio = 2 / math.log(LONGEST / SHORTEST), 1000 * duration / tissue[T2S]
    angle = tissue[B1] * slope
    x = np.log(min(max(ratio, SHORTEST), LONGEST) / SHORTEST) * per_logarithm - 1
    y = 2 * min((angle / LARGEST_ANGLE) ** 2, 1.0) - 1
    sums[:] = 0.0
    before, term, before_, term_ = x, 1.0, 1.0, 0.0  # polynomials and their derivatives, of which those of -1 are of 1
    for i in range(table.shape[0]):
        for j in range(table.shape[1]):
            sums[0, j] += term * table[i, j]
            sums[1, j] += term_ * table[i, j]
        before, term, before_, term_ = term, 2 * x * term - before, term_, 2 * (term + x * term_) - before_
    value, of_ratio, of_angle = 0.0, 0.0, 0.0
    before, term, before_, term_ = y, 1.0, 1.0, 0.0
    for j in range(table.shape[1]):
        value += term * sums[0, j]
        of_ratio += term * sums[1, j]
        of_angle += term_ * sums[0, j]
        before, term, before_, term_ = term, 2 * y * term - before, term_, 2 * (term + y * term_) - before_
    step.saturated = value
    step.saturated_t2s = -of_ratio * per_logarithm / tissue[T2S] if SHORTEST < ratio < LONGEST else 0.0
    step.saturated_b1 = of_angle * 4 * angle * slope / LARGEST_ANGLE**2 if angle < LARGEST_ANGLE else 0.0


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _rotate(step: Any, slope: float, tissue: NDArray) -> None:
    """Fill in the rotation by half of a pulse, and means over it of what is along z in its middle."""
    step.slope, step.a, step.b = slope, tissue[B1] * slope, tissue[F0] * step.during
    square = step.a**2 + step.b**2 + 1e-16
    angle = np.sqrt(square)
    sine, cosine, quarter = np.sin(angle / 2), np.cos(angle / 2), np.sin(angle / 4) / angle
    step.q, step.p = sine / angle, 2 * quarter**2
    step.q_slope = (cosine / 2 - step.q) / square  # derivatives with respect to the square, times 2
    step.p_slope = (step.q / 2 - 2 * step.p) / square
    tilt, whole = step.a**2 / square, 2 * step.q * cosine
    whole_slope = (2 * cosine**2 - 1 - whole) / square
    step.across, step.along = tilt * (1 - whole) / 2, 1 - tilt * (1 - 2 * step.q)
    ratio_a, ratio_b = step.a * slope / square, step.b * step.during / square
    tilt_b1, tilt_f0 = 2 * ratio_a * (1 - tilt), -2 * tilt * ratio_b
    step.across_b1 = (tilt_b1 * (1 - whole) - tilt * whole_slope * step.a * slope) / 2
    step.across_f0 = (tilt_f0 * (1 - whole) - tilt * whole_slope * step.b * step.during) / 2
    step.along_b1 = 2 * tilt * step.q_slope * step.a * slope - tilt_b1 * (1 - 2 * step.q)
    step.along_f0 = 2 * tilt * step.q_slope * step.b * step.during - tilt_f0 * (1 - 2 * step.q)


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _steps(tissue: NDArray, design: NDArray, table: NDArray, steps: NDArray) -> NDArray:
    """Fill in the steps; return the matrix of the whole cycle, shape (4, 5), whose last column is added."""
    share, r1f, r2f, rx, r1s, w0 = tissue[SHARE], tissue[R1F], tissue[R2F], tissue[RX], tissue[R1S], tissue[F0]
    mean, half, root, free = _exchange(tissue)
    columns, sums = np.zeros((4, 5)), np.empty((2, table.shape[1]))
    for i in range(4):
        columns[i, i] = 1.0
    before = (design[-1, 2] - (0.0 if design[-1, 3] > 0 else design[-1, 1])) / 2
    for k in range(len(steps)):
        step, crushed, slope = steps[k], design[k, 3] > 0, np.deg2rad(design[k, 0])
        step.during = 0.0 if crushed else design[k, 1]
        step.half = (design[k, 2] - step.during) / 2
        step.wait, before = before + step.half, step.half
        step.turn = np.exp(-r2f * step.half) * complex(np.cos(w0 * step.half), np.sin(w0 * step.half))
        left = np.exp(-r2f * step.wait)
        step.cosine, step.sine = left * np.cos(w0 * step.wait), left * np.sin(w0 * step.wait)
        slow, fast = np.exp((root - mean) * step.wait), np.exp(-(root + mean) * step.wait)
        step.even, step.odd = (slow + fast) / 2, (slow - fast) / (2 * root)
        _saturate(step, design[k, 1], slope, tissue, table, sums)
        _rotate(step, 0.0 if crushed else slope, tissue)
        change = (mean + half - r2f) * step.across
        step.left_x = np.exp(-(r2f + change) * step.during)
        step.left_y = np.exp(-r2f * step.during)
        step.left_z = np.exp(-(mean + half - change) * step.during)
        step.left_s = np.exp(-(mean - half) * step.during)
        step.left_z_b1 = 0.0
        if crushed:  # which leaves of the transverse state what it refocuses
            step.left_x, step.left_z = np.sin(tissue[B1] * slope / 2) ** 2, np.cos(tissue[B1] * slope)
            step.left_y, step.left_z_b1 = -step.left_x, -slope * np.sin(tissue[B1] * slope)
        stay, leave = step.even - step.odd * half, step.even + step.odd * half
        met = step.during * step.along * (1 + step.saturated) / 2
        for j in range(5):
            one = 1.0 if j == 4 else 0.0
            x, y, z, s = columns[0, j], columns[1, j], columns[2, j] - one * free, columns[3, j] - one * share
            x, y = step.sine * y - step.cosine * x, -step.sine * x - step.cosine * y
            z, s = one * free + stay * z + rx * free * step.odd * s, one * share + leave * s + rx * share * step.odd * z
            x, y, z = _turned(step, x, y, z)
            columns[3, j] = rx * share * met * z + step.saturated * step.left_s * s
            columns[3, j] += one * r1s * share * step.during * (1 + step.saturated) / 2
            z = step.left_z * z + rx * free * met * s + one * r1f * free * step.during * step.along
            columns[0, j], columns[1, j], columns[2, j] = _turned(step, step.left_x * x, step.left_y * y, z)
            step.place[0, j], step.place[1, j] = columns[0, j], columns[1, j]
    return columns


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _tangents(tissue: NDArray, state: NDArray, steps: NDArray, slopes: NDArray) -> NDArray:
    """Derivatives of a cycle that begins with this state, whatever the parameters: of its end, shape (4, 8).

    Those of x + iy after every step are filled into rows 1 to 8 of ``slopes``.
    """
    share, r1f, r2f, rx, r1s = tissue[SHARE], tissue[R1F], tissue[R2F], tissue[RX], tissue[R1S]
    mean, half, root, free = _exchange(tissue)
    lanes, of = np.zeros((4, LANES)), np.eye(LANES)  # of[RX] is the derivative of Rx by lane, and so on
    of_mean = (of[R1F] + of[R1S] + of[RX]) / 2
    of_half = (of[R1F] - of[R1S] + (share - free) * of[RX]) / 2 + rx * of[SHARE]
    of_square = half * of_half + rx * share * free * of[RX] + rx**2 * (free - share) / 2 * of[SHARE]  # root^2 / 2
    gaining, losing = free * of[RX] - rx * of[SHARE], share * of[RX] + rx * of[SHARE]  # of rx free and rx share
    m0, m1, m2, m3 = state[0], state[1], state[2], state[3]
    for k in range(len(steps)):
        step = steps[k]
        wait, even, odd, during, met = step.wait, step.even, step.odd, step.during, (1 + step.saturated) / 2
        sine, cosine = step.sine, step.cosine
        if root * wait < SLOW:
            u = (root * wait) ** 2
            curve = np.exp(-mean * wait) * wait**3 * (1 / 3 + u * (1 / 30 + u * (1 / 840 + u / 45360)))
        else:
            curve = (wait * even - odd) / root**2
        # the state through the step
        x1, y1, z0, s0 = sine * m1 - cosine * m0, -sine * m0 - cosine * m1, m2 - free, m3 - share
        stay, leave, enter, exit = even - odd * half, even + odd * half, rx * free * odd, rx * share * odd
        z1, s1 = free + stay * z0 + enter * s0, share + leave * s0 + exit * z0
        x2, y2, z2 = _turned(step, x1, y1, z1)
        x3, y3 = step.left_x * x2, step.left_y * y2
        z3 = step.left_z * z2 + during * step.along * (rx * free * met * s1 + r1f * free)
        m0, m1, m2 = _turned(step, x3, y3, z3)
        m3 = step.saturated * step.left_s * s1 + during * met * (rx * share * step.along * z2 + r1s * share)
        # what turns further where the axis changes
        bx1, by1, bz1 = _turned_on(step, step.slope, 0.0, x1, y1, z1)
        fx1, fy1, fz1 = _turned_on(step, 0.0, during, x1, y1, z1)
        bx3, by3, bz3 = _turned_on(step, step.slope, 0.0, x3, y3, z3)
        fx3, fy3, fz3 = _turned_on(step, 0.0, during, x3, y3, z3)
        across, along, excess = step.across, step.along, mean + half - r2f
        for i in range(LANES):
            even_ = wait * (of_square[i] * odd - of_mean[i] * even)
            odd_ = of_square[i] * curve - wait * of_mean[i] * odd
            x, y = sine * lanes[1, i] - cosine * lanes[0, i], -sine * lanes[0, i] - cosine * lanes[1, i]
            x -= wait * (of[R2F, i] * x1 + of[F0, i] * y1)
            y -= wait * (of[R2F, i] * y1 - of[F0, i] * x1)
            change, more = odd_ * half + odd * of_half[i], of[SHARE, i]
            entering, exiting = rx * free * odd_ + gaining[i] * odd, rx * share * odd_ + losing[i] * odd
            z, s = lanes[2, i] + more, lanes[3, i] - more
            z, s = stay * z + enter * s - more, leave * s + exit * z + more
            z += (even_ - change) * z0 + entering * s0
            s += (even_ + change) * s0 + exiting * z0
            x, y, z = _turned(step, x, y, z)
            x += of[B1, i] * bx1 + of[F0, i] * fx1
            y += of[B1, i] * by1 + of[F0, i] * fy1
            z += of[B1, i] * bz1 + of[F0, i] * fz1
            across_ = step.across_f0 * of[F0, i] + step.across_b1 * of[B1, i]
            along_ = step.along_f0 * of[F0, i] + step.along_b1 * of[B1, i]
            saturated_ = step.saturated_t2s * of[T2S, i] + step.saturated_b1 * of[B1, i]
            lost_ = of_mean[i] + of_half[i]
            change = across * (lost_ - of[R2F, i]) + excess * across_
            met_ = along_ * met + along * saturated_ / 2
            left = saturated_ - step.saturated * during * (of_mean[i] - of_half[i])
            lanes[3, i] = step.left_s * (step.saturated * s + left * s1)
            lanes[3, i] += during * along * met * (rx * share * z + losing[i] * z2) + during * rx * share * met_ * z2
            lanes[3, i] += during * (met * (share * of[R1S, i] + r1s * of[SHARE, i]) + r1s * share * saturated_ / 2)
            x = step.left_x * x - x3 * during * (of[R2F, i] + change) - x2 * step.left_z_b1 / 2 * of[B1, i]
            y = step.left_y * y - y3 * during * of[R2F, i] + y2 * step.left_z_b1 / 2 * of[B1, i]
            z = step.left_z * (z - z2 * during * (lost_ - change)) + z2 * step.left_z_b1 * of[B1, i]
            z += during * along * (met * (rx * free * s + gaining[i] * s1) + free * of[R1F, i] - r1f * of[SHARE, i])
            z += during * (rx * free * met_ * s1 + r1f * free * along_)
            x, y, z = _turned(step, x, y, z)
            lanes[0, i] = x + of[B1, i] * bx3 + of[F0, i] * fx3
            lanes[1, i] = y + of[B1, i] * by3 + of[F0, i] * fy3
            lanes[2, i] = z + of[B1, i] * bz3 + of[F0, i] * fz3
        for i in range(LANES):
            slopes[i + 1, k] = complex(lanes[0, i], lanes[1, i])
    return lanes
