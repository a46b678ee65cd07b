"""What the command line starts: runs of the participant level and of the group level."""
