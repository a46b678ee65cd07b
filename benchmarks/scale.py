"""Thousands of participants: planning, the end of every job, and the group level.

One participant with two sessions is simulated and run (IVIM by two estimators, preprocessed, tiny images). Dataset and
outputs are then copied under other labels (images and figures as hard links), so that only the number of participants
is large. Each command has a process of its own, whose processor seconds and peak of memory are printed; with the
processes that it starts.
"""

from __future__ import annotations

from _common import machine, options, table  # isort: skip (limits threads)

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

APP = [sys.executable, "-m", "bidsfit.cli.app"]

#: What is written when a job of one participant is done and tells of all.
LAST = (
    "from pathlib import Path; from bidsfit.run.reports import write_methods, write_overview; "
    "import sys; write_methods(Path(sys.argv[1])); write_overview(Path(sys.argv[1]))"
)


def main() -> None:
    parser = options(__doc__, voxels=0)
    parser.add_argument("--participants", type=int, nargs="+", default=[100, 300, 1000], help="(default 100 300 1000)")
    parser.add_argument("--folder", type=Path, help="where files are written (default: a temporary folder)")
    arguments = parser.parse_args()
    numbers = [3, 6] if arguments.quick else arguments.participants
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        lab = [sys.executable, "-m", "bidsfit.cli.lab", "phantom", str(folder / "ds"), "--model", "ivim", "--raw"]
        size = ["--shape", "16", "16", "4", "--participants", "1", "--patients", "0", "--sessions", "2"]
        subprocess.run([*lab, *size], check=True, stdout=subprocess.DEVNULL)
        derivatives = ["-d", f"truth={folder / 'ds/derivatives/truth'}"]
        fits = ["--model", "ivim", "--estimators", "lsq", "segmented", "--skip-bids-validation", "--nprocs", "1"]
        run = [*APP, str(folder / "ds"), str(folder / "out"), "participant", "-w", str(folder / "work"), *fits]
        subprocess.run([*run, *derivatives], check=True, stdout=subprocess.DEVNULL)
        made = 1
        for n in numbers:
            copy(folder, range(made + 1, n + 1))
            made = n
            measured = {
                "plan of all": [*run, *derivatives, "--dry-run"],
                "plan of one": [*run, *derivatives, "--dry-run", "--participant-label", "01"],
                "end of a job": [sys.executable, "-c", LAST, str(folder / "out")],
                "group level": [*APP, str(folder / "ds"), str(folder / "out"), "group", *derivatives, "--nprocs", "1"],
            }
            for what, words in measured.items():
                rows.append([what, n, *measure(words)])
                print(*rows[-1], file=sys.stderr, flush=True)  # a long run that fails later is not lost
            sizes = [path.stat().st_size for path in (folder / "out").glob("*.html") if "sub-" not in path.name]
            rows.append(["files of a participant", n, *([len(files(folder / "out")) // n] + [""] * 2)])
            rows.append(["pages of all, MB", n, f"{sum(sizes) / 1e6:.1f}", "", ""])
    print(f"{machine()}; one process.\n")
    order = list(dict.fromkeys(row[0] for row in rows))
    rows.sort(key=lambda row: order.index(row[0]))
    print(table(["", "participants", "CPU s", "seconds", "peak, MB"], rows))


def copy(folder: Path, numbers: Sequence[int]) -> None:
    """Copy dataset and outputs of the participant 01 under the labels of others."""
    for root in (folder / "ds", folder / "out"):
        for path in [path for path in files(root) if "sub-01" in str(path.relative_to(root))]:
            text = path.read_text() if path.suffix in (".json", ".tsv", ".ttl") else None
            for number in numbers:
                new = root / str(path.relative_to(root)).replace("sub-01", f"sub-{number:05d}")
                new.parent.mkdir(parents=True, exist_ok=True)
                if text is None:
                    os.link(path, new)
                else:
                    new.write_text(text.replace("sub-01", f"sub-{number:05d}"))
    with (folder / "ds/participants.tsv").open("a") as file:
        file.writelines(f"sub-{number:05d}\thealthy\n" for number in numbers)


def files(root: Path) -> list[Path]:
    """All files of a folder."""
    return [Path(folder, name) for folder, _, names in os.walk(root) for name in names]


def measure(words: Sequence[str]) -> list[str]:
    """Processor seconds, seconds, and peak of memory (MB) of a command and the processes that it starts."""
    start = perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        said.seek(0)
        assert os.waitstatus_to_exitcode(status) == 0, said.read()
    return [f"{used.ru_utime + used.ru_stime:.1f}", f"{perf_counter() - start:.1f}", f"{used.ru_maxrss / 1024:,.0f}"]


if __name__ == "__main__":
    main()
