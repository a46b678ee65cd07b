"""A head with known truth: tissue, lesions, and how a scanner would see them. Arrays only, no files."""
