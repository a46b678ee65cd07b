"""A whole run by phase: CPU seconds, processes and memory, from the command line to the last report.

Simulated datasets are run as the command line runs them, each in a process of its own and with one process
(--nprocs 1), so that all of its time is seen. Time is that of all threads, and each moment belongs to the innermost
phase: what is compiled during a fit counts as compilation. "All" includes the programs that were started; "processes"
counts them, with the run itself.
"""

from __future__ import annotations

from _common import CORES, machine, options, table, use_cores  # isort: skip (limits threads)

import builtins
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib import import_module
from pathlib import Path
from time import process_time
from typing import Any

#: Phases in the order of the table, and the functions whose time each is.
PHASES = {
    "imports": (),
    "planning": ("bidsfit.run.participant:make_fits", "bidsfit.run.participant:plan_run"),
    "Nipype": ("nipype.pipeline.engine:Workflow.run", "bidsfit.run.execution:init_participants_wf"),
    "denoising": ("bidsfit.steps.denoise:ReduceNoise.run",),
    "Gibbs ringing": ("bidsfit.steps.gibbs:RemoveRinging.run",),
    "susceptibility": ("bidsfit.steps.susceptibility:EstimateField.run",),
    "motion": ("bidsfit.steps.motion:CorrectMotion.run",),
    "other steps": (
        "bidsfit.interfaces.step:StepInterface.run",
        "bidsfit.interfaces.preprocessed:WritePreprocessed.run",
        "bidsfit.interfaces.volumes:LeaveOutVolumes.run",
    ),
    "mask, noise level": ("bidsfit.interfaces.image:PrepareImage.run",),
    "quality": ("bidsfit.interfaces.quality:AssessQuality.run",),
    "compilation": ("numba.core.dispatcher:Dispatcher.compile", "bidsfit.models.symbolic:compile_kernel"),
    "fits": ("bidsfit.interfaces.fit:fit",),
    "maps": ("bidsfit.interfaces.fit:write_maps",),
    "figures": (),
    "reports": ("bidsfit.run.reports:Reports.write", "bidsfit.run.execution:write_methods"),
    "other": (),
}

FOUR = ["lsq", "segmented", "mle", "bayes"]


class Clock:
    """Processor time by phase; phases may be nested."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.phases, self.since = ["imports"], 0.0

    def switch(self) -> None:
        """Add the time since the last switch to the current phase."""
        now = process_time()
        self.spent[self.phases[-1]] += now - self.since
        self.since = now

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is that of a phase."""

        @wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.switch()
            self.phases.append(phase)
            try:
                return function(*arguments, **named)
            finally:
                self.switch()
                self.phases.pop()

        return wrapped


def run_timed(target: Path, words: Sequence[str]) -> None:
    """Run the command line in this process, and write times and memory as JSON."""
    clock, started = Clock(), Counter(processes=1)
    sys.addaudithook(lambda event, _: started.update(processes=event in ("subprocess.Popen", "os.fork")))
    builtins.__import__ = clock.timed("imports", builtins.__import__)
    from bidsfit.reports import canvas

    styled = canvas.styled  # every figure is decorated by it, when its module is imported
    canvas.styled = lambda draw: clock.timed("figures", styled(draw))
    for phase, places in PHASES.items():
        for place in places:
            module, _, name = place.partition(":")
            *path, last = name.split(".")
            owner = import_module(module)
            for part in path:
                owner = getattr(owner, part)
            setattr(owner, last, clock.timed(phase, getattr(owner, last)))
    from bidsfit.cli.app import main

    clock.switch()
    clock.phases[0] = "other"
    code = main(list(words))
    clock.switch()
    usage, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    total = sum(used.ru_utime + used.ru_stime for used in (usage, children))
    peak = max(usage.ru_maxrss, children.ru_maxrss) / 1024
    target.write_text(json.dumps({"code": code, "all": total, "peak": peak, **started, "spent": clock.spent}))


def measure(folder: Path, dataset: Path, *words: str) -> Mapping[str, Any]:
    """Run a dataset into a new folder, in a process of its own."""
    target = folder / "times.json"
    output = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, __file__, "--timed", str(target), str(dataset), output, "participant", "--nprocs", "1"]
    subprocess.run([*command, "--skip-bids-validation", *words], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(target.read_text())
    assert found["code"] == 0
    told = f"{dataset.name} {' '.join(words)}: {found['all']:.1f} CPU s, {found['peak']:,.0f} MB"
    print(told, file=sys.stderr, flush=True)  # a long run that fails later is not lost
    return found


def simulate(folder: Path, *words: str) -> Path:
    """A dataset of bidsfit-lab."""
    command = [sys.executable, "-m", "bidsfit.cli.lab", "phantom", str(folder), "--patients", "0", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def main() -> None:
    parser = options(__doc__, voxels=0)
    parser.add_argument("--participants", type=int, nargs="+", default=[1, 4, 16], help="(default 1 4 16)")
    parser.add_argument("--shape", type=int, nargs=3, default=(48, 48, 12), help="of the brain (default 48 48 12)")
    parser.add_argument("--directions", type=int, default=16, help="of its two shells (default %(default)s)")
    parser.add_argument("--full", action="store_true", help="a brain of 128 x 128 x 70 voxels and 141 volumes")
    arguments = parser.parse_args()
    numbers = [1] if arguments.quick else arguments.participants
    shape = (128, 128, 70) if arguments.full else (24, 24, 6) if arguments.quick else arguments.shape
    directions = 64 if arguments.full else arguments.directions
    small = ("--shape", "16", "16", "3") if arguments.quick else ()
    volumes = 13 + 2 * directions
    use_cores(len(CORES))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ivim = simulate(folder / "ivim", "--model", "ivim", "--participants", str(max(numbers)), *small)
        labels = sorted(path.name.removeprefix("sub-") for path in ivim.glob("sub-*"))
        fit = ("--model", "ivim", "--preprocess", "none", "--participant-label")
        several = FOUR[:2] if arguments.quick else FOUR
        found = {f"{len(several)} estimators": measure(folder, ivim, *fit, labels[0], "--estimators", *several)}
        for n in numbers:
            found[f"{n} participant{'s' if n > 1 else ''}"] = measure(folder, ivim, *fit, *labels[:n])
        for kind in ("raw",) if arguments.quick else ("raw", "preprocessed"):
            grid = ["--shape", *map(str, shape), "--directions", str(directions), "--participants", "1"]
            b_values = ["--b-values", *["0"] * 13, "1000", "2500"]
            raw = kind == "raw"
            brain = simulate(folder / kind, "--model", "smt2", *grid, *b_values, *["--raw"] * raw)
            chain = () if raw else ("--preprocess", "none")
            found[f"brain, {kind}"] = measure(folder, brain, "--model", "smt2", *chain)
    print(f"{machine()}; one process.\n")
    print(f"CPU seconds. The brain has {' x '.join(map(str, (*shape, volumes)))} values:\n")
    rows = [[phase, *(f"{case['spent'].get(phase, 0):.1f}" for case in found.values())] for phase in PHASES]
    rows.append(["**all**", *(f"**{case['all']:.1f}**" for case in found.values())])
    rows.append(["processes", *(case["processes"] for case in found.values())])
    rows.append(["peak, MB", *(f"{case['peak']:,.0f}" for case in found.values())])
    print(table(["phase", *found], rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--timed"]:
        run_timed(Path(sys.argv[2]), sys.argv[3:])
        sys.stdout.flush()
        os._exit(0)
    main()
