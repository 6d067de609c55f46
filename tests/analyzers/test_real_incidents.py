"""Real incidents, replayed: the GWDG data set in the folder of COLDAISLE_TRACES (see benchmarks/quality/gwdg.py).

Ten days a file at ten minutes a sample: a window is eight polls, eighty minutes.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
from lab import benches  # first: it makes the next import possible

from benchmarks.quality.gwdg import INCIDENTS, Incident, Replayed, path_of, replay, seconds

assert benches.ROOT.is_dir()

ONLY = frozenset({"gpu_fault", "telemetry_gap", "thermal_throttling", "power_capping", "memory_exhaustion"})
HOUR = 3600.0


@cache
def replayed(incident: Incident) -> Replayed:
    root = os.environ.get("COLDAISLE_TRACES")
    if not root:
        pytest.skip("COLDAISLE_TRACES is not set")
    if not path_of(Path(root), incident).exists():
        pytest.skip(f"COLDAISLE_TRACES has no {incident.file}")
    return replay(Path(root), incident, ONLY)


def of(node: str) -> Incident:
    return next(incident for incident in INCIDENTS if incident.node == node)


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.file)
def test_nothing_but_the_incident_is_found(incident: Incident) -> None:
    false = replayed(incident).false()
    assert {key: seen.finding.cause for key, seen in false.items()} == {}


@pytest.mark.parametrize(
    "incident", [one for one in INCIDENTS if one.lost], ids=lambda incident: incident.file
)
def test_boards_that_fell_off_the_bus_are_found_at_once(incident: Incident) -> None:
    done, lost_at = replayed(incident), seconds(incident.lost_at)
    assert done.first("gpu_fault") == pytest.approx(lost_at, abs=1.0)
    found = {gpu for key, seen in done.watched.seen.items() if key.startswith("gpu_fault") for gpu in seen.finding.scope.gpus}  # fmt: skip
    assert found == {f"{incident.node}/{gpu}" for gpu in incident.lost}


def test_the_hot_board_is_found_days_before_it_is_lost() -> None:
    incident = of("ggpu129")
    done = replayed(incident)
    found = done.first("thermal_throttling")
    assert found is not None
    assert seconds(incident.lost_at) - found > 60 * HOUR
    assert "thermal_throttling:ggpu129/3" in done.watched.seen


def test_it_is_known_to_be_dead_for_as_long_as_its_feed_goes_on() -> None:
    """Thirty-four hours of the same values at 100 % utilisation."""
    fault = replayed(of("ggpu129")).watched.seen["gpu_fault:ggpu129/3"]
    assert fault.last - fault.first > 33 * HOUR


def test_an_outage_of_the_monitoring_is_no_fault() -> None:
    incident = of("ggpu143")
    done = replayed(incident)
    assert done.first("gpu_fault") is None
    found = done.first("telemetry_gap")
    assert found is not None
    assert 0 < found - seconds(incident.silent_from) <= HOUR
