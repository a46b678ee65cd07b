"""Bias and spread of estimators on simulated signals with known truth."""
