"""Palettes and style sheets, as data."""
