"""Waiting and headroom. Pure; times in units of the service time unless they say seconds.

Erlang C is the share of arrivals that wait with ``servers`` of one kind; Allen-Cunneen takes irregular arrivals and lengths into
account: ``W = C/(c(1-ρ)) · (Ca²+Cs²)/2``. A job that needs g GPUs at once sees a pool of c/g servers.
Sources: Erlang 1917; Allen 1990, Cunneen (approximation for G/G/c); Halfin and Whitt 1981 (square-root staffing).
"""

from __future__ import annotations

import math

from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.sheet import SizingError

_SOURCE = "Erlang C with Allen-Cunneen"
MOST_SERVERS = 10_000_000


def erlang_c(servers: int, utilisation: float) -> float:
    """The share of arrivals that find all servers busy; 1 at and above a utilisation of 1."""
    _check(servers, utilisation)
    if utilisation >= 1:
        return 1.0
    if utilisation == 0:
        return 0.0
    load = servers * utilisation
    # Erlang B by its recursion from above: terms vanish long before a pool's whole size is gone through
    inverse, term = 1.0, 1.0
    for left in range(servers, 0, -1):
        term *= left / load
        inverse += term
        if term > 1e300:
            break
        if term < inverse * 1e-16:
            break
    blocked = 1.0 / inverse
    return blocked / (1.0 - utilisation * (1.0 - blocked))


def mean_wait(
    servers: int, utilisation: float, arrival_scv: float = 1.0, service_scv: float = 1.0, gang: float = 1.0
) -> float:
    """Mean wait in service times; infinite at and above a utilisation of 1. ``*_scv``: squared coefficients of variation."""
    pool = pool_of(servers, gang)
    if arrival_scv < 0 or service_scv < 0:
        raise SizingError("a squared coefficient of variation is not below zero")
    if utilisation >= 1:
        return math.inf
    return erlang_c(pool, utilisation) / (pool * (1.0 - utilisation)) * (arrival_scv + service_scv) / 2.0


def max_utilisation(
    servers: int, wait: float, arrival_scv: float = 1.0, service_scv: float = 1.0, gang: float = 1.0
) -> Quantity:
    """The highest utilisation with a mean wait of at most so many service times."""
    if not wait > 0:
        raise SizingError(f"a wait of {wait:g} service times; it has to be above zero")
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if mean_wait(servers, middle, arrival_scv, service_scv, gang) <= wait:
            low = middle
        else:
            high = middle
    pool = pool_of(servers, gang)
    words = f"W(c={pool}, ρ={low:.3f}) = {wait:g} service times, Ca²={arrival_scv:g}, Cs²={service_scv:g}"
    return exact(low, "ratio", words, _SOURCE)


def servers_needed(
    load: float, wait: float, arrival_scv: float = 1.0, service_scv: float = 1.0, gang: float = 1.0
) -> Quantity:
    """The fewest servers for so many busy ones (``load``, in servers) with a mean wait of at most so many service times."""
    if not 0 < load < MOST_SERVERS / 2:
        raise SizingError(f"a load of {load:g} servers; it has to be above zero, and below {MOST_SERVERS:,}")
    if not wait > 0:
        raise SizingError(f"a wait of {wait:g} service times; it has to be above zero")
    step = max(1, math.ceil(gang))
    low = max(step, math.floor(load / step) * step)
    high = low + step
    while mean_wait(high, load / high, arrival_scv, service_scv, gang) > wait:
        high = low + 2 * (high - low)
    while high - low > step:
        middle = low + (high - low) // (2 * step) * step
        if load < middle and mean_wait(middle, load / middle, arrival_scv, service_scv, gang) <= wait:
            high = middle
        else:
            low = middle
    return exact(
        float(high), "gpus", f"W ≤ {wait:g} service times at a load of {load:g}, gangs of {gang:g}", _SOURCE
    )


def square_root_staffing(load: float, beta: float = 1.0) -> Quantity:
    """``R + β·√R`` servers for a load of R busy ones; β about 1 lets 2 in 10 wait a little."""
    if not load > 0:
        raise SizingError(f"a load of {load:g} servers; it has to be above zero")
    return exact(
        load + beta * math.sqrt(load), "gpus", f"{load:g} + {beta:g}·√{load:g}", "Halfin and Whitt 1981"
    )


def pool_of(servers: float, gang: float) -> int:
    """Servers that jobs of ``gang`` GPUs at once see. Errors: SizingError for gangs larger than the pool."""
    if not 0 < servers <= MOST_SERVERS:
        raise SizingError(f"a pool of {servers:g} servers; it has from 1 to {MOST_SERVERS:,}")
    if not 0 < gang <= servers:
        raise SizingError(f"gangs of {gang:g} over {servers:g} servers; a gang has from 1 to all of them")
    return max(1, math.floor(servers / gang))


def _check(servers: int, utilisation: float) -> None:
    pool_of(servers, 1.0)
    if not utilisation >= 0:
        raise SizingError(f"a utilisation of {utilisation:g}; it is not below zero")
