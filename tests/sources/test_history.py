"""The history: samples, never held; two resolutions; one current source a cell."""

from __future__ import annotations

import numpy as np
import pytest

from coldaisle.sources.history import NO_SOURCE, History, Limits
from coldaisle.sources.source import Batch, Kind, Missing, NodeRef, Rank

NODES = (NodeRef("a"), NodeRef("b"), NodeRef("c"))
ROWS = np.arange(3)
NAN = float("nan")
START = 1_700_000_040.0  # a whole minute


def batch(at, values, key="node.load1", reasons=None, entities=NODES, intervals=None):
    return Batch(
        at,
        Kind.NODE,
        entities,
        (key,),
        np.array(values, dtype=np.float32)[:, None],
        None if reasons is None else np.array(reasons, dtype=np.uint8)[:, None],
        intervals,
    )


def write(history, at, values, *, source=0, rank=Rank.PROBE, interval=2.0, **more):
    history.write(batch(at, values, **more), ROWS, source, rank, interval)


def test_a_missing_sample_is_not_zero_and_does_not_erase_the_last() -> None:
    history = History()
    write(history, START, [1, 2, NAN])
    write(history, START + 2, [5, NAN, NAN])
    latest = history.latest("node.load1", 3, START + 2)
    np.testing.assert_array_equal(latest.values, np.array([5, 2, NAN], dtype=np.float32))
    np.testing.assert_array_equal(latest.at, [START + 2, START, NAN])
    assert latest.reason.tolist() == [Missing.PRESENT, Missing.PRESENT, Missing.NOT_SAMPLED]


def test_a_value_older_than_three_periods_is_stale_and_says_so() -> None:
    history = History()
    write(history, START, [1, 2, 3])
    write(history, START + 2, [1, NAN, NAN])
    write(history, START + 4, [1, NAN, NAN])
    write(history, START + 6, [1, NAN, NAN])
    write(history, START + 8, [1, NAN, NAN])
    latest = history.latest("node.load1", 3, START + 8)
    assert latest.reason.tolist() == [Missing.PRESENT, Missing.STALE, Missing.STALE]
    assert latest.values[1] == 2


def test_what_a_source_says_is_missing_has_no_value_at_once() -> None:
    history = History()
    write(history, START, [1, 2, 3], reasons=[0, 0, 0])
    write(history, START + 2, [1, NAN, 3], reasons=[0, Missing.LOST, 0])
    latest = history.latest("node.load1", 3, START + 2)
    assert np.isnan(latest.values[1])
    assert latest.reason[1] == Missing.LOST
    write(history, START + 4, [1, 9, 3], reasons=[0, 0, 0])
    assert history.latest("node.load1", 3, START + 4).values[1] == 9


def test_an_impossible_value_is_missing() -> None:
    history = History()
    write(history, START, [-1, 1e30, 3])
    assert np.isnan(history.latest("node.load1", 3, START).values[:2]).all()


def test_an_older_batch_is_dropped() -> None:
    history = History()
    write(history, START, [1, 1, 1])
    write(history, START - 5, [9, 9, 9])
    assert history.latest("node.load1", 3, START).values.tolist() == [1, 1, 1]


def test_a_row_nobody_wrote_belongs_to_no_source() -> None:
    history = History()
    write(history, START, [1, 1, 1])
    latest = history.latest("node.load1", 5, START)
    assert latest.source.tolist() == [0, 0, 0, NO_SOURCE, NO_SOURCE]
    assert np.isnan(history.latest("node.load5", 2, START).values).all()


def test_series_are_means_a_bin_and_gaps_stay_gaps() -> None:
    history = History()
    for step in range(10):
        if step not in (4, 5):
            write(history, START + 2 * step, [step, NAN, 2 * step])
    series = history.series("node.load1", [0, 1, 2], START, START + 20, 5)
    np.testing.assert_array_equal(series[0], np.array([0.5, 2.5, NAN, 6.5, 8.5], dtype=np.float32))
    assert np.isnan(series[1]).all()
    assert series[2, 0] == 1


def test_beyond_full_resolution_minutes_remain() -> None:
    history = History(Limits(full_s=120, minutes=60))
    for second in range(0, 1800, 5):
        write(history, START + second, [second, 1, 1], interval=5.0)
    first = history.series("node.load1", [0], START, START + 60, 1)[0, 0]
    assert first == pytest.approx(np.mean(np.arange(0, 60, 5)))
    block = history.blocks[0]
    assert block.full.oldest >= START + 1800 - 5 * block.full.capacity
    assert block.minutes.arrays["node.load1:high"][0, 0] == 55
    assert block.minutes.arrays["node.load1:low"][0, 0] == 0


def test_full_resolution_grows_to_its_span_and_stops() -> None:
    history = History(Limits(full_s=200))
    for second in range(1000):
        write(history, START + second, [1, 1, 1], interval=1.0)
    ring = history.blocks[0].full
    assert 200 <= ring.count <= 320
    assert ring.newest - ring.oldest >= 199


def test_a_byte_limit_ends_full_resolution_earlier() -> None:
    history = History(Limits(full_s=900, full_bytes=4000))
    for second in range(900):
        write(history, START + second, [1, 1, 1], interval=1.0)
    assert history.blocks[0].full.bytes < 8000


def test_the_better_source_is_current_and_hands_over_only_when_stale() -> None:
    history = History()

    def both(at, probe, exporter):
        if probe is not None:
            write(history, at, [probe] * 3, source=0, rank=Rank.PROBE)
        if exporter is not None:
            write(history, at, [exporter] * 3, source=1, rank=Rank.EXPORTER)
        latest = history.latest("node.load1", 3, at)
        return int(latest.source[0]), float(latest.values[0])

    assert both(START, 1, 2) == (0, 1)
    assert both(START + 2, None, 2) == (0, 1)
    assert both(START + 6, None, 2) == (0, 1)
    assert both(START + 12, None, 2) == (1, 2), "the probe is stale"
    assert both(START + 14, 1, 2) == (1, 2), "it has only just come back"
    for second in range(16, 30, 2):
        answer = both(START + second, 1, 2)
    assert answer == (0, 1), "it held for three periods"


def test_series_follow_the_source_that_was_current() -> None:
    history = History()
    for second in range(0, 40, 2):
        if second < 10:
            write(history, START + second, [1, 1, 1], source=0)
        write(history, START + second, [2, 2, 2], source=1, rank=Rank.EXPORTER)
        history.latest("node.load1", 3, START + second)
    series = history.series("node.load1", [0], START, START + 40, 4)[0]
    assert series[0] == 1
    assert series[-1] == 2


def test_an_integral_uses_the_true_intervals() -> None:
    history = History()
    write(history, START, [10, 10, 10], key="node.net_rx", intervals=np.full(3, 2, np.float32))
    write(history, START + 30, [10, 10, 10], key="node.net_rx", intervals=np.full(3, 30, np.float32))
    assert history.integral("node.net_rx", [0], START, START + 60)[0] == pytest.approx(320)


def test_a_joined_row_keeps_both_histories() -> None:
    history = History()
    history.write(batch(START, [1, 1, 1]), ROWS, 0, Rank.PROBE, 2.0)
    history.write(batch(START, [7], entities=(NodeRef("x"),)), np.array([3]), 1, Rank.EXPORTER, 2.0)
    history.join(Kind.NODE, 3, 0)
    assert history.latest("node.load1", 3, START).values[0] == 1
    later = START + 60
    history.write(batch(later, [8], entities=(NodeRef("x"),)), np.array([0]), 1, Rank.EXPORTER, 2.0)
    assert history.latest("node.load1", 3, later).values[0] == 8


def test_a_replaced_board_starts_afresh() -> None:
    history = History()
    write(history, START, [1, 2, 3])
    history.forget(Kind.NODE, 1)
    assert np.isnan(history.latest("node.load1", 3, START).values[1])
    assert np.isnan(history.series("node.load1", [1], START, START + 2, 1)).all()


def test_the_past_moves_with_a_corrected_clock() -> None:
    history = History()
    write(history, START, [1, 2, 3])
    history.shift(-3600)
    latest = history.latest("node.load1", 3, START - 3600)
    assert latest.reason[0] == Missing.PRESENT
    assert history.reach == START - 3600


def test_new_entities_widen_the_columns() -> None:
    history = History()
    write(history, START, [1, 2, 3])
    more = (*NODES, NodeRef("d"))
    history.write(batch(START + 2, [4, 5, 6, 7], entities=more), np.arange(4), 0, Rank.PROBE, 2.0)
    series = history.series("node.load1", [0, 3], START, START + 4, 2)
    np.testing.assert_array_equal(series, np.array([[1, 4], [NAN, 7]], dtype=np.float32))


def test_samples_that_are_still_to_come_are_left_out_of_a_series() -> None:
    history = History()
    for step in range(10):
        write(history, 10.0 * step, [100.0 + step, 1.0, 2.0], interval=10.0)
    line = history.series("node.load1", [0], 0.0, 100.0, 10, before=51.0)[0]
    assert line[:6].tolist() == [100, 101, 102, 103, 104, 105]
    assert np.isnan(line[6:]).all()


def test_where_nothing_but_the_newest_is_kept_it_is_the_same() -> None:
    small, whole = History(Limits(full_s=0.0, minutes=0)), History()
    for step in range(300):
        for history in (small, whole):
            write(history, float(step), [float(step), NAN if step > 200 else 1.0, NAN], interval=1.0)
    pairs = zip(small.latest("node.load1", 3, 299.0), whole.latest("node.load1", 3, 299.0), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    assert small.bytes < whole.bytes / 50


def minutes_of(history, key="node.load1", size=3, minutes=60, end=START + 3600):
    return history.folded(key, size, end, minutes)[0]


def test_an_earlier_hour_becomes_known_in_minutes() -> None:
    """Of a history whose rows are others, by a map of rows; what was here stays as it was."""
    earlier, live = History(), History()
    for minute in range(46):
        write(earlier, START + 60 * minute, [1, minute, NAN], entities=(NODES[1], NODES[0], NODES[2]))
    for second in range(2700, 3610, 10):
        write(live, START + second, [100, 200, NAN])
    before = minutes_of(live, minutes=12)
    live.take_earlier(earlier, {Kind.NODE: {0: 1, 1: 0}})
    minutes = minutes_of(live)
    np.testing.assert_array_equal(minutes[:45, 0], np.arange(45))
    np.testing.assert_array_equal(minutes[:45, 1], np.ones(45))
    np.testing.assert_array_equal(minutes[45:60, 0], np.full(15, 100))
    assert np.isnan(minutes[:, 2]).all()
    np.testing.assert_array_equal(minutes_of(live, minutes=12), before)
    assert live.reach == START + 30
    write(live, START + 3660, [7, 7, 7])
    write(live, START + 3720, [7, 7, 7])
    assert minutes_of(live, end=START + 3720)[-1].tolist() == [7, 7, 7]


def test_no_more_of_it_than_there_is_room_for_and_nothing_of_who_is_not_here() -> None:
    earlier, live = History(), History(Limits(minutes=10))
    for minute in range(45):
        write(earlier, START + 60 * minute, [minute, minute, minute])
        write(earlier, START + 60 * minute, [1, 1, 1], source=7)
    for second in range(2700, 3010, 10):
        write(live, START + second, [100, 200, 300])
    live.take_earlier(earlier, {Kind.NODE: {0: 0}})
    minutes = minutes_of(live, end=START + 3000)
    assert (~np.isnan(minutes[:, 0])).sum() == 10
    assert (~np.isnan(minutes[:, 1])).sum() == 5
    live.take_earlier(earlier, {})
    np.testing.assert_array_equal(minutes_of(live, end=START + 3000), minutes)
