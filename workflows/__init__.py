"""Where numbers and files meet: Nipype graphs whose nodes are thin."""
