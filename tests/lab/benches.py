"""Importing this makes ``benchmarks`` importable: it lies beside the tests and is no part of what is installed.

The root itself must not be on the path: ``sources`` would be there a second time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2] / "benchmarks"

if "benchmarks" not in sys.modules:
    _package = ModuleType("benchmarks")
    _package.__path__ = [str(ROOT)]
    sys.modules["benchmarks"] = _package
