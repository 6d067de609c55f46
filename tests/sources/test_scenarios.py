"""The scenario simulator: labelled episodes, the same for a seed, within the catalogue's ranges, and physically sane."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest

from coldaisle.analyzers.detectors import DETECTORS
from coldaisle.sources.catalog import catalog
from coldaisle.sources.simulator.scenarios import SCENARIOS, Label, Observed, World, world
from coldaisle.sources.simulator.scenarios.__main__ import main
from coldaisle.sources.source import Batch, Event, Item, JobFact, Kind, NodeFact, ServerFact, Target

CLEAN = Observed(poll=5.0, drops=0.0, noise=False)
SEED = 3
CAST = (
    "healthy_training", "dense_gemm", "hot_but_fine", "thermal_gpu", "thermal_hbm", "operator_cap", "power_brake", "starving_cpu",
    "starving_io", "checkpoint_cheap", "hung", "straggler_clock", "kv_pressure", "kv_full_healthy", "seq_limited", "xid79_gone",
    "xid79_frozen", "xid_after_cancel",
)  # fmt: skip

Table = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@cache
def cast() -> World:
    """Those whose physics are looked at, side by side: one world costs less than many."""
    return world(CAST, SEED, minutes=11)


@cache
def everything() -> World:
    """All scenarios at once, for two minutes: they build, and what they tell can be told."""
    return world(list(SCENARIOS), SEED, parts=("H100", "A100", "H200", "B200"), minutes=2)


@cache
def told(observed: Observed = CLEAN) -> tuple[Item, ...]:
    return tuple(cast().items(observed, SEED))


def batches(items: tuple[Item, ...], kind: Kind) -> list[Batch]:
    return [item for item in items if isinstance(item, Batch) and item.kind is kind]


def label(name: str) -> Label:
    return cast().labels[CAST.index(name)]


def is_of(item: object, name: str) -> bool:
    """Whether an entity stands in a scenario's rack."""
    return str(getattr(item, "node", "")).startswith(f"r{CAST.index(name) + 1:02}")


def column(name: str, metric: str, observed: Observed = CLEAN) -> Table:
    """[time, entity] of a metric of a scenario; what is gone is missing."""
    every = batches(told(observed), Kind(metric.partition(".")[0]))
    mine = [ref for ref in every[0].entities if is_of(ref, name)]
    rows = []
    for batch in every:
        place = batch.metrics.index(metric)
        known = dict(zip(batch.entities, batch.values[:, place].tolist(), strict=True))
        rows.append([known.get(ref, math.nan) for ref in mine])
    return np.array(rows)


def halves(name: str, metric: str) -> tuple[Table, Table]:
    """[time, entity] before its cause begins, and while it shows."""
    at = np.array([b.at - cast().start for b in batches(told(), Kind.GPU)])
    truth, start = label(name), cast().start
    shows = (at > truth.evident - start + 60) & (at < truth.end - start)
    values = column(name, metric)
    return values[(at > 60) & (at < truth.start - start)], values[shows]


def split(name: str) -> tuple[list[int], list[int]]:
    """Numbers of the boards that are the cause, and of all others of its job."""
    keys = [f"{ref.node}/{ref.index}" for ref in batches(told(), Kind.GPU)[0].entities if is_of(ref, name)]  # type: ignore[union-attr]
    roots = [keys.index(gpu) for gpu in label(name).gpus]
    return roots, [g for g in range(len(keys)) if g not in roots]


# --- what there is -------------------------------------------------------------------------------------


def test_every_condition_has_scenarios_and_look_alikes() -> None:
    positives = {scenario.condition for scenario in SCENARIOS.values()} - {""}
    alike = Counter(
        condition
        for scenario in SCENARIOS.values()
        for condition in scenario.lookalike_of
        if condition != scenario.condition
    )
    assert positives == set(DETECTORS)
    assert set(alike) <= set(DETECTORS)
    assert {name: alike[name] for name in DETECTORS if alike[name] < 2} == {}
    assert all(scenario.condition or scenario.lookalike_of for scenario in SCENARIOS.values())


def test_every_scenario_builds_with_a_label_and_entities_of_its_own() -> None:
    labels = everything().labels
    assert [one.scenario for one in labels] == list(SCENARIOS)
    claimed = [gpu for one in labels for gpu in (*one.gpus, *one.victims)]
    assert len(claimed) == len(set(claimed))
    for one in labels:
        assert one.start <= one.evident <= one.end or not one.condition
        assert one.condition == "" or one.gpus or one.nodes or one.jobs or one.servers
        assert math.isnan(one.loss) or 0.0 <= one.loss <= 1.0
        assert one.condition or one.loss == 0.0


@pytest.mark.parametrize("fields", ["full", "nvml", "default"])
def test_everything_that_is_told_is_in_the_catalogue_and_in_range(fields: str) -> None:
    known = catalog()
    items = list(everything().items(Observed(poll=10.0, fields=fields)))
    seen: set[Kind] = set()
    for batch in (item for item in items if isinstance(item, Batch)):
        seen.add(batch.kind)
        assert batch.values.shape == (len(batch.entities), len(batch.metrics))
        low = np.array([known[key].low for key in batch.metrics], dtype=np.float32)
        high = np.array([known[key].high for key in batch.metrics], dtype=np.float32)
        present = ~np.isnan(batch.values)
        outside = present & ((batch.values < low) | (batch.values > high))
        assert not outside.any(), [batch.metrics[i] for i in np.flatnonzero(outside.any(axis=0))]
    assert seen == {Kind.GPU, Kind.NODE, Kind.PORT, Kind.SERVER}
    keys = {key for item in items if isinstance(item, Batch) for key in item.metrics}
    assert ("gpu.sm_active" in keys) == (fields == "full")
    assert ("gpu.throttle" in keys) == (fields != "default")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError, match="no_such"):
        world(["no_such"], 1, minutes=1)


# --- items ---------------------------------------------------------------------------------------------


def test_items_come_in_time_order_with_what_they_speak_of_first() -> None:
    for items in (told(), told(Observed(poll=15.0))):
        at = [item.at for item in items if isinstance(item, (Batch, Event, Target))]
        assert at == sorted(at)
        assert {NodeFact, JobFact, ServerFact, Batch, Event} <= {type(item) for item in items}
        first = next(i for i, item in enumerate(items) if isinstance(item, Batch))
        assert all(isinstance(item, Event | JobFact | Batch | Target) for item in items[first:])


def test_a_seed_tells_the_same_again_and_another_does_not() -> None:
    names, seen = ("thermal_gpu", "seq_limited"), Observed(poll=5.0)
    one, two, other = (world(names, seed, minutes=2) for seed in (5, 5, 6))
    assert one.labels == two.labels != other.labels

    def numbers(made: World, seed: int) -> list[bytes]:
        return [item.values.tobytes() for item in made.items(seen, seed) if isinstance(item, Batch)]

    assert numbers(one, 1) == numbers(two, 1)
    assert numbers(one, 1) != numbers(one, 2)


def test_without_host_metrics_and_without_jobs_they_are_not_told() -> None:
    items = told(Observed(poll=30.0, host=False, jobs=False))
    assert not any(isinstance(item, JobFact) for item in items)
    assert {item.kind for item in items if isinstance(item, Batch)} == {Kind.GPU, Kind.SERVER}


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_dropped_samples_are_missing_and_never_zero(share: float) -> None:
    power = column("healthy_training", "gpu.power", Observed(poll=5.0, drops=share, noise=False))
    assert abs(np.isnan(power).mean() - share) < 0.03
    assert np.nanmin(power) > 20


def test_noise_blanks_repeats_and_shakes() -> None:
    noisy = Observed(poll=2.0)
    at = np.array([b.at for b in batches(told(noisy), Kind.GPU)])
    assert np.std(np.diff(at)) > 0.01
    assert 0 < np.isnan(column("healthy_training", "gpu.mem_temp", noisy)).mean() < 0.1
    assert (np.diff(column("healthy_training", "gpu.power", noisy), axis=0) == 0).any()


def test_a_slower_poll_sees_the_same_world() -> None:
    fast, slow = (
        np.nanmean(column("checkpoint_cheap", "gpu.energy", Observed(poll=poll, drops=0.0)))
        for poll in (2.0, 30.0)
    )
    assert fast == pytest.approx(slow, rel=0.05)


# --- physics -------------------------------------------------------------------------------------------


def test_energy_is_the_integral_of_power() -> None:
    fine, coarse = (Observed(poll=poll, drops=0.0, noise=False) for poll in (1.0, 30.0))
    power, energy = column("operator_cap", "gpu.power", fine), column("operator_cap", "gpu.energy", fine)
    assert np.allclose(power.mean(axis=0), energy.mean(axis=0), rtol=0.01)
    means = column("operator_cap", "gpu.energy", coarse)
    assert np.allclose(means.mean(axis=0), energy[: 30 * len(means)].mean(axis=0), rtol=0.01)


def test_boards_obey_their_limits() -> None:
    for name in ("dense_gemm", "operator_cap", "power_brake"):
        assert (column(name, "gpu.power") <= 1.03 * column(name, "gpu.power_limit")).all()


def test_a_hot_board_slows_and_its_peers_wait_for_it() -> None:
    hot, rest = split("thermal_gpu")
    before, after = halves("thermal_gpu", "gpu.sm_clock")
    assert np.median(after[:, hot]) < 0.95 * np.median(before[:, hot])
    violated = halves("thermal_gpu", "gpu.thermal_violation")[1]
    assert violated[:, hot].mean() > 0.3
    assert violated[:, rest].max() == 0
    busy = halves("thermal_gpu", "gpu.sm_active")
    assert busy[1][:, rest].mean() < busy[0][:, rest].mean()


def test_hbm_overheats_under_a_cool_core() -> None:
    root, _ = split("thermal_hbm")
    assert halves("thermal_hbm", "gpu.mem_temp")[1][:, root].max() >= 94
    assert halves("thermal_hbm", "gpu.temp")[1][:, root].max() < 80


def test_hot_but_fine_is_never_held_back_by_heat() -> None:
    assert column("hot_but_fine", "gpu.thermal_violation").max() == 0
    assert column("hot_but_fine", "gpu.temp").max() > 72


def test_starving_boards_have_no_kernel_and_their_host_shows_why() -> None:
    before, after = halves("starving_io", "gpu.util")
    assert after.mean() < before.mean() - 0.05
    assert after.min() < 0.5
    waits = halves("starving_io", "node.psi_io_some")
    assert waits[1].mean() > waits[0].mean()
    assert np.median(halves("starving_cpu", "node.psi_io_some")[1]) < 0.02


def test_ranks_that_wait_spin_and_send_nothing() -> None:
    _, rest = split("hung")
    assert halves("hung", "gpu.util")[1][:, rest].min() == 1.0
    assert halves("hung", "gpu.nvlink_tx")[1].max() == 0
    assert halves("hung", "gpu.tensor_active")[1].max() == 0
    assert 0.1 < halves("hung", "gpu.sm_active")[1][:, rest].mean() < 0.25


def test_a_straggler_is_busy_while_the_others_wait() -> None:
    root, rest = split("straggler_clock")
    busy, clock = (halves("straggler_clock", metric)[1] for metric in ("gpu.sm_active", "gpu.sm_clock"))
    assert busy[:, root].mean() > busy[:, rest].mean()
    assert np.median(clock[:, root]) < np.median(clock[:, rest])


def test_a_full_cache_pushes_requests_out_and_a_full_batch_does_not() -> None:
    assert halves("kv_pressure", "serve.preemptions")[1].sum() > 0
    assert halves("kv_pressure", "serve.kv_usage")[1].max() > 0.95
    assert column("seq_limited", "serve.preemptions").sum() == 0
    assert halves("seq_limited", "serve.waiting")[1].mean() > 5
    assert column("kv_full_healthy", "serve.waiting").mean() < 2


def test_a_dead_board_leaves_the_list_or_stands_still() -> None:
    every = batches(told(), Kind.GPU)
    assert [sum(is_of(ref, "xid79_gone") for ref in batch.entities) for batch in (every[0], every[-1])] == [
        16,
        15,
    ]
    root, _ = split("xid79_frozen")
    for metric in ("gpu.power", "gpu.temp", "gpu.sm_clock"):
        assert np.ptp(halves("xid79_frozen", metric)[1][:, root]) == 0
    assert np.isnan(halves("xid79_frozen", "gpu.energy")[1][:, root]).all()
    codes = [item for item in told() if isinstance(item, Event) and item.kind == "xid"]
    assert [one.detail for one in codes if is_of(one.entity, "xid79_gone")] == ["xid 79"]


def test_a_job_that_is_cancelled_ends_and_frees_its_boards() -> None:
    mine = label("xid_after_cancel").jobs[0]
    ended = [item for item in told() if isinstance(item, JobFact) and item.until is not None]
    assert [fact.id for fact in ended] == [mine]
    assert column("xid_after_cancel", "gpu.util")[-1].max() == 0


# --- truth ---------------------------------------------------------------------------------------------


def test_loss_is_what_the_same_world_without_the_cause_would_have_done() -> None:
    brake = CAST.index("power_brake")
    truth, start = label("power_brake"), cast().start
    healthy = cast()._stage.play(with_causes=False)
    first, last = int(truth.evident - start), int(truth.end - start) - 1
    done, could = (
        float(recorded.steps[last, brake] - recorded.steps[first, brake])
        for recorded in (cast()._recorded, healthy)
    )
    assert truth.loss == pytest.approx(1 - done / could, abs=1e-9)
    assert truth.loss > 0.1


def test_what_costs_little_is_weak() -> None:
    for one in cast().labels:
        if one.condition and one.condition not in ("gpu_fault", "telemetry_gap", "memory_exhaustion"):
            assert one.is_weak == (one.loss < 0.1)
        if not one.condition:
            assert one.loss == 0
            assert not one.is_weak


def test_an_episode_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    listed = capsys.readouterr().out
    assert all(name in listed for name in SCENARIOS)
    assert main(["counter_reset", "2", "A100", "9"]) == 0
    shown = capsys.readouterr().out
    assert "driver 570.86.15 -> 580.95.05" in shown
    assert "sm_clock" in shown
