"""automed turns a folder of medical images into a defensible model."""

__version__ = "0.1.0"
