"""Prometheus-compatible servers as a source: now, and at any instant they still remember."""
