"""What a cell says of a GPU, and which GPU deserves a look first."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from lab.snapshots import Faults, make_snapshot, with_values

from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.catalog import catalog
from coldaisle.sources.source import Gres, Missing
from coldaisle.tui.cells import (
    BLANK,
    DOWN,
    DRAINED,
    FADED,
    FREE,
    HELD,
    LEVEL_0,
    LOST,
    MARKS,
    METRICS,
    NO_DATA,
    STALE,
    cell_codes,
    default_metric,
    group_code,
    has_values,
    ink,
    is_drained,
    is_shown,
    letter,
    levels,
    metric_of,
    next_metric,
    tally,
    token,
    troubles,
    values_of,
)

SM = metric_of("gpu.sm_active")
TEMP = metric_of("gpu.temp")


def code_of(snapshot: Snapshot, gpu: str, key: str = "gpu.sm_active") -> int:
    return int(cell_codes(snapshot, metric_of(key))[snapshot.layout.gpu_of[gpu]])


def small(**options: object) -> Snapshot:
    return make_snapshot(2, 2, 4, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_metrics_are_in_the_catalog(metric: object) -> None:
    assert getattr(metric, "key") in catalog()  # noqa: B009


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.04, "0"),
        (0.1, "1"),
        (0.3, "3"),
        (0.7, "7"),
        (0.899, "8"),
        (0.95, "9"),
        (1.0, "9"),
        (1.4, "9"),
        (-0.2, "0"),
    ],
)
def test_a_digit_is_tenths(value: float, shown: str) -> None:
    code = int(levels(np.array([value], dtype=np.float32), SM)[0]) + LEVEL_0
    assert letter(code) == shown


def test_a_full_share_has_a_level_of_its_own() -> None:
    assert levels(np.array([0.99, 1.0], dtype=np.float32), SM).tolist() == [9, 10]


def test_temperature_is_tens_of_degrees() -> None:
    assert levels(np.array([31.0, 71.0, 104.0], dtype=np.float32), TEMP).tolist() == [3, 7, 10]


def test_letters_hide_values_the_worst_first() -> None:
    faults = Faults(lost=("r01n01/2",), stale=("r01n02",), never=("r02n01",), drained=("r02n02",))
    snapshot = small(faults=faults)
    assert code_of(snapshot, "r01n01/2") == LOST
    assert code_of(snapshot, "r01n02/0") == STALE
    assert code_of(snapshot, "r02n01/0") == NO_DATA
    assert code_of(snapshot, "r02n02/0") == DRAINED
    assert LEVEL_0 <= code_of(snapshot, "r01n01/0") < LOST


def test_what_a_scheduler_says_of_gpus_that_nobody_reads() -> None:
    names = ("r01n01", "r01n02", "r02n01", "r02n02")
    snapshot = small(faults=Faults(never=names, drained=("r02n01",)))
    gres = (Gres("gpu", "h100", 4),)
    states = {"r01n01": "mix", "r01n02": "idle", "r02n01": "drain", "r02n02": "down"}
    nodes = tuple(replace(node, gres=gres, state=states[node.key]) for node in snapshot.layout.nodes)
    job = snapshot.layout.gpu_of["r01n01/1"]
    held = np.full(len(snapshot.gpu_job), -1, dtype=np.int32)
    held[job] = 0
    snapshot = replace(snapshot, layout=replace(snapshot.layout, nodes=nodes), gpu_job=held, jobs_known=True)
    codes = [code_of(snapshot, gpu) for gpu in ("r01n01/0", "r01n01/1", "r01n02/0", "r02n01/0", "r02n02/0")]
    assert codes == [FREE, HELD, FREE, DRAINED, DOWN]
    counts = tally(snapshot, SM)
    assert (counts.allocated, counts.free, counts.drained, counts.down, counts.unseen) == (1, 7, 4, 4, 0)
    assert not [trouble for trouble in troubles(snapshot, SM) if trouble.why == "no data yet"]


def test_a_silent_node_loses_all_its_gpus() -> None:
    snapshot = small(faults=Faults(gone=("r01n01",)))
    assert [code_of(snapshot, f"r01n01/{slot}") for slot in range(4)] == [LOST] * 4


def test_a_missing_value_is_no_zero() -> None:
    snapshot = with_values(small(), "gpu.sm_active", {"r01n01/0": math.nan}, Missing.NOT_EXPORTED)
    assert letter(code_of(snapshot, "r01n01/0")) == "-"


def test_a_value_of_zero_is_a_zero() -> None:
    assert letter(code_of(with_values(small(), "gpu.sm_active", {"r01n01/0": 0.0}), "r01n01/0")) == "0"


def test_a_metric_without_a_scale_is_shown_as_a_share_of_its_limit() -> None:
    assert metric_of("gpu.power").key == "gpu.power_ratio"
    assert metric_of("gpu.mem_used").key == "gpu.mem_ratio"


def test_what_cells_cannot_show_is_known() -> None:
    assert is_shown("gpu.power")
    assert is_shown("gpu.temp")
    assert is_shown("gpu.of_the_sites_own")
    assert not is_shown("gpu.ecc_sbe")


def test_one_stale_metric_is_stale_alone() -> None:
    snapshot = with_values(small(), "gpu.sm_active", {"r01n01/0": 0.5}, Missing.STALE)
    assert code_of(snapshot, "r01n01/0") == STALE
    assert code_of(snapshot, "r01n01/0", "gpu.temp") != STALE


class TestFree:
    def snapshot(self, **values: float) -> Snapshot:
        snapshot = make_snapshot(3, 3, 2)  # the ninth node holds no job
        for name, value in values.items():
            snapshot = with_values(snapshot, f"gpu.{name}", {"r03n03/0": value})
        return snapshot

    def test_a_quiet_gpu_without_a_job_is_free(self) -> None:
        assert code_of(self.snapshot(sm_active=0.01), "r03n03/0") == FREE

    def test_a_busy_gpu_without_a_job_shows_what_it_does(self) -> None:
        assert letter(code_of(self.snapshot(sm_active=0.62), "r03n03/0")) == "6"

    def test_temperature_is_worth_showing_without_a_job(self) -> None:
        assert letter(code_of(self.snapshot(temp=44.0), "r03n03/0", "gpu.temp")) == "4"

    def test_nothing_is_called_free_when_jobs_are_not_known(self) -> None:
        snapshot = make_snapshot(3, 3, 2, jobs_known=False)
        assert FREE not in cell_codes(snapshot, SM)


class TestMig:
    def test_a_board_shows_the_mean_of_its_slices(self) -> None:
        snapshot = small(mig=("r01n01/0",))
        snapshot = with_values(snapshot, "gpu.sm_active", {"r01n01/0:gi1": 0.2, "r01n01/0:gi2": 0.6})
        assert values_of(snapshot, "gpu.sm_active")[0] == pytest.approx(0.4)

    def test_a_slice_shows_its_boards_temperature(self) -> None:
        snapshot = with_values(small(mig=("r01n01/0",)), "gpu.temp", {"r01n01/0": 61.0})
        assert values_of(snapshot, "gpu.temp")[snapshot.layout.gpu_of["r01n01/0:gi2"]] == pytest.approx(61.0)

    def test_sums_count_boards_only(self) -> None:
        assert tally(small(mig=("r01n01/0",)), SM).allocated == 16


def test_tally_counts_each_board_once() -> None:
    faults = Faults(lost=("r01n01/2",), stale=("r01n02",), drained=("r02n02",))
    counts = tally(small(faults=faults), SM)
    assert (counts.allocated, counts.free, counts.drained) == (12, 0, 4)
    assert (counts.lost, counts.stale, counts.unseen) == (1, 4, 0)
    assert counts.powered == 11


def test_tally_without_values_has_no_mean() -> None:
    snapshot = small(faults=Faults(absent={"gpu.sm_active": Missing.NOT_EXPORTED}))
    assert math.isnan(tally(snapshot, SM).mean)


def test_tally_of_an_empty_cluster() -> None:
    assert tally(make_snapshot(0), SM).allocated == 0


class TestDefaultMetric:
    def test_sm_active_where_it_is_delivered(self) -> None:
        assert default_metric(small()) is SM

    def test_power_where_it_is_not(self) -> None:
        snapshot = small(faults=Faults(absent={"gpu.sm_active": Missing.NOT_EXPORTED}))
        assert default_metric(snapshot).key == "gpu.power_ratio"

    def test_util_at_last(self) -> None:
        assert (
            default_metric(small(faults=Faults(unknown=("gpu.sm_active", "gpu.power_ratio")))).key
            == "gpu.util"
        )


def test_the_next_metric_has_values() -> None:
    snapshot = small(faults=Faults(unknown=("gpu.tensor_active",)))
    assert next_metric(snapshot, SM, 1).key == "gpu.dram_active"
    assert next_metric(snapshot, metric_of("gpu.dram_active"), -1) is SM
    assert not has_values(snapshot, "gpu.tensor_active")


@pytest.mark.parametrize(
    ("state", "out"),
    [("drain", True), ("DRAINING*", True), ("down", True), ("alloc", False), ("", False), (None, False)],
)
def test_drained_states(state: str | None, out: bool) -> None:
    assert is_drained(state) is out


def test_every_code_has_a_letter_and_a_token() -> None:
    codes = range(LEVEL_0, LOST + len(MARKS))
    assert len({letter(code) for code in codes}) == 10 + len(MARKS)  # levels 9 and 10 are both written 9
    assert all(token(code) and ink(code) for code in codes)
    assert letter(LOST | FADED) == "X"
    assert token(LOST | FADED) == "cell.faded"
    assert letter(BLANK) == " "


def test_a_rack_of_one_cell_shows_its_worst() -> None:
    values = np.array([0.8, 0.6, np.nan, 0.1], dtype=np.float32)
    assert group_code(np.array([LEVEL_0 + 8, LEVEL_0 + 6, LOST, FREE], dtype=np.uint8), values, SM) == LOST
    assert (
        group_code(np.array([LEVEL_0 + 8, LEVEL_0 + 6, NO_DATA, FREE], dtype=np.uint8), values, SM)
        == LEVEL_0 + 7
    )
    assert group_code(np.array([FREE, FREE, FREE, FREE], dtype=np.uint8), values, SM) == FREE


class TestTroubles:
    def test_worst_kind_first_then_in_reading_order(self) -> None:
        faults = Faults(lost=("r02n02/3",), gone=("r01n02",), stale=("r02n01",), hot=("r01",))
        found = troubles(make_snapshot(2, 2, 4, faults=faults), SM)
        assert found[0].why == "lost"
        kinds = list(dict.fromkeys(trouble.why for trouble in found))
        assert kinds == ["lost", "node does not answer", "stale", "slowed by heat"]
        assert len({trouble.gpu for trouble in found}) == len(found)

    def test_the_lowest_where_nothing_is_wrong(self) -> None:
        snapshot = with_values(small(), "gpu.sm_active", {"r02n01/1": 0.11})
        first = troubles(snapshot, SM)[0]
        assert snapshot.layout.gpus[first.gpu].key == "r02n01/1"
        assert first.why == "lowest SM active"

    def test_an_asked_for_reset_counts(self) -> None:
        snapshot = small(faults=Faults(absent={"gpu.recovery_action": Missing.BLANK}))
        snapshot = with_values(snapshot, "gpu.recovery_action", {"r01n02/1": 1.0})
        assert troubles(snapshot, SM)[0].why == "driver asks for a reset"

    def test_nothing_to_say_of_nothing(self) -> None:
        assert troubles(make_snapshot(0), SM) == []


def test_columns_of_another_layout_are_not_believed() -> None:
    snapshot = replace(small(), columns=make_snapshot(1, 1, 1).columns)
    assert np.isnan(values_of(snapshot, "gpu.sm_active")).all()
