"""A GPU cluster of Kubernetes over HTTP: dcgm-exporter pages name pods, kube-state-metrics names their owners."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import numpy as np
from lab.kube import Cluster, KubeNode, KubePod
from lab.pages import Pages, Writer, gpu_labels, line, ok, served

from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.exporters import ExporterSource
from coldaisle.sources.source import ServiceFact, TargetState

RACK = "label_topology_kubernetes_io_rack"
Slots = dict[int, tuple[str, str]]
"""Slot → (namespace, pod)."""


def boards(node: str, slots: Slots, gpus: int = 4) -> bytes:
    """A dcgm-exporter page whose GPUs carry the labels of the pods that hold them."""
    lines = []
    for gpu in range(gpus):
        labels = gpu_labels(node, gpu)
        if gpu in slots:
            namespace, pod = slots[gpu]
            labels |= {"pod": pod, "namespace": namespace, "container": "main"}
        lines.append(line("DCGM_FI_DEV_GPU_UTIL", labels, 90 if gpu in slots else 0))
    return "".join(lines).encode()


def training(rank: int, node: str) -> KubePod:
    return KubePod("team-a", f"llama-worker-{rank}", node, ("PyTorchJob", "llama"), gpus=1)


def serving(name: str, node: str) -> KubePod:
    return KubePod("team-b", name, node, ("ReplicaSet", "chat-5d9"), gpus=1)


def cluster() -> Cluster:
    return Cluster(
        pods=[
            *(training(rank, "n1" if rank < 2 else "n2") for rank in range(4)),
            *(serving(f"chat-5d9-{name}", "n3") for name in "xyz"),
            KubePod("team-c", "notebook", "n2", gpus=1),
            KubePod("team-c", "hidden", "n4", ("Job", "sweep"), gpus=2),
            KubePod("team-b", "chat-5d9-w", "", ("ReplicaSet", "chat-5d9"), gpus=1, phase="Pending", waiting="y"),
            KubePod("team-a", "\x1b]52;c;evil\x07", "n1", ("PyTorchJob", "[red]"), gpus=1),
            KubePod("kube-system", "coredns-1", "cp1", ("ReplicaSet", "coredns-7"), gpus=0),
        ],
        nodes=[
            *(KubeNode(f"n{n}", 4, {RACK: f"rack {'AB'[n // 3]}"}, is_cordoned=n == 4) for n in range(1, 5)),
            KubeNode("n5", 4, {RACK: "rack B\x1b[31m"}, is_ready=False),
            KubeNode("cp1", 0),
        ],
        owners=[
            ("team-b", "ReplicaSet", "chat-5d9", "Deployment", "chat"),
            ("kube-system", "ReplicaSet", "coredns-7", "Deployment", "coredns"),
        ],
        deployments=[("team-b", "chat", 4, 3), ("kube-system", "coredns", 1, 1)],
    )  # fmt: skip


SLOTS: dict[str, Slots] = {
    "n1": {0: ("team-a", "llama-worker-0"), 1: ("team-a", "llama-worker-1")},
    "n2": {0: ("team-a", "llama-worker-2"), 1: ("team-a", "llama-worker-3"), 3: ("team-c", "notebook")},
    "n3": {n: ("team-b", f"chat-5d9-{name}") for n, name in enumerate("xyz")},
    "n4": {},
}


@dataclass
class Lab:
    """The servers, and the monitor that reads them."""

    kube: Pages
    nodes: dict[str, Pages]
    snapshots: list[Snapshot] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, snapshot: Snapshot) -> None:
        self.snapshots[:] = [snapshot]
        self.news.set()

    async def until(self, what: str, test: Callable[[Snapshot], bool], seconds: float = 30.0) -> Snapshot:
        try:
            async with asyncio.timeout(seconds):
                while not (self.snapshots and test(self.snapshots[0])):
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s: {what}") from None
        return self.snapshots[0]


@contextlib.asynccontextmanager
async def running(kube: bytes, slots: dict[str, Slots] = SLOTS, timeout: float = 10.0) -> AsyncIterator[Lab]:
    """The cluster, watched."""
    async with contextlib.AsyncExitStack() as stack:
        lab = Lab(
            await stack.enter_async_context(served(Pages(kube))),
            {
                node: await stack.enter_async_context(served(Pages(boards(node, mine))))
                for node, mine in slots.items()
            },
        )
        targets = [pages.target for pages in (lab.kube, *lab.nodes.values())]
        clock = SteadyClock()
        source = ExporterSource(targets, interval=0.2, timeout=timeout, cluster_interval=0.2, clock=clock)
        monitor = Monitor([source], MonitorSettings("atlas", 0.1), clock)
        task = asyncio.create_task(monitor.run(lab.publish))
        try:
            yield lab
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def jobs(snapshot: Snapshot) -> dict[str, list[str]]:
    """Job → the GPUs it holds."""
    gpus = snapshot.layout.gpus
    return {job.title: sorted(gpus[gpu].key for gpu in job.gpus) for job in snapshot.jobs}


def holder(snapshot: Snapshot, gpu: str) -> str:
    job = int(snapshot.gpu_job[snapshot.layout.gpu_of[gpu]])
    return snapshot.jobs[job].title if job >= 0 else ""


WHOLE = {
    "team-a/llama (PyTorchJob)": ["n1/0", "n1/1", "n2/0", "n2/1"],
    "team-b/chat (Deployment)": ["n3/0", "n3/1", "n3/2"],
    "team-c/notebook (Pod)": ["n2/3"],
    "team-c/sweep (Job)": [],
}


async def test_gpus_have_the_jobs_of_their_pods_owners() -> None:
    async with running(cluster().page()) as lab:
        seen = await lab.until("the jobs", lambda s: jobs(s) == WHOLE and s.coverage.gpus == 16)
    llama = next(job for job in seen.jobs if job.name == "llama")
    assert (llama.id, llama.account, llama.nodes) == ("k8s:team-a/PyTorchJob/llama", "team-a", ("n1", "n2"))
    assert llama.since == 1_700_000_000.0
    sweep = next(job for job in seen.jobs if job.name == "sweep")
    assert sweep.nodes == ("n4",)
    assert seen.replicas["team-b/chat"] == ServiceFact(seen.replicas["team-b/chat"].at, "team-b/chat", 3, 4)
    assert list(seen.replicas) == ["team-b/chat"]
    waits = [(job.title, job.gpu_count, job.reason) for job in seen.queue]
    assert waits == [("team-b/chat-5d9-w (Pod)", 1, "Unschedulable")]


async def test_nodes_have_the_racks_of_their_labels_and_the_clusters_word_on_them() -> None:
    async with running(cluster().page()) as lab:
        seen = await lab.until("all nodes", lambda s: len(s.layout.nodes) == 5 and s.coverage.gpus == 16)
        racks = {rack.name: rack.place for rack in seen.layout.racks}
        states = {node.key: node.state for node in seen.layout.nodes}
        (target,) = (t for t in seen.sources[0].targets if t.what == "kube-state-metrics")
    assert racks == dict.fromkeys(
        ("rack A", "rack B", "rack B\x1b[31m"), "label topology.kubernetes.io/rack"
    )  # shown inert: tui
    assert states == {"n1": "mix", "n2": "mix", "n3": "mix", "n4": "drain", "n5": "down"}
    assert (seen.coverage.gpus, seen.coverage.gpus_expected) == (16, 20)
    assert (target.state, target.nodes) == (TargetState.OK, ())
    assert "waiting for GPUs: 1 (1 GPUs)" in target.detail
    assert "series left out" in target.detail


async def test_a_gpu_of_a_node_whose_pods_hold_more_than_are_named_is_not_called_free() -> None:
    async with running(cluster().page()) as lab:
        seen = await lab.until("the jobs", lambda s: jobs(s) == WHOLE and s.coverage.gpus == 16)
    keys = np.array([gpu.key for gpu in seen.layout.gpus])
    assert sorted(keys[seen.gpu_unnamed]) == ["n4/0", "n4/1", "n4/2", "n4/3"]


async def test_a_pod_that_moves_takes_its_job_along_and_one_that_ends_ends_it() -> None:
    whole = cluster()
    async with running(whole.page()) as lab:
        await lab.until("the jobs", lambda s: jobs(s) == WHOLE)
        moved = replace(training(0, "n4"), uid="another", started=1_700_000_100.0)
        kept = [pod for pod in whole.pods if pod.name not in ("llama-worker-0", "notebook", "hidden")]
        lab.kube.answer = Cluster([*kept, moved], whole.nodes, whole.owners, whole.deployments).page()
        lab.nodes["n1"].answer = boards("n1", {1: SLOTS["n1"][1]})
        lab.nodes["n2"].answer = boards("n2", {0: SLOTS["n2"][0], 1: SLOTS["n2"][1]})
        lab.nodes["n4"].answer = boards("n4", {2: ("team-a", "llama-worker-0")})
        seen = await lab.until(
            "the pod on n4",
            lambda s: (
                jobs(s)
                == {
                    "team-a/llama (PyTorchJob)": ["n1/1", "n2/0", "n2/1", "n4/2"],
                    "team-b/chat (Deployment)": ["n3/0", "n3/1", "n3/2"],
                }
            ),
        )
        assert holder(seen, "n1/0") == holder(seen, "n2/3") == ""
        assert next(job for job in seen.jobs if job.name == "llama").nodes == ("n1", "n2", "n4")
        assert not seen.gpu_unnamed.any()


async def test_without_kube_state_metrics_a_pod_is_its_own_job_and_keeps_its_owner_when_that_fails() -> None:
    async with running(b"") as lab:
        seen = await lab.until("the pods", lambda s: len(s.jobs) == 8)
        assert holder(seen, "n1/0") == "team-a/llama-worker-0 (Pod)"
        lab.kube.answer = cluster().page()
        await lab.until("the owners", lambda s: jobs(s) == WHOLE)
        lab.kube.status = "503 Busy"
        seen = await lab.until(
            "the failure", lambda s: any(t.state is TargetState.FAILING for t in s.sources[0].targets)
        )
        assert jobs(seen) == WHOLE
        assert seen.coverage.nodes_expected == 5


async def test_a_clusters_page_may_take_longer_than_a_nodes() -> None:
    page = ok(cluster().page())

    async def slowly(writer: Writer, _: bytes) -> None:
        for at in range(0, len(page), len(page) // 4 + 1):
            writer.write(page[at : at + len(page) // 4 + 1])
            await writer.drain()
            await asyncio.sleep(0.5)

    async with running(b"", timeout=1.0) as lab:
        lab.kube.behave = slowly
        seen = await lab.until("the jobs", lambda s: jobs(s) == WHOLE)
    assert all(t.state is not TargetState.FAILING for t in seen.sources[0].targets if t.what)


async def test_ten_thousand_pods_are_read_beside_the_rest() -> None:
    crowd = cluster()
    crowd.pods += [
        KubePod("batch", f"w-{n}", f"m{n // 8}", ("PyTorchJob", f"job-{n // 64}"), gpus=1) for n in range(10_000)
    ]  # fmt: skip
    async with running(crowd.page()) as lab:
        seen = await lab.until("all jobs", lambda s: len(s.jobs) >= 160, 90.0)
        assert len(seen.jobs) == len(WHOLE) + 157
        assert holder(seen, "n1/0") == "team-a/llama (PyTorchJob)"
