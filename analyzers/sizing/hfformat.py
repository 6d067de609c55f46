"""The format that a checkpoint's weights are stored in, by the ``quantization_config`` of its config.json. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from coldaisle.analyzers.sizing.hfkeys import Keys

SIXTEEN_BIT = "bf16"
_NAMED = {
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "mxfp4": "mxfp4",
    "modelopt_fp4": "fp4",
    "nvfp4": "fp4",
}
_BY_BITS = {(4, "int"): "int4", (8, "int"): "int8", (8, "float"): "fp8", (4, "float"): "fp4"}


def stored_format(keys: Keys) -> str:
    """A name of :data:`~coldaisle.analyzers.sizing.weights.FORMATS`: bf16 where nothing is quantised; empty: quantised otherwise."""
    told = _quantisation(keys)
    if told is None:
        return SIXTEEN_BIT
    for key in ("quant_method", "quant_algo"):
        if found := _NAMED.get(str(told.get(key, "")).casefold()):
            return found
    weights = _first_group(told).get("weights", told)
    bits = weights.get("num_bits", weights.get("bits")) if isinstance(weights, dict) else None
    kind = "float" if isinstance(weights, dict) and weights.get("type") == "float" else "int"
    if bits is None and told.get("quant_method") == "bitsandbytes":
        bits = 4 if told.get("load_in_4bit") is True else 8
    return _BY_BITS.get((bits, kind), "") if isinstance(bits, int) else ""


def _quantisation(keys: Keys) -> dict[str, Any] | None:
    for name in ("quantization_config", "compression_config"):
        for level in (keys.own, keys.outer):
            if name in level and (told := _object(bytes(level[name]))):
                return told
    return None


def _first_group(told: dict[str, Any]) -> dict[str, Any]:
    """Of compressed-tensors and ModelOpt, which quantise groups of layers each its way; nearly always there is one."""
    groups = told.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    return first if isinstance(first, dict) else {}


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
