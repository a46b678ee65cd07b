"""A study on a real SLURM of one node, which the test starts and stops: as an array, and by Nipype's plugin.

`make slurm-test` runs this. The daemons have their configuration, key, sockets and state in a temporary folder; nothing
else on the machine is touched.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bidsfit.cli.lab import main as lab

pytestmark = pytest.mark.slow

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=12000
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_until(done, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@pytest.fixture(scope="module")
def cluster():
    """Environment in which ``sbatch`` and the like find a cluster of this machine alone."""
    places = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    if missing := [tool for tool in TOOLS if shutil.which(tool, path=places) is None]:
        pytest.skip(f"no {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)")
    if os.getuid() != 0:
        pytest.skip("the daemons of SLURM are started by root")
    folder, host = Path(tempfile.mkdtemp(prefix="slurm-")), socket.gethostname()  # short, as paths of sockets must be
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    text = CONFIGURATION.format(host=host, ports=free_ports(2), folder=folder)
    (folder / "slurm.conf").write_text(text)
    environment = os.environ | {"PATH": places, "SLURM_CONF": str(folder / "slurm.conf")}
    names = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munged.seed"}
    munge = [word for option, name in names.items() for word in (f"--{option}", str(folder / name))]
    daemons = []

    def start(*words):
        with (folder / f"{words[0]}.out").open("w") as out:
            daemons.append(subprocess.Popen(words, stdout=out, stderr=out, env=environment))

    def ask(*words):
        return subprocess.run(words, capture_output=True, text=True, env=environment, check=False).stdout

    try:
        start("munged", "--foreground", "--force", *munge, "--log-file", str(folder / "munged.log"))
        wait_until((folder / "munge.socket").exists, "munged did not start")
        start("slurmctld", "-D")
        start("slurmd", "-D", "-N", host)
        wait_until(lambda: ask("sinfo", "-h", "-o", "%t").strip() == "idle", "no node became idle")
        yield environment
    finally:
        if len(daemons) == 3:
            ask("scancel", "--me")
            wait_until(lambda: not ask("squeue", "-h").strip(), "jobs outlived the test", 60)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A phantom of two participants with two sessions, and options of a run."""
    folder = tmp_path_factory.mktemp("study")
    size = ["--shape", "16", "16", "2", "--participants", "2", "--patients", "0", "--sessions", "2"]
    assert lab(["phantom", str(folder / "ds"), "--model", "adc", *size]) == 0
    (folder / "tiny.yml").write_text("kind: network\nsteps: 60\nbatch: 256\nunits: 16\nvalidation: 2048\nchecks: 10\n")
    options = ["--model", "adc", "--preprocess", "none", "-d", f"truth={folder / 'ds' / 'derivatives' / 'truth'}"]
    options += ["--estimators", "lsq", "net-uniform", "--training-recipe", str(folder / "tiny.yml")]
    return folder, options


@pytest.fixture(scope="module")
def one(study, command):
    """Output folder of one run without a cluster."""
    folder, options = study
    assert command(folder / "ds", folder / "one", "participant", "--nprocs", 1, *options).wait(600) == 0
    return folder / "one"


@pytest.fixture
def programs(cluster, tmp_path):
    """The environment of the cluster, in which jobs find this ``bidsfit``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    root = Path(__file__).parents[2]
    (folder / "bidsfit").write_text(
        f'#!/bin/bash\nexport PYTHONPATH={root}\nexec {sys.executable} -m bidsfit.cli.app "$@"\n'
    )
    (folder / "bidsfit").chmod(0o755)
    return cluster | {"PATH": f"{folder}{os.pathsep}{cluster['PATH']}"}


def test_the_script_runs_a_study(study, one, programs, capsys, outputs):
    folder, options = study
    out = folder / "array"
    assert lab(["slurm-script", "--training-cpus", "1", str(folder / "ds"), str(out), *options]) == 0
    script = capsys.readouterr().out
    done = subprocess.run(["bash"], input=script, text=True, env=programs, check=True, capture_output=True)
    assert done.stdout.startswith("Submitted: array ")

    def finished():
        queue = subprocess.run(["squeue", "-h"], capture_output=True, text=True, env=programs, check=True)
        return not queue.stdout.strip()

    wait_until(finished, "the jobs did not end", 900)
    logs = "\n".join(path.read_text() for path in sorted((out / "logs" / "slurm").iterdir()))
    assert outputs(out).maps() == outputs(one).maps(), logs
    assert (out / "group.html").exists(), logs
    assert logs.count("Done: 1 participant.") == 2


def test_the_plugin_runs_every_step_as_a_job(study, one, programs, command, outputs, tmp_path):
    folder, options = study
    (tmp_path / "slurm.yml").write_text('plugin: SLURM\nplugin_args:\n  sbatch_args: "--mem=2G --time=10"\n')
    own = ("--participant-label", "01", "--session-label", "01", "--skip-bids-validation")
    words = (folder / "ds", folder / "plugin", "participant", *options, *own, "--use-plugin", tmp_path / "slurm.yml")
    environment = {name: value for name, value in programs.items() if name != "LOGNAME"}
    process = command(*words, env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])})
    assert process.wait(900) == 0
    found, expected = outputs(folder / "plugin").maps(), outputs(one).maps()
    lsq = {name: content for name, content in found.items() if "_desc-lsq_" in name}
    assert len(lsq) > 10
    assert lsq == {name: expected[name] for name in lsq}
