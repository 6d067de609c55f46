"""How the four utilisations are measured over a pool."""

from __future__ import annotations

from coldaisle.analyzers.advice.pool import Pool
from coldaisle.analyzers.advice.utilisation import NOT_KNOWN, Utilisations


def utilisations(pool: Pool) -> Utilisations:
    """Of the cluster and its parts."""
    return NOT_KNOWN
