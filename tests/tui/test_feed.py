"""What the feed does beside giving out pictures."""

from __future__ import annotations

import gc

import pytest
from lab.snapshots import make_snapshot

from coldaisle.tui.feed import LongLived


def test_a_cluster_is_taken_out_of_the_collectors_sight_when_it_has_grown_and_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    kept = LongLived()
    small, large = make_snapshot(1, 1, 2), make_snapshot(2, 2, 8)
    for snapshot in [small] * LongLived.SETTLES:
        kept.seen(snapshot)
    assert done == []
    for snapshot in [small] * 20:
        kept.seen(snapshot)
    assert done == ["collect", "freeze"]
    for snapshot in [large] * 20:
        kept.seen(snapshot)
    assert done == ["collect", "freeze"] * 2
    for snapshot in [small] * 20:  # it shrank: nothing that lives long is new
        kept.seen(snapshot)
    assert done == ["collect", "freeze"] * 2
