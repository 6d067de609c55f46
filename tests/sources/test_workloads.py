"""Pods as jobs of their owners: what the labels of GPUs say, and what kube-state-metrics says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coldaisle.sources.cluster import Job, build_layout
from coldaisle.sources.racks import RackRules
from coldaisle.sources.registry import Registry
from coldaisle.sources.source import GpuRef, JobFact, Kind, NodeFact, PodFact, ServerFact, ServerRef
from coldaisle.sources.workloads import ENDED_POD_KEPT_S, Workloads

AT = 1_700_000_000.0


def claim(pod: str, node: str = "n1", gpus: int = 1, namespace: str = "a", since: float = AT) -> JobFact:
    """What the labels of a page say of a pod."""
    refs = tuple(GpuRef(node, f"GPU-{node}-{pod}-{n}") for n in range(gpus))
    return JobFact(since, None, f"k8s:{namespace}/Pod/{pod}", pod, "", (node,), refs, account=namespace)


def pod(name: str, owner: str = "llama", kind: str = "PyTorchJob", **more: object) -> PodFact:
    known = PodFact(AT - 600, None, "a", name, kind, owner, uid=name, node="n1", phase="Running", gpus=1)
    return replace(known, **more)  # type: ignore[arg-type]


def registry(*facts: JobFact | PodFact) -> Registry:
    made = Registry()
    for fact in facts:
        if isinstance(fact, JobFact):
            made.take_job(fact)
        else:
            made.take_pod(fact)
    return made


def test_pods_of_one_owner_are_one_job_with_all_their_nodes_and_gpus() -> None:
    made = registry(
        claim("w-0", "n1", 4), claim("w-1", "n2", 4), pod("w-0", gpus=4), pod("w-1", node="n2", gpus=4)
    )
    (job,) = made.jobs_at(AT)
    assert (job.id, job.name, job.account) == ("k8s:a/PyTorchJob/llama", "llama", "a")
    assert (job.nodes, len(job.gpus), job.since, job.state) == (("n1", "n2"), 8, AT - 600, "RUNNING")


def test_a_pod_whose_owner_nobody_told_stays_a_job_of_its_own() -> None:
    (job,) = registry(claim("w-0")).jobs_at(AT)
    assert job.id == "k8s:a/Pod/w-0"


def test_a_pod_that_nobody_owns_has_its_true_start() -> None:
    (job,) = registry(claim("p"), pod("p", owner="p", kind="Pod")).jobs_at(AT)
    assert (job.id, job.since, len(job.gpus)) == ("k8s:a/Pod/p", AT - 600, 1)


def test_gpus_that_nobody_names_are_not_made_up() -> None:
    made = registry(pod("w-0", gpus=8), pod("cpu", owner="front", kind="Deployment", gpus=0))
    (job,) = made.jobs_at(AT)
    assert (job.nodes, job.gpus) == (("n1",), ())
    assert made.held_by_pods(AT) == {"n1": 8}


def test_a_pod_that_waits_is_in_the_queue_and_no_job() -> None:
    made = registry(pod("late", node=None, phase="Pending"), pod("early", node=None, since=AT - 900))
    assert made.jobs_at(AT) == []
    assert [one.pod for one in made.workloads.waiting(AT)] == ["early", "late"]


def test_a_job_that_is_only_starting_says_so() -> None:
    (job,) = registry(pod("w-0", phase="Pending")).jobs_at(AT)
    assert job.state == "PENDING"


def test_jobs_are_those_of_the_instant() -> None:
    made = registry(pod("w-0", until=AT), pod("w-1", since=AT + 10, node="n2"))
    assert [job.nodes for job in made.jobs_at(AT - 1)] == [("n1",)]
    assert made.jobs_at(AT) == []
    assert [job.nodes for job in made.jobs_at(AT + 10)] == [("n2",)]


def test_a_gpus_label_that_lags_behind_still_names_the_owner() -> None:
    (job,) = registry(pod("w-0", until=AT - 5), claim("w-0")).jobs_at(AT)
    assert job.id == "k8s:a/PyTorchJob/llama"


def test_a_full_node_name_and_a_short_one_are_one_node() -> None:
    made = Registry()
    made.node("n1", AT)
    made.take_job(claim("w-0"))
    made.take_pod(pod("w-0", node="n1.cluster.example"))
    (job,) = made.jobs_at(AT)
    assert job.nodes == ("n1",)


def test_slurm_jobs_are_left_alone() -> None:
    slurm = JobFact(AT, None, "slurm:4711", "train", "alice", ("n1",), ())
    assert registry(slurm, pod("4711", gpus=0)).jobs_at(AT) == [slurm]


def test_an_old_pod_of_the_same_name_does_not_take_over() -> None:
    made = registry(pod("db-0", owner="new", uid="2", since=AT), pod("db-0", owner="old", uid="1"))
    assert made.workloads.service_of("a", "db-0") is None
    assert {job.name for job in registry(claim("db-0")).jobs_at(AT)} == {"db-0"}
    made.take_job(claim("db-0"))
    assert any(job.name == "new" and job.gpus for job in made.jobs_at(AT))


def test_pods_that_ended_long_ago_are_forgotten() -> None:
    made = Workloads()
    for n in range(5000):
        at = AT + n * 10
        made.take(pod(f"p{n}", since=at, until=at + 1))
    assert len(made._pods) < 2 * ENDED_POD_KEPT_S / 10 + 1100
    assert len(made._newest) == len(made._pods) == len(made._asking)


@pytest.mark.parametrize(
    ("kind", "service"),
    [("Deployment", "a/chat"), ("LeaderWorkerSet", "a/chat"), ("StatefulSet", "a/chat"), ("Pod", None)],
)
def test_a_server_belongs_to_its_pods_deployment(kind: str, service: str | None) -> None:
    made = Registry()
    server = ServerRef("n1", "10.0.0.1:8000")
    made.take_server("exporters", ServerFact(AT, server, pod="chat-5d9-x", namespace="a"))
    before = made.version
    made.take_pod(pod("chat-5d9-x", "chat", kind))
    assert made.version > before
    version = made.version
    made.take_pod(pod("chat-5d9-x", "chat", kind, phase="Unknown"))
    made.take_pod(pod("other", "chat", kind))
    assert made.version == version
    (found,) = build_layout(made, RackRules()).servers
    assert found.service == service


def test_an_inventory_says_how_many_boards_are_missing() -> None:
    made = Registry()
    made.rows_of("exporters", Kind.GPU, tuple(GpuRef("n1", f"GPU-{n}") for n in range(7)), AT)
    made.take_node_fact("exporters", NodeFact(AT, "n1", gpus_visible=7))
    made.take_node_fact("exporters", NodeFact(AT, "n1", gpus_expected=8, state="drain"))
    (node,) = build_layout(made, RackRules()).nodes
    assert (node.gpus_expected, node.gpus_visible, node.state) == (8, None, "drain")
    made.take_node_fact("exporters", NodeFact(AT, "n1", state=""))
    assert build_layout(made, RackRules()).nodes[0].state is None


@pytest.mark.parametrize(
    ("id_", "title"),
    [
        ("slurm:4711", "4711"),
        ("k8s:team-a/PyTorchJob/llama", "team-a/llama (PyTorchJob)"),
        ("k8s:team-a", "team-a"),
        ("k8s:a/Pod/x/y", "a/x/y (Pod)"),
        ("", ""),
    ],
)
def test_a_job_has_a_title_for_people(id_: str, title: str) -> None:
    assert Job(id_, "name", "", AT, (), ()).title == title
