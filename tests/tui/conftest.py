"""Screens are looked at when they are at rest, however busy the machine is."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.rest import pause
from textual.pilot import Pilot


@pytest.fixture(autouse=True)
def _wait_until_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pilot, "pause", pause)


@pytest.fixture(autouse=True)
def _state_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filters that are typed in tests are not those of whoever runs them."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    return state
