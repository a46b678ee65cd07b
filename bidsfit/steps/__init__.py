"""The steps of the preprocessing: of each, when an image gets it, what runs, and what reports say and show."""
