"""Things found by name: those of the package, and those that other packages add with an entry point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from bidsfit.exceptions import UnknownNameError


@dataclass(frozen=True)
class Registry:
    """Names and where each lives ("module:attribute"); nothing is imported until it is asked for.

    Parameters
    ----------
    kind : str
        What is registered, for messages.
    group : str
        Group of the entry points of other packages.
    """

    kind: str
    group: str
    built_in: Mapping[str, str]

    def available(self) -> dict[str, str]:
        """All names and where each lives."""
        return {**self.built_in, **{entry.name: entry.value for entry in entry_points(group=self.group)}}

    def get(self, name: str) -> Any:
        """The thing of that name.

        Raises
        ------
        UnknownNameError
            With the nearest valid name.
        """
        places = self.available()
        if name not in places:
            raise UnknownNameError(self.kind, name, places)
        module, attribute = places[name].split(":")
        return getattr(import_module(module), attribute)
