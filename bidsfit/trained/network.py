"""Networks, trained on any of the distributions."""

from __future__ import annotations

import numpy as np

from bidsfit.trained.estimator import TrainedEstimator
from bidsfit.training.recipe import Recipe, load_recipe


class Network(TrainedEstimator):
    """A multilayer perceptron [1]_.

    See `TrainedEstimator` for its options, and `bidsfit.training.recipe.Recipe`.

    References
    ----------
    .. [1] Gyori NG et al. Training data distribution significantly impacts the estimation of tissue microstructure
       with machine learning. Magnetic Resonance in Medicine 2022;87:932-947.
    """

    prefix, kind = "net", "network"
    title = "Neural network"
    references = ("gyori2022", "kingma2015", "pytorch")

    def default_recipe(self, snr: float) -> Recipe:
        if "MRF" in self.model.suffixes:
            return load_recipe("network-fingerprints")
        return load_recipe("network-noise-free" if np.isinf(snr) else "network")
