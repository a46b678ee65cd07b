"""Experiments behind ``bidsfit-lab``: from simulated data to figures and files."""

from bidsfit.registry import Registry

#: Papers that ``bidsfit-lab reproduce`` makes again. Other packages add theirs with the entry point "bidsfit.papers".
PAPERS = Registry("paper", "bidsfit.papers", {"gyori2022": "bidsfit.laboratory.gyori2022:PAPER"})
