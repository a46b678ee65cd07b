"""Files of trained estimators given by users: their kind and the options of their training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bidsfit.trained.forest import Forest
from bidsfit.trained.network import Network

#: Characters of the checksum that tell files of the same estimator apart.
SHOWN = 6

PREFIXES = {cls.kind: cls.prefix for cls in (Network, Forest)}


class Given(NamedTuple):
    """An estimator of the package, and the options that describe a trained file of it.

    Attributes
    ----------
    estimator : str
        Its name, such as "net-uniform".
    model : str
        The only model that it is for.
    options : dict
        Of its class, without the file itself.
    """

    estimator: str
    model: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Name in maps and tables: the estimator's name and the first characters of the checksum."""
        return f"{self.estimator}-{self.options['checksum']}"


def is_file_name(word: str) -> bool:
    """Whether a value of --estimators is the path of a trained file instead of a name."""
    return word.endswith(".zip") or "/" in word


def describe_given(facts: Mapping[str, Any]) -> Given:
    """Describe a trained file by its facts (`bidsfit.training.bundle.Bundle.facts`)."""
    distribution = facts["Distribution"]
    snr = facts["Noise"]["SNR"]
    return Given(
        estimator=f"{PREFIXES[facts['Kind']]}-{_distribution_name(distribution)}",
        model=facts["Model"],
        options={
            "snr": np.inf if snr is None else float(snr),
            "noise": facts["Noise"]["Kind"],
            "recipe": dict(facts["Recipe"]),
            "seed": int(facts["Seed"]),
            "pool": facts["DistributionDigest"] if facts["Participants"] else "",
            "checksum": facts["Checksum"][:SHOWN],
            "bounds": {name: tuple(pair) for name, pair in distribution["Bounds"].items()},
        },
    )


def _distribution_name(facts: Mapping[str, Any]) -> str:
    """Name of the training distribution, as estimators of the package call it."""
    if facts["Kind"] in ("uniform", "prior"):
        return str(facts["Kind"])
    if facts["Kind"] == "tissues":  # of a recipe, which the estimator brings along
        return "uniform"
    if facts["Kind"] == "mixture":
        return "mixed"
    tissue = str(facts["Origin"].get("Tissue", ""))
    return tissue if tissue in ("wm", "gm") else "healthy"
