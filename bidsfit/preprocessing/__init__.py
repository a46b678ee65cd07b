"""From raw scans to signals one can fit: arrays in, arrays out, no files."""
