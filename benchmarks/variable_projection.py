"""Would variable projection fit IVIM better than `lsq`? Local minima, accuracy and speed on the same voxels.

Variable projection searches D and D* only: for each pair the two amplitudes follow in closed form, not negative. It is
written here as well as is known (a grid of 24 x 24, then Levenberg-Marquardt on the projected sum of squares with
Kaufman's derivative), once from the best node of the grid and once from every local minimum on it. Beside it stand
`lsq`, its solver with a finer grid of starting points (8 x 10 x 12 values of f, D and D*), and with that grid and a
start from the best node of each third of D* instead of one start. Only the solvers are timed, on one core.

Kaandorp et al. have 11 b-values, bidsfit's benchmarks 16. Voxels are drawn uniformly (f 0 to 0.5, D 0 to 3, D* 3 to 100
um^2/ms) with Rician noise. A minimum is inferior where the sum of squares is more than 0.1 % above the least that any
of the fits, or of many random starts of the solver of `lsq`, has found.
"""

from __future__ import annotations

from _common import IVIM_B_VALUES, machine, options, percent, seconds, table, use_cores  # isort: skip

import math
from dataclasses import replace
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.estimators.levenberg_marquardt import fit_voxels
from bidsfit.estimators.misfits import gaussian
from bidsfit.estimators.solver import make_problem
from bidsfit.noise import add_noise

PROTOCOLS = {"11 b-values": (0, 5, 10, 20, 30, 40, 60, 150, 300, 500, 700), "16 b-values": IVIM_B_VALUES}
MODEL = models.get("ivim")
LOW, HIGH = LeastSquares(MODEL).bounds[[MODEL.names.index(name) for name in ("D", "Dstar")]].T
GRID = np.linspace(0, 4, 24), np.geomspace(LOW[1], HIGH[1], 24)
FINER = {"f": (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.65, 0.85), "Dstar": tuple(np.geomspace(3, 180, 12))}
FINER["D"] = (0.1, 0.3, 0.6, 0.9, 1.2, 1.6, 2.0, 2.5, 3.0, 4.0)
THIRDS = (0.0, 8.0, 30.0, np.inf)
compiled = numba.njit(error_model="numpy")


def main() -> None:
    parser = options(__doc__, voxels=10_000)
    parser.add_argument("--starts", type=int, default=40, help="random starts of the reference (default %(default)s)")
    arguments = parser.parse_args()
    n, starts = (300, 5) if arguments.quick else (arguments.voxels, arguments.starts)
    use_cores(1)
    rng = np.random.default_rng(2024)
    tables: tuple[list, list, list] = ([], [], [])
    for name, b_values in PROTOCOLS.items():
        for snr in (10, 20, 50):
            for rows, cells in zip(tables, compare(Acquisition(b_values), n, snr, starts, rng), strict=True):
                rows.append([f"{name}, SNR {snr}", *cells])
    fits = ["lsq", "lsq, finer grid", "lsq, finer grid, three starts", "varpro, best node", "varpro, local minima"]
    print(f"{machine()}; {n:,} voxels, reference of {starts} random starts.\n")
    for title, rows in zip(
        ("Inferior minima", "RMSE of f / of D / median error of D*", "Voxels a second"), tables, strict=True
    ):
        print(f"{title}:\n\n{table(['voxels', *fits], rows)}")


def compare(acquisition: Acquisition, n: int, snr: float, starts: int, rng: np.random.Generator) -> tuple[list, ...]:
    """Fit one set of voxels with all; cells of the three tables."""
    truth = np.column_stack([np.ones(n), *(rng.uniform(*limits, n) for limits in ((0, 0.5), (0, 3), (3, 100)))])
    y = add_noise(MODEL.signal(truth, acquisition), 1 / snr, "rician", rng)
    y /= y[:, :1]
    finer = replace(MODEL, parameters=tuple(replace(p, start=FINER.get(p.name, p.start)) for p in MODEL.parameters))
    nodes = make_problem(finer, LeastSquares(finer).bounds, acquisition).nodes
    thirds = [nodes[(nodes[:, 3] >= low) & (nodes[:, 3] < high)] for low, high in pairwise(THIRDS)]
    usual = make_problem(MODEL, LeastSquares(MODEL).bounds, acquisition).nodes
    fits = [lambda k=k: least_squares(y, acquisition, k) for k in ([usual], [nodes], thirds)]
    fits += [lambda k=k: variable_projection(y, acquisition.variable("b"), *GRID, k) for k in (False, True)]
    found, times = [], []
    for fit in fits:
        fit()  # compiles
        times.append(seconds(lambda: found.append(fit())))  # noqa: B023
    random = rng.uniform((0, 0, math.log(3)), (1, 3, math.log(200)), (starts, 3)) @ np.eye(3, 4, 1) + [1, 0, 0, 0]
    random[:, 3] = np.exp(random[:, 3])
    reference = least_squares(y, acquisition, list(random[:, None]))
    costs = [np.sum((y - MODEL.signal(points, acquisition)) ** 2, axis=1) for points in [*found, reference]]
    least = np.min(costs, axis=0)
    errors = [abs(points - truth) for points in found]
    accuracy = [(*np.sqrt(np.mean(e[:, 1:3] ** 2, axis=0)), np.median(e[:, 3])) for e in errors]
    inferior = [percent(np.mean(cost > 1.001 * least + 1e-12)) for cost in costs[:-1]]
    return inferior, ["{:.3f} / {:.3f} / {:.1f}".format(*row) for row in accuracy], [f"{n / t:,.0f}" for t in times]


def least_squares(y: NDArray, acquisition: Acquisition, groups: list[NDArray]) -> NDArray:
    """The solver of `lsq`, once from the best node of each group; the best of them."""
    best, least = np.empty((len(y), 4)), np.full(len(y), np.inf)
    for nodes in groups:
        problem = make_problem(MODEL, LeastSquares(MODEL).bounds, acquisition)
        problem = problem._replace(nodes=nodes.copy(), node_signals=MODEL.signal(nodes, acquisition).T.copy())
        found, cost, status = np.full_like(best, np.nan), np.empty(len(y)), np.empty(len(y), dtype=np.uint8)
        fit_voxels(MODEL.kernel, gaussian, y, np.ones(len(y)), problem, found, cost, status)
        better = cost < least
        best[better], least[better] = found[better], cost[better]
    return best


@compiled
def variable_projection(y: NDArray, b: NDArray, slow: NDArray, fast: NDArray, everywhere: bool) -> NDArray:
    """Fit from the best node of the grid, or from every local minimum on it; parameters as `lsq` orders them."""
    curves = np.exp(-np.outer(np.concatenate((slow, fast)), b))
    products = curves @ curves.T
    best, gains = np.empty((len(y), 4)), np.full((slow.size + 2, fast.size + 2), -1.0)  # with a margin
    for v in range(len(y)):
        scores, highest = curves @ y[v], 0.0
        for j in range(slow.size):
            for k in range(fast.size):
                m = slow.size + k
                if slow[j] <= fast[k]:
                    found = amplitudes(products[j, j], products[j, m], products[m, m], scores[j], scores[m])
                    gains[j + 1, k + 1] = found[0] * scores[j] + found[1] * scores[m]
                    highest = max(highest, gains[j + 1, k + 1])
        least = np.inf
        for j in range(slow.size):
            for k in range(fast.size):
                gain = gains[j + 1, k + 1]
                top = gain == highest or (everywhere and gain >= 0.0)
                for i in range(9):
                    top = top and gain >= gains[j + i // 3, k + i % 3]
                if top:
                    cost, tissue, blood, D, Dstar = descend(y[v], b, slow[j], fast[k])  # noqa: N806
                    if cost < least:
                        least, total = cost, tissue + blood
                        best[v] = total, blood / total, D, Dstar
    return best


@compiled
def descend(y: NDArray, b: NDArray, D: float, Dstar: float) -> tuple[float, ...]:  # noqa: N803
    """Levenberg-Marquardt on the projected sum of squares; that sum, the amplitudes, D and D*."""
    cost, tissue, blood, n00, n01, n11, g0, g1 = project(y, b, D, Dstar)
    damping, growth = 0.01, 2.0
    while damping < 1e12:
        d00, d11 = n00 * (1 + damping) + 1e-300, n11 * (1 + damping) + 1e-300
        held0 = (g0 <= 0 and LOW[0] >= D) or (g0 >= 0 and HIGH[0] <= D)
        held1 = (g1 <= 0 and LOW[1] >= Dstar) or (g1 >= 0 and HIGH[1] <= Dstar)
        s0, s1 = solve(d00, 0.0 if held0 or held1 else n01, d11, 0.0 if held0 else g0, 0.0 if held1 else g1)
        if not LOW[1] <= Dstar + s1 <= HIGH[1]:
            s1 = min(max(Dstar + s1, LOW[1]), HIGH[1]) - Dstar
            s0 = 0.0 if held0 else (g0 - n01 * s1) / d00
        s0 = min(max(D + s0, LOW[0]), HIGH[0], Dstar + s1) - D
        promised = s0 * (2 * g0 - n00 * s0 - n01 * s1) + s1 * (2 * g1 - n01 * s0 - n11 * s1)
        if abs(promised) <= 1e-7 * cost and damping <= 0.01:
            break
        new = project(y, b, D + s0, Dstar + s1)
        if new[0] < cost:
            D, Dstar, damping, growth = D + s0, Dstar + s1, max(0.2 * damping, 1e-14), 2.0  # noqa: N806
            cost, tissue, blood, n00, n01, n11, g0, g1 = new
        else:
            damping, growth = damping * growth, 2 * growth
    return cost, tissue, blood, D, Dstar


@compiled
def project(y: NDArray, b: NDArray, D: float, Dstar: float) -> tuple[float, ...]:  # noqa: N803
    """Sum of squares at the best amplitudes, these, and the normal equations of D and D* (Kaufman's derivative)."""
    p00 = p01 = p11 = q00 = q01 = q11 = r00 = r01 = r11 = s0 = s1 = t0 = t1 = total = 0.0
    for i in range(b.size):
        e0, e1 = math.exp(-b[i] * D), math.exp(-b[i] * Dstar)
        p00, p01, p11 = p00 + e0 * e0, p01 + e0 * e1, p11 + e1 * e1
        s0, s1, total = s0 + e0 * y[i], s1 + e1 * y[i], total + y[i] * y[i]
        f0, f1 = b[i] * e0, b[i] * e1
        q00, q01, q11 = q00 + f0 * e0, q01 + f0 * e1, q11 + f1 * e1
        r00, r01, r11 = r00 + f0 * f0, r01 + f0 * f1, r11 + f1 * f1
        t0, t1 = t0 + f0 * y[i], t1 + f1 * y[i]
    a0, a1 = amplitudes(p00, p01, p11, s0, s1)
    if a0 > 0 and a1 > 0:  # what the free amplitudes take up of the derivatives does not count
        (u0, u1), (v0, v1) = solve(p00, p01, p11, q00, q01), solve(p00, p01, p11, q01, q11)
    elif a0 > 0:
        u0, u1, v0, v1 = q00 / p00, 0.0, q01 / p00, 0.0
    else:
        u0, u1, v0, v1 = 0.0, q01 / p11, 0.0, q11 / p11
    n00, n11 = a0 * a0 * (r00 - u0 * q00 - u1 * q01), a1 * a1 * (r11 - v0 * q01 - v1 * q11)
    n01 = a0 * a1 * (r01 - u0 * q01 - u1 * q11)
    return (
        total - a0 * s0 - a1 * s1,
        a0,
        a1,
        n00,
        n01,
        n11,
        a0 * (a0 * q00 + a1 * q01 - t0),
        a1 * (a0 * q01 + a1 * q11 - t1),
    )


@compiled
def amplitudes(p00: float, p01: float, p11: float, s0: float, s1: float) -> tuple[float, float]:
    """The two amplitudes, not negative, that fit best."""
    first, second = solve(p00, p01, p11, s0, s1)
    if p00 * p11 - p01 * p01 > 1e-13 * p00 * p11 and first >= 0 and second >= 0:
        return first, second
    if s0 * s0 / p00 >= s1 * s1 / p11:
        return max(s0, 0.0) / p00, 0.0
    return 0.0, max(s1, 0.0) / p11


@compiled
def solve(n00: float, n01: float, n11: float, g0: float, g1: float) -> tuple[float, float]:
    """Two symmetric linear equations."""
    determinant = n00 * n11 - n01 * n01
    return (n11 * g0 - n01 * g1) / determinant, (n00 * g1 - n01 * g0) / determinant


if __name__ == "__main__":
    main()
