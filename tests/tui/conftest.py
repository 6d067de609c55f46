"""Screens are looked at when they are at rest, however busy the machine is."""

from __future__ import annotations

import pytest
from lab.rest import pause
from textual.pilot import Pilot


@pytest.fixture(autouse=True)
def _wait_until_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pilot, "pause", pause)
