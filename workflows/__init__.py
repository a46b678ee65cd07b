"""Nipype workflows that connect the computations with files."""
