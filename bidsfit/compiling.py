"""Compiled functions that are kept in files from one process to the next.

Compilation by numba takes longer than most fits. Numba's own cache cannot keep a function that takes another one as an
argument, such as a solver for any model, and does not notice changes of the functions that it calls. Here such a solver
reads a *global* name that `specialised` replaces, and the name of a file is a hash of everything its content depends
on: the code of the function and of all that it calls, types of arguments, versions and processor. So a file is never
out of date and never changed, any number of processes may share it, and all may be deleted at any time.

These are the only files whose content is executed. They are read if only this user could have written them, or if they
came with the package.
"""

from __future__ import annotations

import dis
import hashlib
import os
import pickle
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import RLock
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps

from bidsfit.exceptions import DiskFullError
from bidsfit.files import cache_folder, whole_file

#: Files that came with the package, which is trusted as a whole.
SHIPPED = Path(__file__).with_name("compiled")
#: Bytes of the checksum at the start of a file.
CHECKSUM = hashlib.sha256().digest_size

_lock = RLock()


def cached(function: Any) -> Any:
    """Let a compiled function be loaded from a file where there is one, and written to it where there is none.

    For functions that Python calls. Those that they call are compiled into them.
    """
    if hasattr(function, "py_func"):  # numba is not switched off
        function._cache = _Files(function)
    return function


def specialised(function: Any, /, **replaced: Any) -> Any:
    """A compiled function in which global names stand for other compiled functions; it is `cached`.

    The names are replaced in all compiled functions that it calls, too.
    """
    with _lock:  # two threads would each compile a function of their own
        return _cached_copy(function, tuple(replaced.items()))


@cache
def _cached_copy(function: Any, replaced: tuple[tuple[str, Any], ...]) -> Any:
    return cached(_copy(function, replaced))


@cache
def _copy(function: Any, replaced: tuple[tuple[str, Any], ...]) -> Any:
    """The function with the names replaced, or itself if neither it nor a function that it calls uses them."""
    python = getattr(function, "py_func", function)  # the function itself where numba is switched off
    new = {name: value for name, value in replaced if name in _globals(python.__code__)}
    for name, value in _read(python).items():
        if isinstance(value, (Dispatcher, FunctionType)) and name not in new and _copy(value, replaced) is not value:
            new[name] = _copy(value, replaced)
    if not new:
        return function
    known = python.__globals__ | new
    copy = FunctionType(python.__code__, known, python.__name__, python.__defaults__, python.__closure__)
    if function is python:
        return copy
    # Symbols of loaded code have the name of the function: others of the same name must not be mistaken for it.
    copy.__qualname__ = f"{python.__name__}_{_hash(*map(_content, new.values()))}"
    return numba.jit(**function.targetoptions)(copy)


class _Files(NullCache):
    """Numba's interface to a cache; one file for each signature of a function."""

    def __init__(self, function: Dispatcher) -> None:
        self.function = function

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        target_context.refresh()  # as in numba's own cache
        name = self._name(sig, target_context.codegen())
        content = _read_file(SHIPPED / name, shipped=True) or _read_file(cache_folder() / name)
        return None if content is None else CompileResult._rebuild(target_context, *pickle.loads(content))

    def save_overload(self, sig: Any, data: Any) -> None:
        if data.lifted or data.library.has_dynamic_globals:  # addresses of this process
            return
        content, path = dumps(data._reduce()), cache_folder() / self._name(sig, data.library.codegen)
        with suppress(OSError, DiskFullError):  # a fit goes on without
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with whole_file(path) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_bytes(hashlib.sha256(content).digest() + content)

    def _name(self, sig: Any, codegen: Any) -> str:
        """Name of the file of a signature, from all that the compiled code depends on."""
        versions = numba.__version__, llvmlite.__version__, sys.version, np.__version__, codegen.magic_tuple()
        name = self.function.py_func.__name__.strip("_")
        return f"{name}-{_hash(_content(self.function), *map(_signature, sig), repr(versions))}.compiled"


def _read_file(path: Path, shipped: bool = False) -> bytes | None:
    """Content of a file that is whole and, because it will be executed, that only this user could have written."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            others = status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if others and not shipped:
                return None
            content = file.read()
    except OSError:
        return None
    return content[CHECKSUM:] if hashlib.sha256(content[CHECKSUM:]).digest() == content[:CHECKSUM] else None


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def _signature(of: Any) -> str:
    """A type of numba in words; numba's own words for a named tuple leave out the names."""
    if hasattr(of, "fields"):
        return f"{of.fields}({', '.join(map(_signature, of))})"
    return str(of)


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)


@cache
def _globals(code: CodeType) -> set[str]:
    """Global names that a function reads."""
    return {step.argval for step in _instructions(code) if step.opname == "LOAD_GLOBAL"}


def _read(python: Any) -> dict[str, Any]:
    """Global values that a function reads, without builtins."""
    known = python.__globals__
    return {name: known[name] for name in sorted(_globals(python.__code__)) if name in known}


@cache
def _content_of_function(function: Dispatcher) -> str:
    python = function.py_func
    enclosed = tuple(cell.cell_contents for cell in python.__closure__ or ())
    parts = python.__module__, python.__code__, python.__defaults__, enclosed, function.targetoptions, _read(python)
    return _hash(*map(_content, parts))


def _content(value: Any) -> str:
    """A text that differs where compiled code would.

    Raises
    ------
    TypeError
        For a global value of which is not known how to tell it from others.
    """
    if isinstance(value, Dispatcher):
        return _content_of_function(value)
    if isinstance(value, CodeType):
        return _content((value.co_code, value.co_names, value.co_consts))
    if isinstance(value, np.ndarray):
        return _content((value.dtype.str, value.shape, value.tobytes()))
    if isinstance(value, dict):
        return _content(tuple(sorted(value.items())))
    if isinstance(value, set | frozenset):
        return _content(tuple(sorted(value)))
    if isinstance(value, tuple):
        return f"({', '.join(map(_content, value))})"
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}{getattr(value, '_fields', '')}"
    if value is None or isinstance(value, int | float | complex | str | bytes):
        return repr(value)
    raise TypeError(f"A compiled function reads {value!r}: give it as an argument.")
