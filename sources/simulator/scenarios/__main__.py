"""``python -m coldaisle.sources.simulator.scenarios NAME [SEED]``: an episode to look at, half a minute a line."""

from __future__ import annotations

import sys

import numpy as np

from coldaisle.sources.simulator.scenarios import SCENARIOS, Observed, world
from coldaisle.sources.source import Batch, Event

KEYS = (
    "gpu.util", "gpu.sm_active", "gpu.tensor_active", "gpu.power", "gpu.sm_clock", "gpu.temp", "gpu.mem_temp", "gpu.nvlink_tx",
    "node.cpu_util", "node.psi_io_some", "node.nfs_write", "port.tx", "serve.kv_usage", "serve.running", "serve.waiting",
    "serve.preemptions",
)  # fmt: skip


def say(text: object) -> None:
    """A line."""
    sys.stdout.write(f"{text}\n")


def main(arguments: list[str]) -> int:
    """Print it; the exit status."""
    if not arguments or arguments[0] not in SCENARIOS:
        say("\n".join(f"{s.name:22}{s.condition or '-':26}{s.help}" for s in SCENARIOS.values()))
        return 2
    made = world(arguments[:1], int(arguments[1]) if len(arguments) > 1 else 1)
    say(made.labels[0])
    shown: dict[str, str] = {}
    say("      s " + " ".join(f"{key.partition('.')[2][:11]:>13}" for key in KEYS))
    for item in made.items(Observed(poll=30.0)):
        if isinstance(item, Event):
            say(f"{item.at - made.start:7.0f} {item.kind}: {item.detail}")
        if isinstance(item, Batch):
            for column, key in enumerate(item.metrics):
                values = item.values[:, column]
                known = values[~np.isnan(values)]
                shown[key] = f"{np.median(known):.3g}/{known.min():.3g}" if len(known) else "-"
            if item.kind == "gpu" and len(shown):
                say(f"{item.at - made.start:7.0f} " + " ".join(f"{shown.get(key, '-'):>13}" for key in KEYS))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
