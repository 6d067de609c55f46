"""Every vocabulary through a real Prometheus: what its page says when we scrape it, its server says when we ask."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from lab.kube import Cluster, KubeNode, KubePod
from lab.pages import Pages, amd_page, dcgm_page, gpu_labels, ipmi_page, line, node_page, served
from lab.prometheus import Scraped, prometheus
from lab.vocabulary import Cells, cells

from coldaisle.sources.catalog import forget_declared
from coldaisle.sources.prometheus.api import Api
from coldaisle.sources.prometheus.source import PrometheusSource
from coldaisle.sources.settings import PrometheusSettings
from coldaisle.sources.source import (
    Batch,
    Item,
    JobRef,
    NodeFact,
    NodeRef,
    PodFact,
    RackRef,
    ServerFact,
    ServerRef,
    ServiceFact,
    Target,
)
from coldaisle.sources.vocabularies import vocabularies_for


@pytest.fixture(autouse=True)
def nothing_declared() -> Iterator[None]:
    yield
    forget_declared()


LATER = re.compile(r"gpu\.(energy|.*_violation)|.*_p(50|95|99)|serve\.(up|ttft_mean)")
"""Of a page that does not change: rates are known to a server, not to one look at a page."""


async def first_round(url: str, **options: Any) -> list[Item]:
    """All that a source says in its first whole round."""
    items: list[Item] = []
    source = PrometheusSource(Api(PrometheusSettings(url=url)), **options)
    target = url.removeprefix("http://")
    async with asyncio.timeout(30), contextlib.aclosing(source.stream()) as stream:
        async for item in stream:
            items.append(item)
            if isinstance(item, Target) and item.name == target and item.what and item.latency_s is not None:
                return items
    raise AssertionError("it ended")


def told(items: list[Item]) -> Cells:
    found: Cells = {}
    for batch in (item for item in items if isinstance(item, Batch)):
        for row, entity in enumerate(batch.entities):
            for column, key in enumerate(batch.metrics):
                value = float(batch.values[row, column])
                if not math.isnan(value):
                    found[entity, key] = value
    return found


def pages() -> Mapping[str, bytes]:
    """By the address that each is served at."""
    mig = gpu_labels("mig", 0)
    parts = [mig | {"GPU_I_ID": str(n), "GPU_I_PROFILE": "3g.40gb"} for n in (1, 2)]
    generated = {
        "127.0.31.1": dcgm_page("gpu", 4),
        "127.0.31.2": node_page("host", seconds=1e9),
        "127.0.31.3": amd_page("amd"),
        "127.0.31.4": ipmi_page(),
        "127.0.31.5": "".join(
            [
                *(line("DCGM_FI_PROF_GR_ENGINE_ACTIVE", part, 0.5) for part in parts),
                *(line("DCGM_FI_DEV_POWER_USAGE", part, 300) for part in parts),
                *(
                    line("DCGM_FI_PROF_NVLINK_TX_BYTES", mig | {"nvlink": str(link)}, 1e9)
                    for link in range(4)
                ),
            ]
        ).encode(),
    }
    root = os.environ.get("COLDAISLE_SAMPLES")
    folder = Path(root) / "prom" if root else None
    samples = {
        "127.0.31.11": "node_exporter/e2e-output.txt",
        "127.0.31.12": "dcgm/datadog-t4-driver460.abridged.prom",
        "127.0.31.13": "nvidia_gpu_exporter/linux-x86_64__nvidia-h100-80gb-hbm3__590.48.01__load.prom",
        "127.0.31.14": "inference/vllm-v1-dynamo-2026-01.abridged.prom",
        "127.0.31.15": "inference/sglang-dynamo-2026-01.abridged.prom",
        "127.0.31.16": "inference/tgi-datadog.abridged.prom",
        "127.0.31.17": "inference/trtllm-dynamo-2026-01.abridged.prom",
        "127.0.31.18": "inference/vllm-v0-datadog-2024-06.abridged.prom",
    }
    found = {host: (folder / name).read_bytes() for host, name in samples.items()} if folder else {}
    return generated | found


async def test_a_server_says_what_its_exporters_pages_say(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        bodies = pages()
        targets = {
            host: (await stack.enter_async_context(served(Pages(body, host=host)))).target
            for host, body in bodies.items()
        }
        with prometheus(tmp_path, [Scraped(list(targets.values()), job="all")]) as server:
            await server.until("up == 1", len(targets))
            await server.until("count_over_time(up[10s]) >= 4", len(targets))
            items = await first_round(server.url)
    found = told(items)
    problems = []
    for host, body in bodies.items():
        expected = {
            (_at_port(entity, targets[host]), key): value
            for (entity, key), value in cells(body, host).items()
            if not LATER.fullmatch(key)
        }
        assert expected, host
        for cell, value in expected.items():
            got = found.get(cell)
            if got is None or got != pytest.approx(value, rel=1e-5, abs=1e-6):
                problems.append((host, cell, value, got))
    assert not problems, "\n".join(map(str, problems))


def _at_port(entity: Any, target: str) -> Any:
    """A page that is looked at by itself does not know its port."""
    if isinstance(entity, ServerRef):
        host = target.partition(":")[0]
        return ServerRef(entity.node, entity.server.replace(host, target, 1))
    return entity


async def test_a_central_ipmi_exporter_names_the_nodes_of_its_targets(tmp_path: Path) -> None:
    async with served(Pages(ipmi_page(), host="127.0.31.1")) as page:
        jobs = [
            Scraped([page.target], job=f"ipmi-{node}", labels={"target": node}) for node in ("n01", "n02")
        ]
        with prometheus(tmp_path, jobs) as server:
            await server.until("ipmi_dcmi_power_consumption_watts", 2)
            items = await first_round(server.url)
    nodes = {entity for entity, key in told(items) if key == "node.power"}
    assert nodes == {NodeRef("n01"), NodeRef("n02")}
    assert "127.0.31.1" not in {item.node for item in items if isinstance(item, NodeFact)}


async def test_a_server_s_own_metrics_of_racks_and_jobs(tmp_path: Path) -> None:
    words = """
    name = "own"
    probe = ["pdu_watts", "step_seconds"]
    metric = [
      { key = "rack.power", names = ["pdu_watts"], entity = "{rack}" },
      { key = "job.step_time", names = ["step_seconds"] },
    ]
    [catalog."job.step_time"]
    unit = "s"
    [labels]
    job = ["slurm_job_id"]
    """
    (tmp_path / "own.toml").write_text(words)
    own = vocabularies_for([str(tmp_path / "own.toml")], [])
    body = 'pdu_watts{rack="r01"} 12000\npdu_watts{rack="r02"} 9000\nstep_seconds{slurm_job_id="4711"} 0.5\n'
    async with served(Pages(body.encode(), host="127.0.31.1")) as page:
        with prometheus(tmp_path, [Scraped([page.target])]) as server:
            await server.until("pdu_watts", 2)
            found = told(await first_round(server.url, vocabularies=own))
    assert found == {
        (RackRef("r01"), "rack.power"): 12000,
        (RackRef("r02"), "rack.power"): 9000,
        (JobRef("slurm:4711"), "job.step_time"): 0.5,
    }


async def test_an_inference_server_is_told_and_dies(tmp_path: Path) -> None:
    labels = {"model_name": "llama", "engine": "0"}
    page = Pages(
        (
            line("vllm:num_requests_running", labels, 3)
            + line("vllm:kv_cache_usage_perc", labels, 0.25)
            + line("vllm:cache_config_info", labels | {"num_gpu_blocks": "100", "block_size": "16"}, 1)
        ).encode(),
        host="127.0.31.1",
    )
    async with served(page):
        pod = {"namespace": "team-a", "pod": "llama-0"}  # as service discovery writes them
        with prometheus(tmp_path, [Scraped([page.target], labels=pod)]) as server:
            await server.until("up == 1")
            source = PrometheusSource(Api(PrometheusSettings(url=server.url)))
            ref = ServerRef("127.0.31.1", page.target)
            items: list[Item] = []
            async with asyncio.timeout(30), contextlib.aclosing(source.stream()) as stream:
                async for item in stream:
                    items.append(item)
                    found = told([item])
                    if found.get((ref, "serve.up")) == 1 and not page.status:
                        assert found[ref, "serve.running"] == 3
                        assert found[ref, "serve.kv_capacity"] == 1600
                        page.status = "503 Gone"
                    if found.get((ref, "serve.up")) == 0:
                        break
    facts = [item for item in items if isinstance(item, ServerFact)]
    assert [(fact.server, fact.engine, fact.model) for fact in facts] == [(ref, "vLLM", "llama")]
    assert [(fact.namespace, fact.pod) for fact in facts] == [("team-a", "llama-0")]


@pytest.mark.parametrize("honours", [True, False])
async def test_pods_that_hold_gpus_are_told_by_kube_state_metrics(tmp_path: Path, honours: bool) -> None:
    cluster = Cluster(
        pods=[
            KubePod("team-a", "llama-0", "gpu01", ("StatefulSet", "llama"), gpus=4),
            KubePod("kube-system", "coredns-x", "cpu01", ("ReplicaSet", "coredns")),
        ],
        nodes=[KubeNode("gpu01", labels={"label_topology_kubernetes_io_rack": "r07"}), KubeNode("cpu01", 0)],
        statefulsets=[("team-a", "llama", 2, 1)],
    )
    async with served(Pages(cluster.page(), host="127.0.31.1")) as page:
        target = {"namespace": "monitoring", "pod": "ksm-0", "node": "cpu01"}
        jobs = [Scraped([page.target], job="ksm", labels=target, honor_labels=honours)]
        with prometheus(tmp_path, jobs) as server:
            await server.until("kube_node_status_capacity")
            items = await first_round(server.url)
    pods = [item for item in items if isinstance(item, PodFact)]
    assert [(pod.namespace, pod.pod, pod.node, pod.gpus, pod.owner) for pod in pods] == [
        ("team-a", "llama-0", "gpu01", 4, "llama")
    ]
    services = [item for item in items if isinstance(item, ServiceFact)]
    assert [(one.ready, one.expected) for one in services] == [(1, 2)]
    target_of = {item.name: item for item in items if isinstance(item, Target)}
    assert target_of["kube-state-metrics"].state == "ok"
