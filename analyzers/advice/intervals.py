"""How well figures are known: order statistics, effective sample sizes, a bootstrap by blocks, robust slopes.

All intervals hold four times of five. Sources: Conover, Practical Nonparametric Statistics (order statistics,
Theil-Sen with Kendall's variance); Clopper and Pearson 1934 where all of n samples agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.advice.pool import DAY, Numbers
from coldaisle.analyzers.sizing.quantity import Quantity

TAIL = 0.1
"""Outside of the interval on each side."""
Z80 = 1.2816


class Span(NamedTuple):
    """A figure within its interval."""

    low: float
    value: float
    high: float

    def quantity(self, unit: str, formula: str = "", source: str = "") -> Quantity:
        """As advice has it."""
        return Quantity(
            self.value, min(self.low, self.value), max(self.high, self.value), unit, formula, source
        )

    def scaled(self, factor: float) -> Span:
        """So many times that; ``factor`` >= 0."""
        return Span(self.low * factor, self.value * factor, self.high * factor)


def effective(series: Numbers) -> float:
    """How many independent samples a series in time is worth: n (1 - r) / (1 + r), r its correlation with itself a step before."""
    known = series[~np.isnan(series)]
    n = len(known)
    if n < 3:
        return float(n)
    rest = known - known.mean()
    power = float((rest**2).sum())
    r = float((rest[1:] * rest[:-1]).sum()) / power if power > 0 else 0.0
    r = min(max(r, 0.0), 0.999)
    return max(n * (1 - r) / (1 + r), 1.0)


def quantile(values: Numbers, q: float, worth: float | None = None) -> Span:
    """A quantile with the interval of its order statistics; ``worth``: independent samples, all by default. NaN: no values."""
    known = np.sort(values[~np.isnan(values)])
    n = len(known)
    if not n:
        return Span(math.nan, math.nan, math.nan)
    worth = min(worth or n, n)
    low, high = _ranks(worth, q)
    place = (np.array([low, q, high]) * (n - 1)).clip(0, n - 1)
    found = np.interp(place, np.arange(n), known)
    return Span(*(float(one) for one in found))


def _ranks(n: float, q: float) -> tuple[float, float]:
    """Quantiles of the sample between which the true one lies, of ``n`` independent samples: Binomial(n, q)."""
    count, q = max(round(n), 1), min(max(q, 1e-9), 1 - 1e-9)
    if count > 2000:
        off = Z80 * math.sqrt(q * (1 - q) / count)
        return max(q - off, 0.0), min(q + off, 1.0)
    k = np.arange(count + 1)
    logs: Numbers = np.array(
        [math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in k]
    )
    total = np.cumsum(np.exp(logs + k * math.log(q) + (count - k) * math.log1p(-q)))
    low = int(np.searchsorted(total, TAIL))
    high = int(np.searchsorted(total, 1 - TAIL)) + 1
    return max((low - 1) / count, 0.0) if low else 0.0, min(high / count, 1.0)


def bootstrap(
    blocks: int, statistic: Callable[[NDArray[np.intp]], float], resamples: int, seed: int
) -> tuple[float, float]:
    """The interval of a statistic over blocks of time drawn with replacement; it is given the numbers of the blocks."""
    rng = np.random.default_rng(seed)
    found = [statistic(rng.integers(0, blocks, blocks)) for _ in range(resamples)]
    known = np.array([one for one in found if math.isfinite(one)])
    if not len(known):
        return math.nan, math.nan
    return float(np.quantile(known, TAIL)), float(np.quantile(known, 1 - TAIL))


def widened(span: Span, seconds: float) -> Span:
    """For short histories: the upper bound times 1 + 1/days, the lower one divided by it (as Kubernetes' VPA does)."""
    factor = 1 + 1 / max(seconds / DAY, 0.01)
    return Span(span.low / factor, span.value, span.high * factor)


def all_alike(n: float) -> float:
    """The least share that a property has, of which n of n independent samples were."""
    least: float = TAIL ** (1 / max(n, 1.0))
    return least


def agreeing(k: int, n: int) -> tuple[float, float]:
    """The interval of the share that has a property which k of n independent samples have (Clopper-Pearson); 0 to 1 of none."""
    if n <= 0:
        return 0.0, 1.0
    low = 0.0 if k <= 0 else 1 - _share_of_tail(n - k, n)
    return low, 1.0 if k >= n else _share_of_tail(k, n)


def _share_of_tail(k: int, n: int) -> float:
    """The share of which at most k of n samples have it once of ten times."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(k, n, middle) > TAIL else (low, middle)
    return (low + high) / 2


def _at_most(k: int, n: int, share: float) -> float:
    """P(X <= k) of Binomial(n, share)."""
    i = np.arange(k + 1)
    steps: Numbers = np.log((n - i[:-1]) / (i[:-1] + 1.0))
    terms = np.append(0.0, np.cumsum(steps)) + i * math.log(share) + (n - i) * math.log1p(-share)
    total: float = float(np.exp(terms).sum())
    return total


def theil_sen(x: Numbers, y: Numbers) -> Span:
    """The median slope between all pairs, with the interval of its rank (Kendall's variance). NaN: fewer than three points."""
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    n = len(x)
    if n < 3:
        return Span(math.nan, math.nan, math.nan)
    i, j = np.triu_indices(n, 1)
    apart = x[j] != x[i]
    slopes = np.sort((y[j] - y[i])[apart] / (x[j] - x[i])[apart])
    off = Z80 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    count = len(slopes)
    low, high = (count - off) / 2, (count + off) / 2
    found = np.interp([low, (count - 1) / 2, high], np.arange(count), slopes)
    return Span(*(float(one) for one in found))


def staffed(load: float, wait: float, spread: float = 1.0) -> int:
    """Servers at which the mean wait is at most ``wait`` service times: Erlang C with Allen and Cunneen's ``spread``.

    ``load``: offered, in servers; ``spread``: (Ca² + Cs²) / 2.
    """
    if load <= 0:
        return 0
    servers = max(math.floor(load) + 1, 1)
    while servers < 4 * load + 100 and _wait(servers, load) * spread > wait:
        servers += 1
    return servers


def _wait(servers: int, load: float) -> float:
    """Mean wait in service times (M/M/c)."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    share = load / servers
    delayed: float = blocked / (1 - share * (1 - blocked))
    wait: float = delayed / (servers * (1 - share))
    return wait
