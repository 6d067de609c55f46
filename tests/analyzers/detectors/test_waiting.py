"""Who waits for whom: hangs and stragglers in simulated episodes, and what only looks like them."""

from __future__ import annotations

import lab.benches  # noqa: F401  (benchmarks can be imported then)
import pytest

from benchmarks.quality import watching  # isort: skip
from coldaisle.sources.simulator.scenarios import Observed, world


@pytest.mark.parametrize(
    ("scenario", "detector"),
    [("hung", "communication_stall"), ("deadlock", "communication_stall"), ("straggler_cpu", "straggler"),
     ("tp_pp", ""), ("moe", ""), ("long_compile", "")],
)  # fmt: skip
def test_who_is_waited_for(scenario: str, detector: str) -> None:
    made = world([scenario], 101, parts=("H100",), minutes=14)
    seen = watching.watch(made.items(Observed(poll=5.0)), 5.0).seen
    waits = {one.finding.detector for one in seen.values() if one.first_loud is not None}
    assert waits & {"communication_stall", "straggler"} == ({detector} if detector else set())
