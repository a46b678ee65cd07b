"""Simulation: distributions of parameters and of noise, and what a scanner would measure of them."""
