"""The simulated cluster: reproducible, seamless, within the catalog's ranges, and physically sane."""

from __future__ import annotations

import asyncio
import time as wall
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from coldaisle.sources.catalog import catalog
from coldaisle.sources.simulator import physics
from coldaisle.sources.simulator.faults import LANES, Episode, Lane
from coldaisle.sources.simulator.plan import Ints
from coldaisle.sources.simulator.simulation import (
    HW_SLOWDOWN,
    IDLE,
    POWER_CAP,
    SW_THERMAL,
    Instant,
    Simulation,
)
from coldaisle.sources.simulator.source import SimulatorSource
from coldaisle.sources.simulator.workloads import Work, assign
from coldaisle.sources.source import (
    Batch,
    Event,
    GpuFact,
    Item,
    JobFact,
    Kind,
    Missing,
    NodeFact,
    Past,
    ProcessFact,
    QueueFact,
    ServerRef,
    Source,
    Target,
    TargetState,
)

NOW = 1_795_318_000.0


async def past(source: SimulatorSource, start: float, end: float, step: float) -> list[Item]:
    return [item async for item in source.read(start, end, step)]


def batches(items: list[Item], kind: Kind) -> list[Batch]:
    return [item for item in items if isinstance(item, Batch) and item.kind is kind]


def column(batch: Batch, metric: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return batch.values[:, batch.metrics.index(metric)]


def only(fault: str, weakest: float, strongest: float | None = None) -> tuple[Lane, ...]:
    """One kind of fault, long enough to settle, of known strength."""
    return (Lane(fault, 1200.0, 420.0, 420.0, weakest, strongest or weakest),)


def source_of(lanes: tuple[Lane, ...] = (), seed: int = 7, racks: int = 10) -> SimulatorSource:
    return SimulatorSource(racks, 4, 8, seed=seed, lanes=lanes, noise=0.0)


def simulate(source: SimulatorSource, start: float, end: float, step: float = 5.0) -> list[Instant]:
    simulation = source.simulation()
    simulation.warm_up(start)
    return [simulation.advance(at, step) for at in np.arange(start, end, step)]


Suits = Callable[[SimulatorSource, Episode], bool]


def next_episode(source: SimulatorSource, suits: Suits = lambda _source, _episode: True) -> Episode:
    """The first episode of the next day whose job outlives it (and which suits)."""
    for episode in source.episodes(NOW, NOW + 86_400):
        if episode.start <= NOW:
            continue
        jobs = [job for job in source.jobs(episode.start) if job.key == episode.job]
        lasting = not jobs or (jobs[0].until > episode.end + 200 and jobs[0].since < episode.start - 700)
        if lasting and suits(source, episode):
            return episode
    raise AssertionError("no such episode within a day")


def rows_of(source: SimulatorSource, instant: Instant, episode: Episode) -> Ints:
    assert episode.job is not None
    return np.flatnonzero(instant.assignment.job_of == instant.assignment.index[episode.job])


def test_it_is_a_source_with_a_past() -> None:
    source: Source = SimulatorSource(1, 1, 1)
    assert isinstance(source, Past)
    assert source.kind == "simulator"


async def test_same_seed_same_numbers_and_another_seed_another_cluster() -> None:
    first = await past(SimulatorSource(2, 2, 8, seed=3), NOW - 60, NOW, 5)
    again = await past(SimulatorSource(2, 2, 8, seed=3), NOW - 60, NOW, 5)
    other = await past(SimulatorSource(2, 2, 8, seed=4), NOW - 60, NOW, 5)
    for one, two in zip(batches(first, Kind.GPU), batches(again, Kind.GPU), strict=True):
        assert one.entities == two.entities
        np.testing.assert_array_equal(one.values, two.values)
    assert [i for i in first if not isinstance(i, Batch)] == [i for i in again if not isinstance(i, Batch)]
    assert batches(first, Kind.GPU)[0].entities != batches(other, Kind.GPU)[0].entities


async def test_a_stretch_read_alone_is_the_same_as_in_a_longer_one() -> None:
    source = SimulatorSource(16, 4, 8, seed=7)
    long = batches(await past(source, NOW - 600, NOW, 5), Kind.GPU)
    short = batches(await past(source, NOW - 60, NOW, 5), Kind.GPU)
    for one, two in zip(long[-len(short) :], short, strict=True):
        assert one.at == two.at
        for metric, close in (("gpu.sm_active", 0.03), ("gpu.temp", 1.0), ("gpu.mem_used", 0.0)):
            gap = np.nanmax(np.abs(column(one, metric) - column(two, metric)))
            assert gap <= close, metric


async def test_the_live_stream_joins_the_past_without_a_seam() -> None:
    now = NOW
    source = SimulatorSource(4, 4, 8, seed=7, clock=lambda: now, lanes=())
    before = batches(await past(source, now - 120, now, 5), Kind.GPU)[-1]
    live: list[Item] = []
    async with asyncio.timeout(20):
        async for item in source.stream():
            live.append(item)
            if isinstance(item, Batch) and item.kind is Kind.RACK:
                break
    after = batches(live, Kind.GPU)[0]
    assert after.at == now
    assert before.entities == after.entities
    assert np.abs(column(before, "gpu.temp") - column(after, "gpu.temp")).max() <= 9
    assert np.median(np.abs(column(before, "gpu.temp") - column(after, "gpu.temp"))) <= 2
    assert np.median(np.abs(column(before, "gpu.sm_active") - column(after, "gpu.sm_active"))) < 0.1


async def test_a_job_that_ends_between_the_past_and_the_stream_is_said_to_end() -> None:
    ending = min(SimulatorSource(16, 4, 8, seed=7).jobs(NOW), key=lambda job: job.until)
    source = SimulatorSource(16, 4, 8, seed=7, clock=lambda: ending.until + 0.5, lanes=())
    before = await past(source, ending.until - 20, ending.until - 0.1, 5)
    assert not any(isinstance(item, JobFact) and item.until is not None for item in before)
    live: list[Item] = []
    async for item in source.stream():
        live.append(item)
        if isinstance(item, Batch):
            break
    assert [i.id for i in live if isinstance(i, JobFact) and i.until == ending.until] == [ending.id]


async def test_a_past_that_is_cut_short_leaves_no_job_running_for_ever() -> None:
    ending = min(SimulatorSource(16, 4, 8, seed=7).jobs(NOW), key=lambda job: job.until)
    source = SimulatorSource(16, 4, 8, seed=7, clock=lambda: ending.until + 300, lanes=())
    reading = source.read(ending.until - 60, ending.until + 300, 10)
    async for item in reading:
        if isinstance(item, Batch):
            break
    await reading.aclose()
    other_times = await past(source, NOW - 90_000, NOW - 89_990, 10)
    assert other_times
    live: list[Item] = []
    async for item in source.stream():
        live.append(item)
        if isinstance(item, Batch):
            break
    assert ending.id in [i.id for i in live if isinstance(i, JobFact) and i.until == ending.until]


async def test_the_stream_paces_itself_by_the_clock() -> None:
    source = SimulatorSource(1, 1, 2, seed=1, interval=0.05)
    times: list[float] = []
    began = wall.time()
    async with asyncio.timeout(20):
        async for item in source.stream():
            if isinstance(item, Batch) and item.kind is Kind.GPU:
                times.append(item.at)
                if len(times) == 5:
                    break
    assert times[0] >= began - 1e-3
    assert all(b - a >= 0.025 - 1e-6 for a, b in pairwise(times))
    assert all(b - a >= 0.05 - 1e-6 for a, b in pairwise(times[1:]))
    assert wall.time() >= times[-1]


async def test_every_value_is_within_the_catalogs_range_and_every_key_is_known() -> None:
    known = catalog()
    items = await past(SimulatorSource(16, 4, 8, seed=11), NOW - 900, NOW, 10)
    for batch in (item for item in items if isinstance(item, Batch)):
        assert batch.values.dtype == np.float32
        assert batch.values.shape == (len(batch.entities), len(batch.metrics))
        low = np.array([known[key].low for key in batch.metrics])
        high = np.array([known[key].high for key in batch.metrics])
        assert {known[key].kind for key in batch.metrics} == {batch.kind}
        with np.errstate(invalid="ignore"):
            bad = (batch.values < low) | (batch.values > high)
        assert not bad.any(), [batch.metrics[i] for i in np.flatnonzero(bad.any(axis=0))]


async def test_facts_name_racks_boards_jobs_and_processes() -> None:
    items = await past(SimulatorSource(16, 4, 8, seed=7), NOW - 10, NOW, 5)
    nodes = [item for item in items if isinstance(item, NodeFact)]
    boards = [item for item in items if isinstance(item, GpuFact)]
    jobs = [item for item in items if isinstance(item, JobFact)]
    assert [nodes[0].node, nodes[0].rack, nodes[0].place] == ["r01n01", "r01", "simulator"]
    assert {fact.state for fact in nodes} == {"alloc", "idle", "drain"}
    assert {"NVIDIA H100 80GB HBM3", "NVIDIA B200"} <= {fact.model for fact in boards}
    assert len(boards) == 512
    assert {"training", "inference"} <= {job.workload for job in jobs}
    assert len({job.id for job in jobs}) == len(jobs)
    held = [gpu for job in jobs for gpu in job.gpus]
    assert len(held) == len(set(held)), "a GPU belongs to one job"
    running = {fact.node: fact for fact in items if isinstance(fact, ProcessFact)}
    process = next(p for p in running[jobs[0].nodes[0]].processes if p.gpu == jobs[0].gpus[0])
    assert process.user == jobs[0].user


async def test_entity_and_metric_tuples_stay_the_same_objects() -> None:
    items = await past(SimulatorSource(2, 2, 8, seed=7, lanes=()), NOW - 60, NOW, 5)
    for kind in (Kind.GPU, Kind.NODE, Kind.PORT, Kind.DISK, Kind.RACK):
        seen = batches(items, kind)
        assert len({id(batch.entities) for batch in seen}) == 1
        assert len({id(batch.metrics) for batch in seen}) == 1


async def test_jobs_end_and_the_next_one_starts_on_the_freed_nodes() -> None:
    source = SimulatorSource(4, 4, 8, seed=5, lanes=())
    items = await past(source, NOW, NOW + 6 * 3600, 30)
    ended = [item for item in items if isinstance(item, JobFact) and item.until is not None]
    started = [
        item for item in items if isinstance(item, JobFact) and item.until is None and item.since > NOW
    ]
    assert ended
    assert started
    assert all(fact.until is not None and fact.since < fact.until for fact in ended)
    follower = next(
        job for job in started if any(job.nodes == old.nodes and job.id != old.id for old in ended)
    )
    assert follower.since > NOW
    assert {"job_start", "job_end"} <= {item.kind for item in items if isinstance(item, Event)}


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 4), (1, 2, 16)])
async def test_small_and_odd_clusters(shape: tuple[int, int, int]) -> None:
    items = await past(SimulatorSource(*shape, seed=2), NOW - 30, NOW, 5)
    assert len(batches(items, Kind.GPU)[0].entities) == np.prod(shape)


def test_a_cluster_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SimulatorSource(0, 4, 8)


async def test_8192_gpus_are_cheap() -> None:
    source = SimulatorSource(128, 8, 8, seed=7)
    simulation = source.simulation()
    simulation.warm_up(NOW)
    began = wall.process_time()
    for at in np.arange(NOW, NOW + 20, 2.0):
        simulation.advance(float(at), 2.0)
    each = (wall.process_time() - began) / 10
    assert each < 0.1, f"{each * 1e3:.0f} ms of CPU a tick"


def test_power_follows_sm_activity_as_measured() -> None:
    """Uncapped H100: P = 98 + 698 SM within the spread of programs (R2 .97 there)."""
    sm = np.linspace(0.2, 0.7, 11)
    one = np.ones_like(sm)
    watts = physics.demand(700 * one, 120 * one, one, sm, 0.25 * sm, 0.55 * sm, 40e9 * one)
    np.testing.assert_allclose(watts, 98 + 698 * sm, rtol=0.25)
    measured = physics.demand(*(np.array([x]) for x in (700.0, 120.0, 1.0, 0.465, 0.107, 0.32, 50e9)))
    assert measured[0] == pytest.approx(418, abs=12), "the pipeline-parallel run"


def test_temperature_settles_at_inlet_plus_resistance_times_power() -> None:
    source = source_of()
    plan = source.plan
    last = simulate(source, NOW, NOW + 600)[-20:]
    energy = np.mean([i.boards.energy for i in last], axis=0)
    temp = np.mean([i.boards.temp for i in last], axis=0)
    steady = np.ptp([i.boards.energy for i in last], axis=0) < 40
    expected = last[-1].inlet[plan.rack_of][plan.node_of] + (plan.r_fast + plan.r_slow) * energy
    assert steady.sum() > 30
    assert np.abs(temp - expected)[steady].max() < 4


def test_hot_slots_stay_hot() -> None:
    last = simulate(source_of(), NOW, NOW + 60)[-1]
    temp = last.boards.temp.reshape(-1, 8)
    busy = last.boards.energy.reshape(-1, 8).min(axis=1) > 500
    assert (temp[busy][:, 0] > temp[busy][:, 1] + 5).all()


def test_a_power_limit_is_obeyed_and_shows_as_its_bit_and_violation() -> None:
    source = source_of(only("power_cap", 0.6))
    episode = next_episode(source)
    mine = source.plan.rack_of[source.plan.node_of] == episode.rack
    before, during = (simulate(source, at, at + 60)[-1] for at in (episode.start - 120, episode.start + 100))
    assert (during.boards.limit[mine] == 420).all()
    assert (during.boards.limit[~mine] == source.plan.columns["power"][~mine]).all()
    held = mine & (during.boards.power_violation > 0.5)
    assert held.any()
    assert during.boards.power[mine].max() < 420 * 1.03
    assert (during.boards.throttle[held].astype(int) & POWER_CAP).all()
    assert during.boards.clock[held].mean() < before.boards.clock[held].mean()


def test_warm_air_throttles_then_clears() -> None:
    source = source_of(only("inlet_rise", 26.0))
    plan = source.plan
    episode = next_episode(source)
    mine = plan.rack_of[plan.node_of] == episode.rack
    run = simulate(source, episode.start - 60, episode.end + 420)
    hottest = max(run, key=lambda i: i.inlet[episode.rack])
    hot = mine & (hottest.boards.sw_thermal + hottest.boards.hw_thermal > 0.3)
    assert run[0].boards.sw_thermal[mine].max() == 0
    assert hot.any()
    assert hottest.boards.temp[mine].max() <= 88, "the governor holds the slowdown temperature"
    assert (hottest.boards.throttle[hot].astype(int) & (SW_THERMAL | HW_SLOWDOWN)).all()
    assert hottest.boards.clock[hot].mean() < 0.95 * plan.columns["clock"][hot].mean()
    assert run[-1].boards.sw_thermal[mine].max() == 0
    assert hottest.boards.sw_thermal[~mine].max() < 0.01 or hottest.inlet.max() > 30


def test_one_hot_board_slows_its_whole_job() -> None:
    source = source_of(only("cooling_loss", 3.5))

    def large(source: SimulatorSource, episode: Episode) -> bool:
        job = next(job for job in source.jobs(episode.start) if job.key == episode.job)
        return job.profile.sm > 0.75 and job.profile.clock > 0.8 and episode.gpu % 8 in (0, 3, 4, 6)

    episode = next_episode(source, large)
    before = simulate(source, episode.start - 60, episode.start - 10)[-1]
    during = simulate(source, episode.start - 60, episode.end - 10)[-1]
    assert episode.job is not None
    index = during.assignment.index[episode.job]
    assert during.boards.sw_thermal[episode.gpu] + during.boards.hw_thermal[episode.gpu] > 0.3
    assert during.pace.speed[index] < 0.97 * before.pace.speed[before.assignment.index[episode.job]]
    peers = [g for g in rows_of(source, during, episode) if g != episode.gpu]
    assert during.shares.spin[peers].mean() > before.shares.spin[peers].mean()


async def test_a_lost_gpu_leaves_no_values_and_its_peers_spin() -> None:
    source = source_of(only("gpu_lost", 1.0))
    episode = next_episode(source)
    items = await past(source, episode.start - 20, episode.start + 40, 5)
    ref = source.plan.gpu_refs[episode.gpu]
    last = batches(items, Kind.GPU)[-1]
    row = last.entities.index(ref)
    assert np.isnan(last.values[row]).all()
    assert last.reasons is not None
    assert (last.reasons[row] == Missing.LOST).all()
    assert last.reasons.sum() == Missing.LOST * len(last.metrics)
    assert {e.kind for e in items if isinstance(e, Event) and e.entity == ref} == {"xid", "gpu_lost"}
    job = next(job for job in source.jobs(episode.start) if job.key == episode.job)
    peers = [g for g in job.gpus if g != episode.gpu]
    assert (column(last, "gpu.util")[peers] == 1).all()
    sm = column(last, "gpu.sm_active")[peers]
    assert 0.13 < sm.min() <= sm.max() < 0.21
    assert column(last, "gpu.tensor_active")[peers].max() == 0
    assert column(last, "gpu.nvlink_tx")[peers].max() == 0
    nodes = batches(items, Kind.NODE)[-1]
    assert column(nodes, "node.gpus")[episode.node] == 7
    back = batches(await past(source, episode.end + 120, episode.end + 130, 5), Kind.GPU)[-1]
    assert np.isfinite(back.values[row]).all()


def test_starving_loaders_leave_gaps_and_show_on_the_host() -> None:
    from coldaisle.sources.simulator.readings import node_columns

    source = source_of(only("loader_starvation", 2.5))
    cpu = next_episode(source, lambda _, e: e.variant == "cpu")
    io = next_episode(source, lambda _, e: e.variant == "io")
    for episode in (cpu, io):
        run = simulate(source, episode.start + 60, episode.start + 180, 2)
        mine = rows_of(source, run[0], episode)
        util = np.array([i.boards.util[mine].mean() for i in run])
        assert util.min() < 0.1
        assert util.max() > 0.9, "gaps, not a low level"
        job = run[0].assignment.index[episode.job]  # type: ignore[index]
        assert run[0].pace.speed[job] == pytest.approx(0.4, abs=0.02)
        node = source.plan.node_of[mine[0]]
        host = {key: float(value[node]) for key, value in node_columns(source.plan, run[-1]).items()}
        if episode is cpu:
            assert host["node.cpu_util"] > 0.9
            assert host["node.psi_cpu_some"] > 0.4
        else:
            assert host["node.cpu_util"] < 0.3
            assert host["node.psi_io_some"] > 0.3
            assert host["node.nfs_read"] > 2e9


def test_a_pressed_replica_fills_its_cache_queues_and_preempts() -> None:
    source = source_of(only("kv_pressure", 3.0))
    episode = next_episode(source)
    run = simulate(source, episode.start - 60, episode.end)
    before, during = run[0].served, run[-1].served
    k = episode.replica
    assert before.kv[k] < 0.9
    assert before.preempted[k] == 0
    assert during.kv[k] > 0.9
    assert during.waiting[k] > 5
    assert during.preempted[k] > 0.01
    others = np.arange(len(during.kv)) != k
    assert np.median(during.waiting[others]) < 1


async def test_a_server_that_is_down_says_nothing_but_that_and_begins_empty() -> None:
    from coldaisle.sources.simulator.readings import serve_columns

    source = source_of(only("server_down", 1.0))
    episode = next_episode(source)
    run = simulate(source, episode.start - 30, episode.end + 20)
    fleet, k = source.simulation().fleet, episode.replica
    told = [(now, {key: value[k] for key, value in serve_columns(fleet, now).items()}) for now in run]
    down = [columns for now, columns in told if episode.active(now.time)]
    assert down
    assert {columns.pop("serve.up") for columns in down} == {0.0}
    assert all(np.isnan(value) for columns in down for value in columns.values())
    after = next(columns for now, columns in told if now.time >= episode.end)
    assert after["serve.up"] == 1
    assert after["serve.running"] < 0.5 * told[0][1]["serve.running"]
    items = await past(source, episode.start - 20, episode.end + 20, 10)
    events = [item for item in items if isinstance(item, Event) and isinstance(item.entity, ServerRef)]
    assert [event.kind for event in events] == ["server_down", "server_up"]


def test_a_lame_rail_loses_rate_counts_errors_and_slows_its_job() -> None:
    from coldaisle.sources.simulator.readings import port_columns

    source = source_of(only("lame_rail", 0.25))
    episode = next_episode(source)
    before = simulate(source, episode.start - 60, episode.start - 10)[-1]
    during = simulate(source, episode.start + 30, episode.start + 60)[-1]
    assert episode.job is not None
    ports = port_columns(source.plan, during)
    assert ports["port.rate"][episode.port] == 12.5e9
    assert ports["port.symbol_errors"][episode.port] > 0
    assert (ports["port.tx"] <= ports["port.rate"]).all()
    assert np.count_nonzero(ports["port.symbol_errors"]) == 1
    speed = [i.pace.speed[i.assignment.index[episode.job]] for i in (before, during)]
    assert speed[1] < 0.97 * speed[0]


async def test_a_silent_node_gives_no_samples_and_a_failing_target() -> None:
    source = source_of(only("node_silent", 1.0))
    episode = next_episode(source)
    items = await past(source, episode.start - 10, episode.end + 10, 5)
    name = source.plan.nodes[episode.node]
    for kind in (Kind.GPU, Kind.NODE, Kind.PORT, Kind.DISK):
        counts = [sum(e[0] == name for e in batch.entities) for batch in batches(items, kind)]
        assert counts[0] == counts[-1] > 0
        assert min(counts) == 0
    states = [item.state for item in items if isinstance(item, Target) and item.name == name]
    assert states[0] is TargetState.OK
    assert TargetState.FAILING in states
    assert states[-1] is TargetState.OK
    racks = batches(items, Kind.RACK)
    assert np.isfinite(racks[-1].values).all()


async def test_dropped_samples_say_that_the_reading_failed() -> None:
    items = await past(SimulatorSource(4, 4, 8, seed=7, lanes=(), drops=0.2), NOW - 60, NOW, 5)
    for batch in batches(items, Kind.GPU):
        missing = np.isnan(batch.values).all(axis=1)
        if missing.any():
            assert batch.reasons is not None
            assert (batch.reasons[missing] == Missing.FAILED).all()
            assert (batch.reasons[~missing] == Missing.PRESENT).all()
    assert any(np.isnan(batch.values).any() for batch in batches(items, Kind.GPU))


async def test_a_value_is_missing_only_with_a_reason() -> None:
    items = await past(SimulatorSource(16, 4, 8, seed=9), NOW, NOW + 1800, 30)
    servers = batches(items, Kind.SERVER)
    assert any(np.isnan(batch.values).any() for batch in servers), "a server without requests has no latency"
    for batch in (item for item in items if isinstance(item, Batch)):
        missing = np.isnan(batch.values)
        if missing.any():
            assert batch.reasons is not None
            np.testing.assert_array_equal(batch.reasons != Missing.PRESENT, missing)


def test_idle_and_free_boards_are_told_apart() -> None:
    source = source_of(only("idle_allocation", 1.0))
    episode = next_episode(source)
    now = simulate(source, episode.start + 60, episode.start + 120)[-1]
    board, held = source.plan.columns, rows_of(source, now, episode)
    free = np.flatnonzero(now.assignment.job_of == len(now.assignment.jobs))
    assert now.boards.util[held].max() == now.boards.util[free].max() == 0
    np.testing.assert_allclose(now.boards.power[held], board["context"][held], atol=4)
    np.testing.assert_allclose(now.boards.power[free], board["idle"][free], atol=4)
    assert (now.boards.throttle[free].astype(int) & IDLE).all()
    assert now.boards.memory[held].min() > 0.1
    assert now.boards.memory[free].max() == 0


def test_clocks_stand_in_bins_and_activities_vary_between_jobs() -> None:
    source = source_of(LANES)
    now = simulate(source, NOW, NOW + 30)[-1]
    assert (now.boards.clock % 15 == 0).all()
    jobs = assign(source.plan, source.simulation().workload, NOW)
    train = [job for job in jobs.jobs if job.profile.work is Work.TRAIN]
    medians = [float(np.median(now.boards.sm[job.gpus])) for job in train]
    assert max(medians) > 0.75
    assert np.ptp(medians) > 0.25


def test_the_ground_truth_covers_every_kind_of_fault_and_overlaps() -> None:
    source = SimulatorSource(16, 4, 8, seed=7)
    day = source.episodes(NOW, NOW + 86_400)
    assert {episode.fault for episode in day} == {lane.fault for lane in LANES}
    assert all(episode.start < NOW + 86_400 and episode.end > NOW for episode in day)
    half = source.episodes(NOW + 3600, NOW + 7200)
    assert set(half) <= set(day)
    busy = [any(e.active(at) for e in day) for at in np.arange(NOW, NOW + 86_400, 60)]
    assert np.mean(busy) > 0.98, "the demo always has something to show"


def test_simulation_runs_without_replicas() -> None:
    simulation = SimulatorSource(1, 1, 8, seed=1).simulation()
    assert isinstance(simulation, Simulation)
    assert len(simulation.advance(NOW, 2.0).served.kv) == 0


async def test_what_waits_starts_later_and_is_told_as_slurm_tells_it() -> None:
    source = SimulatorSource(16, 4, 8, lanes=())
    items = await past(source, NOW, NOW + 4 * 3600, 60.0)
    waited = {item.id: item for item in items if isinstance(item, JobFact) and item.is_waiting}
    started = {
        item.id: item for item in items if isinstance(item, JobFact) and item.until is None and item.nodes
    }
    assert len(waited) > 10
    assert {item.reason for item in waited.values()} >= {"Resources", "Priority"}
    both = waited.keys() & started.keys()
    assert len(both) > 5
    for key in both:
        assert waited[key].since == started[key].submitted_at
        assert waited[key].since < started[key].since
        assert waited[key].gpu_count == len(started[key].gpus)
    known = {item.id for item in items if isinstance(item, JobFact)}
    for item in waited.values():
        assert (item.reason == "Dependency") == (item.dependency is not None)
        assert item.dependency is None or f"slurm:{item.dependency.removeprefix('afterok:')}" in known


async def test_the_queue_is_summed_and_the_same_whoever_looks() -> None:
    source = SimulatorSource(16, 4, 8, lanes=())
    items = await past(source, NOW, NOW + 600, 60.0)
    sums = [item for item in items if isinstance(item, QueueFact)]
    assert len(sums) > 5
    running = [job for job in source.jobs(sums[-1].at) if job.partition != "k8s"]
    assert sums[-1].running == (len(running), sum(len(job.gpus) for job in running))
    again = [item for item in await past(source, NOW + 300, NOW + 600, 60.0) if isinstance(item, QueueFact)]
    assert again[-1] == sums[-1]


def test_no_two_jobs_of_a_slot_wait_at_once() -> None:
    source = SimulatorSource(16, 4, 8)
    for at in range(int(NOW), int(NOW) + 86_400, 1800):
        slots = [queued.job.slot for queued in source._workload.queue(float(at))]
        assert len(slots) == len(set(slots))
