"""Where simulated numbers meet figures and files: the experiments behind ``bidsfit-lab``."""
