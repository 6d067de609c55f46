"""Models and nodes as data, and the names that requests use."""

from __future__ import annotations

import math

import pytest

from coldaisle.analyzers.sizing.catalogue import (
    Model,
    fabric_named,
    model_named,
    models,
    node_named,
    nodes,
    nodes_of,
    part_named,
)
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.parts.catalogue import parts


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Llama-2-7B", "Llama-2-7B"),
        ("llama 3.1 8b", "Llama-3.x-8B"),
        ("Llama-3-70B", "Llama-3.x-70B"),
        ("deepseek-v3", "DeepSeek-V3/R1"),
        ("mixtral 8x7b", "Mixtral-8x7B"),
        ("glm-4.6", "GLM-4.5/4.6"),
        ("qwen3 32b", "Qwen3-32B"),
        ("gpt3", "GPT-3 175B"),
    ],
)
def test_a_model_is_found_whatever_its_case_and_hyphens(name: str, model: str) -> None:
    assert model_named(name).name == model


@pytest.mark.parametrize(
    ("ask", "name", "words"),
    [
        (model_named, "llama-2", "Llama-2-7B or Llama-2-70B"),
        (model_named, "made up", "there is no model made up"),
        (model_named, "", "there is no model"),
        (part_named, "a100", "a100_sxm_40"),
        (part_named, "made up", "there is no part made up"),
        (model_named, "lamma-2-70b", "did you mean Llama-2-70B, "),
        (node_named, "made up", "dgx_h100"),
        (node_named, "dgx_h10", "did you mean dgx_h100"),
        (part_named, "h1000", "h100_"),
        (fabric_named, "made up", "ib_ndr"),
    ],
)
def test_a_name_that_does_not_tell_says_what_would(ask: object, name: str, words: str) -> None:
    assert callable(ask)
    with pytest.raises(SizingError) as raised:
        ask(name)
    assert words in f"{raised.value}; {raised.value.remedy}"


def test_no_more_layers_keep_keys_than_there_are() -> None:
    with pytest.raises(SizingError, match="40 layers keep keys and values, of 32"):
        Model("told", 7e9, 7e9, layers=32, kv_layers=40)


def test_the_server_board_is_meant_where_a_name_says_no_more() -> None:
    assert part_named("H100").id == "h100_sxm"


def test_every_row_says_what_was_read_and_what_is_from_memory() -> None:
    told = {name: row.status for name, row in models().items()} | {
        id_: row.status for id_, row in nodes().items()
    }
    for name, status in told.items():
        assert status.split(" ")[0].rstrip(":;,") in ("read", "mixed", "remembered"), name
        assert not status.startswith("mixed:") or "remembered" in status, name


@pytest.mark.parametrize(
    "sizes",
    [
        {"params": 0.0, "active_params": 0.0},
        {"params": -7e9, "active_params": -7e9},
        {"params": math.inf, "active_params": 1e9},
        {"params": math.nan, "active_params": 1e9},
        {"params": 7e9, "active_params": 8e9},
        {"params": 7e9, "active_params": 7e9, "layers": 0},
        {"params": 7e9, "active_params": 7e9, "heads": 32, "kv_heads": 5},
    ],
)
def test_a_shape_that_means_nothing_is_refused(sizes: dict[str, float]) -> None:
    with pytest.raises(SizingError):
        Model("odd", **sizes)  # type: ignore[arg-type]


def test_what_a_table_does_not_say_is_none() -> None:
    gemma = models()["gemma-4-31B"]
    assert gemma.hidden is None
    assert (gemma.window_layers, gemma.window) == (50, 1024)
    assert models()["DeepSeek-V3/R1"].latent_dim == 576


def test_nodes_name_parts_of_the_catalogue() -> None:
    assert all(node.part in parts() for node in nodes().values())
    assert node_named("DGX H100").network_per_gpu == 50e9
    assert next(node.id for node in nodes_of(parts()["h100_sxm"])) == "dgx_h100"
