"""Statistics of a study: how well repeated scans agree, and who changed. Arrays only, no files."""
