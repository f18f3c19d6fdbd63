"""What is asked of the images. Classification today."""
