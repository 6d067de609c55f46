"""256 hosts over SSH at 2 s, beside a bare asyncssh stream of the same bytes; see :mod:`benchmarks.ssh_fanout`."""

from __future__ import annotations

from benchmarks import ssh_fanout
from benchmarks.row import Row

HOSTS = 256
SECONDS = 20.0


def measure() -> list[Row]:
    """The rows of the bench table."""
    ours, bare = ssh_fanout.measure(HOSTS, SECONDS)
    return [
        Row(f"{HOSTS} hosts over SSH at 2 s", ours.per_core * 100, "% of a core", 15.0, "lower"),
        Row("  the same bytes by bare asyncssh, unread", bare.per_core * 100, "% of a core", None, "lower"),
        Row("  ours against bare asyncssh", ours.per_core / bare.per_core, "x", None, "lower"),
        Row("  connecting", ours.connect_s, "s CPU", None, "lower"),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
