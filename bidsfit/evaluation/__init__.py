"""How wrong an estimator is, and how much it scatters: measured on simulated signals whose truth is known."""
