"""``coldaisle size models`` and ``parts``: what the catalogue knows, and from where. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from coldaisle.analyzers.sizing.catalogue import Model, NodeType, models, nodes_of
from coldaisle.analyzers.sizing.kvcache import kv_bytes_per_token
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.parts.catalogue import GIB, Part
from coldaisle.sources.text import plain
from coldaisle.sources.units import NO_VALUE
from coldaisle.tui.figures import number, shown
from coldaisle.tui.size_text import WIDTH, aligned, wrapped
from coldaisle.tui.size_told import model_object, source_words

MODELS_SCHEMA, PARTS_SCHEMA = "coldaisle.size.models/1", "coldaisle.size.parts/1"
_MODEL_COLUMNS = ("model", "params", "active", "layers", "hidden", "heads", "KV/token", "source")
_PART_COLUMNS = ("part", "product", "memory", "GB/s", "bf16", "fp8", "W", "links")


def all_models() -> list[Model]:
    """In the order of the table."""
    return list(models().values())


# --- models -----------------------------------------------------------------------------------------------------------


def model_lines(chosen: Sequence[Model], *, in_full: bool) -> Iterator[str]:
    """A row each; in full a paragraph each."""
    if not in_full:
        rows = [list(_MODEL_COLUMNS), *(_model_row(one) for one in chosen)]
        yield from aligned(rows, [False, *[True] * 6, False], WIDTH)
        yield from wrapped(
            "", "KV/token: bytes a token keeps at 16 bit. coldaisle size models NAME tells the rest.", WIDTH
        )
        return
    for at, one in enumerate(chosen):
        if at:
            yield ""
        yield from wrapped("", one.name, WIDTH)
        for label, words in _model_facts(one):
            yield from wrapped(f"  {label:<20}", words, WIDTH)


def _model_row(one: Model) -> list[str]:
    heads = f"{one.heads}/{one.kv_heads}" if one.heads and one.kv_heads else NO_VALUE
    active = _billions(one.active_params) if one.is_mixture else ""
    return [
        plain(one.name, 26), _billions(one.params), active, _count(one.layers), _count(one.hidden), heads, _kept(one),
        one.status.partition(" ")[0].rstrip(":;,"),
    ]  # fmt: skip


def _billions(params: float) -> str:
    return f"{params / 1e9:.3g}B"


def _count(value: int | None) -> str:
    return NO_VALUE if value is None else str(value)


def _kept(one: Model) -> str:
    try:
        return shown(kv_bytes_per_token(one).value, "bytes")
    except SizingError:
        return NO_VALUE


def _model_facts(one: Model) -> Iterator[tuple[str, str]]:
    yield (
        "parameters",
        f"{one.params:,.0f}" + (f", {one.active_params:,.0f} active" if one.is_mixture else ""),
    )
    shape = (
        ("layers", one.layers), ("hidden", one.hidden), ("heads", one.heads), ("KV heads", one.kv_heads),
        ("head", one.head_dim), ("MLP", one.ffn), ("vocabulary", one.vocab), ("experts", one.experts),
        ("experts a token", one.experts_active),
    )  # fmt: skip
    yield "shape", ", ".join(f"{name} {size:,}" for name, size in shape if size is not None) or "not known"
    yield "attention", one.attention or "not told"
    if one.window_layers and one.window:
        yield "window", f"{one.window_layers} layers see {one.window:,} tokens"
    if one.kv_layers is not None and one.kv_layers != one.layers:
        yield "layers with KV", str(one.kv_layers)
    yield "KV a token, 16 bit", _kept(one)
    if one.stored != "bf16":
        yield "published in", one.stored
    yield "source", one.status or "not told"
    if one.note:
        yield "note", one.note


def models_object(chosen: Sequence[Model]) -> dict[str, Any]:
    """Counts, bytes; null for what is not known."""
    return {"schema": MODELS_SCHEMA, "models": [model_object(one) for one in chosen]}


# --- parts ------------------------------------------------------------------------------------------------------------


def part_lines(chosen: Sequence[Part], *, in_full: bool) -> Iterator[str]:
    """A row each; in full a paragraph each."""
    if not in_full:
        rows = [list(_PART_COLUMNS), *(_part_row(one) for one in chosen)]
        yield from aligned(rows, [False, False, *[True] * 6], WIDTH)
        words = "bf16 and fp8: dense TFLOP/s. coldaisle size parts NAME tells the rest, and from where."
        yield from wrapped("", words, WIDTH)
        return
    for at, one in enumerate(chosen):
        if at:
            yield ""
        yield from wrapped("", f"{one.id}: {one.vendor} {one.product}", WIDTH)
        for label, words in _part_facts(one):
            yield from wrapped(f"  {label:<20}", words, WIDTH)


def _part_row(one: Part) -> list[str]:
    return [
        one.id, plain(one.product, 20), f"{one.memory_bytes / GIB:.0f}G", _number(one.bandwidth / 1e9),
        _number(one.peak("bf16") / 1e12), _number(one.peak("fp8") / 1e12), _number(one.power_w),
        f"{one.scaleup_gpus}" if one.scaleup_gpus > 1 else NO_VALUE,
    ]  # fmt: skip


def _number(value: float) -> str:
    return NO_VALUE if math.isnan(value) else f"{value:.0f}"


def _part_facts(one: Part) -> Iterator[tuple[str, str]]:
    yield "form", one.form
    told = "as the driver reports it" if one.memory_is_reported else "as sold"
    yield (
        "memory",
        f"{shown(one.memory_bytes, 'bytes')} {one.memory_kind}, {told}; {shown(one.bandwidth, 'bytes/s')}",
    )
    yield "dense", ", ".join(f"{dtype} {shown(rate, 'flop/s')}" for dtype, rate in one.flops.items())
    if one.measured_flops:
        best = (
            f"{dtype} {shown(rate, 'flop/s')}"
            + ("" if math.isnan(share := one.matmul_share(dtype)) else f" ({share:.0%})")
            for dtype, rate in one.measured_flops.items()
        )
        yield "best product", ", ".join(best)
    if one.scaleup_gpus > 1:
        rate = "" if math.isnan(one.scaleup) else f", {shown(one.scaleup, 'bytes/s')} one way"
        yield "links", f"{one.scaleup_kind}: {one.scaleup_gpus} GPUs{rate}"
    else:
        yield "links", f"none of its own; PCIe {number(one.pcie_generation)}"
    yield "power", shown(one.power_w, "W")
    for node in nodes_of(one):
        yield "node", _node_words(node)
    yield "source", source_words(";".join(one.sources)) or "not told"
    if one.remembered:
        yield "not read again", ", ".join(one.remembered)
    if one.notes:
        yield "note", one.notes


def _node_words(node: NodeType) -> str:
    measured = "" if math.isnan(node.measured_power_w) else f", measured {shown(node.measured_power_w, 'W')}"
    plate = "" if math.isnan(node.power_w) else f", {shown(node.power_w, 'W')} by name plate"
    ports = "" if math.isnan(node.network) else f", {shown(node.network, 'bytes/s')} of network"
    return f"{node.id} ({node.system}): {node.gpus} GPUs{plate}{measured}{ports}"


def parts_object(chosen: Sequence[Part]) -> dict[str, Any]:
    """Flop/s dense, bytes, bytes/s one way, W; null for what is not known."""
    return {"schema": PARTS_SCHEMA, "parts": [_part_object(one) for one in chosen]}


def _part_object(one: Part) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key in one.__dataclass_fields__:
        value = getattr(one, key)
        made[key] = dict(value) if isinstance(value, Mapping) else _plain(value)
    made["sources"] = [source_words(key) for key in one.sources]
    made["nodes"] = [{key: _plain(value) for key, value in asdict(node).items()} for node in nodes_of(one)]
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    return list(value) if isinstance(value, tuple) else value
