"""The entry point: ``coldaisle --version`` is answered before anything else is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; ends the process with its status."""
    if sys.argv[1:2] == ["--version"]:
        from coldaisle.sources import __version__

        sys.stdout.write(f"coldaisle {__version__}\n")
        return
    from coldaisle.tui.cli import run

    sys.exit(run(sys.argv[1:]))
