"""Uncertainty of estimates: Cramér-Rao bound, simulated performance, and the companion maps made from them."""
