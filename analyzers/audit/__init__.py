"""Utilisation over days and months: what an audit rests on, and what it says."""
