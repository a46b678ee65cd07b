"""From a distribution of parameters to a trained estimator that can be judged. Arrays, and the file of idea three."""
