"""Partitions and racks: what was asked for against what is installed, what is free and of no use, power, heat, growth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from lab.month import COMPUTE, START, WASTEFUL, JobKind, month
from lab.usages import given, refused

from coldaisle.analyzers.advice.advice import Advice, Grade
from coldaisle.analyzers.advice.counsel import settings
from coldaisle.analyzers.advice.load import by_hour_of_week, loads, queue_by_little, whole
from coldaisle.analyzers.advice.pool import Pool
from coldaisle.analyzers.advice.settings import Site
from coldaisle.analyzers.usage import Board, Host, Stay, Usage

HOUR, DAY, WEEK = 3600.0, 86400.0, 7 * 86400.0
TRAIN = (JobKind("a-train", ("ann",), (8,), 5.0, COMPUTE, 1.0),)


def job(number: int, start: float, hours: float, gpus: int = 8, wait: float = 0.0, **what: object) -> Stay:
    """Times in hours from the start; NaN as start: it waits, since ``wait`` hours from the start."""
    is_waiting = start != start
    stay = Stay(
        id=f"slurm:{number}",
        name="a-train",
        user="ann",
        account="lab",
        partition="gpu",
        submitted_at=START + (wait if is_waiting else start - wait) * HOUR,
        started_at=START + start * HOUR,
        ended_at=START + (start + hours) * HOUR,
        state="PENDING" if is_waiting else "COMPLETED",
        gpu_count=gpus,
        reason="Resources" if is_waiting else "",
        cores=12 * gpus,
    )
    return replace(stay, **what)  # type: ignore[arg-type]


def pool_of(stays: Iterable[Stay], days: float = 28.0, nodes: int = 4, **what: object) -> Usage:
    """Four nodes of eight boards, nothing measured."""
    step = 1800.0
    hosts = tuple(Host(f"n{n + 1}", f"r{n // 2 + 1}", 96, 2e12, "idle") for n in range(nodes))
    usage = Usage(
        starts=START + step * np.arange(round(days * DAY / step), dtype=np.float64),
        step=step,
        boards=tuple(
            Board(f"{h.key}/{s}", h.key, h.rack, "NVIDIA H100 80GB HBM3", 8e10, "gpu")
            for h in hosts
            for s in range(8)
        ),
        hosts=hosts,
        means={},
        stays=tuple(stays),
        jobs_known=True,
    )
    return replace(usage, **what)  # type: ignore[arg-type]


def days_of(count: int, days: int = 28, **what: object) -> list[Stay]:
    """So many jobs of eight GPUs at any time, a day each."""
    return [job(100 * day + n, 24.0 * day, 24.0, **what) for day in range(days) for n in range(count)]  # type: ignore[arg-type]


def only(usage: Usage, rule: str, site: Site | None = None) -> Advice:
    (found,) = given(usage, rule, site)
    return found


def why(usage: Usage, rule: str) -> str:
    assert not given(usage, rule)
    return "; ".join(one.why for one in refused(usage, rule))


def made(usage: Usage) -> Pool:
    return Pool(usage, settings().common)


# -- offered load


def test_what_runs_is_what_is_needed_with_one_margin() -> None:
    found = only(pool_of(days_of(2)), "offered_load")
    assert found.quantity.value == np.ceil(16 * 1.15)
    assert found.action == "buy no GPUs for partition gpu: 19 needed, 32 installed"
    assert "16 GPUs half of the time and 16 at p95" in found.because


def test_a_queue_that_is_nearly_always_there_is_not_sized_by_its_length() -> None:
    """Every day's work takes 22 hours of all boards: who waits at night was submitted in the morning."""
    stays = [
        job(100 * day + n, 24.0 * day + 5.5 * turn, 5.5, wait=5.5 * turn, gpus=32)
        for day in range(28)
        for n, turn in enumerate(range(4))
    ]
    found = only(pool_of(stays), "offered_load")
    assert "by the work that arrives" not in found.because
    busier = [replace(one, submitted_at=one.submitted_at - 5 * HOUR) for one in stays]
    told = only(pool_of(busier), "offered_load")
    assert "the queue is empty" in told.because
    assert told.quantity.value == pytest.approx(32 * 22 / 24 * 1.15, abs=1)
    assert told.quantity.low <= 32 * 1.15 <= told.quantity.high


@pytest.mark.parametrize("load", [0.75, 0.85, 0.92])
def test_more_work_never_asks_for_less_than_the_interval_of_less_work(load: float) -> None:
    """What waits at a peak was left over: sized by what would run had nobody waited, which less work asks less of."""
    usage = month(TRAIN, nodes=4, days=28, load=load, step=1800.0).usage
    found = only(usage, "offered_load")
    assert "had nobody waited" in found.because
    full = only(month(TRAIN, nodes=4, days=28, load=0.97, step=1800.0).usage, "offered_load")
    assert found.quantity.low < full.quantity.high
    assert found.quantity.value < 72


def test_what_waits_is_asked_for_as_well() -> None:
    stays = [one for day in range(28) for one in (
        *(job(100 * day + n, 24.0 * day, 20.0) for n in range(4)),
        *(job(100 * day + 50 + n, 24.0 * day + 20, 4.0, wait=18.0) for n in range(4)),
    )]  # fmt: skip
    found = only(pool_of(stays), "offered_load")
    assert found.action.startswith("partition gpu is short of ")
    assert found.quantity.value == np.ceil(64 * 1.15)
    assert "reclaim" in found.but


def test_a_full_partition_where_nobody_waits_long_is_kept() -> None:
    stays = days_of(4) + [job(9000 + day, 24.0 * day + 1, 23.0, wait=0.5) for day in range(28)]
    assert only(pool_of(stays), "offered_load").action.startswith("keep the 32 GPUs of partition gpu")


@pytest.mark.parametrize(
    "reason", ["QOSMaxJobsPerUserLimit", "Dependency", "JobHeldUser", "BeginTime", "weird"]
)
def test_what_waits_for_other_reasons_is_not(reason: str) -> None:
    held = [job(9000 + n, np.nan, np.nan, reason=reason) for n in range(50)]
    assert only(pool_of(days_of(2) + held), "offered_load").quantity.value == 19
    waiting = [replace(stay, reason="Priority") for stay in held]
    assert only(pool_of(days_of(2) + waiting), "offered_load").quantity.value > 400


def test_jobs_that_were_cancelled_while_they_waited_waited_until_then() -> None:
    gone = job(9000, np.nan, np.nan, state="CANCELLED", ended_at=START + 12 * HOUR)
    load = whole(made(pool_of([*days_of(1), gone])))
    assert load.waiting[load.at < START + 12 * HOUR].min() == 8
    assert load.waiting[load.at > START + 12 * HOUR].max() == 0


def test_offered_load_takes_jobs_weeks_and_submissions() -> None:
    usage = pool_of(days_of(2))
    assert "jobs are not known" in why(replace(usage, jobs_known=False), "offered_load")
    assert "5 d of the 7 d" in why(pool_of(days_of(2, 5), days=5), "offered_load")
    assert "4 of the 5 jobs" in why(pool_of(days_of(1, 4)), "offered_load")
    told = tuple(replace(stay, submitted_at=np.nan) for stay in usage.stays)
    assert "submitted is not known" in why(replace(usage, stays=told), "offered_load")


def test_partitions_are_looked_at_apart_where_boards_are_theirs() -> None:
    usage = pool_of(days_of(2))
    boards = tuple(replace(b, partition="gpu" if b.rack == "r1" else "late") for b in usage.boards)
    late = tuple(replace(job(5000 + day, 24.0 * day, 24.0), partition="late") for day in range(28))
    found = {
        one.id: one for one in given(replace(usage, boards=boards, stays=usage.stays + late), "offered_load")
    }
    assert found["offered_load:gpu"].quantity.value == 19
    assert found["offered_load:late"].quantity.value == 10
    assert "16 are installed" in found["offered_load:late"].because
    shared = tuple(replace(stay, partition="other") for stay in late)
    (one,) = loads(made(replace(usage, stays=usage.stays + shared)))
    assert one.partition == "", "who shares boards is looked at together"


def test_hostile_partitions_stay_text() -> None:
    usage = pool_of(days_of(2))
    boards = tuple(replace(b, partition="\x1b[31m=cmd()") for b in usage.boards)
    stays = tuple(replace(stay, partition="\x1b[31m=cmd()") for stay in usage.stays)
    assert only(replace(usage, boards=boards, stays=stays), "offered_load").action.isprintable()


def test_hours_of_the_week_begin_on_monday() -> None:
    # 2026-01-01 was a Thursday.
    busy = [job(n, 24.0 * 7 * n + 3 * 24 + 10, 2.0) for n in range(4)]
    hours = by_hour_of_week(whole(made(pool_of(busy))))
    assert np.flatnonzero(hours > 0).tolist() == [6 * 24 + 10, 6 * 24 + 11]


def test_littles_law_notices_jobs_that_are_missing() -> None:
    stays = [job(n, 6.0 * n + 6, 6.0, wait=5.0) for n in range(110)]
    sampled, by_law = queue_by_little(made(pool_of(stays)), whole(made(pool_of(stays))))
    assert sampled == pytest.approx(by_law, rel=0.05)
    stuck = [job(5000 + n, np.nan, np.nan, wait=24.0) for n in range(10)]
    found = only(pool_of(stays + stuck), "offered_load")
    assert "by Little's law" in found.would_change
    assert found.grade is Grade.C


# -- nodes to give back


def test_nodes_that_nobody_needed_for_four_weeks_are_named() -> None:
    stays = [replace(stay, boards=tuple(range(8))) for stay in days_of(1)]
    found = only(pool_of(stays), "reclaim_nodes")
    assert found.quantity.value == 2, "8 GPUs x 1.1 of 32: 23 to spare"
    assert found.scope.nodes == ("n2", "n3")
    assert found.saving.gpu_hours_per_week is not None
    assert found.saving.gpu_hours_per_week.value == 16 * 168


def test_nodes_that_are_needed_now_and_then_stay() -> None:
    assert not given(pool_of(days_of(4)), "reclaim_nodes")
    peaks = days_of(1) + [job(9000 + 10 * w + n, 168.0 * w, 12.0) for w in range(4) for n in range(3)]
    assert not given(pool_of(peaks), "reclaim_nodes")
    assert "27 d of the 28 d" in why(pool_of(days_of(1, 27), days=27), "reclaim_nodes")


def test_nodes_out_of_service_are_taken_off() -> None:
    usage = pool_of(days_of(1))
    hosts = tuple(replace(h, state="drained*" if h.key == "n4" else "idle") for h in usage.hosts)
    found = only(replace(usage, hosts=hosts), "reclaim_nodes")
    assert found.quantity.formula.endswith("share in service")
    assert "25% out of service" in found.because
    out = only(replace(usage, hosts=hosts), "out_of_service")
    assert out.action == "bring back 1 node with 8 GPUs"
    assert out.scope.nodes == ("n4",)
    assert not given(usage, "out_of_service")
    assert "state of nodes" in why(
        replace(usage, hosts=tuple(replace(h, state="") for h in hosts)), "out_of_service"
    )


# -- fragments


def held(number: int, boards: tuple[int, ...], **what: object) -> Stay:
    hosts = tuple({board // 8 for board in boards})
    stay = job(number, 0.0, 28 * 24.0, gpus=len(boards), boards=boards, hosts=hosts)
    return replace(stay, **what)  # type: ignore[arg-type]


def waiting(count: int, gpus: int, **what: object) -> list[Stay]:
    return [job(5000 + n, np.nan, np.nan, gpus=gpus, **what) for n in range(count)]  # type: ignore[arg-type]


def test_pieces_that_no_waiting_job_can_use_are_counted() -> None:
    small = [held(node, tuple(range(8 * node, 8 * node + 6))) for node in range(4)]
    found = only(pool_of(small + waiting(3, 8)), "fragmentation")
    assert found.quantity.value == 8
    assert found.action == "pack small jobs of partition gpu onto fewer nodes: 8 GPUs free in pieces"
    assert not given(pool_of(small + waiting(3, 2)), "fragmentation"), "these fit"
    assert not given(pool_of([*small, held(4, (6,))]), "fragmentation"), "nobody waits"
    many = only(pool_of(small + waiting(3, 64)), "fragmentation")
    assert many.quantity.value == 8, "more than a node has: whole nodes"


def test_gpus_without_cores_beside_them_are_stranded() -> None:
    greedy = [held(node, tuple(range(8 * node, 8 * node + 4)), cores=96) for node in range(4)]
    found = only(pool_of(greedy + waiting(3, 2)), "fragmentation")
    assert found.id == "fragmentation:stranded:gpu"
    assert found.quantity.value == 16
    assert set(found.scope.nodes) == {"n1", "n2", "n3", "n4"}
    fair = [replace(stay, cores=48) for stay in greedy]
    assert not given(pool_of(fair + waiting(3, 2)), "fragmentation")
    hungry = [replace(stay, cores=48, memory_asked_bytes=1.9e12) for stay in greedy]
    asks = waiting(3, 2, memory_asked_bytes=2e11)
    assert only(pool_of(hungry + asks), "fragmentation").quantity.value == 16


def test_free_gpus_are_known_with_boards_alone() -> None:
    assert "which GPUs jobs held is not known" in why(pool_of(days_of(1)), "fragmentation")


# -- growth


def rising(step: int, weeks: int = 4) -> list[Stay]:
    """One more job of two GPUs ``step`` times a week, each until the end."""
    return [
        job(1000 * week + n, 168.0 * week, 168.0, gpus=2)
        for week in range(weeks)
        for n in range(2 + step * week)
    ]


def test_growth_is_a_date_with_its_interval() -> None:
    found = only(pool_of(rising(2)), "growth")
    # 4, 8, 12, 16 of 32 GPUs: four more a week.
    assert found.because.startswith(
        "p95 of what was asked for rose by 4.0 GPUs a week [4.0, 4.0] over 4 weeks"
    )
    assert found.quantity.unit == "s"
    assert found.quantity.value / WEEK == pytest.approx((32 - 18) / 4)
    assert "2026-02-2" in found.action
    assert found.quantity.low <= found.quantity.value <= found.quantity.high


def test_what_does_not_grow_gets_no_date() -> None:
    assert "told from chance" in why(pool_of(days_of(2)), "growth")
    down = [job(1000 * w + n, 168.0 * w, 168.0, gpus=2) for w in range(4) for n in range(8 - 2 * w)]
    assert "told from chance" in why(pool_of(down), "growth")
    assert "21 d of the 28 d" in why(pool_of(rising(2, 3), days=21), "growth")


# -- power and heat


def measured(means: Mapping[str, np.ndarray], days: float = 14) -> Usage:
    return pool_of(days_of(1, int(days)), days=days, means=means)


def watts(*racks: float, days: float = 14) -> np.ndarray:
    """[bin, board], each rack's boards alike."""
    bins = round(days * DAY / 1800)
    return np.repeat(np.array(racks, dtype=np.float32), 16)[None].repeat(bins, axis=0)


def test_power_that_is_never_drawn_carries_nodes() -> None:
    usage = measured({"gpu.power": watts(500, 250)})
    found = only(usage, "rack_power", {"rack_power": {"limit_w": 30_000.0}})
    # 16 x 500 x 1.5 = 12 kW and 6 kW of 30: 18 and 24 kW.
    assert found.saving.power is not None
    assert found.saving.power.value == pytest.approx(42_000)
    assert found.quantity.unit == "nodes"
    assert found.quantity.value >= 1
    assert found.grade is Grade.C
    nodes = np.full((len(usage.starts), 4), 5000, dtype=np.float32)
    whole_ = only(
        replace(usage, host_means={"node.power": nodes}), "rack_power", {"rack_power": {"limit_w": 30_000.0}}
    )
    assert whole_.grade is Grade.B
    assert whole_.quantity.value == 8, "four more of 5 kW in each rack of 30 kW with two"


def test_boards_that_do_not_peak_together_need_less_than_their_sum() -> None:
    power = watts(700, 700)
    power[::2, :8] = 100
    power[1::2, 8:16] = 100
    usage = measured({"gpu.power": power})
    assert "diversity 0.7" in why(usage, "rack_power")
    assert "limit_w" in why(usage, "rack_power")


def test_racks_that_draw_too_much_are_told() -> None:
    usage = measured({"gpu.power": watts(700, 250)})
    found = only(usage, "rack_power", {"rack_power": {"limits_w": {"r1": 15_000.0}}})
    assert found.scope.racks == ("r1",)
    assert found.quantity.value == pytest.approx(1800)


def test_power_takes_readings() -> None:
    assert "measured" in why(measured({}), "rack_power")
    power = watts(500, 500)
    power[: len(power) // 2] = np.nan
    assert "less than 80%" in why(measured({"gpu.power": power}), "rack_power")


def hot(clock: float, violation: float | None) -> Usage:
    """The first rack at such a clock, half of its busy time held back so."""
    works = watts(0.95, 0.95)
    clocks = watts(1900, 1900)
    clocks[::2, :16] = clock
    means = {"gpu.util": works, "gpu.sm_clock": clocks}
    if violation is not None:
        share = watts(0, 0)
        share[::2, :16] = violation
        means["gpu.thermal_violation"] = share
    return measured(means)


def test_heat_costs_what_clocks_lose_while_it_holds_back() -> None:
    found = only(hot(1520.0, 0.5), "thermal")
    assert found.scope.racks == ("r1",)
    assert found.quantity.value == pytest.approx(16 * 0.5 * (1 - 1520 / 1900), rel=0.01)
    assert "50% of busy time" in found.because


def test_low_clocks_alone_are_no_heat() -> None:
    assert not given(hot(1520.0, 0.0), "thermal")
    assert not given(hot(1900.0, 0.5), "thermal"), "held back, but nothing lost"
    assert "no sign of heat" in why(hot(1520.0, None), "thermal")


# -- months


@pytest.mark.parametrize("lost", [{"gaps": 0.6}, {"outages": 0.6}])
def test_gaps_in_readings_are_none_in_accounting(lost: dict[str, float]) -> None:
    whole_ = only(month(TRAIN, nodes=8, days=14, step=600).usage, "offered_load")
    holed = only(month(TRAIN, nodes=8, days=14, step=600, **lost).usage, "offered_load")  # type: ignore[arg-type]
    assert holed.quantity == whole_.quantity


def test_a_month_asks_for_more_the_more_comes() -> None:
    needs = [
        only(month(TRAIN, nodes=16, days=14, step=600, load=load).usage, "offered_load").quantity.value
        for load in (0.15, 0.5, 1.2)
    ]
    assert needs == sorted(needs)
    assert needs[0] < 128 < needs[2]


# -- queues without end


def overfull(load: float, days: float = 28) -> Usage:
    """Sixteen nodes of eight, and a share of them asked for that they cannot give."""
    return month(WASTEFUL, nodes=16, days=days, step=600, load=load).usage


@pytest.mark.parametrize("load", [1.05, 1.2, 1.5])
@pytest.mark.parametrize("days", [14, 28])
def test_a_queue_without_end_is_sized_by_what_arrives(load: float, days: float) -> None:
    found = only(overfull(load, days), "offered_load")
    assert "by the work that arrives" in found.because
    assert found.quantity.low <= 128 * load * 1.15 <= found.quantity.high
    assert found.quantity.value == pytest.approx(128 * load * 1.15, rel=0.1)
    assert found.quantity.high < 1.5 * found.quantity.low
    assert "is short of" in found.action


def test_how_long_one_looks_does_not_change_what_is_needed() -> None:
    short, long = (only(overfull(1.2, days), "offered_load").quantity.value for days in (14, 42))
    assert short == pytest.approx(long, rel=0.1)


def test_a_queue_that_builds_up_is_no_growth() -> None:
    assert "while work arrives as ever" in why(overfull(1.2), "growth")


def test_work_that_arrives_more_each_week_is_growth_though_a_queue_builds_up() -> None:
    # Four days' worth of 32 GPUs a week, then five, six, seven ... of seven: the queue grows from the fourth week on.
    stays = [
        one
        for week in range(8)
        for one in (
            *(job(1000 * week + n, 168.0 * week + 6.0 * (n // 4), 6.0) for n in range(4 * 28)),
            *(
                job(1000 * week + 500 + n, np.nan, np.nan, wait=168.0 * week + 6.0 * n)
                for n in range(4 * week)
            ),
        )
    ]
    found = only(pool_of(stays, days=56), "growth")
    assert found.action.startswith("partition gpu is full already and grows by ")
    assert found.because.startswith("the work that arrives rose by ")
    # 16 more jobs of 8 GPUs and 6 hours ... a week are 4 x 8 x 6 / 168 GPUs.
    assert found.quantity.value == 0
    assert float(found.because.split("rose by ")[1].split(" ")[0]) == pytest.approx(4 * 8 * 6 / 168, rel=0.1)


def test_a_queue_that_never_empties_is_sized_by_what_arrives() -> None:
    always = [job(n, 6.0 * (n // 4), 6.0, wait=12.0) for n in range(4 * 4 * 28)]
    found = only(pool_of(always), "offered_load")
    assert found.because.startswith("the queue never empties")
    assert found.quantity.value == pytest.approx(32 * 1.15, rel=0.05)


def test_who_waits_beside_free_gpus_makes_no_overflow() -> None:
    stuck = [job(5000 + n, np.nan, np.nan, wait=2.0) for n in range(10)]
    found = only(pool_of(days_of(2) + stuck), "offered_load")
    assert "by the work that arrives" not in found.because
