"""Layouts: what divides, what contradicts itself, and how long stages wait for each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.analyzers.sizing.catalogue import model_named
from coldaisle.analyzers.sizing.layout import (
    Layout,
    bubble,
    check,
    check_context,
    pipeline_sizes,
    splits_evenly,
    tensor_sizes,
)
from coldaisle.analyzers.sizing.memory import Trained
from coldaisle.analyzers.sizing.search import Candidate, Wish, best, counts, layouts
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.analyzers.sizing.site import Site, machine
from coldaisle.analyzers.sizing.step import unevenness
from coldaisle.sources.parts.catalogue import parts

SMALL, LARGE = model_named("llama-3.1-8b"), model_named("llama-3.1-405b")
H100 = machine(parts()["h100_sxm"], Site())


def test_the_last_stage_has_the_head_too() -> None:
    assert unevenness(SMALL, 1) == 1
    # A head of 525 million weighs as much as 2.4 of 32 layers: other stages take one more.
    assert unevenness(SMALL, 4) == pytest.approx(9 / ((32 + 2.41) / 4), rel=0.01)
    # 126 layers over 16 stages: eight each, and seven beside the head.
    assert unevenness(LARGE, 16) == pytest.approx(8 / ((126 + 0.66) / 16), rel=0.01)


def test_the_bubble_of_a_pipeline() -> None:
    assert bubble(1, 8).value == 0
    assert bubble(8, 32).value == pytest.approx(7 / 39)
    assert bubble(8, 32, 4).value == pytest.approx(7 / 135)


@given(st.integers(1, 64), st.integers(1, 512), st.integers(1, 8))
def test_more_microbatches_never_wait_longer(stages: int, microbatches: int, chunks: int) -> None:
    assert (
        0 <= bubble(stages, microbatches + 1, chunks).value <= bubble(stages, microbatches, chunks).value < 1
    )


def test_degrees_that_a_model_goes_with() -> None:
    assert tensor_sizes(SMALL, 8) == [1, 2, 4, 8]
    assert tensor_sizes(SMALL, 72) == [1, 2, 4, 8, 16, 32]
    assert splits_evenly(LARGE, 16), "126 layers, embedding and head over 16 stages, as Llama 3.1 was trained"
    assert splits_evenly(model_named("deepseek-v3"), 16)
    assert splits_evenly(replace(LARGE, layers=70, kv_layers=70), 12), "as BLOOM was trained"
    assert not splits_evenly(SMALL, 5)
    assert pipeline_sizes(SMALL, 64) == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    ("layout", "gpus", "words"),
    [
        (Layout(8, 4, 3), 64, "96 GPUs, not 64"),
        (Layout(16), None, "wider than the 8 GPUs"),
        (Layout(3), None, "32 heads do not divide over TP 3"),
        (Layout(1, 5), None, "32 layers do not divide over PP 5"),
        (Layout(1, 64), None, "more stages than"),
        (Layout(0), None, "has to be 1 or more"),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(layout: Layout, gpus: int | None, words: str) -> None:
    with pytest.raises(SizingError, match=words):
        check(SMALL, layout, 8, gpus)


def test_a_sequence_divides_over_context_parallel_ranks() -> None:
    check_context(4, 8192)
    with pytest.raises(SizingError, match="does not divide over CP 3"):
        check_context(3, 8192)


@given(st.sampled_from(list(counts(H100, 1024))), st.integers(1, 512))
def test_every_layout_uses_all_gpus_and_the_whole_batch(gpus: int, batch: int) -> None:
    for layout in layouts(Trained(SMALL, 8192), H100, Wish(batch), gpus):
        assert layout.gpus == gpus
        assert layout.batch >= batch
        check(SMALL, layout, 8, gpus, 8192)


def test_the_quickest_layout_fits() -> None:
    found = best(Trained(LARGE, 8192), H100, Wish(2048), 4096)
    assert isinstance(found, Candidate)
    assert found.memory.total <= H100.part.memory_bytes
    assert found.layout.batch == 2048


def test_counts_are_parts_of_a_node_and_whole_nodes() -> None:
    sizes = list(counts(H100, 64))
    assert sizes == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]
