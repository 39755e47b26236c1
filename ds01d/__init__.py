"""The daemon that owns who holds which GPU on one shared server."""

__version__ = "0.1.0"
