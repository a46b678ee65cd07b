import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import NamedTuple

import numba
import numpy as np
import pytest

from bidsfit import compiling
from bidsfit.compiling import cached, specialised

#: Prints how many functions were compiled, and the values of ``found``.
COUNTED = """
import json
from numba.core import event
recorder = event.RecordingListener()
event.register("numba:compile", recorder)
import numpy as np
{script}
compiled = [e for _, e in recorder.buffer if e.is_start]
print(json.dumps([len(compiled), np.asarray(found).ravel().tolist()]))
"""

#: Signals of models given by equations, a line each.
EQUATIONS = """
import sympy as sp
from bidsfit.compiling import specialised
from bidsfit.models.kernel import compile_kernel, fill
a, b = sp.symbols("a b", real=True)
equations = [{equations}]
found = np.empty((len(equations), 1, 2))
for row, equation in zip(found, equations):
    solve = specialised(fill, kernel=compile_kernel(equation, ("a",), ("b",)))
    solve(np.array([[3.0]]), np.array([[2.0], [5.0]]), row, np.empty((1, 2, 1)))
"""

#: Four estimators of two models.
ESTIMATORS = """
from bidsfit import estimators, models
from bidsfit.acquisition import Acquisition
acquisition, found = Acquisition([0, 10, 20, 40, 80, 150, 200, 400, 600, 800]), []
rng = np.random.default_rng(0)
for name, words in {"ivim": ["lsq", "mle", "bayes", "segmented"], "adc": ["lsq"]}.items():
    model = models.get(name)
    truth = [{"S0": 1000, "D": 1.2, "f": 0.2, "Dstar": 12}[n] for n in model.names]
    signals = model.signal(np.array([truth]), acquisition) + rng.normal(0, 10, (8, 10))
    for word in words:
        estimate = estimators.get(word)(model).estimate(signals, acquisition, 10.0)
        found.append(np.concatenate([*estimate.parameters.values()]))
found = np.concatenate(found)
"""


def start(script, folder=None):
    environment = os.environ | ({} if folder is None else {"BIDSFIT_CACHE_DIR": str(folder)})
    words = [sys.executable, "-W", "error:::bidsfit", "-c", COUNTED.format(script=script)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process):
    """Number of compiled functions, and what was found."""
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    count, found = json.loads(out)
    return count, found


def signals(folder, *equations):
    return start(EQUATIONS.format(equations=", ".join(equations)), folder)


def test_a_second_process_compiles_nothing():
    _, first = result(start(ESTIMATORS))
    count, second = result(start(ESTIMATORS))
    assert count == 0
    assert second == first
    assert np.isfinite(first).all()


class TestFiles:
    def test_processes_at_once(self, tmp_path):
        running = [signals(tmp_path / "new", "a * b") for _ in range(2)]
        assert [result(process)[1] for process in running] == [[6.0, 15.0]] * 2
        assert result(signals(tmp_path / "new", "a * b")) == (0, [6.0, 15.0])
        (path,) = (tmp_path / "new").iterdir()
        assert [p.stat().st_mode & 0o777 for p in (path, path.parent)] == [0o600, 0o700]

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        count, found = result(signals(tmp_path / "file" / "folder", "a * b"))
        assert (count > 0, found) == (True, [6.0, 15.0])

    def test_code_of_different_processes_is_not_mixed_up(self, tmp_path):
        for equation in ("a * b", "a + b"):
            result(signals(tmp_path, equation))
        assert result(signals(tmp_path, "a * b", "a + b")) == (0, [6.0, 15.0, 5.0, 8.0])

    def test_only_whole_files_of_the_user_are_loaded(self, tmp_path, monkeypatch):
        function = cached(numba.njit(lambda x: x + 1))
        monkeypatch.setenv("BIDSFIT_CACHE_DIR", str(tmp_path))
        assert function(1) == 2
        (path,) = tmp_path.iterdir()
        content = compiling._read_file(path)
        assert path.read_bytes().endswith(content)
        path.chmod(0o620)
        assert compiling._read_file(path) is None
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1])
        assert compiling._read_file(path) is None
        path.write_bytes(b"")
        assert compiling._read_file(path) is None
        monkeypatch.setattr("os.getuid", lambda: path.stat().st_uid + 1)
        assert compiling._read_file(path) is None

    def test_files_that_came_with_the_package(self, tmp_path, monkeypatch):
        monkeypatch.setenv("BIDSFIT_CACHE_DIR", str(tmp_path / "shipped"))
        assert cached(numba.njit(lambda x: x - 1))(1) == 0
        next((tmp_path / "shipped").iterdir()).chmod(0o666)
        monkeypatch.setattr(compiling, "SHIPPED", tmp_path / "shipped")
        monkeypatch.setenv("BIDSFIT_CACHE_DIR", str(tmp_path / "own"))
        function = cached(numba.njit(lambda x: x - 1))
        assert function(1) == 0
        assert function.stats.cache_hits.total() == 1
        assert not (tmp_path / "own").exists()


inner = None


@numba.njit
def middle(x):
    return inner(x)


@numba.njit
def plain(x):
    return x


@numba.njit
def outer(x):
    return 2 * middle(x) + plain(x)


class Point(NamedTuple):
    x: float
    y: float


class Turned(NamedTuple):
    y: float
    x: float


class TestNames:
    CODE = SimpleNamespace(magic_tuple=lambda: ("x86_64", "a processor", "+avx2"))

    def name(self, function, signature=(numba.float64,), code=CODE):
        return compiling._Files(function)._name(signature, code)

    def function(self, text="return scale * called(x)", called="return x", scale=2.0, table=(1.0, 2.0), **options):
        """A compiled function that calls another one."""
        namespace = {"scale": scale, "table": np.array(table)}
        exec(f"def called(x):\n    {called}\ndef function(x):\n    {text}\n", namespace)
        namespace["called"] = numba.njit(namespace["called"])
        return numba.njit(namespace["function"], **options)

    def test_the_same_content_has_the_same_name(self):
        first = self.function(fastmath={"reassoc", "contract", "nnan", "arcp"})
        assert self.name(first) == self.name(self.function(fastmath={"arcp", "nnan", "contract", "reassoc"}))

    @pytest.mark.parametrize(
        "other",
        [
            {"text": "return called(x) + scale"},
            {"text": "return scale * called(x) * 2"},
            {"called": "return x + 1"},
            {"scale": 3.0},
            {"scale": 2},
            {"error_model": "numpy"},
        ],
    )
    def test_other_content_has_another_name(self, other):
        assert self.name(self.function()) != self.name(self.function(**other))

    def test_a_table(self):
        text = "return table[x]"
        assert self.name(self.function(text)) != self.name(self.function(text, table=(1.0, 3.0)))

    def test_versions_and_processors(self, monkeypatch):
        function = self.function()
        names = {self.name(function), self.name(function, code=SimpleNamespace(magic_tuple=lambda: ("x86_64", "", "")))}
        for version in ("numba.__version__", "llvmlite.__version__", "numpy.__version__", "sys.version"):
            with monkeypatch.context() as patch:
                patch.setattr(version, "0")
                names.add(self.name(function))
        assert len(names) == 6

    def test_the_order_of_the_fields_of_an_argument(self):
        function = self.function("return called(x.x)")
        point, turned = (numba.typeof(kind(1.0, 2.0)) for kind in (Point, Turned))
        assert self.name(function, (point,)) != self.name(function, (turned,))

    def test_what_cannot_be_told_apart_is_refused(self):
        with pytest.raises(TypeError, match="give it as an argument"):
            self.name(self.function(scale=object()))


def test_a_name_is_replaced_in_called_functions_too():
    same, negative = numba.njit(lambda x: x), numba.njit(lambda x: -x)
    assert [specialised(outer, inner=one)(1.0) for one in (same, negative)] == [3.0, -1.0]
    assert specialised(outer, inner=same) is specialised(outer, inner=same)
    assert specialised(plain, inner=same) is plain
