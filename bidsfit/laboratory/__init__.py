"""Experiments behind ``bidsfit-lab``: from simulated data to figures and files."""

from bidsfit.registry import Registry

#: Papers that ``bidsfit-lab reproduce`` makes again. Other packages add theirs with the entry point "bidsfit.papers".
PAPERS = Registry(
    "paper",
    "bidsfit.papers",
    {
        name: f"bidsfit.laboratory.{name}:PAPER"
        for name in (
            "epstein2024",
            "gyori2022",
            "kaandorp2021",
            "kaandorp2023",
            "kaandorp2025",
            "karimi2024",
            "mao2024",
        )
    },
)
