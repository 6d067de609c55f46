"""Options that the commands of ``coldaisle size`` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from coldaisle.tui.size_words import (
    SHARDINGS,
    Count,
    Day,
    Measure,
    Money,
    Share,
    Whole,
    complete_model,
    complete_node,
    complete_part,
)

Command = TypeVar("Command", bound=Callable[..., Any])


def options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in their order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def size(*names: str, help: str) -> Callable[[Command], Command]:
    """An option for a whole number."""
    return click.option(*names, type=Whole(), metavar="N", help=help)


model_options = options(
    click.option(
        "--model", metavar="NAME|FILE", shell_complete=complete_model,
        help="One of `coldaisle size models`, or a config.json as Hugging Face has them.",
    ),
    click.option("--params", type=Count(), metavar="N", help="Parameters instead: 70B, 70e9. The shape, as far as known:"),
    click.option("--active-params", type=Count(), metavar="N", help="Of a mixture of experts, those of one token."),
    size("--layers", help="Layers."),
    click.option(
        "--kv-layers", type=Whole(or_zero=True), metavar="N",
        help="Layers that keep keys and values: 0 of Mamba; default: the model's own, else all.",
    ),
    size("--hidden", help="Hidden size."),
    size("--heads", help="Attention heads."),
    size("--kv-heads", help="Heads of keys and values (GQA)."),
    size("--head-dim", help="Of one head; default: hidden/heads."),
    size("--ffn", help="Width of one MLP, or of one expert."),
    size("--vocab", help="Tokens of the vocabulary."),
    size("--experts", help="Experts a layer."),
    size("--experts-active", help="Of them those of one token."),
)  # fmt: skip
part_option = click.option(
    "--part", "part", multiple=True, metavar="ID[,ID...]", shell_complete=complete_part,
    help="Of `coldaisle size parts`; repeatable; 'all'. Default: some common ones are compared.",
)  # fmt: skip
layout_options = options(
    size("--tp", "tensor", help="Tensor parallelism; default of all layouts: what is best."),
    size("--pp", "pipeline", help="Pipeline stages."),
    size("--dp", "data", help="Data parallelism."),
    size("--cp", "context", help="Context parallelism."),
    size("--ep", "expert", help="Expert parallelism, of a mixture, within DP and CP."),
    size("--microbatch", help="Sequences at once."),
    click.option(
        "--sharding", type=click.Choice(list(SHARDINGS)), metavar="KIND", help="none, zero1, zero2, zero3 or fsdp."
    ),
    click.option("--recompute", type=click.Choice(["none", "selective", "full"]), help="Of activations."),
)  # fmt: skip
site_options = options(
    click.option("--node", metavar="ID", shell_complete=complete_node, help="A server of the catalogue: dgx_h100."),
    click.option("--power-limit", type=Measure("W", "power"), metavar="POWER", help="For all nodes, by name plate: 2MW."),
    click.option("--rack-power", type=Measure("W", "power"), metavar="POWER", help="Of one rack; default: 40kW."),
    click.option("--pue", type=Share(5.0, 1.0), metavar="RATIO", help="Facility over IT; default: 1.3."),
    click.option("--price", type=Money(), multiple=True, metavar="[PART=]$", help="Rent of a GPU-hour. Repeatable."),
    click.option("--capital", type=Money(), multiple=True, metavar="[PART=]$", help="Or what a GPU costs with its share of node and network."),
    click.option("--energy-price", type=Money(), metavar="$", help="A kWh."),
    click.option("--price-date", type=Day(), metavar="DAY", help="The day of all these prices: 2026-11-01."),
    click.option("--used", type=Share(), metavar="RATIO", help="Of the hours paid; default: 100% of rented, 70% of bought."),
    click.option("--years", type=Count(), metavar="N", help="In which capital is paid back; default: 4."),
    click.option("--interest", type=Share(), metavar="RATIO", help="A year; default: 8%."),
)  # fmt: skip
network_options = options(
    click.option("--network", type=Measure("B/s", "rate"), metavar="RATE", help="One GPU's share of the ports, one way: 400Gbit/s."),
    click.option("--storage-read", type=Measure("B/s", "rate"), metavar="RATE", help="Of all storage: 100GB/s."),
)  # fmt: skip
run_site_options = options(
    network_options,
    click.option("--storage-write", type=Measure("B/s", "rate"), metavar="RATE", help="Of all storage: 100GB/s."),
    click.option("--restart", type=Measure("s", "time"), metavar="TIME", help="From a failure until work goes on: 10m."),
    click.option("--gpu-hours-per-failure", type=Count(), metavar="N", help="Measured at your site; default: 50700."),
)  # fmt: skip
output_options = options(
    click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text."),
    click.option("--explain", is_flag=True, help="Each number with its formula and source; rules of thumb, checked."),
    click.option("--ascii/--no-ascii", default=None, help="Only ASCII; default: as the locale says."),
)  # fmt: skip
run_options = options(
    click.option("--tokens", type=Count("tokens"), required=True, metavar="N", help="Of the whole run: 15T, 300B."),
    size("--gpus", help="So many: the answer is a time."),
    click.option("--deadline", type=Measure("s", "time"), metavar="TIME", help="The answer is how many GPUs: 90d. With neither: the fewest that hold it."),
    click.option("--batch", type=Count("tokens"), metavar="N", help="Tokens a step: 16M; default: what is usual for the size."),
    click.option("--dtype", metavar="NAME", help="What products compute in; default: bf16 where the part has it."),
)  # fmt: skip
measured_option = click.option(
    "--measured", type=Measure("tokens/s", "rate"), metavar="RATE",
    help="Tokens/s that all of --gpus do today (of serving: out, at full load), held against what is calculated.",
)  # fmt: skip
