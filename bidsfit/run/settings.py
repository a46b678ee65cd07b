"""Settings of a run: an immutable object built from the command line and written as TOML."""

from __future__ import annotations

import os
import reprlib
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import tomli_w

from bidsfit.choices import read_toml
from bidsfit.exceptions import UnknownNameError, UsageError
from bidsfit.files import cache_folder
from bidsfit.trust.cache import Trust

#: Where the noise level may come from; "auto" takes the best that there is.
SIGMA_SOURCES = ("auto", "repeats", "b0", "residuals", "mppca", "piesno", "map")

#: More of -v say no more.
MOST_VERBOSE = 10

#: Options of which one excludes the others.
EXCLUSIVE = (
    ("reports_only", "boilerplate_only", "dry_run"),
    ("reports_only", "boilerplate_only", "train_only", "no_training"),
    ("reports_only", "boilerplate_only", "overwrite"),
)

#: What a run writes to its configuration that is no option.
NOT_OPTIONS = {"bids_dir", "output_dir", "analysis_level", "run_uuid", "command"}


@dataclass(frozen=True)
class Settings:
    """All settings of a run. Paths are absolute; empty tuples mean all.

    By default ``noise``, ``average``, ``s0``, ``intervals``, ``threshold``, ``hold``, ``distribution`` and
    ``training_*`` are None or empty.
    """

    bids_dir: Path
    output_dir: Path
    analysis_level: str
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    run_id: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    bids_database_dir: Path | None = None
    skip_bids_validation: bool = False
    derivatives: Mapping[str, Path] | None = None
    preprocess: Literal["auto", "none", "dipy", "fsl"] = "auto"
    skip: tuple[str, ...] = ()
    denoise: Literal["auto", "mppca", "patch2self"] = "auto"
    body_part: Literal["auto", "brain", "body", "cord"] = "auto"
    model: tuple[str, ...] = ()
    estimators: tuple[str, ...] = ("lsq",)
    average: str | None = None
    s0: str | None = None
    threshold: float | None = None
    hold: tuple[str, ...] = ()
    debias: bool = False
    intervals: Literal["wald", "profile", "conformal", "none"] | None = None
    noise: Literal["rician", "gaussian"] | None = None
    trust: Trust = "light"
    sigma: str = "auto"
    organ: str = "auto"
    bounds: Mapping[str, Mapping[str, tuple[float, float]]] | None = None
    atlas: tuple[str, ...] = ()
    distribution: str | None = None
    training_snr: str | None = None
    training_recipe: str | None = None
    training_seed: int | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    store: Path = Path("trained")
    leave_one_out: bool = False
    train_only: bool = False
    no_training: bool = False
    repeatability: str | None = None
    treatment: str | None = None
    sessions: tuple[str, ...] = ()
    condition: str | None = None
    regions: tuple[str, ...] = ()
    statistic: Literal["median", "mean", "q05", "q25", "q75", "q95"] = "median"
    correction: Literal["holm", "benjamini-hochberg", "none"] = "holm"
    healthy: str | None = None
    nprocs: int = 1
    omp_nthreads: int = 1
    mem_gb: float | None = None
    low_mem: bool = False
    nipype_plugin_file: Path | None = None
    reports_only: bool = False
    boilerplate_only: bool = False
    write_graph: bool = False
    dry_run: bool = False
    work_dir: Path = Path("work")
    cache_dir: Path = Path("compiled")
    clean_workdir: bool = False
    overwrite: bool = False
    report_voxels: Literal["all", "slices", "none"] = "all"
    scenes: bool = False
    resource_monitor: bool = False
    stop_on_first_crash: bool = False
    verbosity: int = 0
    run_uuid: str = ""
    command: str = ""

    @property
    def estimator_options(self) -> dict[str, Any]:
        """Estimator options that the user gave."""
        options: dict[str, Any] = {
            "averaging": self.average,
            "s0": self.s0,
            "threshold": self.threshold,
            "hold": self.hold or None,
            "debias": self.debias or None,
            "intervals": self.intervals,
            "distribution": self.distribution,
            "snr": self.training_snr if self.training_snr in (None, "auto") else float(self.training_snr),
            "recipe": None if self.training_recipe is None else _recipe(self.training_recipe),
            "seed": self.training_seed,
        }
        return {name: value for name, value in options.items() if value is not None}

    def to_toml(self) -> str:
        """All settings that are set, as TOML."""
        return tomli_w.dumps(
            {"bidsfit": {f.name: _plain(getattr(self, f.name)) for f in fields(self) if _set(self, f)}}
        )


def _recipe(word: str) -> str | dict[str, Any]:
    """Name of a recipe of the package, or the content of a recipe file, so that only content matters."""
    from bidsfit.training.recipe import available, load_recipe, recipe_facts

    return word if word in available() else recipe_facts(load_recipe(word))


def _set(settings: Settings, field: Any) -> bool:
    return getattr(settings, field.name) is not None


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def settings_from(arguments: Namespace, command: Sequence[str]) -> Settings:
    """Validate a parsed command line, and add defaults that depend on the machine.

    Raises
    ------
    UsageError
        For contradictory options or invalid values.
    """
    values = vars(arguments)
    bids_dir, output_dir = absolute(arguments.bids_dir), absolute(arguments.output_dir)
    work_dir = absolute(arguments.work_dir or output_dir / "work")
    cores = len(os.sched_getaffinity(0))
    nprocs = cores if arguments.nprocs is None else arguments.nprocs
    threads = min(nprocs, 8) if arguments.omp_nthreads is None else arguments.omp_nthreads
    for option, number in (("--nprocs", nprocs), ("--omp-nthreads", threads)):
        if number < 1:
            raise UsageError(f"{option} must be at least 1, found {number}.")
    if threads > nprocs:
        raise UsageError(f"--omp-nthreads {threads} exceeds --nprocs {nprocs}: one step may not use more than the run.")
    for names in EXCLUSIVE:
        given = [f"--{name.replace('_', '-')}" for name in names if values[name]]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} contradict each other; give one of them.")
    settings = Settings(
        **{
            **{f.name: values[f.name] for f in fields(Settings) if f.name in values},
            "bids_dir": bids_dir,
            "output_dir": output_dir,
            "derivatives": _derivatives(arguments.derivatives),
            "bounds": _bounds(arguments.bounds),
            "sigma": _sigma(arguments.sigma),
            "training_snr": _training_snr(arguments.training_snr),
            "training_recipe": _file_or_name(arguments.training_recipe, ".yml"),
            "store": absolute(arguments.store or output_dir / "trained"),
            "nprocs": nprocs,
            "omp_nthreads": threads,
            "mem_gb": None if arguments.mem is None else parse_memory(arguments.mem),
            "work_dir": work_dir,
            "cache_dir": absolute(arguments.cache_dir or _cache_dir(work_dir)),
            "run_uuid": str(uuid4()),
            "command": " ".join(command),
            **{
                name: tuple(values[name] or ())
                for name in (
                    *("participant_label", "session_label", "run_id", "skip", "model", "hold"),
                    *("sessions", "regions"),
                )
            },
            "estimators": tuple(_file_or_name(word, ".zip") for word in values["estimators"] or ("lsq",)),
            "atlas": tuple(_file_or_name(word, (".nii", ".nii.gz")) for word in values["atlas"] or ()),
            **{
                name: None if values[name] is None else absolute(values[name])
                for name in ("bids_filter_file", "bids_database_dir", "nipype_plugin_file")
            },
        }
    )
    _refuse_folders(settings)
    return settings


def absolute(path: str | Path) -> Path:
    """An absolute path without ``..``; links are not resolved, as datasets may consist of them."""
    return Path(os.path.abspath(path))


def _cache_dir(work_dir: Path) -> Path:
    """The folder of compiled code of the user, or one in the work folder where that cannot be written."""
    folder = cache_folder()
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))  # False if not allowed
    return folder if os.access(there, os.W_OK) else work_dir / "compiled"


def _refuse_folders(settings: Settings) -> None:
    """Refuse output folders inside an input dataset, except in its ``derivatives``."""
    datasets = {"BIDS_DIR": settings.bids_dir}
    folders = [("OUTPUT_DIR", settings.output_dir), ("--work-dir", settings.work_dir), ("--store", settings.store)]
    if settings.cache_dir != cache_folder():  # the user's own may be anywhere
        folders.append(("--cache-dir", settings.cache_dir))
    datasets |= {f"-d {name}": path for name, path in (settings.derivatives or {}).items()}
    for dataset, path in datasets.items():
        root, derivatives = path.resolve(), (path / "derivatives").resolve()
        advice = f"Choose {settings.bids_dir / 'derivatives' / 'bidsfit'}, or a folder elsewhere."
        for option, folder in folders:
            resolved = folder.resolve()
            if resolved in (root, derivatives):
                raise UsageError(
                    f"{option} ({folder}) is the folder of {dataset} itself, or of its derivatives. {advice}"
                )
            if root in resolved.parents and derivatives not in resolved.parents:
                raise UsageError(f"{option} ({folder}) lies inside the data of {dataset} ({path}). {advice}")
        if settings.output_dir.resolve() in root.parents:
            raise UsageError(f"OUTPUT_DIR ({settings.output_dir}) holds the dataset of {dataset} ({path}). {advice}")


def _derivatives(words: Sequence[str] | None) -> dict[str, Path]:
    """``name=path`` pairs of ``-d``; a bare path is named by its folder."""
    found: dict[str, Path] = {}
    for word in words or ():
        name, equals, path = word.partition("=")
        if not equals:
            name, path = Path(word).name, word
        if not name.isidentifier() or not path:
            raise UsageError(f"-d/--derivatives takes NAME=PATH (NAME of letters and digits), found {word!r}.")
        if name in found or name == "raw":
            raise UsageError(f"-d/--derivatives names {name!r} twice{' (raw is BIDS_DIR)' if name == 'raw' else ''}.")
        found[name] = absolute(path)
    return found


def _bounds(words: Sequence[str] | None) -> dict[str, dict[str, tuple[float, float]]]:
    """Bounds in the units of files from ``MODEL.PARAMETER=LOWER,UPPER`` of ``--bounds``."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for word in words or ():
        try:
            name, numbers = word.split("=")
            model, parameter = name.split(".")
            lower, upper = (float(number) for number in numbers.split(","))
        except ValueError as error:
            raise UsageError(
                f"--bounds takes MODEL.PARAMETER=LOWER,UPPER in the units of the maps (mm^2/s), for example "
                f"ivim.Dstar=0.005,0.3; found {word!r}."
            ) from error
        found.setdefault(model, {})[parameter] = (lower, upper)
    return found


def _file_or_name(word: Any, suffix: str | tuple[str, ...]) -> Any:
    """A name unchanged, or a path made absolute; paths have the suffix (or one of them) or contain a folder."""
    if word is None or not (word.endswith(suffix) or os.sep in word):
        return word
    return str(absolute(word))


def _training_snr(word: str | None) -> str | None:
    """Validate the SNR of a training."""
    if word is None or word == "auto":
        return word
    try:
        snr = float(word)
    except ValueError:
        snr = -1.0
    if not snr > 0:
        raise UsageError(f"--training-snr takes auto, inf, or a number above zero, found {word!r}.")
    return f"{snr:g}"


def _sigma(word: str) -> str:
    """Validate a source of the noise level, or a level."""
    if word in SIGMA_SOURCES:
        return word
    try:
        level = float(word)
    except ValueError:
        level = -1.0
    if not 0 < level < float("inf"):
        raise UsageError(f"--sigma takes {', '.join(SIGMA_SOURCES)} or a number above zero, found {word!r}.")
    return f"{level:g}"


def parse_memory(text: str) -> float:
    """Memory in GB from a number with K, M, G or T; MB without a letter.

    Examples
    --------
    >>> parse_memory("16G"), parse_memory("500")
    (16.0, 0.5)
    """
    units = {"K": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3}
    word = text.strip().upper().removesuffix("B")
    factor = units.get(word[-1:])
    try:
        value = float(word[:-1] if factor else word) * (factor or units["M"])
    except ValueError as error:
        raise UsageError(f"--mem takes a number with K, M, G or T (MB without a letter), found {text!r}.") from error
    if not 0 < value < float("inf"):
        raise UsageError(f"--mem must be above zero, found {text!r}.")
    return value


def config_words(path: Path, known: Sequence[str]) -> list[str]:
    """Command-line words from a TOML file of options, as written by a run.

    Parameters
    ----------
    known : sequence of str
        Names of options in the file: `--body-part` is `body_part`.

    Raises
    ------
    UsageError, UnknownNameError
        If the file cannot be read or has an unknown option.
    """
    content = read_toml(path, "configuration")
    options = content.get("bidsfit", content)
    if not isinstance(options, dict):
        raise UsageError(f"The configuration {path} must hold options in the table [bidsfit], found {options!r:.50}.")
    words: list[str] = []
    for name, value in options.items():
        key = name.replace("-", "_")
        if key in NOT_OPTIONS:
            continue
        if key == "mem_gb":
            key, value = "mem", f"{value}G"
        if key not in known:
            raise UnknownNameError(f"option in {path}:", name, known)
        words += _config_words(path, key, value)
    return words


def _config_words(path: Path, key: str, value: Any) -> list[str]:
    """Words of one option; lists become several words, tables are converted to lists."""
    option = f"--{key.replace('_', '-')}"
    match value:
        case bool():
            return [option] * value
        case int() if key == "verbosity" and 0 <= value <= MOST_VERBOSE:
            return [option] * value
        case str() | int() | float() if key != "verbosity":
            return [f"{option}={value}"]
        case list() if key != "verbosity" and all(isinstance(word, str | int | float) for word in value):
            return [option, *map(str, value)] if value else []
        case dict() if key == "derivatives" and all(isinstance(word, str) for word in value.values()):
            return [option, *(f"{name}={word}" for name, word in value.items())] if value else []
        case dict() if key == "bounds" and all(_are_bounds(rows) for rows in value.values()):
            words = [f"{m}.{p}={b[0]},{b[1]}" for m, rows in value.items() for p, b in rows.items()]
            return [option, *words] if words else []
    raise UsageError(
        f"The configuration {path} gives {key} {reprlib.repr(value)}; expected text, a number, true, false, or a list "
        "of them (of derivatives: a table NAME = PATH; of bounds: tables PARAMETER = [LOWER, UPPER])."
    )


def _are_bounds(rows: Any) -> bool:
    """Whether a table maps names to pairs of numbers."""
    return isinstance(rows, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, int | float) for x in pair)
        for pair in rows.values()
    )
