"""What a reviewer would ask of a data set: copies, leaks, shift and shortcuts, each with its evidence."""
