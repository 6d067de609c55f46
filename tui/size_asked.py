"""What was typed after ``coldaisle size``, made into tasks; the formulas are imported when they are needed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import click

from coldaisle.sources.errors import SizingError
from coldaisle.tui.size_words import SHARDINGS, parts_named

if TYPE_CHECKING:
    from coldaisle.analyzers.sizing.catalogue import Model
    from coldaisle.analyzers.sizing.flops import Method, Recompute
    from coldaisle.analyzers.sizing.layout import Sharding
    from coldaisle.analyzers.sizing.power import Prices
    from coldaisle.analyzers.sizing.search import Spread
    from coldaisle.analyzers.sizing.tasks import Place, Service, Task
    from coldaisle.sources.parts.catalogue import Part

_MOST_PARAMETERS = 1e15
_MOST_SIZES = {
    "layers": 10_000, "kv_layers": 10_000, "hidden": 2**20, "heads": 2**16, "kv_heads": 2**16, "head_dim": 2**16, "ffn": 2**24,
    "vocab": 10**8, "experts": 10**5, "experts_active": 10**5,
}  # fmt: skip
_LOOSE = 1.1
_SHAPE = (
    "layers",
    "kv_layers",
    "hidden",
    "heads",
    "kv_heads",
    "head_dim",
    "ffn",
    "vocab",
    "experts",
    "experts_active",
)


def service_of(given: Mapping[str, Any]) -> Service:
    """A load that is served. Errors: SizingError for what means nothing."""
    from coldaisle.analyzers.sizing.plan_serving import Request
    from coldaisle.analyzers.sizing.tasks import Service

    told = {
        key: given[key] for key in ("rate", "users", "ttft", "itl", "max_model_len") if given[key] is not None
    }
    served = model(given)
    request = Request(
        served, given["isl"], given["osl"], dtype=given["dtype"] or served.stored, kv_dtype=given["kv_dtype"],
        tensor=given["tensor"], pipeline=given["pipeline"], replicas=given["replicas"], memory_share=given["memory_share"],
        batched_tokens=given["batched_tokens"], max_running=given["max_running"], margin=given["margin"], **told,
    )  # fmt: skip
    return Service(request, given["gpus"])


def run_of(given: Mapping[str, Any], method: Method | None) -> Task:
    """Training, or with a method fine-tuning."""
    from coldaisle.analyzers.sizing.tasks import Run

    return Run(
        model(given), given["tokens"], given["seq"], given["gpus"], given["deadline"], given["batch"],
        given["dtype"] and given["dtype"].strip().casefold(), _spread(given), method, given.get("rank") or 16,
    )  # fmt: skip


def _spread(given: Mapping[str, Any]) -> Spread:
    from coldaisle.analyzers.sizing.search import SIZES, Spread

    return Spread(
        sharding=cast("Sharding | None", SHARDINGS.get(given["sharding"] or "")),
        recompute=cast("Recompute | None", given["recompute"]),
        **{name: given[name] for name in SIZES},
    )


def model(given: Mapping[str, Any]) -> Model:
    """The model of a name, a file or numbers; numbers beside a name say otherwise than it. Errors: SizingError."""
    name, params, active = given["model"], given["params"], given["active_params"]
    if name is None and params is None:
        raise click.UsageError("which model? --model NAME, --model config.json, or --params 70B")
    shape = {field: given[field] for field in _SHAPE if given[field] is not None}
    if params is not None and params > _MOST_PARAMETERS:
        raise SizingError(f"{params:g} parameters; at most {_MOST_PARAMETERS:g} are sized")
    _check_sizes(shape)
    if name is None:
        from coldaisle.analyzers.sizing.catalogue import Model as Shape

        _check_shape(shape)
        return _checked(Shape(_words(params), params, active or params, status="told", **_filled(shape)))
    known = model_of(name)
    if not shape and params is None and active is None:
        return known
    params = params or known.params
    active = active or (known.active_params if known.is_mixture else params)
    told = {"kv_layers": _keeping(known, shape.get("layers")), **shape}
    altered = replace(
        known, name=f"{known.name}, altered", params=params, active_params=active, kv_bytes_per_token=math.nan,
        status=f"told; the rest: {known.status}", **told,
    )  # fmt: skip
    return _checked(altered)


def _keeping(known: Model, layers: int | None) -> int | None:
    """Layers that keep keys and values where the number of layers is another: a hybrid's share of them stays."""
    if layers is None or known.kv_layers is None or not known.layers:
        return layers or known.kv_layers
    return max(round(known.kv_layers * layers / known.layers), min(known.kv_layers, 1))


def _filled(shape: Mapping[str, int]) -> dict[str, Any]:
    """What follows from the numbers that were told."""
    filled: dict[str, Any] = dict(shape)
    if "layers" in shape:
        filled.setdefault("kv_layers", shape["layers"])
    if "heads" in shape:
        filled.setdefault("kv_heads", shape["heads"])
        if "hidden" in shape:
            filled.setdefault("head_dim", max(shape["hidden"] // shape["heads"], 1))
    return filled


def _check_sizes(shape: Mapping[str, int]) -> None:
    for field, most in _MOST_SIZES.items():
        if shape.get(field, 0) > most:
            raise SizingError(f"--{field.replace('_', '-')} {shape[field]:,}; at most {most:,} are sized")


def _checked(made: Model) -> Model:
    """The same, unless its attention alone has more parameters than it. Errors: SizingError."""
    from coldaisle.analyzers.sizing.weights import attention_params

    if not (made.layers and made.hidden and made.heads and made.head_dim) or made.is_mla:
        return made
    least = attention_params(made) * (made.attending_layers or 0) / made.layers
    if least > _LOOSE * made.params:
        raise SizingError(
            f"{made.layers} layers with {made.heads} heads of {made.head_dim} and a hidden size of {made.hidden:,} have "
            f"{least:.3g} parameters for attention alone, of {made.params:.3g} that were told",
            "correct --params, or the shape",
        )
    return made


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
    if shape.get("kv_layers", 0) > shape.get("layers", math.inf):
        raise SizingError(
            f"{shape['kv_layers']} layers keep keys and values, of {shape['layers']}",
            "swap --layers and --kv-layers?",
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


def model_of(name: str) -> Model:
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


def place_of(given: Mapping[str, Any]) -> Place:
    """Site and prices."""
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
        usual = 1.0 if "gpu_hour" in prices else 0.7
        used = usual if given["used"] is None else given["used"]
        made[part] = Prices(given["price_date"], utilisation=used, **prices, **more)
    return made


def parts_of(given: Mapping[str, Any], place: Place) -> list[Part]:
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


def measured_of(given: Mapping[str, Any]) -> float | None:
    """Tokens/s that were measured, None where none are told. Errors: UsageError without the part and how many did it."""
    measured: float | None = given["measured"]
    if measured is None:
        return None
    if len(given["part"]) != 1 or "," in given["part"][0] or given["part"][0] == "all":
        raise click.UsageError("--measured: on which part? one --part")
    if given["gpus"] is None and given.get("replicas") is None:
        raise click.UsageError("--measured: by how many GPUs? --gpus")
    return measured
