"""Inference servers' pages: what each engine and version says, in the catalog's words; and scraped over real HTTP."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.feed import Feed, at, fed, why
from lab.histograms import cumulative, histograms, plain
from lab.pages import Pages, dcgm_page, line, served

from coldaisle.sources.exporters import ExporterSource
from coldaisle.sources.exposition import parse
from coldaisle.sources.source import (
    Batch,
    GpuFact,
    Kind,
    Missing,
    NodeFact,
    ServerFact,
    ServerRef,
    TargetState,
)
from coldaisle.sources.translation import Translation, translate
from coldaisle.sources.vocabularies import recognise, shipped

QWEN = "Qwen/Qwen3-0.6B"


def compiled(body: bytes) -> Translation:
    page = parse(body)
    words = recognise(page.shape.names, shipped())
    assert words is not None
    return translate(page.shape, words, "n01", endpoint="n01:8000")


def values_of(body: bytes, server: str = "n01:8000") -> dict[str, float]:
    """A server's values, a second after everything on its page was 0; missing ones left out."""
    page, made = parse(body), compiled(body)
    table = made.tables[Kind.SERVER]
    values, _ = made.evaluate(page.values, page.values)[Kind.SERVER]
    row = values[table.entities.index(ServerRef("n01", server))].tolist()
    return {key: value for key, value in zip(table.shown_metrics, row, strict=True) if value == value}


def reasons_of(body: bytes, rates: float = 1.0) -> dict[str, Missing]:
    page, made = parse(body), compiled(body)
    _, reasons = made.evaluate(page.values, page.values * rates)[Kind.SERVER]
    table = made.tables[Kind.SERVER]
    return {key: Missing(int(code)) for key, code in zip(table.shown_metrics, reasons[0], strict=True)}


def page_of(*samples: tuple[str, Mapping[str, str], object]) -> bytes:
    return "".join(line(name, dict(labels), value) for name, labels, value in samples).encode()


def buckets_of(name: str, labels: Mapping[str, str], counts: Mapping[float, float]) -> bytes:
    """A histogram's bucket lines as Python's client writes them."""
    return page_of(*((f"{name}_bucket", {**labels, "le": str(le)}, count) for le, count in counts.items()))


# ---- pages of others


def sample(name: str) -> bytes:
    root = os.environ.get("COLDAISLE_SAMPLES")
    if not root:
        pytest.skip("COLDAISLE_SAMPLES is not set")
    return (Path(root) / "prom" / "inference" / name).read_bytes().rstrip(b"\n") + b"\n"


SAMPLES = [
    (
        "vllm-v0-datadog-2024-06.abridged.prom",
        ("vLLM", "facebook/opt-125m"),
        {
            "serve.kv_usage": 0,
            "serve.kv_capacity": 7281 * 16,
            "serve.running": 0,
            "serve.swapped": 0,
            "serve.preemptions": 0,
            "serve.prompt_tokens": 5,
            "serve.gen_tokens": 7,
            "serve.ttft_p50": 0.375,
            "serve.itl_p50": 0.0375,
            "serve.e2e_p99": 0.99,
            "serve.requests": 1,
        },
    ),
    (
        "fixture-vllm-v0-llmprobe.prom",
        ("vLLM", "llava-hf/llava-1.5-7b-hf"),
        {
            "serve.kv_usage": 0.314,
            "serve.kv_capacity": 102400,
            "serve.kv_used": 32153.6,
            "serve.running": 2,
            "serve.gen_tokens": 18461,
        },
    ),
    (
        "vllm-v1-dynamo-2026-01.abridged.prom",
        ("vLLM", QWEN),
        {
            "serve.kv_usage": 0,
            "serve.prompt_tokens": 66,
            "serve.gen_tokens": 600,
            "serve.ttft_p50": 0.06,
            "serve.ttft_p95": 0.475,
            "serve.itl_p50": 0.00501,
            "serve.e2e_p50": 1.75,
            "serve.queue_p50": 0.15,
            "serve.requests": 2,
            "serve.errors": 0,
            "serve.batch_tokens": 1.11,
        },
    ),
    (
        "fixture-vllm-chimeraforge.prom",
        ("vLLM", "m"),
        {"serve.running": 14, "serve.waiting": 3, "serve.prefix_hit": 0.41, "serve.e2e_p50": 2.3125},
    ),
    (
        "sglang-dynamo-2026-01.abridged.prom",
        ("SGLang", QWEN),
        {
            "serve.kv_usage": 0,
            "serve.kv_capacity": 92962,
            "serve.waiting": 0,
            "serve.preemptions": 0,
            "serve.prompt_tokens": 33,
            "serve.gen_tokens": 300,
            "serve.ttft_p50": 1.5,
            "serve.itl_p50": 0.00276,
            "serve.requests": 1,
        },
    ),
    (
        "fixture-sglang-chimeraforge.prom",
        ("SGLang", "m"),
        {"serve.running": 22, "serve.waiting": 5, "serve.e2e_p50": 2.7069, "serve.e2e_p99": 4},
    ),
    (
        "tgi-datadog.abridged.prom",
        ("TGI", None),
        {"serve.running": 0, "serve.waiting": 0, "serve.requests": 109, "serve.errors": 2},
    ),
    (
        "trtllm-dynamo-2026-01.abridged.prom",
        ("TensorRT-LLM", QWEN),
        {
            "serve.running": 0,
            "serve.ttft_p50": 0.04,
            "serve.itl_p50": 0.005,
            "serve.e2e_p50": 0.9,
            "serve.requests": 2,
        },
    ),
]


@pytest.mark.parametrize(("name", "who", "values"), SAMPLES, ids=[name for name, _, _ in SAMPLES])
def test_real_pages(name: str, who: tuple[str, str | None], values: dict[str, float]) -> None:
    body = sample(name)
    made = compiled(body)
    assert made.vocabulary.server is not None
    assert [(made.vocabulary.server.engine, one.model) for one in made.servers] == [who]
    got = values_of(body)
    assert {key: got[key] for key in values} == pytest.approx(values, abs=1e-5)
    assert got["serve.up"] == 1


@pytest.mark.parametrize(
    ("name", "usage"),
    [("triton-trtllm-README-2025-04.md", 0.4875), ("triton-trtllm-README-2023-12.md", 1 / 6239)],
)
def test_the_manuals_lines_of_triton_with_tensorrt_llm(name: str, usage: float) -> None:
    lines = [one for one in sample(name).decode().splitlines() if re.match(r"nv_\w+\{.*\} \d", one)]
    body = "\n".join(dict.fromkeys(lines)).encode() + b"\n"
    got = values_of(body, "n01:8000 tensorrt_llm")
    assert got["serve.kv_usage"] == pytest.approx(usage)
    assert (got["serve.kv_capacity"], got["serve.kv_used"]) == (6239 * 64, 64)
    assert (got["serve.running"], got["serve.max_running"]) == (1, 512)
    assert got["serve.waiting"] == (1 if "2025" in name else 0)
    assert [one.model for one in compiled(body).servers] == ["tensorrt_llm"]


# ---- names by version


def v1(engine: int, **more: object) -> Mapping[str, str]:
    return {"engine": str(engine), "model_name": QWEN, **{key: str(value) for key, value in more.items()}}


@pytest.mark.parametrize("prefix", ["vllm:", "vllm_", "ray_vllm_", "ray_vllm:"])
@pytest.mark.parametrize("usage", ["gpu_cache_usage_perc", "kv_cache_usage_perc"])
def test_vllm_under_every_name(prefix: str, usage: str) -> None:
    body = page_of(
        (f"{prefix}{usage}", {"model_name": QWEN}, 0.5),
        (f"{prefix}num_requests_running", {"model_name": QWEN}, 3),
        (f"{prefix}cache_config_info", {"num_gpu_blocks": "1000", "block_size": "16"}, 1),
    )
    got = values_of(body)
    assert got == {
        "serve.kv_usage": 0.5,
        "serve.running": 3,
        "serve.kv_capacity": 16000,
        "serve.kv_used": 8000,
        "serve.up": 1,
    }


def test_engines_in_parallel_add_up_and_the_fullest_cache_counts() -> None:
    samples: list[tuple[str, Mapping[str, str], object]] = []
    for engine, usage in ((0, 0.9), (1, 0.1)):
        samples += [
            ("vllm:kv_cache_usage_perc", v1(engine), usage),
            ("vllm:num_requests_running", v1(engine), 10),
            ("vllm:cache_config_info", v1(engine, num_gpu_blocks=100, block_size=10), 1),
            ("vllm:generation_tokens_total", v1(engine), 50),
            ("vllm:request_success_total", v1(engine, finished_reason="stop"), 4),
            ("vllm:request_success_total", v1(engine, finished_reason="length"), 1),
            ("vllm:request_success_total", v1(engine, finished_reason="error"), 2),
        ]
    got = values_of(page_of(*samples))
    assert got["serve.kv_usage"] == 0.9
    assert got["serve.kv_capacity"] == 2000
    assert got["serve.kv_used"] == pytest.approx(1000), "half of it all, not nine tenths"
    assert got["serve.running"] == 20
    assert got["serve.gen_tokens"] == 100
    assert (got["serve.requests"], got["serve.errors"]) == (10, 4)


def test_the_old_name_beside_the_new_one_counts_once() -> None:
    body = page_of(
        ("vllm:prefix_cache_queries_total", v1(0), 100),
        ("vllm:gpu_prefix_cache_queries_total", v1(0), 100),
        ("vllm:prefix_cache_hits_total", v1(0), 25),
        ("vllm:gpu_prefix_cache_hits_total", v1(0), 25),
        ("vllm:kv_cache_usage_perc", v1(0), 0.2),
    )
    both = {0.1: 5.0, 0.2: 10.0, float("inf"): 10.0}
    body += buckets_of("vllm:inter_token_latency_seconds", v1(0), both)
    body += buckets_of("vllm:time_per_output_token_seconds", v1(0), {**both, 0.1: 0.0})
    got = values_of(body)
    assert got["serve.prefix_hit"] == 0.25
    assert got["serve.itl_p50"] == pytest.approx(0.1), "the new name is believed"
    assert reasons_of(body, rates=0.0)["serve.prefix_hit"] is Missing.BLANK, "no tokens were asked for"


def test_the_gauge_of_v0_that_says_the_prefix_cache_is_off() -> None:
    body = page_of(
        ("vllm:num_requests_running", {"model_name": QWEN}, 1),
        ("vllm:gpu_prefix_cache_hit_rate", {"model_name": QWEN}, -1),
    )
    assert "serve.prefix_hit" not in values_of(body)
    assert reasons_of(body)["serve.prefix_hit"] is Missing.BLANK


def test_blocks_that_are_no_number_give_no_capacity() -> None:
    body = page_of(
        ("vllm:num_requests_running", v1(0), 1),
        ("vllm:cache_config_info", v1(0, num_gpu_blocks="None", block_size=16), 1),
    )
    assert reasons_of(body)["serve.kv_capacity"] is Missing.NOT_EXPORTED


def test_replicas_of_ray_on_one_page_are_servers_of_their_own() -> None:
    body = page_of(
        *(("ray_vllm_num_requests_running", {**v1(0), "ReplicaId": f"r{n}"}, n + 1) for n in range(2))
    )
    assert [one.server.server for one in compiled(body).servers] == ["n01:8000 r0", "n01:8000 r1"]
    assert values_of(body, "n01:8000 r1")["serve.running"] == 2


@pytest.mark.parametrize("prefix", ["sglang:", "sglang_"])
def test_ranks_of_sglang_are_never_summed_but_its_data_parallel_ranks_are(prefix: str) -> None:
    samples: list[tuple[str, Mapping[str, str], object]] = []
    for tp, dp in itertools.product(range(4), range(2)):
        rank = {"model_name": QWEN, "tp_rank": str(4 * dp + tp), "pp_rank": "0", "dp_rank": str(dp)}
        samples += [
            (f"{prefix}num_running_reqs", rank, 7 + dp),
            (f"{prefix}token_usage", rank, 0.4 + 0.2 * dp),
            (f"{prefix}max_total_num_tokens", rank, 1000),
            (f"{prefix}realtime_tokens_total", {**rank, "mode": "decode"}, 30),
            (f"{prefix}realtime_tokens_total", {**rank, "mode": "prefill_cache"}, 900),
        ]
    got = values_of(page_of(*samples, (f"{prefix}generation_tokens_total", {"model_name": QWEN}, 500)))
    assert got["serve.running"] == 15
    assert got["serve.kv_usage"] == pytest.approx(0.6)
    assert (got["serve.kv_capacity"], got["serve.kv_used"]) == pytest.approx((2000, 1000))
    assert got["serve.gen_tokens"] == 60


def test_what_tgi_does_not_expose_is_said() -> None:
    body = page_of(("tgi_queue_size", {}, 0), ("tgi_request_failure", {"err": "validation"}, 2))
    made = compiled(body)
    assert made.vocabulary.server is not None
    why_not = reasons_of(body)
    for key in made.vocabulary.server.absent:
        assert why_not[key] is Missing.NOT_SUPPORTED
    assert why_not["serve.e2e_p99"] is Missing.NOT_EXPORTED, "on the page from the first request on"
    assert why_not["serve.waiting"] is Missing.PRESENT


def test_models_of_triton_are_servers_on_the_boards_it_was_given() -> None:
    body = page_of(
        *(
            ("nv_inference_request_success", {"model": model, "version": "1"}, 5)
            for model in ("llama", "mistral", "preprocessing")
        ),
        ("nv_inference_request_success", {"model": "llama", "version": "2"}, 5),
        ("nv_gpu_power_usage", {"gpu_uuid": "GPU-a"}, 300),
        ("nv_gpu_utilization", {"gpu_uuid": "GPU-a"}, 0.5),
    )
    body += buckets_of(
        "nv_inference_first_response_histogram_ms",
        {"model": "llama", "version": "1"},
        {100: 8, 500: 30, 2000: 36, 5000: 37, float("inf"): 37},
    )
    made = compiled(body)
    assert [(one.server.server, one.model) for one in made.servers] == [
        ("n01:8000 llama", "llama"),
        ("n01:8000 mistral", "mistral"),
    ]
    got = values_of(body, "n01:8000 llama")
    assert got["serve.requests"] == 10
    assert got["serve.ttft_p50"] == pytest.approx(0.1 + 0.4 * (18.5 - 8) / 22)
    assert [board.gpu.uuid for board in made.boards] == ["GPU-a"]


def test_dynamos_front_end_tells_what_clients_see() -> None:
    labels = {"model": QWEN, "endpoint": "chat_completions"}
    body = page_of(
        ("dynamo_frontend_inflight_requests", {"model": QWEN}, 4),
        ("dynamo_frontend_queued_requests", {"model": QWEN}, 1),
        ("dynamo_frontend_model_total_kv_blocks", {"model": QWEN}, 100),
        ("dynamo_frontend_model_kv_cache_block_size", {"model": QWEN}, 16),
        ("dynamo_frontend_requests_total", {**labels, "status": "success"}, 9),
        ("dynamo_frontend_requests_total", {**labels, "status": "error"}, 1),
    )
    body += page_of(("dynamo_frontend_stage_requests", {"stage": "route", "phase": ""}, 2))
    assert values_of(body, f"n01:8000 {QWEN}") == {
        "serve.running": 4,
        "serve.waiting": 2,
        "serve.kv_capacity": 1600,
        "serve.requests": 9,
        "serve.errors": 1,
        "serve.up": 1,
    }


@given(st.lists(histograms, min_size=1, max_size=3))
def test_percentiles_of_a_page_are_histogram_quantile_of_the_sum(
    drawn: list[tuple[list[tuple[float, int]], int]],
) -> None:
    made = [cumulative(buckets, above) for buckets, above in drawn]
    # As Prometheus sums by (le): edges that only one engine has hold only its counts; hence the same edges for all.
    edges = sorted({top for buckets in made for top in buckets})
    body, total = b"vllm:num_requests_running 1\n", dict.fromkeys(edges, 0.0)
    for engine, buckets in enumerate(made):
        filled = {top: max((buckets[one] for one in buckets if one <= top), default=0.0) for top in edges}
        body += buckets_of("vllm:e2e_request_latency_seconds", v1(engine), filled)
        total = {top: total[top] + filled[top] for top in edges}
    got = values_of(body)
    expected = plain(0.95, total)
    if 0 <= expected <= 1e6:
        assert got["serve.e2e_p95"] == pytest.approx(expected)
    else:
        assert "serve.e2e_p95" not in got


def test_a_histogram_with_endless_edges_is_only_coarser() -> None:
    counts = {float(n): float(n) for n in range(1, 1001)} | {float("inf"): 1000.0}
    body = b"vllm:num_requests_running 1\n" + buckets_of("vllm:e2e_request_latency_seconds", v1(0), counts)
    assert values_of(body)["serve.e2e_p50"] == 255, "the last edge that was kept"


def test_a_page_with_endless_models_is_bounded_and_says_so() -> None:
    body = page_of(*(("nv_inference_request_success", {"model": f"m{n}"}, 1) for n in range(300)))
    made = compiled(body)
    assert (len(made.servers), made.left_out) == (256, 44)


# ---- over HTTP


class Engine:
    """A vLLM whose requests the test makes."""

    def __init__(self) -> None:
        self.slow = self.fast = self.tokens = 0

    def __call__(self) -> bytes:
        body = page_of(
            ("vllm:num_requests_running", v1(0), 1),
            ("vllm:kv_cache_usage_perc", v1(0), 0.25),
            ("vllm:generation_tokens_total", v1(0), self.tokens),
        )
        counts = {0.1: self.fast, 1.0: self.fast + self.slow, float("inf"): self.fast + self.slow}
        return body + buckets_of("vllm:time_to_first_token_seconds", v1(0), counts)


async def serve_batch(feed: Feed[ExporterSource]) -> Batch:
    return await feed.batch(Kind.SERVER)


async def test_rates_and_percentiles_over_http() -> None:
    engine = Engine()
    async with served(Pages(engine)) as pages, fed(pages.target) as feed:
        target = await feed.target(pages.target, TargetState.OK)
        assert target.what == "vLLM"
        first = await serve_batch(feed)
        assert first.entities == (ServerRef("127.0.0.1", pages.target),)
        assert at(first, 0, "serve.kv_usage") == 0.25
        assert why(first, 0, "serve.ttft_p50") is Missing.NOT_SAMPLED
        idle = await feed.batch(Kind.SERVER, where=lambda b: why(b, 0, "serve.ttft_p50") is Missing.BLANK)
        assert at(idle, 0, "serve.gen_tokens") == 0, "a page that stays the same is an idle server, now"
        engine.fast, engine.slow, engine.tokens = 90, 10, 1000
        busy = await feed.batch(Kind.SERVER, where=lambda b: at(b, 0, "serve.gen_tokens") > 0)
        assert at(busy, 0, "serve.ttft_p50") == pytest.approx(0.1 * 50 / 90)
        assert at(busy, 0, "serve.ttft_p95") == pytest.approx(0.1 + 0.9 * 0.5)
        assert busy.intervals is not None
        assert at(busy, 0, "serve.gen_tokens") * float(busy.intervals[0]) == pytest.approx(1000, rel=1e-3)
        later = await feed.batch(Kind.SERVER, where=lambda b: at(b, 0, "serve.gen_tokens") == 0)
        assert at(later, 0, "serve.ttft_p50") == pytest.approx(0.1 * 50 / 90), (
            "percentiles cover more than a scrape"
        )
        engine.fast, engine.slow, engine.tokens = 1, 0, 0  # started anew
        await feed.batch(Kind.SERVER, where=lambda b: why(b, 0, "serve.ttft_p50") is Missing.NOT_SAMPLED)
        engine.slow = 9
        again = await feed.batch(Kind.SERVER, where=lambda b: at(b, 0, "serve.ttft_p50") > 0)
        assert at(again, 0, "serve.ttft_p50") == pytest.approx(0.1 + 0.9 * 0.5)


async def test_a_server_is_told_as_what_it_is() -> None:
    tgi = Pages(page_of(("tgi_queue_size", {}, 0)))
    async with served(tgi), served(Pages(Engine())) as vllm, fed(tgi.target, vllm.target) as feed:
        await feed.target(tgi.target, TargetState.OK)
        await feed.target(vllm.target, TargetState.OK)
        batch = await feed.batch(Kind.SERVER, where=lambda b: len(b.entities) == 2)
        facts = {one.server.server: one for one in feed.items if isinstance(one, ServerFact)}
        nodes = {one.node for one in feed.items if isinstance(one, NodeFact)}
    assert set(batch.entities) == {ServerRef("127.0.0.1", tgi.target), ServerRef("127.0.0.1", vllm.target)}
    assert nodes == {"127.0.0.1"}
    one, two = facts[tgi.target], facts[vllm.target]
    assert (one.engine, one.model, one.gpus) == ("TGI", None, None)
    assert one.absent is not None
    assert "serve.kv_usage" in one.absent
    assert (two.engine, two.model, two.absent) == ("vLLM", QWEN, ())
    row = batch.entities.index(ServerRef("127.0.0.1", tgi.target))
    assert why(batch, row, "serve.kv_usage") is Missing.NOT_SUPPORTED


async def test_a_server_that_dies_is_down_and_one_that_returns_is_up() -> None:
    pages = Pages(Engine())
    async with fed("127.0.0.1:9", interval=0.2) as nobody:
        await nobody.target("127.0.0.1:9", TargetState.FAILING)
        assert not [one for one in nobody.items if isinstance(one, Batch)], "nobody knows what is there"
    async with served(pages), fed(pages.target) as feed:
        assert at(await serve_batch(feed), 0, "serve.up") == 1
        pages.status = "503 Busy"
        for _ in range(3):  # time after time: a value that nobody renews would grow stale
            down = await feed.batch(Kind.SERVER, where=lambda b: at(b, 0, "serve.up") == 0)
        assert why(down, 0, "serve.up") is Missing.PRESENT
        assert why(down, 0, "serve.running") is Missing.UNREACHABLE
        pages.status = ""
        back = await feed.batch(Kind.SERVER, where=lambda b: at(b, 0, "serve.up") == 1)
        assert at(back, 0, "serve.running") == 1


async def test_a_server_that_refuses_us_is_not_down() -> None:
    pages = Pages(Engine())
    async with served(pages), fed(pages.target) as feed:
        await serve_batch(feed)
        pages.status = "401 Unauthorized"
        await feed.target(pages.target, TargetState.DENIED)
        batch = await feed.batch(
            Kind.SERVER, where=lambda b: why(b, 0, "serve.running") is Missing.UNREACHABLE
        )
        assert np.isnan(at(batch, 0, "serve.up"))


async def test_the_boards_of_triton_are_no_count_of_its_nodes() -> None:
    body = page_of(
        ("nv_inference_request_success", {"model": "llama", "version": "1"}, 5),
        ("nv_gpu_power_usage", {"gpu_uuid": "GPU-n01-0000-4000-8000-000000000000"}, 300),
    )
    dcgm = Pages(dcgm_page("n01", 8))
    async with served(Pages(body)) as triton, served(dcgm), fed(triton.target, dcgm.target) as feed:
        await feed.target(triton.target, TargetState.OK)
        await feed.target(dcgm.target, TargetState.OK)
        batch = await feed.batch(where=lambda b: len(b.entities) == 8)
        facts = [one for one in feed.items if isinstance(one, ServerFact)]
        visible = {one.node: one.gpus_visible for one in feed.items if isinstance(one, NodeFact)}
    assert len(batch.entities) == 8, "one GPU that two pages speak of is one"
    assert [[gpu.uuid for gpu in one.gpus or ()] for one in facts] == [
        ["GPU-n01-0000-4000-8000-000000000000"]
    ]
    assert visible == {"127.0.0.1": None, "n01": 8}
    assert any(isinstance(one, GpuFact) for one in feed.items)
