"""Tells MLflow and TensorBoard of a search while it runs. What goes wrong there never touches a trial."""
