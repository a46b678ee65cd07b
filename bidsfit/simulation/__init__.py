"""Simulation of signals: distributions of parameters, noise, and batches of simulated voxels."""
