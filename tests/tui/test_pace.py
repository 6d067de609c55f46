"""When the next repaint may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.tui.pace import FIRST_ANSWER_S, MUTE_ASKS_AGAIN_S, SILENCE_S, Pace


def answering(rate: float = 50_000) -> Pace:
    """A pace whose terminal has answered at time 0."""
    pace = Pace(rate)
    pace.asked(0.0)
    pace.answered(0.0)
    return pace


def mute(rate: float = 50_000) -> Pace:
    """A pace whose terminal has been asked in vain, at time 0."""
    pace = Pace(rate)
    pace.asked(-FIRST_ANSWER_S)
    pace.wait(0.0, 0)
    assert pace.answers is False
    return pace


def test_the_first_frames_go_at_once() -> None:
    pace = mute()
    pace.sent(0.0, 49_000)
    assert pace.wait(0.0, 0) == 0


def test_what_is_over_the_budget_is_waited_for() -> None:
    pace = mute()
    pace.sent(0.0, 150_000)
    assert pace.wait(0.0, 0) == pytest.approx(2.0)
    assert pace.wait(2.0, 0) == 0


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=60))
def test_bytes_stay_within_the_budget_and_one_frame(sizes: list[int]) -> None:
    pace = mute()
    now = 0.0
    for size in sizes:
        now += pace.wait(now, 0)
        pace.sent(now, size)
        pace.drained(now)
    assert sum(sizes) <= 50_000 * (now + 1.0) + max(sizes) + 1e-3  # rounding


def test_nothing_is_queued_behind_a_frame_that_is_not_taken() -> None:
    pace = mute()
    pace.sent(0.0, 1000)
    assert pace.wait(100.0, unsent=1) > 0
    assert pace.wait(100.0, unsent=1, is_hurried=True) > 0
    assert pace.wait(100.0, unsent=0) == 0


def test_a_frame_that_is_not_answered_is_waited_for() -> None:
    pace = answering()
    pace.asked(1.0)
    pace.sent(1.0, 1000)
    assert pace.wait(20.0, 0) > 0
    pace.answered(20.0)
    pace_rests = pace.wait(20.0, 0)
    assert pace_rests == pytest.approx(9.5), "half as long as the frame took is left for keys"
    assert pace.wait(29.6, 0) == 0


def test_draining_is_no_answer() -> None:
    pace = answering()
    pace.asked(1.0)
    pace.sent(1.0, 1000)
    pace.drained(1.1)
    assert pace.wait(2.0, 0) > 0


def test_a_key_is_answered_before_its_turn() -> None:
    pace = answering()
    pace.asked(1.0)
    pace.sent(1.0, 500_000)
    assert pace.wait(1.1, 0) > 0
    assert pace.wait(1.1, 0, is_hurried=True) == 0


def test_keys_held_down_do_not_fill_a_slow_link() -> None:
    pace = answering()
    for _ in range(2):
        pace.asked(1.0)
        pace.sent(1.0, 5000, is_hurried=True)
    assert pace.wait(1.1, 0, is_hurried=True) > 0
    pace.answered(1.3)
    assert pace.wait(1.3, 0, is_hurried=True) == 0


def test_typing_does_not_stop_the_data_for_long() -> None:
    pace = mute()
    for _ in range(100):
        pace.sent(1.0, 20_000, is_hurried=True)
    assert pace.wait(1.0, 0) <= 2.0


def test_a_terminal_that_never_answers_is_paced_by_bytes() -> None:
    pace = Pace()
    pace.asked(0.0)
    pace.sent(0.0, 1000)
    assert pace.wait(FIRST_ANSWER_S / 2, 0) > 0
    assert pace.wait(FIRST_ANSWER_S, 0) == 0
    assert pace.answers is False
    assert not pace.should_ask(FIRST_ANSWER_S + 1)


def test_a_mute_terminal_is_asked_again_and_believed() -> None:
    pace = mute()
    assert pace.should_ask(MUTE_ASKS_AGAIN_S)
    pace.asked(MUTE_ASKS_AGAIN_S)
    assert pace.wait(MUTE_ASKS_AGAIN_S + 0.1, 0) == 0, "nobody waits for an answer that never came"
    pace.answered(MUTE_ASKS_AGAIN_S + 0.2)
    assert pace.answers is True


def test_a_terminal_that_falls_silent_is_not_waited_for_forever() -> None:
    pace = answering()
    pace.asked(1.0)
    pace.sent(1.0, 1000)
    assert pace.wait(1.0 + SILENCE_S - 0.1, 0) > 0
    assert pace.wait(1.0 + SILENCE_S, 0) == 0


def test_another_terminal_starts_afresh() -> None:
    pace = answering()
    pace.asked(1.0)
    pace.reset()
    assert pace.wait(3.0, 0) == 0
    assert pace.answers is None


def test_an_answer_too_many_does_no_harm() -> None:
    pace = answering()
    pace.answered(1.0)
    pace.asked(2.0)
    assert pace.is_answer_due
