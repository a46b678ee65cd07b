"""Amounts of image imperfections. Settings only, so that the command line can import them quickly."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from bidsfit.exceptions import UsageError


@dataclass(frozen=True)
class Imperfections:
    """Amount of each imperfection of an image; by default none.

    They act in the order breathing, motion, distortion (off-resonance and eddy currents), Gibbs ringing, drop-out,
    noise. The true tissue does not depend on them.

    Parameters
    ----------
    gibbs : bool
        Whether k-space is truncated at the voxel resolution, so that sharp edges ring.
    motion : float
        Largest translation along any axis, mm.
    rotation : float
        Largest rotation about any axis, degrees.
    breathing : float
        Motion of the middle of the liver between the ends of exhalation and inhalation, mm; abdomen only.
    off_resonance : float
        Largest off-resonance, Hz. If not 0, a pair of b = 0 images of opposite phase encoding is acquired.
    outliers : int
        Number of diffusion-weighted volumes with signal drop-out in some or all slices.
    eddy : float
        Displacement by eddy currents at the largest b-value, per cent of the distance from the centre of the image
        along the gradient.

    Raises
    ------
    UsageError
        If an amount is negative or not finite.
    """

    gibbs: bool = False
    motion: float = 0.0
    rotation: float = 0.0
    off_resonance: float = 0.0
    outliers: int = 0
    eddy: float = 0.0
    breathing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("motion", "rotation", "off_resonance", "outliers", "eddy", "breathing"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise UsageError(f"The imperfection {name} must be a finite number of at least 0, found {value}.")
        if self.eddy > MAXIMUM_EDDY:
            raise UsageError(
                f"Eddy currents of {self.eddy:g} % would squeeze the image to nothing; give at most {MAXIMUM_EDDY:g} %."
            )
        if self.breathing > MAXIMUM_BREATHING:
            raise UsageError(
                f"Breathing of {self.breathing:g} mm would fold the tissue over itself; give at most "
                f"{MAXIMUM_BREATHING:g} mm."
            )

    @property
    def moves(self) -> bool:
        """Whether the head moves between volumes."""
        return self.motion > 0 or self.rotation > 0

    @property
    def of_diffusion(self) -> bool:
        """Whether there are imperfections that only diffusion images have."""
        return self.off_resonance > 0 or self.outliers > 0 or self.eddy > 0

    @property
    def any(self) -> bool:
        """Whether there is any imperfection besides noise."""
        return self != NONE


#: Beyond this the linear displacement folds the image.
MAXIMUM_EDDY = 20.0

#: Beyond this tissue folds where organs border on what stays, mm.
MAXIMUM_BREATHING = 30.0

#: No imperfection but noise.
NONE = Imperfections()

#: A restless but usable scan.
RAW = Imperfections(gibbs=True, motion=2.0, rotation=2.0, off_resonance=40.0, outliers=2, eddy=1.0)

#: The same of an abdomen.
RAW_ABDOMEN = Imperfections(gibbs=True, off_resonance=40.0, outliers=2, eddy=1.0, breathing=15.0)
