"""Preprocessing steps: for each, when an image gets it, its Nipype interface, and its texts and figure."""
