"""One kind of advice a module."""
