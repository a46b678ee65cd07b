"""A script that submits a study to SLURM: a job that trains, an array of participants, and the group level."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bidsfit.exceptions import UnusableInputError, UsageError
from bidsfit.planning.plan import ParticipantPlan
from bidsfit.run.participant import fits_of, plan_run, require_use, validate
from bidsfit.run.resources import TRAINING, TRAINING_MEMORY, Estimates, Needs, group_level, most
from bidsfit.run.settings import Settings
from bidsfit.trained.estimator import TrainedEstimator
from bidsfit.workflows.training import takes_level

#: The jobs ask for so many times the memory and the time that were estimated.
SPARE_MEMORY, SPARE_TIME = 1.5, 2.0

#: Tasks of an array, as most clusters allow them; with more participants a task runs several. Tasks at a time.
MOST_TASKS, AT_ONCE = 1000, 100

#: Least minutes that a job asks for.
SHORTEST = 10

#: SNR levels that are trained for, where the images decide.
LEVELS = 3


@dataclass(frozen=True)
class Job:
    """A job of the script.

    Attributes
    ----------
    name : str
        Variable of its identifier, and end of its name.
    words : sequence of str
        Command line without the program.
    needs : Needs
    cpus : int
    """

    name: str
    words: Sequence[str]
    needs: Needs
    cpus: int = 1

    def submission(self, log: Path, *, options: str = "", before: str = "", after: str = "") -> str:
        """Command that submits it; ``before`` and ``after`` stand around the command line of the job."""
        memory = math.ceil(SPARE_MEMORY * self.needs.memory)
        minutes = max(SHORTEST, math.ceil(SPARE_TIME * self.needs.seconds / 60))
        return (
            f'{self.name}=$(sbatch --parsable "${{options[@]}}" --job-name=bidsfit-{self.name} {options}\\\n'
            f"  --output={shlex.quote(str(log))} --cpus-per-task={self.cpus} --mem={memory}G --time={minutes} <<END\n"
            f"#!/bin/bash\n{before}exec $bidsfit {quoted(self.words)}{after}\nEND\n)\n"
        )


def quoted(words: Sequence[str]) -> str:
    """Words for the shell, inside of a text in which the shell replaces variables."""
    return re.sub(r"([\\$`])", r"\\\1", shlex.join(words))


def slurm_script(
    settings: Settings, options: Sequence[str], group_options: Sequence[str], *, training_cpus: int
) -> str:
    """The script for the participants of a run.

    Parameters
    ----------
    settings : Settings
        Of the run over all participants; ``nprocs`` are the processors of a task.
    options, group_options : sequence of str
        Words of the command line of a participant's job (without participants), and of the group level.
    training_cpus : int
        Processors of the job that trains.

    Raises
    ------
    BidsfitError
        If nothing can be run.
    """
    fits = fits_of(settings)
    require_use(settings, fits)
    plans = [plan for plan in plan_run(settings, fits)[2] if plan.images]
    if not plans:
        raise UnusableInputError(
            f"No image of {settings.bids_dir} can be fitted with these options; --dry-run says why."
        )
    fits = [fit for plan in plans for image in plan.images for fit in image.fits]
    if together := sorted({fit.name for fit in fits if fit.scope == "dataset"}):
        raise UsageError(
            f"{' and '.join(together)} trains on the images of all participants together (scope: dataset), which jobs "
            "of single participants do not see. Run it as one run, or train it with bidsfit-lab train and give its "
            "file: --estimators FILE."
        )
    validate(settings)
    estimates, folders = Estimates(), [str(settings.bids_dir), str(settings.output_dir)]
    words, logs = [*folders, "participant", *options], settings.output_dir / "logs" / "slurm"
    own = ["--nprocs", str(settings.nprocs), "--skip-bids-validation"]
    per_task = math.ceil(len(plans) / MOST_TASKS)
    task = most(estimates.run(plan) for plan in plans).times(per_task)
    task = task.side_by_side(min(settings.nprocs, max(len(plan.images) for plan in plans)))
    array = f"--array=0-{math.ceil(len(plans) / per_task) - 1}%{AT_ONCE} "
    parts = [_head(len(plans), task, logs)]
    if trained := trainings(plans):
        whom, n_trainings = trained
        chosen = [plan for plan in plans if plan.label in whom]
        prepared = [estimates.run(plan, fits=False) for plan in chosen]
        seconds = sum(one.seconds for one in prepared) / training_cpus + n_trainings * TRAINING
        memory = most(prepared).memory * min(training_cpus, len(chosen))
        needs = Needs(seconds, max(memory, TRAINING_MEMORY))
        only = ["--participant-label", *whom] if len(whom) < len(plans) else []
        train = Job("train", [*words, "--train-only", "--nprocs", str(training_cpus), *only], needs, training_cpus)
        parts += ["# Trains what the fits need; the array only reads it.", train.submission(logs / "train-%j.log")]
        own, array = ["--no-training", *own], f"--dependency=afterok:$train {array}"
    parts += [
        f"# A task runs {'one participant' if per_task == 1 else f'{per_task} participants'}.",
        Job("array", [*words, *own], task, settings.nprocs).submission(
            logs / "%A_%a.log",
            options=array,
            before=f"labels=({' '.join(plan.label for plan in plans)})\n",
            after=f' --participant-label "\\${{labels[@]:SLURM_ARRAY_TASK_ID*{per_task}:{per_task}}}"',
        ),
        "# Runs whatever became of the tasks, and names the participants without maps.",
        Job("group", [*folders, "group", "--nprocs", "1", *group_options], group_level(plans)).submission(
            logs / "group-%j.log", options="--dependency=afterany:$array "
        ),
        'echo "Submitted: array $array, group level $group"',
    ]
    return "\n".join(parts)


def _head(n: int, task: Needs, logs: Path) -> str:
    """First lines of the script."""
    unknown = "".join(f"# Not part of the time, as it was never measured: {step}.\n" for step in sorted(task.unknown))
    return f"""#!/bin/bash
# bidsfit on {n} participant{"s" if n != 1 else ""} as jobs of SLURM; submit them with: bash FILE
# Estimated for the task that needs most: {task.memory:.1f} GB, and {task.seconds / 60:.0f} minutes of one processor.
# The jobs ask for {SPARE_MEMORY:g} times the memory and {SPARE_TIME:g} times the time.
{unknown}set -eu
bidsfit="bidsfit"  # or what runs the container: "apptainer run /path/to/bidsfit.sif"
options=()         # of sbatch, for all jobs: (--partition=short --account=me)
mkdir -p {shlex.quote(str(logs))}
"""


def trainings(plans: Sequence[ParticipantPlan]) -> tuple[list[str], int] | None:
    """Participants on whom to train, and how many estimators at most; None if none is trained.

    Where the SNR of the training is that of the images, these are all participants, and every level that usually
    occurs counts.
    """
    found: dict[tuple[object, ...], str] = {}
    levels = 1
    for label, image in [(plan.label, image) for plan in plans for image in plan.images]:
        for fit in image.fits:
            if isinstance(fit.built, TrainedEstimator) and fit.trains:
                averaged = fit.built.averaged(image.acquisition)
                protocol = averaged.b_values.tobytes(), averaged.weights.tobytes()
                own = label if fit.scope is not None else ""  # trained on the images of the participant
                found.setdefault((fit.model, fit.organ, fit.name, fit.left_out, protocol, own), label)
                levels = LEVELS if takes_level(fit) else levels
    if not found:
        return None
    whom = [plan.label for plan in plans] if levels > 1 else list(dict.fromkeys(found.values()))
    return whom, levels * len(found)
