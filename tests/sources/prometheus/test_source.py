"""The whole source against real servers that scrape generated exporters, or hold a history made beforehand."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab.feed import Feed, at, why
from lab.pages import Pages, dcgm_page, gpu_labels, line, node_page, served
from lab.prometheus import Rule, Scraped, Server, openmetrics, prometheus, victoria_metrics

from coldaisle.sources.errors import AccessDenied
from coldaisle.sources.prometheus.answers import Listed, Matrix, Vector
from coldaisle.sources.prometheus.api import Api
from coldaisle.sources.prometheus.source import PrometheusSource
from coldaisle.sources.settings import PrometheusSettings, Rewrite
from coldaisle.sources.source import (
    Batch,
    DiskRef,
    Event,
    GpuFact,
    GpuRef,
    JobFact,
    Kind,
    Missing,
    NodeFact,
    NodeRef,
    Past,
    PortRef,
    Target,
    TargetState,
)

NAN = float("nan")


def source_of(server: Server, **options: Any) -> PrometheusSource:
    return PrometheusSource(Api(PrometheusSettings(url=server.url, timeout=5.0)), **options)


@contextlib.asynccontextmanager
async def fed(source: PrometheusSource) -> AsyncIterator[Feed[PrometheusSource]]:
    feed = Feed(source)
    try:
        yield feed
    finally:
        await feed.close()


def row_of(batch: Batch, node: str, uuid: str = "") -> int:
    return next(
        row
        for row, ref in enumerate(batch.entities)
        if getattr(ref, "node", "") == node and (not uuid or getattr(ref, "uuid", "") == uuid)
    )


@contextlib.asynccontextmanager
async def exporters(nodes: Sequence[str]) -> AsyncIterator[dict[str, Pages]]:
    """A dcgm-exporter for each node, on an address of its own; each page differs from the last."""
    turn = iter(range(10**9))
    async with contextlib.AsyncExitStack() as stack:
        yield {
            node: await stack.enter_async_context(
                served(
                    Pages(lambda node=node: dcgm_page(node, 2, next(turn)), host=f"127.0.21.{place + 1}")  # type: ignore[misc]
                )
            )
            for place, node in enumerate(nodes)
        }


async def test_scraped_exporters_become_facts_batches_and_targets(tmp_path: Path) -> None:
    async with (
        exporters(["r01n01", "r01n02"]) as gpus,
        served(Pages(lambda: node_page("r01n01"), host="127.0.21.1")) as host,
    ):
        jobs = [
            Scraped([page.target for page in gpus.values()], labels={"rack": "r01"}),
            Scraped([host.target], job="node"),
        ]
        with prometheus(tmp_path, jobs) as server:
            await server.until("rate(node_cpu_seconds_total[4s])", 8)
            async with fed(source_of(server)) as feed:
                gpu = await feed.batch(Kind.GPU)
                node = await feed.batch(
                    Kind.NODE, lambda batch: not math.isnan(at(batch, 0, "node.cpu_util"))
                )
                told = await feed.target("dcgm (dcgm-exporter)", TargetState.OK)
                again = await feed.batch(Kind.GPU)
    assert isinstance(feed.source, Past)
    assert len(gpu.entities) == 4
    assert again.entities is gpu.entities
    assert again.metrics is gpu.metrics
    assert not np.array_equal(again.values, gpu.values, equal_nan=True)
    assert 0 <= at(gpu, 0, "gpu.util") <= 1
    assert why(gpu, 0, "gpu.sm_active") is Missing.NOT_EXPORTED
    assert node.entities == (NodeRef("r01n01"),)
    assert at(node, 0, "node.cpu_util") == pytest.approx(0.2, abs=0.02)
    assert at(node, 0, "node.cpu_iowait") == pytest.approx(0.1, abs=0.02)
    assert at(node, 0, "node.cpus") == 2
    assert at(node, 0, "node.mem_ratio") == pytest.approx(0.6)
    assert feed.source.interval == pytest.approx(1.0, abs=0.3)
    assert told.nodes == ("r01n01", "r01n02") or told.nodes == ("r01n02", "r01n01")
    assert "does not export gpu.sm_active" in told.detail
    assert "DCGM_FI_PROF_SM_ACTIVE, gauge" in told.remedy
    facts = {item.node: item for item in feed.items if isinstance(item, NodeFact)}
    assert facts["r01n01"].rack == "r01"
    assert facts["r01n01"].place == "label rack"
    assert (facts["r01n01"].hostname, facts["r01n01"].kernel) == ("r01n01", "6.1.0")
    assert facts["r01n01"].booted_at == pytest.approx(1.7e9, abs=2)
    assert facts["r01n01"].clock_offset_s == pytest.approx(0, abs=2)
    boards = [item for item in feed.items if isinstance(item, GpuFact)]
    assert {board.model for board in boards} == {"NVIDIA H100 80GB HBM3"}
    refs = [ref for ref in gpu.entities if isinstance(ref, GpuRef) and ref.node == "r01n01"]
    assert [(ref.pci, ref.minor, ref.index) for ref in refs] == [
        ("0000:10:00.0", 0, 0), ("0000:21:00.0", 1, 1),
    ]  # fmt: skip
    kinds = {ref for item in feed.items if isinstance(item, Batch) for ref in item.entities}
    assert DiskRef("r01n01", "nvme0n1") in kinds
    assert DiskRef("r01n01", "dm-0") not in kinds
    assert PortRef("r01n01", "mlx5_0/1") in kinds


async def test_a_dead_exporter_s_node_lives_no_longer_than_it_did(tmp_path: Path) -> None:
    async with exporters(["n1", "n2"]) as pages:
        with prometheus(tmp_path, [Scraped([page.target for page in pages.values()])]) as server:
            await server.until("DCGM_FI_DEV_GPU_UTIL", 4)
            async with fed(source_of(server)) as feed:
                await feed.batch(Kind.GPU)
                pages["n2"].status = "503 Gone"
                died = time.time()
                down = await feed.target(pages["n2"].target, TargetState.FAILING)
                gone = await feed.batch(
                    Kind.GPU, lambda b: why(b, row_of(b, "n2"), "gpu.power") is Missing.UNREACHABLE
                )
                later = await feed.batch(Kind.GPU)
                pages["n2"].status = ""
                await feed.batch(Kind.GPU, lambda b: not math.isnan(at(b, row_of(b, "n2"), "gpu.power")))
                await feed.target(pages["n2"].target, TargetState.GONE)
            assert down.nodes == ("n2",)
            assert "up is 0" in down.detail
            assert gone.at - died < 4.0
            for batch in (gone, later):
                mine = [row for row, ref in enumerate(batch.entities) if ref.node == "n2"]  # type: ignore[union-attr]
                assert np.isnan(batch.values[mine]).all()
                assert not math.isnan(at(batch, row_of(batch, "n1"), "gpu.power"))


async def test_two_jobs_may_give_their_targets_one_name(tmp_path: Path) -> None:
    """``instance`` is often written over with the node's name: then a node_exporter that answers is no dcgm-exporter."""
    relabel = [{"target_label": "instance", "replacement": "n1"}]
    async with exporters(["n1"]) as pages, served(Pages(lambda: node_page("n1"))) as host:
        jobs = [Scraped([pages["n1"].target], relabel=relabel), Scraped([host.target], "node", {}, relabel)]
        with prometheus(tmp_path, jobs) as server:
            await server.until('up{instance="n1"} == 1', 2)
            async with fed(source_of(server)) as feed:
                await feed.batch(Kind.GPU)
                pages["n1"].status = "503 Gone"
                await feed.batch(Kind.GPU, lambda b: why(b, 0, "gpu.power") is Missing.UNREACHABLE)
                down = await feed.target("n1 (dcgm)", TargetState.FAILING)
                first = len(feed.items)
                for _ in range(3):
                    await feed.batch(Kind.NODE)
                pages["n1"].status = ""
                await feed.target("n1 (dcgm)", TargetState.GONE)
    assert down.nodes == ("n1",)
    assert not [item for item in feed.items if isinstance(item, Event)]
    since = [item for item in feed.items[first:] if isinstance(item, Target) and item.name.startswith("n1")]
    assert [target.state for target in since] == [TargetState.GONE]


async def test_lookback_shows_nobody_who_has_stopped(tmp_path: Path) -> None:
    """Without a mark of its end a series is shown for five minutes more: federation, remote write, a killed server."""
    start = float(int(time.time()) - 7200)
    labels = [
        'instance="n1:9400",UUID="GPU-1",Hostname="n1"',
        'instance="n2:9400",UUID="GPU-2",Hostname="n2"',
    ]
    samples = [(start + 15 * n, n % 100) for n in range(120)]
    history = openmetrics("DCGM_FI_DEV_GPU_UTIL", {labels[0]: samples, labels[1]: samples[:60]})
    with prometheus(tmp_path, history=history) as server:
        died = samples[59][0]
        assert len(server.rows("DCGM_FI_DEV_GPU_UTIL", died + 200)) == 2
        items = [item async for item in source_of(server).read(died - 60, died + 120, 10)]
    batches = [item for item in items if isinstance(item, Batch)]
    heard = [b.at for b in batches if not math.isnan(at(b, row_of(b, "n2"), "gpu.util"))]
    assert max(heard) - died < 10
    last = batches[-1]
    assert why(last, row_of(last, "n2"), "gpu.util") is Missing.STALE
    alive = [b.at for b in batches if not math.isnan(at(b, row_of(b, "n1"), "gpu.util"))]
    assert len(alive) == len(set(alive)) <= 13  # every sample once, though the grid is finer


async def test_a_server_that_dies_and_returns(tmp_path: Path) -> None:
    async with exporters(["n1"]) as pages:
        with prometheus(tmp_path, [Scraped([pages["n1"].target])]) as server:
            await server.until("DCGM_FI_DEV_GPU_UTIL", 2)
            async with fed(source_of(server)) as feed:
                name = server.url.removeprefix("http://")
                ok = await feed.target(name, TargetState.OK)
                assert ok.what.startswith("Prometheus 2.")
                assert ok.latency_s is not None
                server.kill()
                killed = time.time()
                failing = await feed.target(name, TargetState.FAILING)
                assert failing.at - killed < 3.0
                assert "connection" in failing.detail
                await asyncio.to_thread(server.start)
                await feed.target(name, TargetState.OK)
                await feed.batch(Kind.GPU)


async def test_a_server_that_hangs_is_slow_within_an_interval(tmp_path: Path) -> None:
    async with exporters(["n1"]) as pages:
        with prometheus(tmp_path, [Scraped([pages["n1"].target])]) as server:
            await server.until("DCGM_FI_DEV_GPU_UTIL", 2)
            async with fed(source_of(server)) as feed:
                name = server.url.removeprefix("http://")
                await feed.batch(Kind.GPU, lambda _: feed.source.interval < 2)
                assert server.process is not None
                server.process.send_signal(signal.SIGSTOP)
                stopped = time.time()
                slow = await feed.target(name, TargetState.SLOW)
                failing = await feed.target(name, TargetState.FAILING)
                server.process.send_signal(signal.SIGCONT)
                await feed.target(name, TargetState.OK)
    assert slow.at - stopped < 2 * feed.source.interval + 1.0 < failing.at - stopped
    assert "no whole answer" in slow.detail


async def test_names_in_practice(tmp_path: Path) -> None:
    """An address joined through node_uname_info, a pod's name as Hostname, an FQDN, a rewrite rule."""

    def page(hostname: str, gpu: int) -> Callable[[], bytes]:
        labels = {**gpu_labels("x", gpu), "Hostname": hostname}
        return lambda: line("DCGM_FI_DEV_GPU_UTIL", labels, 7).encode()

    async with contextlib.AsyncExitStack() as stack:
        targets: list[str] = []
        for place, hostname in enumerate(
            ["", "dcgm-exporter-x7k2p", "r01n03.cluster.example", "rack-1-node-4"]
        ):
            pages = Pages(page(hostname, place), host=f"127.0.22.{place + 1}")
            targets.append((await stack.enter_async_context(served(pages))).target)
        own = await stack.enter_async_context(served(Pages(lambda: node_page("r01n01"), host="127.0.22.1")))
        jobs = [
            Scraped([targets[0]]),
            Scraped([targets[1]], job="pods", labels={"node": "r01n02"}),
            Scraped(targets[2:], job="more"),
            Scraped([own.target], job="node"),
        ]
        with prometheus(tmp_path, jobs) as server:
            await server.until("up == 1", 5)
            rules = [Rewrite(r"rack-(\d)-node-(\d)", r"r0\1n0\2")]
            async with fed(source_of(server, rewrite=rules)) as feed:
                batch = await feed.batch(Kind.GPU)
    nodes = {ref.node for ref in batch.entities if isinstance(ref, GpuRef)}
    assert nodes == {"r01n01", "r01n02", "r01n03.cluster.example", "r01n04"}


async def test_firing_alerts_are_events_of_what_they_name(tmp_path: Path) -> None:
    heat = [90.0]
    labels = gpu_labels("n1", 0)
    rules = [Rule("GpuHot", "DCGM_FI_DEV_GPU_TEMP > 80", {"severity": "critical", "team": "gpu"})]
    page = Pages(lambda: line("DCGM_FI_DEV_GPU_TEMP", labels, heat[0]).encode())
    async with served(page):
        with prometheus(tmp_path, [Scraped([page.target])], rules=rules) as server:
            await server.until("ALERTS")
            async with fed(source_of(server)) as feed:
                began = await feed.event("alert")
                heat[0] = 40.0
                over = await feed.event("alert_over")
    assert began.entity == GpuRef("n1", labels["UUID"], "0000:10:00.0", 0, 0)
    assert began.detail == "GpuHot critical: team=gpu"
    assert (over.entity, over.detail) == (began.entity, began.detail)
    assert len([item for item in feed.items if isinstance(item, Event) and item.kind == "alert"]) == 1


async def test_an_xid_and_a_lost_board_are_events(tmp_path: Path) -> None:
    xid, boards = [0], [2]

    def answer() -> bytes:
        lines = [line("DCGM_FI_DEV_GPU_UTIL", gpu_labels("n1", gpu), 5) for gpu in range(boards[0])]
        lines += [line("DCGM_FI_DEV_XID_ERRORS", gpu_labels("n1", gpu), xid[0]) for gpu in range(boards[0])]
        return "".join(lines).encode()

    page = Pages(answer)
    async with served(page):
        with prometheus(tmp_path, [Scraped([page.target])]) as server:
            await server.until("DCGM_FI_DEV_GPU_UTIL", 2)
            async with fed(source_of(server)) as feed:
                await feed.batch(Kind.GPU)
                await feed.batch(Kind.GPU)
                xid[0] = 79
                event = await feed.event("xid")
                assert event.detail == "xid 79"
                boards[0] = 1
                lost = await feed.event("gpu_lost")
                batch = await feed.batch(Kind.GPU)
    assert isinstance(lost.entity, GpuRef)
    assert lost.entity.minor == 1
    row = row_of(batch, "n1", lost.entity.uuid or "")
    assert why(batch, row, "gpu.util") is Missing.LOST


@pytest.mark.parametrize("flavour", [prometheus, victoria_metrics])
async def test_the_past_is_what_the_server_says(tmp_path: Path, flavour: Any) -> None:
    """Every cell that is delivered is the raw API's, in the catalogue's unit."""
    start = float(int(time.time()) - 7200)
    nodes = [f"n{number}" for number in range(3)]
    series: dict[str, dict[str, list[tuple[float, object]]]] = {}
    for place, node in enumerate(nodes):
        for gpu in range(2):
            labels = (
                f'instance="{node}:9400",job="dcgm",UUID="GPU-{node}-{gpu}",Hostname="{node}",gpu="{gpu}"'
            )
            times = [start + 15 * n + place for n in range(80)]
            wave: list[tuple[float, object]] = [
                (when, round(50 + 40 * math.sin(when / 97 + gpu), 3)) for when in times
            ]
            energy: list[tuple[float, object]] = [(when, 1e9 + 350_000 * (when - start)) for when in times]
            series.setdefault("DCGM_FI_DEV_GPU_UTIL", {})[labels] = wave
            series.setdefault("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", {})[labels] = energy
    history = [openmetrics(name, given) for name, given in series.items()]
    with flavour(tmp_path, history=history) as server:
        items = [item async for item in source_of(server).read(start + 300, start + 900, 15)]
        batches = [item for item in items if isinstance(item, Batch)]
        checked = 0
        for batch in batches[::7]:
            raw = {labels["UUID"]: value for labels, value in server.rows("DCGM_FI_DEV_GPU_UTIL", batch.at)}
            rate = "rate(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[60s])"
            watts = {labels["UUID"]: value for labels, value in server.rows(rate, batch.at)}
            for row, ref in enumerate(batch.entities):
                assert isinstance(ref, GpuRef)
                if not math.isnan(value := at(batch, row, "gpu.util")):
                    assert value == np.float32(raw[ref.uuid or ""] * 0.01)
                    assert at(batch, row, "gpu.energy") == np.float32(watts[ref.uuid or ""] * 0.001)
                    checked += 1
    assert checked > 20
    assert [batch.at for batch in batches] == sorted(batch.at for batch in batches)
    assert all(start + 300 <= batch.at < start + 900 for batch in batches)
    assert batches[0].at == pytest.approx(start + 300, abs=16)


async def test_jobs_of_the_past_begin_and_end(tmp_path: Path) -> None:
    start = float(int(time.time()) - 7200)
    base = 'instance="n1:9400",UUID="GPU-1",Hostname="n1"'
    history = openmetrics(
        "DCGM_FI_DEV_GPU_UTIL",
        {
            f'{base},hpc_job="41"': [(start + 15 * n, 5) for n in range(100)],
            f'{base},hpc_job="42"': [(start + 15 * n, 5) for n in range(120, 200)],
        },
    )
    with prometheus(tmp_path, history=history, flags=["--query.lookback-delta=30s"]) as server:
        items = [item async for item in source_of(server).read(start + 1200, start + 2400, 15)]
    jobs = [item for item in items if isinstance(item, JobFact)]
    first = [job for job in jobs if job.id == "slurm:41"]
    assert first[0].since == pytest.approx(start, abs=330)
    assert first[0].gpus == (GpuRef("n1", "GPU-1"),)
    assert first[-1].until == pytest.approx(start + 1500, abs=60)
    second = [job for job in jobs if job.id == "slurm:42"]
    assert second[0].since == pytest.approx(start + 1800, abs=30)
    assert second[-1].until is None


async def test_a_job_of_the_past_that_comes_again_begins_anew_and_moves_when_it_moved(tmp_path: Path) -> None:
    start = float(int(time.time()) - 7200)
    first, second = (f'instance="n1:9400",UUID="GPU-{number}",Hostname="n1"' for number in (1, 2))
    heard = [*range(100, 108), *range(140, 200)]
    history = openmetrics(
        "DCGM_FI_DEV_GPU_UTIL",
        {
            f'{first},hpc_job="41"': [(start + 15 * n, 5) for n in (*range(100), *range(108, 140))],
            first: [(start + 15 * n, 5) for n in heard],
            f'{second},hpc_job="41"': [(start + 15 * n, 5) for n in range(140, 200)],
        },
    )
    with prometheus(tmp_path, history=history, flags=["--query.lookback-delta=14s"]) as server:
        items = [item async for item in source_of(server).read(start + 1200, start + 2400, 15)]
    jobs = [(number, item) for number, item in enumerate(items) if isinstance(item, JobFact)]
    before, over, again, moved = (job for _, job in jobs)
    assert over.until == pytest.approx(start + 1500, abs=30)
    assert again.since == pytest.approx(start + 1620, abs=30)
    assert again.until is None
    assert before.gpus == again.gpus == (GpuRef("n1", "GPU-1"),)
    assert (moved.since, moved.gpus) == (again.since, (GpuRef("n1", "GPU-2"),))
    place = jobs[-1][0]
    told = [item.at for item in items[:place] if isinstance(item, Batch)]
    assert told[-1] == pytest.approx(start + 2100, abs=30), "between the samples of the time when it moved"


async def test_a_victoria_metrics_is_watched_alike(tmp_path: Path) -> None:
    async with exporters(["n1"]) as pages:
        with victoria_metrics(tmp_path, [Scraped([pages["n1"].target])]) as server:
            await server.until("DCGM_FI_DEV_GPU_UTIL", 2)
            async with fed(source_of(server)) as feed:
                one = await feed.batch(Kind.GPU)
                target = await feed.target(server.url.removeprefix("http://"), TargetState.OK)
                two = await feed.batch(Kind.GPU)
    assert target.what.startswith("VictoriaMetrics")
    assert not np.array_equal(one.values, two.values, equal_nan=True)


async def test_the_past_and_now_join_without_telling_an_alert_twice(tmp_path: Path) -> None:
    rules = [Rule("Always", "DCGM_FI_DEV_GPU_UTIL >= 0", {"severity": "info"})]
    async with exporters(["n1"]) as pages:
        with prometheus(tmp_path, [Scraped([pages["n1"].target])], rules=rules) as server:
            await server.until("count_over_time(ALERTS[10s]) >= 4", 2)
            source = source_of(server)
            now = time.time()
            past = [item async for item in source.read(now - 5, now, 1)]
            async with fed(source) as feed:
                await feed.batch(Kind.GPU)
                await feed.batch(Kind.GPU)
    alerts = [item for item in (*past, *feed.items) if isinstance(item, Event) and item.kind == "alert"]
    assert len(alerts) == 2
    assert not [item for item in feed.items if isinstance(item, GpuFact)]


class Odd(Api):
    """A real client whose answers a test may spoil."""

    warning = ""
    unlisted = ""
    """The warning beside a list of names."""
    refuses = False
    broken = ""

    async def instant(self, query: str, at: float) -> Vector:
        if self.refuses:
            raise AccessDenied(self.target, "refuses us (HTTP 401)", "renew the token")
        if self.broken and self.broken in query:
            raise RuntimeError("broken")
        vector = await super().instant(query, at)
        return replace(vector, warnings=(self.warning,) if self.warning else vector.warnings)

    async def names(self, label: str, matches: Sequence[str], start: float, end: float) -> Listed:
        listed = await super().names(label, matches, start, end)
        return listed._replace(warnings=(self.unlisted,) if self.unlisted else listed.warnings)

    async def range(self, query: str, start: float, end: float, step: float) -> Matrix:
        matrix = await super().range(query, start, end, step)
        return replace(matrix, warnings=(self.warning,) if self.warning else matrix.warnings)


async def test_partial_answers_and_refusals_are_seen_and_pass_by_themselves(tmp_path: Path) -> None:
    async with exporters(["n1"]) as pages:
        with prometheus(tmp_path, [Scraped([pages["n1"].target])]) as server:
            await server.until("DCGM_FI_DEV_GPU_UTIL", 2)
            client = Odd(PrometheusSettings(url=server.url))
            async with fed(PrometheusSource(client)) as feed:
                await feed.target(client.target, TargetState.OK)
                client.warning = "store-7 is unavailable"
                partial = await feed.target(client.target, TargetState.PARTIAL)
                assert "store-7 is unavailable" in partial.detail
                client.warning, client.refuses = "", True
                denied = await feed.target(client.target, TargetState.DENIED)
                assert denied.remedy == "renew the token"
                client.refuses = False
                await feed.target(client.target, TargetState.OK)
                client.broken = "timestamp("
                own = await feed.target("dcgm (dcgm-exporter)", TargetState.PARTIAL)
                assert "coldaisle's own" in own.detail


async def test_partial_answers_about_the_past_are_told(tmp_path: Path) -> None:
    start = float(int(time.time()) - 3600)
    labels = 'instance="n1:9400",UUID="GPU-1",Hostname="n1"'
    samples = [(start + 15 * n, n % 100) for n in range(40)]
    with prometheus(tmp_path, history=openmetrics("DCGM_FI_DEV_GPU_UTIL", {labels: samples})) as server:
        client = Odd(PrometheusSettings(url=server.url))
        for warning, unlisted in (("store-7 is unavailable", ""), ("", "store-7 is unavailable"), ("", "")):
            client.warning, client.unlisted = warning, unlisted
            items = [item async for item in PrometheusSource(client).read(start, start + 300, 15)]
            (told,) = [item for item in items if isinstance(item, Target)]
            assert told.state is (TargetState.PARTIAL if warning or unlisted else TargetState.OK)
            assert warning + unlisted in told.detail
            assert start - 15 < told.at <= start  # it counts for every instant of it


async def test_a_server_without_anything_known_says_so(tmp_path: Path) -> None:
    with prometheus(tmp_path) as server:
        async with fed(source_of(server)) as feed:
            target = await feed.target(server.url.removeprefix("http://"), TargetState.FAILING)
    assert "no metric that is known here" in target.detail


async def test_a_server_that_has_only_begun_is_asked_again(tmp_path: Path) -> None:
    page = Pages(b"")
    async with served(page):
        with prometheus(tmp_path, [Scraped([page.target])]) as server:
            await server.until("up == 1")
            async with fed(source_of(server, interval=1.0)) as feed:
                await feed.target(server.url.removeprefix("http://"), TargetState.FAILING)
                page.answer = dcgm_page("n1", 2)
                await feed.batch(Kind.GPU)
                await feed.target(server.url.removeprefix("http://"), TargetState.OK)
