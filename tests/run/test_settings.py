"""From words to settings: every option, in both spellings, and what is refused."""

import os
from pathlib import Path

import pytest

from bidsfit.cli.app import parse
from bidsfit.cli.options import hyphenated
from bidsfit.exceptions import UnknownNameError, UnusableInputError, UsageError
from bidsfit.planning.fits import make_fits
from bidsfit.run.engine import read_plugin
from bidsfit.run.participant import require_use
from bidsfit.run.settings import parse_memory, settings_from


def settings(*words, bids="/data/ds", out="/data/out", level="participant"):
    words = hyphenated([str(word) for word in (bids, out, level, *words)])
    return settings_from(parse(words), ["bidsfit", *words])


@pytest.fixture
def cores(monkeypatch):
    """A machine of 16 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


#: Options of the conventions: words, and the setting that they make.
OPTIONS = [
    (["--participant-label", "sub-01", "02"], "participant_label", ("sub-01", "02")),
    (["--session-label", "ses-1", "2"], "session_label", ("ses-1", "2")),
    (["--run-id", "1", "02"], "run_id", ("1", "02")),
    (["-r", "3"], "run_id", ("3",)),
    (["--bids-filter-file", "/f.json"], "bids_filter_file", Path("/f.json")),
    (["--bids-database-dir", "/db"], "bids_database_dir", Path("/db")),
    (["--skip-bids-validation"], "skip_bids_validation", True),
    (["--derivatives", "a=/a", "b=/b"], "derivatives", {"a": Path("/a"), "b": Path("/b")}),
    (["-d", "a=/a", "-d", "b=/b"], "derivatives", {"a": Path("/a"), "b": Path("/b")}),
    (["-d", "/some/masks"], "derivatives", {"masks": Path("/some/masks")}),
    (["--model", "adc", "ivim"], "model", ("adc", "ivim")),
    (["--estimators", "lsq"], "estimators", ("lsq",)),
    (["--average", "geometric"], "average", "geometric"),
    (["--s0", "measured"], "s0", "measured"),
    (["--threshold", "150"], "threshold", 150),
    (["--hold", "D", "f"], "hold", ("D", "f")),
    (["--noise", "gaussian"], "noise", "gaussian"),
    (["--sigma", "mppca"], "sigma", "mppca"),
    (["--sigma", "12.50"], "sigma", "12.5"),
    (["--debias"], "debias", True),
    (["--intervals", "profile"], "intervals", "profile"),
    (["--bounds", "ivim.D=0,0.003"], "bounds", {"ivim": {"D": (0, 0.003)}}),
    (["--estimators", "lsq", "/f/my.zip"], "estimators", ("lsq", "/f/my.zip")),
    (["--training-snr", "28.0"], "training_snr", "28"),
    (["--training-snr", "inf"], "training_snr", "inf"),
    (["--training-snr", "auto"], "training_snr", "auto"),
    (["--training-recipe", "network-quick"], "training_recipe", "network-quick"),
    (["--training-recipe", "/r.yml"], "training_recipe", "/r.yml"),
    (["--training-seed", "3"], "training_seed", 3),
    (["--device", "cuda"], "device", "cuda"),
    (["--store", "/store"], "store", Path("/store")),
    (["--leave-one-out"], "leave_one_out", True),
    (["--healthy", "group=control"], "healthy", "group=control"),
    (["--nprocs", "4"], "nprocs", 4),
    (["--nthreads", "4"], "nprocs", 4),
    (["--n-cpus", "4"], "nprocs", 4),
    (["--omp-nthreads", "2"], "omp_nthreads", 2),
    (["--mem", "16G"], "mem_gb", 16),
    (["--mem-mb", "500"], "mem_gb", 0.5),
    (["--low-mem"], "low_mem", True),
    (["--use-plugin", "/p.yml"], "nipype_plugin_file", Path("/p.yml")),
    (["--nipype-plugin-file", "/p.yml"], "nipype_plugin_file", Path("/p.yml")),
    (["--reports-only"], "reports_only", True),
    (["--boilerplate-only"], "boilerplate_only", True),
    (["--write-graph"], "write_graph", True),
    (["--dry-run"], "dry_run", True),
    (["-w", "/work"], "work_dir", Path("/work")),
    (["--work-dir", "/work"], "work_dir", Path("/work")),
    (["--cache-dir", "/cache"], "cache_dir", Path("/cache")),
    (["--clean-workdir"], "clean_workdir", True),
    (["--resource-monitor"], "resource_monitor", True),
    (["--stop-on-first-crash"], "stop_on_first_crash", True),
    (["--notrack"], "verbosity", 0),
    (["--verbose"], "verbosity", 1),
    (["-vv"], "verbosity", 2),
]


@pytest.mark.parametrize(("words", "name", "value"), OPTIONS, ids=[" ".join(o[0]) for o in OPTIONS])
def test_options(cores, words, name, value):
    assert getattr(settings(*words), name) == value


@pytest.mark.parametrize(("words", "name", "value"), [o for o in OPTIONS if o[0][0].count("-") > 2], ids=str)
def test_underscores_are_hyphens(cores, words, name, value):
    option = "--" + words[0].removeprefix("--").replace("-", "_")
    assert getattr(settings(option, *words[1:]), name) == value
    if len(words) == 2:
        assert getattr(settings(f"{option}={words[1]}"), name) == (
            value if not isinstance(value, tuple) else (words[1],)
        )


def test_underscores_in_values_stay():
    assert settings("--work_dir=/my_work").work_dir == Path("/my_work")
    assert settings("-d", "my_masks=/a_b").derivatives == {"my_masks": Path("/a_b")}


def test_defaults(cores):
    found = settings()
    assert (found.nprocs, found.omp_nthreads) == (16, 8)
    assert found.work_dir == Path("/data/out/work")
    assert found.store == Path("/data/out/trained")
    assert found.estimators == ("lsq",)
    assert found.participant_label == found.model == ()
    assert found.mem_gb is None
    assert found.estimator_options == {}


def test_one_process_has_one_thread(cores):
    assert settings("--nprocs", 1).omp_nthreads == 1


def test_paths_are_absolute_and_without_dots(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    found = settings("-w", "../w", bids="../ds", out="out")
    assert found.bids_dir == tmp_path / "ds"
    assert found.output_dir == tmp_path / "sub" / "out"
    assert found.work_dir == tmp_path / "w"


@pytest.mark.parametrize(
    ("text", "gigabytes"),
    [("500", 0.5), ("16G", 16), ("16GB", 16), ("2t", 2000), ("512M", 0.512), ("1e6K", 1), ("0.5 G", 0.5)],
)
def test_memory(text, gigabytes):
    assert parse_memory(text) == pytest.approx(gigabytes)


@pytest.mark.parametrize("text", ["", "G", "much", "-4G", "0", "nan", "inf"])
def test_memory_that_cannot_be(text):
    with pytest.raises(UsageError, match="--mem"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nprocs", "0"], "--nprocs must be at least 1"),
        (["--nprocs", "2", "--omp-nthreads", "4"], "--omp-nthreads 4 exceeds --nprocs 2"),
        (["--omp-nthreads", "-1"], "--omp-nthreads must be at least 1"),
        (["--reports-only", "--dry-run"], "--reports-only and --dry-run contradict"),
        (["--boilerplate-only", "--reports-only"], "contradict"),
        (["--reports-only", "--overwrite"], "--reports-only and --overwrite contradict"),
        (["--train-only", "--no-training"], "--train-only and --no-training contradict"),
        (["-d", "a=/a", "a=/b"], "'a' twice"),
        (["-d", "/x/masks", "/y/masks"], "'masks' twice"),
        (["-d", "raw=/a"], "raw is BIDS_DIR"),
        (["-d", "a="], "NAME=PATH"),
        (["-d", "my masks=/a"], "NAME=PATH"),
        (["--bounds", "D=0,1"], "MODEL.PARAMETER=LOWER,UPPER"),
        (["--bounds", "ivim.D=low,high"], "MODEL.PARAMETER=LOWER,UPPER"),
        (["--bounds", "ivim.D=1"], "MODEL.PARAMETER=LOWER,UPPER"),
    ],
)
def test_contradictions(words, message):
    with pytest.raises(UsageError, match=message):
        settings(*words)


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "fault"),
    [
        ("ds", "is the folder of BIDS_DIR itself"),
        ("ds/sub-01/out", "inside the data of BIDS_DIR"),
        ("ds/out", "inside the data of BIDS_DIR"),
        ("ds/derivatives", "or of its derivatives"),
        ("ds/../ds", "itself"),
        ("link/out", "inside the data of BIDS_DIR"),
        (".", "holds the dataset of BIDS_DIR"),
        ("masks", "is the folder of -d masks itself"),
        ("masks/sub-01", "inside the data of -d masks"),
    ],
)
def test_outputs_do_not_mix_with_inputs(tmp_path, out, fault):
    for folder in ("ds/sub-01", "masks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "ds")
    options = ["-d", f"masks={tmp_path / 'masks'}"]
    with pytest.raises(UsageError, match=fault):
        settings(*options, bids=tmp_path / "ds", out=tmp_path / out)


@pytest.mark.parametrize("option", ["--work-dir", "--cache-dir"])
@pytest.mark.parametrize("folder", ["ds", "ds/work"])
def test_neither_do_other_folders(tmp_path, option, folder):
    with pytest.raises(UsageError, match=option):
        settings(option, tmp_path / folder, bids=tmp_path / "ds", out=tmp_path / "out")


def test_compiled_code_is_kept_where_the_user_can_write(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BIDSFIT_CACHE_DIR")
    assert settings().cache_dir == tmp_path / "cache" / "bidsfit"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert settings().cache_dir == Path("/data/out/work/compiled")


@pytest.mark.parametrize(
    "out", ["ds/derivatives/bidsfit", "elsewhere", "ds2", "ds/derivatives/masks/derivatives/bidsfit"]
)
def test_outputs_may_be_derivatives(tmp_path, out):
    masks = tmp_path / "ds/derivatives/masks"
    assert settings("-d", f"masks={masks}", bids=tmp_path / "ds", out=tmp_path / out).output_dir == tmp_path / out


# --- configuration files --------------------------------------------------------------------------------------------


def config(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    return "--config-file", path


def test_a_runs_own_configuration_gives_the_run_again(tmp_path, cores):
    given = settings(
        *("--participant-label", "01", "02", "--session-label", "1", "-r", "2", "-d", "a=/a", "b=/b", "--mem", "3G"),
        *("--model", "adc", "ivim", "--bounds", "ivim.D=0.0001,0.003", "adc.D=0,inf", "--average", "geometric"),
        *("--s0", "measured", "--nprocs", "4", "--omp-nthreads", "2", "--low-mem", "-w", "/w", "-vv"),
        *("--bids-filter-file", "/f.json", "--stop-on-first-crash", "--skip-bids-validation", "--write-graph"),
    )
    again = settings(*config(tmp_path, given.to_toml()))
    own = {"run_uuid", "command"}
    assert {k: v for k, v in vars(again).items() if k not in own} == {
        k: v for k, v in vars(given).items() if k not in own
    }
    assert again.run_uuid != given.run_uuid


def test_the_command_line_wins(tmp_path):
    file = config(
        tmp_path,
        'model = ["adc"]\naverage = "geometric"\nnprocs = 3\nomp-nthreads = 1\n'
        'verbosity = 2\n[derivatives]\na = "/a"\n',
    )
    found = settings(*file, "--model", "ivim", "--average", "arithmetic", "--nprocs", 5, "-d", "b=/b", "a=/c", "-v")
    assert found.model == ("ivim",)
    assert found.average == "arithmetic"
    assert (found.nprocs, found.omp_nthreads) == (5, 1)
    assert found.derivatives == {"b": Path("/b"), "a": Path("/c")}
    assert found.verbosity == 1


def test_the_file_holds_where_the_command_line_is_silent(tmp_path):
    found = settings(*config(tmp_path, 'model = ["adc"]\nlow_mem = true\nmem = "2G"\n'))
    assert (found.model, found.low_mem, found.mem_gb) == (("adc",), True, 2)


def test_an_unknown_option_in_the_file(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'model'"):
        settings(*config(tmp_path, 'modell = ["adc"]\n'))


@pytest.mark.parametrize("text", ['average = "mean"', 'nprocs = "many"'])
def test_values_in_the_file_are_checked_as_words_are(tmp_path, text, capsys):
    with pytest.raises(SystemExit, match="64"):
        settings(*config(tmp_path, text))
    assert "invalid" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "model = 2024-01-01",
        "model = [[1]]",
        "model = {a = 1}",
        "nprocs = {a = {b = 1}}",
        "nprocs = 12:30:00",
        "verbosity = [1]",
        "verbosity = -1",
        "verbosity = 10000000000",
        "derivatives = {a = 1}",
        "bounds = {ivim = 3}",
        "bounds = {ivim = {D = 3}}",
        "bounds = {ivim = {D = [1]}}",
        "bounds = {ivim = {D = ['a', 'b']}}",
        "low_mem = [[true]]",
        "bidsfit = 3",
        "bidsfit = [1]",
    ],
)
def test_odd_types_in_the_file(tmp_path, text):
    """One sentence that names the file and what was found."""
    with pytest.raises(UsageError, match=r"The configuration .*config\.toml (gives|must hold)") as caught:
        settings(*config(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UnusableInputError, match=r"none\.toml does not exist"):
        settings("--config-file", tmp_path / "none.toml")
    with pytest.raises(UsageError, match="as TOML"):
        settings(*config(tmp_path, "{"))


def test_a_plugin_that_returns_before_anything_has_run_is_refused(tmp_path):
    file = tmp_path / "plugin.yml"
    file.write_text("plugin: SLURMGraph\n")
    with pytest.raises(UsageError, match=r"SLURMGraph in .*plugin\.yml returns before .* Use SLURM\."):
        read_plugin(settings("--use-plugin", file))
    file.write_text("plugin: SLURM\n")
    assert read_plugin(settings("--use-plugin", file)) == {"plugin": "SLURM"}


def test_a_training_of_nothing_is_refused():
    with pytest.raises(UsageError, match=r"--train-only: no estimator of this run is trained \(lsq\)"):
        require_use(settings("--train-only"), make_fits(["ivim"], ["lsq"]))
    require_use(settings("--train-only"), make_fits(["ivim"], ["lsq", "net"]))


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    """Unless no estimator would use it."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    chosen = settings("--device", "cuda")
    for name in ("lsq", "mle", "net-uniform"):
        with pytest.raises(UsageError, match="--device cuda: torch finds no GPU here"):
            require_use(chosen, make_fits(["ivim"], [name, "segmented"]))
        require_use(settings(), make_fits(["ivim"], [name]))
    require_use(chosen, make_fits(["ivim"], ["segmented", "bayes"]))
