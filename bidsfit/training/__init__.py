"""Training of estimators on simulated voxels, and the files that hold the results."""
