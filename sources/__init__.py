"""Where the numbers come from, and the cluster they describe."""

__version__ = "0.1.0"
