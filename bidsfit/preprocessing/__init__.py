"""Preprocessing of raw diffusion images as functions of arrays."""
