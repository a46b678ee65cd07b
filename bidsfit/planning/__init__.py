"""Planning of a run: what every image gets and why, decided from headers and b-values before any computation."""
