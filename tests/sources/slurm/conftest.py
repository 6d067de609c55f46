"""One real Slurm for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.slurm import SlurmLab


@pytest.fixture(scope="session")
def slurm_lab() -> Iterator[SlurmLab]:
    with SlurmLab() as lab:
        yield lab


@pytest.fixture
def slurm(slurm_lab: SlurmLab, monkeypatch: pytest.MonkeyPatch) -> SlurmLab:
    """A real Slurm, idle and empty; its commands are those of this machine."""
    for name in ("SLURM_JWT", "SQUEUE_FORMAT", "SINFO_FORMAT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in slurm_lab.environment.items():
        monkeypatch.setenv(name, value)
    slurm_lab.clear()
    return slurm_lab
