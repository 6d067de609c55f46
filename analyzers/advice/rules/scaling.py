"""How jobs of one name scale over GPUs, where they ran with several counts: beyond which count more GPUs bring little.

thr(n) = a n / (1 + s (n-1) + k n (n-1)), the Universal Scalability Law, fitted as n / thr = (1 + s (n-1) + k n (n-1)) / a.
Without a measured throughput, completed jobs of one name are taken for the same work, where their times agree.
Sources: Gunther, Guerrilla Capacity Planning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.framing import SERVED, Said, of_group, over_groups
from coldaisle.analyzers.advice.groups import Group
from coldaisle.analyzers.advice.intervals import bootstrap
from coldaisle.analyzers.advice.pool import HOUR, Bools, Numbers, Pool
from coldaisle.analyzers.advice.telling import between, counted

NAME = "scaling"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    efficiency: float
    counts: int
    spread: float


class Law(NamedTuple):
    """``start``: work a second of one GPU; ``contention`` and ``crosstalk``: s and k."""

    start: float
    contention: float
    crosstalk: float

    def marginal(self, n: Numbers) -> Numbers:
        """What one more GPU brings, of what the first one does."""
        below = 1 + self.contention * (n - 1) + self.crosstalk * n * (n - 1)
        slope = self.contention + self.crosstalk * (2 * n - 1)
        found: Numbers = (below - n * slope) / below**2
        return found


def fit(gpus: Numbers, throughput: Numbers) -> Law | None:
    """By least squares, coefficients that are not negative; None: it does not determine them."""
    columns = np.stack([np.ones_like(gpus), gpus - 1, gpus * (gpus - 1)], axis=1)
    y = gpus / throughput
    weights = 1 / y
    best: tuple[float, Numbers] | None = None
    for use in ((0, 1, 2), (0, 1), (0, 2), (0,)):
        found, *_ = np.linalg.lstsq(columns[:, use] * weights[:, None], y * weights, rcond=None)
        rest = float((((columns[:, use] @ found - y) * weights) ** 2).sum())
        full = np.zeros(3)
        full[list(use)] = found
        if (full >= 0).all() and full[0] > 0 and (best is None or rest < best[0]):
            best = (rest, full)
    if best is None:
        return None
    a, b, c = (float(one) for one in best[1])
    return Law(1 / a, b / a, c / a)


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a group that runs with more GPUs than it gains from."""
    yield from over_groups(
        pool, NAME, lambda group: _group(pool, rules, group), measured=False, but_not=SERVED
    )


class _Runs(NamedTuple):
    """Jobs of a group that can be compared."""

    use: Bools
    """[member]"""
    gpus: Numbers
    throughput: Numbers
    is_told: bool
    """Measured; else one over their times."""

    @property
    def counts(self) -> Numbers:
        """Different numbers of GPUs."""
        found: Numbers = np.unique(self.gpus)
        return found


class _Found(NamedTuple):
    """A law, and the count beyond which one more GPU brings too little."""

    law: Law
    knee: float
    low: float
    high: float


def _group(pool: Pool, rules: Thresholds, group: Group) -> Advice | None:
    runs = _runs(pool, group)
    enough = len(runs.gpus) >= pool.common.least_jobs and len(runs.counts) >= rules.counts
    if not enough or (not runs.is_told and _apart(runs.gpus, runs.throughput) > rules.spread):
        return None  # too few, or not the same work
    found = _knee_of(pool, rules, runs)
    return None if found is None else _advice(pool, group, runs, found)


def _runs(pool: Pool, group: Group) -> _Runs:
    stays = group.stays(pool)
    gpus = np.array([stay.gpu_count for stay in stays], dtype=np.float64)
    told = np.array([stay.throughput for stay in stays])
    is_told = bool(np.isfinite(told).sum() >= pool.common.least_jobs)
    if not is_told:
        told = np.array(
            [1 / (s.ended_at - s.started_at) if s.state == "COMPLETED" else np.nan for s in stays]
        )
    use = np.isfinite(told) & (told > 0) & (gpus >= 1)
    return _Runs(use, gpus[use], told[use], is_told)


def _knee_of(pool: Pool, rules: Thresholds, runs: _Runs) -> _Found | None:
    """None: nothing can be fitted, or it may as well scale."""
    gpus, told = runs.gpus, runs.throughput
    law, most = fit(gpus, told), float(runs.counts.max())
    if law is None:
        return None
    knee = _knee(law, most, rules.efficiency)
    if knee >= most:
        return None
    low, high = bootstrap(
        len(gpus),
        lambda drawn: _drawn(gpus[drawn], told[drawn], most, rules.efficiency),
        200,
        pool.common.seed,
    )
    return None if np.isnan(low) or high >= most else _Found(law, knee, low, high)


def _saved(pool: Pool, group: Group, runs: _Runs, found: _Found) -> float:
    """GPU-hours a week: the same work with fewer GPUs takes longer, at a better efficiency."""
    over = runs.gpus > found.knee
    held = pool.gpu_s[group.members][runs.use][over] / HOUR / pool.weeks
    better = _efficiency(found.law, runs.gpus[over]) / _efficiency(
        found.law, np.full(int(over.sum()), found.knee)
    )
    return float((held * (1 - better)).sum())


def _advice(pool: Pool, group: Group, runs: _Runs, found: _Found) -> Advice:
    law, knee, saved = found.law, found.knee, _saved(pool, group, runs, found)
    usl = f"USL: s = {law.contention:.3g}, k = {law.crosstalk:.3g}"
    words = "GPU-hours x (1 - efficiency / efficiency at the advised count)"
    said = Said(
        f"run {group.title()} with {counted(knee, 'GPU')}: beyond, one more brings less than half a GPU",
        between(found.low, knee, found.high, "gpus", usl, "least squares"),
        Grade.B if runs.is_told else Grade.D,
        f"{len(runs.gpus)} jobs ran with {', '.join(f'{n:.0f}' for n in runs.counts)} GPUs",
        "a larger batch, faster links, another layout" if runs.is_told else "a measured throughput",
        "whoever needs the result sooner may pay for it",
        Saving(between(0.0, saved, saved, "gpu_hours", words)),
    )
    return of_group(pool, NAME, group, said, "jobs.throughput" if runs.is_told else "slurm.elapsed")


def _apart(gpus: Numbers, told: Numbers) -> float:
    """The largest spread of times among jobs with the same count."""
    spreads = [
        float(np.std(told[gpus == n]) / np.mean(told[gpus == n]))
        for n in np.unique(gpus)
        if (gpus == n).sum() > 1
    ]
    return max(spreads, default=np.inf)


def _knee(law: Law, most: float, efficiency: float) -> float:
    n = np.arange(1, most + 1)
    enough = law.marginal(n) >= efficiency
    return float(n[enough][-1]) if enough.any() else 1.0


def _drawn(gpus: Numbers, told: Numbers, most: float, efficiency: float) -> float:
    if len(np.unique(gpus)) < 2:
        return float("nan")
    law = fit(gpus, told)
    return float("nan") if law is None else _knee(law, most, efficiency)


def _efficiency(law: Law, n: Numbers) -> Numbers:
    found: Numbers = 1 / (1 + law.contention * (n - 1) + law.crosstalk * n * (n - 1))
    return found
