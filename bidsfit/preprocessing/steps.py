"""The steps of the preprocessing, by name."""

from __future__ import annotations

#: In their order: what each takes out, or makes (in words for reports). The Rician bias goes before anything is
#: interpolated: the noise level belongs to the voxels as they were measured.
STEPS = {
    "denoise": "Noise",
    "gibbs": "Gibbs ringing",
    "rician": "Rician bias",
    "susceptibility": "Susceptibility distortion",
    "motion": "Motion and eddy currents",
    "tissue": "Tissue masks",
}

#: Those that change the signals.
CHANGING = tuple(name for name in STEPS if name != "tissue")
