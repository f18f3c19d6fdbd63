"""What may be tried: the search space, read from YAML. Knows nothing of medicine."""
