"""Runs of the participant level and of the group level, as started by the command line."""
