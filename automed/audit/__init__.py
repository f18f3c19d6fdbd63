"""What a reviewer would ask of a data set: copies, leaks, shift, shortcuts, each as a finding with its evidence."""
