"""Table of the preprocessing steps by name; each is a file of bidsfit/steps/."""

from __future__ import annotations

from bidsfit.registry import Registry

#: In their order. The phase and the Rician bias go before anything is interpolated: phase and noise belong to the
#: voxels as they were measured. Motion comes last of those that change the image: it undoes the distortion with one
#: interpolation.
STEPS = Registry(
    "preprocessing step",
    "bidsfit.steps",
    {
        "phase": "bidsfit.steps.phase:PHASE",
        "denoise": "bidsfit.steps.denoise:DENOISE",
        "gibbs": "bidsfit.steps.gibbs:GIBBS",
        "rician": "bidsfit.steps.rician:RICIAN",
        "susceptibility": "bidsfit.steps.susceptibility:SUSCEPTIBILITY",
        "motion": "bidsfit.steps.motion:MOTION",
        "tissue": "bidsfit.steps.tissue:TISSUE",
    },
)
