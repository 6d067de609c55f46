"""Usages that are broken in any way: no rule fails, and every figure is finite and in order."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given as using
from hypothesis import settings as how
from hypothesis import strategies as st
from lab.month import H100, START
from lab.usages import RESTS, WORKS, counsel_of, series, usage_of

from coldaisle.analyzers.advice.advice import Counsel
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.usage import Board, Host, Stay, Usage
from coldaisle.sources.text import plain

READINGS = st.sampled_from([math.nan, 0.0, 1e-3, 0.5, 0.98, 1.0, -1.0, 1e30, math.inf])
TIMES = st.one_of(st.just(math.nan), st.floats(-3e5, 3e5).map(lambda at: START + at))
AMOUNTS = st.one_of(st.just(math.nan), st.floats(-1, 1e12))
NAMES = st.sampled_from(["", "train", "vllm", "jupyter", "\x1b]0;x\x07", "<script>", "ж" * 300])
STATES = st.sampled_from(["COMPLETED", "TIMEOUT", "OUT_OF_MEMORY", "RUNNING", "PENDING", ""])
STAYS = st.builds(
    Stay,
    id=st.sampled_from(["slurm:1", "slurm:2", "k8s:a/b/c", ""]),
    name=NAMES,
    user=NAMES,
    account=st.just(""),
    partition=NAMES,
    submitted_at=TIMES,
    started_at=TIMES,
    ended_at=TIMES,
    state=STATES,
    gpu_count=st.integers(-1, 9),
    boards=st.one_of(st.none(), st.lists(st.integers(-2, 6), max_size=5).map(tuple)),
    hosts=st.lists(st.integers(-1, 3), max_size=3).map(tuple),
    cores=st.one_of(st.none(), st.integers(-1, 200)),
    memory_asked_bytes=AMOUNTS,
    memory_used_bytes=AMOUNTS,
    limit_s=AMOUNTS,
    cpu_s=AMOUNTS,
    throughput=AMOUNTS,
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    bins, size = draw(st.integers(0, 12)), draw(st.integers(0, 5))
    step = draw(st.sampled_from([60.0, 300.0, 3600.0, 86400.0]))
    keys = draw(st.sets(st.sampled_from([*WORKS, "gpu.gr_active"])))

    def readings() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        levels = draw(st.lists(READINGS, min_size=max(size, 1), max_size=max(size, 1)))
        values = np.tile(np.array(levels[:size], dtype=np.float32), (bins, 1))
        if bins and size and draw(st.booleans()):
            values[draw(st.integers(0, bins - 1))] = draw(READINGS)
        return values

    shape = (bins, size)
    return Usage(
        starts=START + step * np.arange(bins, dtype=np.float64),
        step=step,
        boards=tuple(
            Board(
                f"n{n}/0",
                f"n{n // 2}",
                "r1" if n % 2 else "",
                draw(st.sampled_from([H100, "", "x"])),
                draw(AMOUNTS),
            )
            for n in range(size)
        ),
        hosts=tuple(Host(f"n{n}", "r1", draw(st.one_of(st.none(), st.integers(0, 96)))) for n in range(2)),
        means={key: readings() for key in keys},
        host_means={
            "node.cpu_util": np.full((bins, draw(st.integers(1, 2))), draw(READINGS), dtype=np.float32)
        },
        coverage=draw(st.one_of(st.none(), st.just(np.full(shape, 0.9, dtype=np.float32)))),
        stays=tuple(draw(st.lists(STAYS, max_size=8))) * draw(st.integers(1, 3)),
        jobs_known=draw(st.booleans()),
    )


def figures(counsel: Counsel) -> list[Quantity]:
    found = [counsel.reclaimable] if counsel.reclaimable else []
    for one in counsel.given:
        saving = one.saving
        mine = (
            one.quantity,
            saving.gpu_hours,
            saving.gpu_hours_per_week,
            saving.power,
            saving.money_per_week,
        )
        found += [figure for figure in mine if figure is not None]
    return found


AT_ONCE: dict[str, dict[str, object]] = {
    "common": {"least_jobs": 1, "least_coverage": 0.3, "least_busy_s": 0.0, "snapshot_s": 0.0},
    **{rule: {"least_days": 0.0} for rule in ("offered_load", "reclaim_nodes", "fragmentation", "thermal")},
    "rack_power": {"least_days": 0.0, "limit_w": 1e4},
    "purchase": {"least_days": 0.0, "least_share": 0.0, "dominates": 0.0},
    "growth": {"least_weeks": 0},
}
"""Nothing is too little for any rule."""


@how(max_examples=200, deadline=None)
@using(usages(), st.sampled_from([{"common": {"least_jobs": 2}}, AT_ONCE]))
def test_no_rule_fails_and_all_figures_are_in_order(usage: Usage, site: dict[str, dict[str, object]]) -> None:
    counsel = counsel_of(usage, site)
    for figure in figures(counsel):
        assert math.isfinite(figure.value)
        assert figure.low <= figure.value <= figure.high
    for one in counsel.given:
        assert one.action == plain(one.action, 10_000)
        assert one.because
        assert one.would_change
    for refusal in counsel.refused:
        assert refusal.why.isprintable()
    uses = counsel.utilisations
    for use in (uses.cluster, *uses.racks, *uses.partitions, *uses.users, *uses.names):
        for measured in (use.allocated, use.busy, use.active, use.flops, use.bandwidth):
            assert (measured.ratio is None) == bool(measured.why)
            if measured.ratio is not None:
                assert 0 <= measured.ratio.low <= measured.ratio.value <= measured.ratio.high <= 1


@pytest.mark.parametrize("what", ["nothing", "no bins", "one bin", "no jobs", "zero GPUs", "all NaN"])
def test_the_least_there_can_be(what: str) -> None:
    whole = usage_of(series(8, reads=RESTS))
    first = {key: values[:1] for key, values in whole.means.items()}
    made = {
        "nothing": Usage(np.zeros(0), 60.0, (), (), {}),
        "no bins": replace(whole, starts=whole.starts[:0], means={}),
        "one bin": replace(whole, starts=whole.starts[:1], means=first),
        "no jobs": replace(whole, stays=()),
        "zero GPUs": replace(
            whole, stays=tuple(replace(stay, gpu_count=0, boards=()) for stay in whole.stays)
        ),
        "all NaN": replace(
            whole, means={key: values * np.float32(np.nan) for key, values in whole.means.items()}
        ),
    }[what]
    counsel = counsel_of(made)
    assert not counsel.given
    assert all(one.why for one in counsel.refused)


def test_a_rack_whose_boards_never_told_anything_has_a_reason_instead_of_a_share() -> None:
    counsel = counsel_of(
        Usage(
            START + 60.0 * np.arange(3, dtype=np.float64),
            60.0,
            (Board("n0/0", "n0", "r1", H100), Board("n1/0", "n1", "r2", H100)),
            (),
            {"gpu.util": np.array([[np.nan, 0.5]] * 3, dtype=np.float32)},
            jobs_known=True,
        )
    )
    silent, told = counsel.utilisations.racks
    assert (silent.allocated.ratio, silent.allocated.why) == (None, "nothing told of its GPUs")
    assert told.allocated.ratio is not None
