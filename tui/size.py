"""``coldaisle size``: its commands, and how an answer is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from coldaisle.tui.size_asked import measured_of, model_of, parts_of, place_of, run_of, service_of
from coldaisle.tui.size_options import (
    layout_options,
    measured_option,
    model_options,
    network_options,
    output_options,
    part_option,
    run_options,
    run_site_options,
    site_options,
    size,
)
from coldaisle.tui.size_progress import counting
from coldaisle.tui.size_words import (
    Count,
    Measure,
    Share,
    Whole,
    complete_format,
    complete_model,
    complete_part,
    parts_named,
)

if TYPE_CHECKING:
    from coldaisle.analyzers.sizing.sheet import Sheet
    from coldaisle.analyzers.sizing.tasks import Place, Task
    from coldaisle.sources.parts.catalogue import Part

OK, FITS_NOWHERE = 0, 2
"""Exit statuses; bad usage is 3, as everywhere."""


@click.command(short_help="Training from the beginning.")
@model_options
@run_options
@click.option(
    "--seq", type=Whole(), metavar="N", default="8192", show_default=True, help="Tokens of a sequence."
)
@part_option
@layout_options
@site_options
@run_site_options
@measured_option
@output_options
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
    return _answer("train", given, run_of(given, None))


@click.command(short_help="Fine-tuning: full, LoRA or QLoRA.")
@model_options
@run_options
@click.option("--method", type=click.Choice(["full", "lora", "qlora"]), default="lora", show_default=True)
@click.option("--rank", type=Whole(), metavar="N", default="16", show_default=True, help="Of the adapters.")
@click.option(
    "--seq", type=Whole(), metavar="N", default="4096", show_default=True, help="Tokens of a sequence."
)
@part_option
@layout_options
@site_options
@run_site_options
@measured_option
@output_options
def finetune(**given: Any) -> int:
    """How many GPUs fine-tune a model in a time, or how long so many take; --tokens counts all epochs.

    \b
    coldaisle size finetune --model llama-3.3-70b --tokens 500M
    coldaisle size finetune --model llama-3.1-8b --method full --tokens 2B --part l40s,h100_sxm --deadline 1d

    With neither --gpus nor --deadline: the fewest GPUs that hold the model. Exit status: 0 it can be done with one of
    the parts, 2 with none (what binds is said), 3 bad usage.
    """
    return _answer("finetune", given, run_of(given, given["method"]))


@click.command(short_help="Serving: users or a rate, with goals for latency.")
@model_options
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
@part_option
@size("--gpus", help="So many; default: the fewest that do it.")
@size("--tp", "tensor", help="Tensor parallelism; default of all layouts: what is best.")
@size("--pp", "pipeline", help="Pipeline stages.")
@size("--replicas", help="Copies of the model.")
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
@site_options
@network_options
@measured_option
@output_options
def serve(**given: Any) -> int:
    """How many GPUs serve so many users or requests/s, in which layout, how fast.

    \b
    coldaisle size serve --model llama-3.3-70b --users 200 --itl 50ms
    coldaisle size serve --model ./config.json --rate 20 --isl 4k --osl 500 --dtype fp8 \\
      --part h100_sxm,h200_sxm --price h100_sxm=2.35 --price h200_sxm=2.9 --price-date 2026-11-01
    coldaisle size serve --params 13B --layers 40 --hidden 5120 --heads 40 --part l40s --gpus 2

    Exit status: 0 it can be done with one of the parts, 2 with none (what binds is said), 3 bad usage.
    """  # fmt: skip
    return _answer("serve", given, service_of(given))


@click.command(short_help="Models of the catalogue, with their sources.")
@click.argument("names", nargs=-1, shell_complete=complete_model)
@output_options
def models(names: tuple[str, ...], as_json: bool, explain: bool, ascii: bool | None) -> int:
    """Models of the catalogue with their sources; of NAMES all that is known.

    \b
    coldaisle size models
    coldaisle size models deepseek-v3 ./config.json
    """
    from coldaisle.tui import size_catalogue

    chosen = [model_of(name) for name in names] or size_catalogue.all_models()
    if as_json:
        return _print_json(size_catalogue.models_object(chosen))
    return _print(size_catalogue.model_lines(chosen, in_full=bool(names) or explain), ascii)


@click.command(short_help="Parts of the catalogue, with their sources.")
@click.argument("names", nargs=-1, shell_complete=complete_part)
@output_options
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


# --- the answer -------------------------------------------------------------------------------------------------------


def _answer(kind: str, given: Mapping[str, Any], task: Task) -> int:
    from coldaisle.analyzers.sizing.comparison import compared, merit_of, ranked
    from coldaisle.tui.size_told import Told, as_object

    place = place_of(given)
    parts, measured = parts_of(given, place), measured_of(given)
    with counting(len(parts)) as count:
        options = compared(lambda part: count(part.product, _planned(task, part, place, measured)), parts)
    merit = merit_of(options, number_matters=task.is_number_asked)
    told = Told(kind, task, place, options, ranked(options, merit), merit, measured)
    if given["as_json"]:
        _print_json(as_object(told))
    else:
        from coldaisle.tui.size_text import text_lines

        _print(text_lines(told, explain=given["explain"]), given["ascii"])
    return FITS_NOWHERE if told.best is None else OK


def _planned(task: Task, part: Part, place: Place, measured: float | None) -> Callable[[], Sheet]:
    def plan() -> Sheet:
        sheet = task.plan(part, place)
        if measured is None:
            return sheet
        from coldaisle.analyzers.sizing.checked import checked

        return checked(sheet, measured)

    return plan


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
