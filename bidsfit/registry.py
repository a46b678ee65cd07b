"""Registries of objects by name, including those that other packages add by entry points."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from bidsfit.exceptions import UnknownNameError


@dataclass(frozen=True)
class Registry:
    """Names and locations ("module:attribute") of objects, which are imported on demand.

    Parameters
    ----------
    kind : str
        Kind of object, for messages.
    group : str
        Entry-point group of other packages.
    """

    kind: str
    group: str
    built_in: Mapping[str, str]

    def available(self) -> dict[str, str]:
        """All names and locations."""
        return {**self.built_in, **_added(self.group, tuple(sys.path))}

    def get(self, name: str) -> Any:
        """The object of that name; raises `UnknownNameError` with the nearest valid name."""
        places = self.available()
        if name not in places:
            raise UnknownNameError(self.kind, name, places)
        module, attribute = places[name].split(":")
        return getattr(import_module(module), attribute)


@lru_cache
def _added(group: str, path: tuple[str, ...]) -> Mapping[str, str]:
    """Entry points of other packages; kept for each search path, as looking through all packages takes 5 ms."""
    return {entry.name: entry.value for entry in entry_points(group=group)}
