"""How good the diagnosis is: labelled scenarios, healthy hours and recorded incidents, scored honestly.

``python -m benchmarks.quality`` prints the table that stands in ``analyzers/README.md``.
"""
