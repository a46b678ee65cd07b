"""Random forests, trained on any of the distributions."""

from __future__ import annotations

from bidsfit.trained.estimator import TrainedEstimator


class Forest(TrainedEstimator):
    """A random forest of regression trees [1]_, in the place of the network [2]_.

    See `TrainedEstimator` for its options, and `bidsfit.training.recipe.Recipe`.

    References
    ----------
    .. [1] Breiman L. Random forests. Machine Learning 2001;45:5-32.
    .. [2] Gyori NG et al. Magnetic Resonance in Medicine 2022;87:932-947.
    """

    prefix, kind = "forest", "forest"
    title = "Random forest"
    references = ("breiman2001", "gyori2022", "scikitlearn")
