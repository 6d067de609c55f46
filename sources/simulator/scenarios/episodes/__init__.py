"""Every condition and what it could be mistaken for, as episodes: a program, what happens to it, and from when.

Strengths are drawn widely, from hardly noticeable to ruinous: they follow what such causes do, not what is easy to find.
"""

from __future__ import annotations

from coldaisle.sources.simulator.scenarios.episodes import (
    faults,
    healthy,
    heat,
    holding,
    links,
    loading,
    serving,
    stalls,
)
from coldaisle.sources.simulator.scenarios.episodes.registry import SCENARIOS, piece

__all__ = ["SCENARIOS", "piece"]

_MODULES = (healthy, loading, heat, links, stalls, serving, holding, faults)
"""Importing them registers their episodes."""
