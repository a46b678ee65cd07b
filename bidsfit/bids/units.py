"""Units of files and reports, and conversion from internal units."""

from __future__ import annotations

from typing import NamedTuple


class Unit(NamedTuple):
    """A unit of files or reports: ``value = factor * internal value``."""

    name: str
    factor: float


#: In NIfTI files and sidecars: what FSL, MRtrix and DIPY users expect.
FILE_UNITS = {
    "um^2/ms": Unit("mm^2/s", 1e-3),
    "um^4/ms^2": Unit("mm^4/s^2", 1e-6),
    "ms": Unit("s", 1e-3),
    "us": Unit("s", 1e-6),
    "1/s": Unit("1/s", 1.0),
    "Hz": Unit("Hz", 1.0),
    "rad": Unit("rad", 1.0),
    "1": Unit("1", 1.0),
    "arbitrary": Unit("arbitrary", 1.0),
}

#: In reports and tables.
REPORT_UNITS = {
    "um^2/ms": Unit("10⁻³ mm²/s", 1.0),
    "um^4/ms^2": Unit("10⁻⁶ mm⁴/s²", 1.0),
    "ms": Unit("ms", 1.0),
    "us": Unit("µs", 1.0),
    "1/s": Unit("1/s", 1.0),
    "Hz": Unit("Hz", 1.0),
    "rad": Unit("rad", 1.0),
    "1": Unit("", 1.0),
    "arbitrary": Unit("a.u.", 1.0),
}
