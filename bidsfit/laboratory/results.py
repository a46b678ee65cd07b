"""Cache of expensive results, so that an interrupted experiment can continue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit import __version__
from bidsfit.files import whole_file

Arrays = dict[str, NDArray[Any]]


class Results:
    """Arrays in a folder, keyed by everything that determines them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def obtain(self, name: str, facts: Mapping[str, Any], compute: Callable[[], Arrays]) -> Arrays:
        """Cached arrays for these facts, computed if missing.

        ``name`` begins the file name; ``facts``, in JSON, must determine the result. Another release computes anew.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file, save_file

        content = json.dumps({**facts, "Release": __version__}, sort_keys=True)
        path = self.folder / f"{name}_{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"
        if path.exists():
            try:
                kept: Arrays = load_file(path)
                return kept
            except SafetensorError:
                path.unlink()  # it can be computed again
        found = {key: np.ascontiguousarray(array) for key, array in compute().items()}
        with whole_file(path) as temporary:
            save_file(found, temporary)
        return found
