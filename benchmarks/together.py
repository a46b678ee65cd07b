"""Many small networks in one batched computation beside one after another.

Networks of three hidden layers of 10 units, IVIM at 10 b-values, steps of 100 voxels with Rician noise, as of Epstein
et al. Both train the same networks from the same seeds; the time is that of the processor.
"""

from __future__ import annotations

from _common import machine, table, use_cores  # isort: skip (limits threads)

import argparse
from time import process_time

import numpy as np

from bidsfit import Acquisition, models
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise, Simulation, Simulator
from bidsfit.training.architectures import Perceptron
from bidsfit.training.objectives import Parameters
from bidsfit.training.trainer import Schedule, descend, member_seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=50, help="how many (default %(default)s)")
    parser.add_argument("--alone", type=int, default=10, help="how many one after another (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="4 networks, few steps")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.networks = arguments.alone = 4
    use_cores(1)
    space, seeds = ParameterSpace(models.get("ivim")), member_seeds(0, arguments.networks)
    acquisition = Acquisition([0, 10, 20, 30, 50, 80, 100, 200, 400, 800])
    schedule = Schedule(steps=64 if arguments.quick else 640, batch=100, validation=1000, checks=10, peak_rate=1e-3)
    rows = []
    for label, simulation in (
        ("a fixed set", Simulation(samples=20000, set_noise="fixed")),
        ("new voxels at every step", Simulation()),
    ):
        simulator = Simulator(Uniform(space), acquisition, Noise(30.0, "rician"), simulation)
        parts = Perceptron(10, 3), Parameters(), schedule, simulator
        descend(*parts, seeds[:2])  # compiles
        start = process_time()
        alone = [descend(*parts, [seed], set_seed=0)[0] for seed in seeds[: arguments.alone]]
        one = (process_time() - start) / len(alone)
        start = process_time()
        many = descend(*parts, seeds)
        each = (process_time() - start) / len(many)
        apart = max(np.abs(a.curve - b.curve).max() for a, b in zip(alone, many, strict=False))
        rows.append([label, f"{one:.3f}", f"{each:.4f}", f"{one / each:.1f}", f"{apart:.0e}"])
    print(f"{machine()}; {arguments.networks} networks, {schedule.steps} steps.\n")
    print(table(["trained on", "alone (s each)", "together (s each)", "times as fast", "losses differ by"], rows))


if __name__ == "__main__":
    main()
