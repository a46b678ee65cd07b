"""What a run would do, and why: decided from headers and tables of b-values, before anything is computed."""
