"""Experiments behind ``bidsfit-lab``: from simulated data to figures and files."""
