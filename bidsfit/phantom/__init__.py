"""Simulated heads and abdomens with known truth, as a scanner would image them. Arrays only, no files."""
