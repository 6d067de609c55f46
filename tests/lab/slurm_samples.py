"""Captured answers of Slurm releases that cannot be installed; they lie outside the project."""

from __future__ import annotations

import os
from pathlib import Path

SAMPLES = Path(os.environ.get("COLDAISLE_SAMPLES", "/nonexistent")) / "slurm"
VERSIONS = [
    "24.05/v0.0.41",
    "24.11/v0.0.41",
    "24.11/v0.0.42",
    *(f"25.11/v0.0.{one}" for one in (41, 42, 43, 44)),
]
"""release/parser of the answers that were captured of every kind"""


def sample(version: str, kind: str) -> bytes:
    release, parser = version.split("/")
    return (SAMPLES / f"json-{release}" / f"slurmweb-{parser}-{kind}.json").read_bytes()
