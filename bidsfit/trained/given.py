"""A trained file that the user gives: which estimator it is, and with which options it was trained."""

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
        """What its maps and tables are called: the estimator's name and the first characters of the checksum."""
        return f"{self.estimator}-{self.options['checksum']}"


def is_file_name(word: str) -> bool:
    """Whether a word of --estimators is the path of a trained file, and not a name."""
    return word.endswith(".zip") or "/" in word


def describe_given(facts: Mapping[str, Any]) -> Given:
    """What the facts of a trained file say.

    Parameters
    ----------
    facts : mapping
        `bidsfit.training.bundle.Bundle.facts`.
    """
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
    """The name of the distribution that an estimator of the package would have."""
    if facts["Kind"] == "uniform":
        return "uniform"
    if facts["Kind"] == "mixture":
        return "mixed"
    tissue = str(facts["Origin"].get("Tissue", ""))
    return tissue if tissue in ("wm", "gm") else "healthy"
