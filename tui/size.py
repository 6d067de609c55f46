"""``coldaisle size``: what is asked on the command line, made into tasks; the formulas are imported when they are needed."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from coldaisle.sources.errors import SizingError
from coldaisle.tui.size_words import (
    SHARDINGS,
    Count,
    Day,
    Measure,
    Money,
    Share,
    Whole,
    complete_format,
    complete_model,
    complete_node,
    complete_part,
    parts_named,
)

if TYPE_CHECKING:
    from coldaisle.analyzers.sizing.catalogue import Model
    from coldaisle.analyzers.sizing.flops import Method, Recompute
    from coldaisle.analyzers.sizing.layout import Sharding
    from coldaisle.analyzers.sizing.power import Prices
    from coldaisle.analyzers.sizing.tasks import Place, Spread, Task
    from coldaisle.sources.parts.catalogue import Part

Command = TypeVar("Command", bound=Callable[..., Any])
OK, FITS_NOWHERE = 0, 2
"""Exit statuses; bad usage is 3, as everywhere."""
_MOST_PARAMETERS = 1e15
_SHAPE = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "experts", "experts_active")


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in their order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _size(*names: str, help: str) -> Callable[[Command], Command]:
    return click.option(*names, type=Whole(), metavar="N", help=help)


_model_options = _options(
    click.option(
        "--model", metavar="NAME|FILE", shell_complete=complete_model,
        help="One of `coldaisle size models`, or a config.json as Hugging Face has them.",
    ),
    click.option("--params", type=Count(), metavar="N", help="Parameters instead: 70B, 70e9. The shape, as far as known:"),
    click.option("--active-params", type=Count(), metavar="N", help="Of a mixture of experts, those of one token."),
    _size("--layers", help="Layers."),
    _size("--hidden", help="Hidden size."),
    _size("--heads", help="Attention heads."),
    _size("--kv-heads", help="Heads of keys and values (GQA)."),
    _size("--head-dim", help="Of one head; default: hidden/heads."),
    _size("--ffn", help="Width of one MLP, or of one expert."),
    _size("--vocab", help="Tokens of the vocabulary."),
    _size("--experts", help="Experts a layer."),
    _size("--experts-active", help="Of them those of one token."),
)  # fmt: skip
_part_option = click.option(
    "--part", "part", multiple=True, metavar="ID[,ID...]", shell_complete=complete_part,
    help="Of `coldaisle size parts`; repeatable; 'all'. Default: some common ones are compared.",
)  # fmt: skip
_layout_options = _options(
    _size("--tp", "tensor", help="Tensor parallelism; default of all layouts: what is best."),
    _size("--pp", "pipeline", help="Pipeline stages."),
    _size("--dp", "data", help="Data parallelism."),
    _size("--cp", "context", help="Context parallelism."),
    _size("--microbatch", help="Sequences at once."),
    click.option(
        "--sharding", type=click.Choice(list(SHARDINGS)), metavar="KIND", help="none, zero1, zero2, zero3 or fsdp."
    ),
    click.option("--recompute", type=click.Choice(["none", "selective", "full"]), help="Of activations."),
)  # fmt: skip
_site_options = _options(
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
_run_site_options = _options(
    click.option("--network", type=Measure("B/s", "rate"), metavar="RATE", help="One GPU's share of the ports, one way: 400Gbit/s."),
    click.option("--storage-write", type=Measure("B/s", "rate"), metavar="RATE", help="Of all storage: 100GB/s."),
    click.option("--storage-read", type=Measure("B/s", "rate"), metavar="RATE", help="The same."),
    click.option("--restart", type=Measure("s", "time"), metavar="TIME", help="From a failure until work goes on: 10m."),
    click.option("--gpu-hours-per-failure", type=Count(), metavar="N", help="Measured at your site; default: 50700."),
)  # fmt: skip
_output_options = _options(
    click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text."),
    click.option("--explain", is_flag=True, help="Each number with its formula and source; rules of thumb, checked."),
    click.option("--ascii/--no-ascii", default=None, help="Only ASCII; default: as the locale says."),
)  # fmt: skip
_run_options = _options(
    click.option("--tokens", type=Count("tokens"), required=True, metavar="N", help="Of the whole run: 15T, 300B."),
    _size("--gpus", help="So many: the answer is a time."),
    click.option("--deadline", type=Measure("s", "time"), metavar="TIME", help="The answer is how many GPUs: 90d. With neither: the fewest that hold it."),
    click.option("--batch", type=Count("tokens"), metavar="N", help="Tokens a step: 16M; default: what is usual for the size."),
    click.option("--dtype", metavar="NAME", help="What products compute in; default: bf16 where the part has it."),
)  # fmt: skip


@click.command(short_help="Training from the beginning.")
@_model_options
@_run_options
@click.option(
    "--seq", type=Whole(), metavar="N", default="8192", show_default=True, help="Tokens of a sequence."
)
@_part_option
@_layout_options
@_site_options
@_run_site_options
@_output_options
def train(**given: Any) -> int:
    """How many GPUs train a model in a time, or how long so many take.

    \b
    coldaisle size train --model llama-3.1-405b --tokens 15T --deadline 90d
    coldaisle size train --model llama-3-8b --tokens 1T --part h100_sxm --gpus 256
    coldaisle size train --params 70B --layers 80 --hidden 8192 --tokens 2T \\
      --part h100_sxm,b200_sxm --gpus 1024 --tp 8 --pp 4

    With neither --gpus nor --deadline: the fewest GPUs that hold the model. Exit status: 0 it can be done with one of
    the parts, 2 with none (what binds is said), 3 bad usage.
    """
    return _answer("train", given, _run_of(given, None))


@click.command(short_help="Fine-tuning: full, LoRA or QLoRA.")
@_model_options
@_run_options
@click.option("--method", type=click.Choice(["full", "lora", "qlora"]), default="lora", show_default=True)
@click.option("--rank", type=Whole(), metavar="N", default="16", show_default=True, help="Of the adapters.")
@click.option(
    "--seq", type=Whole(), metavar="N", default="4096", show_default=True, help="Tokens of a sequence."
)
@_part_option
@_layout_options
@_site_options
@_run_site_options
@_output_options
def finetune(**given: Any) -> int:
    """How many GPUs fine-tune a model in a time, or how long so many take; --tokens counts all epochs.

    \b
    coldaisle size finetune --model llama-3.3-70b --tokens 500M
    coldaisle size finetune --model llama-3.1-8b --method full --tokens 2B --part l40s,h100_sxm --deadline 1d

    With neither --gpus nor --deadline: the fewest GPUs that hold the model. Exit status: 0 it can be done with one of
    the parts, 2 with none (what binds is said), 3 bad usage.
    """
    return _answer("finetune", given, _run_of(given, given["method"]))


@click.command(short_help="Serving: users or a rate, with goals for latency.")
@_model_options
@click.option("--users", type=Count(), metavar="N", help="Who each wait for an answer, then ask again.")
@click.option(
    "--rate",
    type=Measure("/s", "rate"),
    metavar="N",
    help="Or requests/s that arrive. With neither: one replica.",
)
@click.option(
    "--isl", type=Count("tokens"), metavar="N", default="2000", show_default=True, help="Tokens in."
)
@click.option(
    "--osl", type=Count("tokens"), metavar="N", default="300", show_default=True, help="Tokens out."
)
@click.option(
    "--ttft", type=Measure("s", "time"), metavar="TIME", help="Goal for the time to first token: 500ms."
)
@click.option(
    "--itl", type=Measure("s", "time"), metavar="TIME", help="Goal for the time between tokens: 50ms."
)
@click.option(
    "--dtype",
    metavar="NAME",
    shell_complete=complete_format,
    help="Format of the weights: fp8, int4, mxfp4, ...; default: as they are published, else bf16.",
)
@click.option(
    "--kv-dtype", metavar="NAME", default="auto", show_default=True, help="Of keys and values: fp8, ..."
)
@_part_option
@_size("--gpus", help="So many; default: the fewest that do it.")
@_size("--tp", "tensor", help="Tensor parallelism; default of all layouts: what is best.")
@_size("--pp", "pipeline", help="Pipeline stages.")
@_size("--replicas", help="Copies of the model.")
@click.option(
    "--margin", type=Share(10.0), metavar="RATIO", default="15%", show_default=True, help="On the load, once."
)
@click.option(
    "--memory-share",
    type=Share(),
    metavar="RATIO",
    default="90%",
    show_default=True,
    help="Of a GPU's memory, the engine's.",
)
@click.option(
    "--max-model-len", type=Count("tokens"), metavar="N", help="The longest request that is accepted."
)
@click.option(
    "--max-running",
    type=Whole(),
    metavar="N",
    default="2048",
    show_default=True,
    help="Requests at once, the engine's limit.",
)
@click.option(
    "--batched-tokens",
    type=Count("tokens"),
    metavar="N",
    default="8192",
    show_default=True,
    help="The most that a step takes in.",
)
@_site_options
@_output_options
def serve(**given: Any) -> int:
    """How many GPUs serve so many users or requests/s, in which layout, how fast.

    \b
    coldaisle size serve --model llama-3.3-70b --users 200 --itl 50ms
    coldaisle size serve --model ./config.json --rate 20 --isl 4k --osl 500 --dtype fp8 \\
      --part h100_sxm,h200_sxm --price h100_sxm=2.35 --price h200_sxm=2.9 --price-date 2026-11-01
    coldaisle size serve --params 13B --layers 40 --hidden 5120 --heads 40 --part l40s --gpus 2

    Exit status: 0 it can be done with one of the parts, 2 with none (what binds is said), 3 bad usage.
    """  # fmt: skip
    from coldaisle.analyzers.sizing.plan_serving import Request
    from coldaisle.analyzers.sizing.tasks import Service

    told = {
        key: given[key] for key in ("rate", "users", "ttft", "itl", "max_model_len") if given[key] is not None
    }
    model = _model(given)
    request = Request(
        model, given["isl"], given["osl"], dtype=given["dtype"] or model.stored, kv_dtype=given["kv_dtype"],
        tensor=given["tensor"], pipeline=given["pipeline"], replicas=given["replicas"], memory_share=given["memory_share"],
        batched_tokens=given["batched_tokens"], max_running=given["max_running"], margin=given["margin"], **told,
    )  # fmt: skip
    return _answer("serve", given, Service(request, given["gpus"]))


@click.command(short_help="Models of the catalogue, with their sources.")
@click.argument("names", nargs=-1, shell_complete=complete_model)
@_output_options
def models(names: tuple[str, ...], as_json: bool, explain: bool, ascii: bool | None) -> int:
    """Models of the catalogue with their sources; of NAMES all that is known.

    \b
    coldaisle size models
    coldaisle size models deepseek-v3 ./config.json
    """
    from coldaisle.tui import size_catalogue

    chosen = [_model_of(name) for name in names] or size_catalogue.all_models()
    if as_json:
        return _print_json(size_catalogue.models_object(chosen))
    return _print(size_catalogue.model_lines(chosen, in_full=bool(names) or explain), ascii)


@click.command(short_help="Parts of the catalogue, with their sources.")
@click.argument("names", nargs=-1, shell_complete=complete_part)
@_output_options
def parts(names: tuple[str, ...], as_json: bool, explain: bool, ascii: bool | None) -> int:
    """Parts of the catalogue with their sources; of NAMES all that is known, with the nodes that hold them.

    \b
    coldaisle size parts
    coldaisle size parts h100_sxm,mi300x
    """
    from coldaisle.tui import size_catalogue

    chosen = parts_named(names, ("all",))
    if as_json:
        return _print_json(size_catalogue.parts_object(chosen))
    return _print(size_catalogue.part_lines(chosen, in_full=bool(names) or explain), ascii)


COMMANDS: Mapping[str, click.Command] = {
    "train": train, "finetune": finetune, "serve": serve, "models": models, "parts": parts,
}  # fmt: skip


# --- what is asked ----------------------------------------------------------------------------------------------------


def _run_of(given: Mapping[str, Any], method: Method | None) -> Task:
    from coldaisle.analyzers.sizing.tasks import Run

    return Run(
        _model(given), given["tokens"], given["seq"], given["gpus"], given["deadline"], given["batch"],
        given["dtype"] and given["dtype"].strip().casefold(), _spread(given), method, given.get("rank") or 16,
    )  # fmt: skip


def _spread(given: Mapping[str, Any]) -> Spread:
    from coldaisle.analyzers.sizing.tasks import Spread

    sharding = SHARDINGS.get(given["sharding"] or "")
    return Spread(
        given["tensor"], given["pipeline"], given["data"], given["context"], given["microbatch"],
        cast("Sharding | None", sharding), cast("Recompute | None", given["recompute"]),
    )  # fmt: skip


def _model(given: Mapping[str, Any]) -> Model:
    """The model of a name, a file or numbers; numbers beside a name say otherwise than it. Errors: SizingError."""
    name, params, active = given["model"], given["params"], given["active_params"]
    if name is None and params is None:
        raise click.UsageError("which model? --model NAME, --model config.json, or --params 70B")
    shape = {field: given[field] for field in _SHAPE if given[field] is not None}
    if params is not None and params > _MOST_PARAMETERS:
        raise SizingError(f"{params:g} parameters; at most {_MOST_PARAMETERS:g} are sized")
    if name is None:
        from coldaisle.analyzers.sizing.catalogue import Model as Shape

        _check_shape(shape)
        return Shape(_words(params), params, active or params, status="told", **_filled(shape))
    known = _model_of(name)
    if not shape and params is None and active is None:
        return known
    params = params or known.params
    active = active or (known.active_params if known.is_mixture else params)
    told = {**shape, "kv_layers": shape.get("layers", known.kv_layers)}
    return replace(
        known, name=f"{known.name}, altered", params=params, active_params=active, kv_bytes_per_token=math.nan,
        status=f"told; the rest: {known.status}", **told,
    )  # fmt: skip


def _filled(shape: Mapping[str, int]) -> dict[str, Any]:
    """What follows from the numbers that were told."""
    filled: dict[str, Any] = dict(shape)
    if "layers" in shape:
        filled["kv_layers"] = shape["layers"]
    if "heads" in shape:
        filled.setdefault("kv_heads", shape["heads"])
        if "hidden" in shape:
            filled.setdefault("head_dim", max(shape["hidden"] // shape["heads"], 1))
    return filled


def _check_shape(shape: Mapping[str, int]) -> None:
    hidden, heads = shape.get("hidden"), shape.get("heads")
    if hidden and heads and "head_dim" not in shape and hidden % heads:
        raise SizingError(
            f"a hidden size of {hidden:,} does not divide over {heads} heads",
            "correct one, or tell --head-dim",
        )
    if "kv_heads" in shape and heads and shape["kv_heads"] > heads:
        raise SizingError(
            f"{shape['kv_heads']} KV heads are more than the {heads} heads that share them", "swap them?"
        )
    if shape.get("experts_active", 0) > shape.get("experts", math.inf):
        raise SizingError(
            f"{shape['experts_active']} active experts of {shape['experts']}",
            "at most all of them are active",
        )


def _words(params: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if params >= size:
            return f"{params / size:.4g}{letter} parameters"
    return f"{params:,.0f} parameters"


def _model_of(name: str) -> Model:
    """Of a file, where it looks like one or is one, else of the catalogue."""
    from coldaisle.analyzers.sizing.catalogue import model_named

    if (
        name.endswith(".json")
        or (os.sep in name.strip() and not _is_repository(name))
        or os.path.exists(name)
    ):
        from coldaisle.analyzers.sizing.hfconfig import model_from_config

        return model_from_config(name)
    return model_named(name.rpartition("/")[2] if _is_repository(name) else name)


def _is_repository(name: str) -> bool:
    """``meta-llama/Llama-3.1-8B``, where there is no such path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not os.path.exists(name)


def _place(given: Mapping[str, Any]) -> Place:
    from coldaisle.analyzers.sizing.catalogue import node_named
    from coldaisle.analyzers.sizing.site import Site
    from coldaisle.analyzers.sizing.tasks import Place

    fields = {
        "network": "network", "storage_write": "storage_write", "storage_read": "storage_read", "restart": "restart_s",
        "gpu_hours_per_failure": "gpu_hours_per_failure", "power_limit": "power_limit_w", "rack_power": "rack_w", "pue": "pue",
    }  # fmt: skip
    told = {field: given[key] for key, field in fields.items() if given.get(key) is not None}
    node = node_named(given["node"]) if given["node"] else None
    return Place(Site(node=node, **told), _prices(given))


def _prices(given: Mapping[str, Any]) -> dict[str, Prices]:
    """By id of a part; of all others under the empty one. Errors: SizingError without a day."""
    from coldaisle.analyzers.sizing.catalogue import part_named
    from coldaisle.analyzers.sizing.power import Prices

    energy = given["energy_price"]
    if energy and energy[0]:
        raise SizingError("energy costs the same whatever the part", "write --energy-price 0.12")
    told: dict[str, dict[str, float]] = {}
    for key, field in (("price", "gpu_hour"), ("capital", "gpu_capital")):
        for name, amount in given[key]:
            told.setdefault(part_named(name).id if name else "", {})[field] = amount
    if energy:
        told = {part: {**prices, "energy_kwh": energy[1]} for part, prices in (told or {"": {}}).items()}
    if not told:
        return {}
    if not given["price_date"]:
        raise SizingError(
            "a price needs its day, for prices drift by the month", "add --price-date 2026-11-01"
        )
    more = {key: given[key] for key in ("years", "interest") if given[key] is not None}
    made = {}
    for part, prices in told.items():
        if len({"gpu_hour", "gpu_capital"} & set(prices)) > 1:
            raise SizingError(f"{part or 'a part'} is both rented and bought", "give --price or --capital")
        used = given["used"] or (1.0 if "gpu_hour" in prices else 0.7)
        made[part] = Prices(given["price_date"], utilisation=used, **prices, **more)
    return made


def _parts(given: Mapping[str, Any], place: Place) -> list[Part]:
    """Those that are named, else the one of the node, else common ones. Errors: SizingError for prices of none of them."""
    from coldaisle.analyzers.sizing.comparison import COMMON

    default = (place.site.node.part,) if place.site.node else COMMON
    chosen = parts_named(given["part"], default)
    ids = {part.id for part in chosen}
    for priced in place.prices:
        if priced and priced not in ids:
            raise SizingError(
                f"{priced} has a price and is not compared", f"add --part {priced}, or leave the price out"
            )
    return chosen


# --- the answer -------------------------------------------------------------------------------------------------------


def _answer(kind: str, given: Mapping[str, Any], task: Task) -> int:
    from coldaisle.analyzers.sizing.comparison import compared, merit_of, ranked
    from coldaisle.tui.size_told import Told, as_object

    place = _place(given)
    options = compared(lambda part: task.plan(part, place), _parts(given, place))
    merit = merit_of(options, number_matters=task.is_number_asked)
    told = Told(kind, task, place, options, ranked(options, merit), merit)
    if given["as_json"]:
        _print_json(as_object(told))
    else:
        from coldaisle.tui.size_text import text_lines

        _print(text_lines(told, explain=given["explain"]), given["ascii"])
    return FITS_NOWHERE if told.best is None else OK


def _print_json(made: Mapping[str, Any]) -> int:
    import json

    click.echo(json.dumps(made, indent=1, allow_nan=False))
    return OK


def _print(lines: Any, ascii_only: bool | None) -> int:
    from coldaisle.tui.capabilities import writes_utf8
    from coldaisle.tui.size_text import inert

    is_ascii = not writes_utf8(os.environ, sys.stdout) if ascii_only is None else ascii_only
    if not is_ascii:
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    click.echo("\n".join(inert(line, ascii_only=is_ascii) for line in lines))
    return OK
