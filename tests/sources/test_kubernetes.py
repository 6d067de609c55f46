"""What kube-state-metrics says of a cluster: pods, owners, replicas, nodes, racks."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from lab.kube import Cluster, KubeNode, KubePod

from coldaisle.sources.errors import Garbled, Unusable
from coldaisle.sources.exposition import parse
from coldaisle.sources.kube_state import ClusterPage, is_cluster_page
from coldaisle.sources.kubernetes import (
    LEADER_WORKER_SET,
    MAX_PODS,
    SERIES,
    Node,
    Pod,
    Survey,
    Teller,
    racks_from,
)
from coldaisle.sources.source import NodeFact, PodFact, ServiceFact

AT = 1_700_003_600.0
RACK = "label_topology_kubernetes_io_rack"
ZONE = "label_topology_kubernetes_io_zone"
CLIQUE = "label_nvidia_com_gpu_clique"


def read(page: bytes, piece: int = 4096) -> Survey:
    """The page as it arrives, in pieces."""
    reader = ClusterPage("ksm:8080")
    for at in range(0, len(page), piece):
        reader.feed(page[at : at + piece])
    return reader.end()


def surveyed(*pods: KubePod, **more: object) -> Survey:
    return read(Cluster(pods=list(pods), **more).page())  # type: ignore[arg-type]


def pods_of(survey: Survey) -> dict[str, Pod]:
    return {pod.name: pod for pod in survey.pods()}


def nodes_of(survey: Survey) -> dict[str, Node]:
    return {node.name: node for node in survey.nodes(survey.pods())}


def told(facts: Iterable[object], kind: type) -> dict[str, object]:
    names = {PodFact: "pod", NodeFact: "node", ServiceFact: "id"}
    return {getattr(fact, names[kind]): fact for fact in facts if isinstance(fact, kind)}


# --- owners ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "chain", "expected"),
    [
        (("", ""), [], ("Pod", "p")),
        (("PyTorchJob", "llama"), [], ("PyTorchJob", "llama")),
        (("RayCluster", "ray-1"), [], ("RayCluster", "ray-1")),
        (("StatefulSet", "db"), [], ("StatefulSet", "db")),
        (
            ("ReplicaSet", "chat-5d9"),
            [("a", "ReplicaSet", "chat-5d9", "Deployment", "chat")],
            ("Deployment", "chat"),
        ),
        (("ReplicaSet", "chat-5d9"), [], ("ReplicaSet", "chat-5d9")),
        (
            ("ReplicaSet", "chat-5d9"),
            [("b", "ReplicaSet", "chat-5d9", "Deployment", "chat")],
            ("ReplicaSet", "chat-5d9"),
        ),
        (("Job", "run-7"), [("a", "Job", "run-7", "MPIJob", "hpl")], ("MPIJob", "hpl")),
        (("Job", "run-7"), [("a", "Job", "run-7", "CronJob", "nightly")], ("CronJob", "nightly")),
        (("Job", "run-7"), [("a", "Job", "run-7", "", "")], ("Job", "run-7")),
    ],
)
def test_a_pod_belongs_to_the_top_of_its_owners(
    owner: tuple[str, str], chain: list[tuple[str, str, str, str, str]], expected: tuple[str, str]
) -> None:
    pod = pods_of(surveyed(KubePod("a", "p", "n1", owner), owners=chain))["p"]
    assert (pod.owner_kind, pod.owner) == expected


def test_owners_in_a_circle_end() -> None:
    circle = [("a", "Job", "x", "ReplicaSet", "y"), ("a", "ReplicaSet", "y", "Job", "x")]
    pod = pods_of(surveyed(KubePod("a", "p", "n1", ("Job", "x")), owners=circle))["p"]
    assert pod.owner in ("x", "y")


def test_a_label_names_the_leader_worker_set() -> None:
    labels = {LEADER_WORKER_SET: "vllm-405b"}
    pod = pods_of(surveyed(KubePod("a", "p", "n1", ("StatefulSet", "vllm-405b-1"), labels=labels)))["p"]
    assert (pod.owner_kind, pod.owner) == ("LeaderWorkerSet", "vllm-405b")


def test_the_owner_that_controls_a_pod_wins() -> None:
    survey = Survey()
    for kind, is_controller in (("Queue", "false"), ("Job", "true"), ("Quota", "false")):
        labels = {"owner_kind": kind, "owner_name": "x", "owner_is_controller": is_controller}
        survey.take("kube_pod_owner", {"namespace": "a", "pod": "p", "uid": "1", **labels}, 1)
    assert survey.pods()[0].owner_kind == "Job"


# --- GPUs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "gpus"),
    [
        ("nvidia_com_gpu", 4),
        ("nvidia.com/gpu", 4),
        ("amd_com_gpu", 4),
        ("nvidia_com_mig_3g_40gb", 4),
        ("nvidia_com_gpu_shared", 4),
        ("nvidia_com_hostdev", 0),
        ("intel_com_qat", 0),
    ],
)
def test_gpus_are_known_by_the_name_of_their_resource(resource: str, gpus: int) -> None:
    pods = pods_of(surveyed(KubePod("a", "p", "n1", gpus=4, resource=resource), KubePod("a", "q", gpus=1)))
    assert pods["p"].gpus == gpus


def test_without_any_request_on_the_page_gpus_are_not_known() -> None:
    survey = surveyed(KubePod("a", "p", "n1"), nodes=[KubeNode("n1")])
    assert pods_of(survey)["p"].gpus is None
    assert nodes_of(survey)["n1"].state is None


def test_containers_add_up_and_the_scheduler_knows_better() -> None:
    survey = Survey()
    base = {"namespace": "a", "pod": "p", "node": "n1", "resource": "nvidia_com_gpu"}
    for container in ("main", "side", "main"):
        survey.take("kube_pod_container_resource_requests", {**base, "uid": "1", "container": container}, 2)
    assert survey.pods()[0].gpus == 4
    scheduler = Survey()
    scheduler.take("kube_pod_resource_request", {**base, "resource": "nvidia.com/gpu"}, 3)
    survey.absorb(scheduler)
    assert [(pod.uid, pod.gpus) for pod in survey.pods()] == [("1", 3)]


def test_of_two_pods_of_one_name_the_younger_counts() -> None:
    survey = Survey()
    for uid, created, node in (("old", 100.0, "n1"), ("new", 200.0, "n2")):
        base = {"namespace": "a", "pod": "db-0", "uid": uid}
        survey.take("kube_pod_created", base, created)
        survey.take("kube_pod_info", {**base, "node": node}, 1)
    assert [(pod.uid, pod.node) for pod in survey.pods()] == [("new", "n2")]


def test_names_that_a_server_exports_beside_its_own_are_the_real_ones() -> None:
    survey = Survey()
    own = {"namespace": "monitoring", "pod": "ksm-0", "node": "infra1", "uid": "1"}
    real = {"exported_namespace": "a", "exported_pod": "p", "exported_node": "n1"}
    survey.take("kube_pod_info", own | real, 1)
    assert [(pod.namespace, pod.name, pod.node) for pod in survey.pods()] == [("a", "p", "n1")]


# --- nodes and racks -----------------------------------------------------------------------------------


def test_a_nodes_state_is_in_the_words_of_schedulers() -> None:
    survey = surveyed(
        KubePod("a", "p", "full", gpus=8),
        KubePod("a", "q", "part", gpus=2),
        KubePod("a", "r", "sick", gpus=8),
        KubePod("a", "done", "free", gpus=8, phase="Succeeded"),
        nodes=[
            KubeNode("full"),
            KubeNode("part"),
            KubeNode("free"),
            KubeNode("cordoned", is_cordoned=True),
            KubeNode("sick", is_ready=False, is_cordoned=True),
            KubeNode("control-plane", gpus=0),
        ],
    )
    states = {name: node.state for name, node in nodes_of(survey).items()}
    assert states == {"full": "alloc", "part": "mix", "free": "idle", "cordoned": "drain", "sick": "down"}


@pytest.mark.parametrize(
    ("capacity", "labels", "boards"),
    [
        ({"nvidia_com_gpu": 8}, {}, 8),
        ({"amd_com_gpu": 8}, {}, 8),
        ({"nvidia_com_gpu": 32}, {}, None),
        ({"nvidia_com_gpu": 16}, {"label_nvidia_com_gpu_replicas": "4"}, None),
        ({"nvidia_com_gpu": 16}, {"label_nvidia_com_gpu_replicas": "4", "label_nvidia_com_gpu_count": "4"}, 4),
        ({"nvidia_com_gpu": 4, "nvidia_com_mig_1g_10gb": 28}, {}, None),
        ({"nvidia_com_gpu": 14}, {"label_nvidia_com_mig_strategy": "single"}, None),
        ({"nvidia_com_gpu": 0}, {"label_nvidia_com_gpu_count": "8"}, 8),
        ({"nvidia_com_gpu": 8}, {"label_nvidia_com_gpu_count": "\u0668many"}, 8),
    ],
)  # fmt: skip
def test_boards_are_counted_only_where_boards_are_counted(
    capacity: dict[str, int], labels: dict[str, str], boards: int | None
) -> None:
    survey = surveyed(nodes=[KubeNode("n1", capacity=capacity, labels=labels)])
    assert nodes_of(survey)["n1"].gpus == boards


def test_the_first_label_that_most_nodes_have_says_where_they_stand() -> None:
    labels = {f"n{n}": {CLIQUE: f"7b968a6d-c8aa-45e1-9e07-e1e51be99c31.{n // 2}"} for n in range(4)}
    labels["n0"][RACK] = "left-over"
    assert racks_from(labels)["n3"] == ("clique 7b968a6d.1", "label nvidia.com/gpu.clique")
    for n in range(2):
        labels[f"n{n}"][RACK] = f"r{n}"
    assert racks_from(labels) == {
        "n0": ("r0", "label topology.kubernetes.io/rack"),
        "n1": ("r1", "label topology.kubernetes.io/rack"),
    }


@pytest.mark.parametrize(
    ("zones", "is_rack"),
    [(("us-east-1a", "us-east-1b"), False), (("rack-1", "rack-2"), True), (("r07", "r07"), False)],
)
def test_a_zone_is_a_rack_only_where_it_looks_like_one(zones: tuple[str, str], is_rack: bool) -> None:
    labels = {f"n{n}": {ZONE: zones[n // 4]} for n in range(8)}
    assert bool(racks_from(labels)) is is_rack


def test_cliques_of_one_beginning_keep_their_whole_names() -> None:
    labels = {"n0": {CLIQUE: "7b968a6d-aaaa.1"}, "n1": {CLIQUE: "7b968a6d-bbbb.1"}}
    assert {rack for rack, _ in racks_from(labels).values()} == {"7b968a6d-aaaa.1", "7b968a6d-bbbb.1"}


# --- what is told --------------------------------------------------------------------------------------


def deployment(ready: int = 3, *pods: KubePod) -> Survey:
    chain = [("a", "ReplicaSet", "chat-5d9", "Deployment", "chat")]
    return surveyed(
        *(pods or [KubePod("a", f"chat-5d9-{n}", "n1", ("ReplicaSet", "chat-5d9"), gpus=1) for n in "xyz"]),
        KubePod("kube-system", "proxy-1", "n1", ("DaemonSet", "proxy")),
        owners=chain,
        deployments=[("a", "chat", 4, ready), ("kube-system", "coredns", 2, 2)],
        nodes=[KubeNode("n1")],
    )


def test_facts_are_told_once_and_again_when_they_change() -> None:
    teller = Teller()
    first = teller.tell(deployment(), AT)
    assert sorted(told(first, PodFact)) == ["chat-5d9-x", "chat-5d9-y", "chat-5d9-z"]
    assert told(first, ServiceFact) == {"a/chat": ServiceFact(AT, "a/chat", 3, 4)}
    assert told(first, NodeFact) == {"n1": NodeFact(AT, "n1", gpus_expected=8, state="mix")}
    assert teller.tell(deployment(), AT + 30) == []
    assert teller.tell(deployment(4), AT + 60) == [ServiceFact(AT + 60, "a/chat", 4, 4)]
    assert teller.summary == "pods: 4, with GPUs: 3 (3 GPUs)"


def test_a_pod_starts_when_its_node_took_it_and_ends_when_it_is_over_or_gone() -> None:
    teller = Teller()
    running = [KubePod("a", name, "n1", gpus=1) for name in ("p", "q", "r")]
    facts = told(teller.tell(surveyed(*running), AT), PodFact)
    assert facts["p"] == PodFact(
        1_700_000_000.0, None, "a", "p", "Pod", "p", uid="a-p-uid", node="n1", phase="Running", gpus=1
    )
    over = KubePod("a", "p", "n1", gpus=1, phase="Failed")
    moved = KubePod("a", "q", "n2", gpus=1, uid="another", started=AT + 20)
    news = [fact for fact in teller.tell(surveyed(over, moved), AT + 30) if isinstance(fact, PodFact)]
    assert {(fact.pod, fact.node, fact.until) for fact in news} == {
        ("p", "n1", AT + 30),
        ("q", "n1", AT + 30),
        ("q", "n2", None),
        ("r", "n1", AT + 30),
    }
    assert teller.tell(surveyed(over, moved), AT + 60) == []


def test_a_pod_that_waits_has_no_node_and_its_reason() -> None:
    teller = Teller()
    waiting = KubePod("a", "p", gpus=8, phase="Pending", waiting="yes")
    (fact,) = told(teller.tell(surveyed(waiting), AT), PodFact).values()
    assert isinstance(fact, PodFact)
    assert (fact.node, fact.gpus, fact.waiting, fact.since) == (None, 8, "Unschedulable", 1_699_999_995.0)
    assert teller.summary == "pods: 1, with GPUs: 0 (0 GPUs), waiting for GPUs: 1 (8 GPUs)"


def test_a_node_that_leaves_the_cluster_is_expected_no_more() -> None:
    teller = Teller()
    teller.tell(surveyed(nodes=[KubeNode("n1"), KubeNode("n2")]), AT)
    news = teller.tell(surveyed(nodes=[KubeNode("n1")]), AT + 30)
    assert news == [NodeFact(AT + 30, "n2", gpus_expected=0, state="removed")]


def test_a_node_that_is_well_again_says_so() -> None:
    teller = Teller()
    teller.tell(surveyed(nodes=[KubeNode("n1", is_ready=False)]), AT)
    (news,) = teller.tell(surveyed(nodes=[KubeNode("n1")]), AT + 30)
    assert isinstance(news, NodeFact)
    assert news.state == ""


def test_shards_are_one_cluster() -> None:
    pods = read(Cluster(pods=[KubePod("a", "p", "n1", ("ReplicaSet", "x-1"))]).page())
    owners = read(Cluster(owners=[("a", "ReplicaSet", "x-1", "Deployment", "x")]).page())
    whole = Survey()
    whole.absorb(pods)
    whole.absorb(owners)
    assert pods_of(whole)["p"].owner == "x"
    assert pods_of(pods)["p"].owner == "x-1"


# --- the page ------------------------------------------------------------------------------------------


HOSTILE = ("../../etc", "-rf", "a b", "\x1b]52;c;x\x07", "[red]", "A" * 300, 'x"y', "a\nb", "\u202eevil", "")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_kubernetes_does_not_allow_is_left_out(name: str) -> None:
    survey = surveyed(
        KubePod("a", name, "n1", gpus=1),
        KubePod(name, "q", "n1", gpus=1),
        KubePod("a", "r", "n1", ("Job", name), gpus=1),
        KubePod("a", "good", "n1", gpus=1),
        nodes=[KubeNode(name), KubeNode("n1")],
    )
    assert sorted(pods_of(survey)) == ["good", "r"]
    assert pods_of(survey)["r"].owner == "r"
    assert list(nodes_of(survey)) == ["n1"]
    assert survey.left_out > 0


def test_pieces_of_any_size_give_the_same() -> None:
    page = Cluster(pods=[KubePod("a", f"p{n}", "n1", gpus=n) for n in range(1, 5)]).page()
    assert [read(page, size).pods() for size in (1, 7, 100)] == [read(page).pods()] * 3


@pytest.mark.parametrize(
    ("page", "error", "says"),
    [
        (b"# HELP kube_pod_info x\nkube_pod_info{namespa", Garbled, "cut off"),
        (b"kube_pod_info{pod=} 1\n", Garbled, "not a metrics page"),
        (b'kube_pod_created{namespace="a",pod="p"} many\n', Garbled, "not a number"),
        (b'kube_pod_created{namespace="\xff",pod="p"} 1\n', Garbled, "not a metrics page"),
        (b"kube_" + b"x" * 100_000, Garbled, "longer than"),
        (b"# HELP kube_pod_info x\n# TYPE kube_pod_info gauge\n", Unusable, "no pod and no node"),
    ],
)
def test_a_page_that_is_none_says_why(page: bytes, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        read(page)


def test_a_page_without_an_end_is_given_up() -> None:
    reader = ClusterPage("ksm:8080", page_bytes=1 << 20)
    with pytest.raises(Garbled, match="has no end"):
        for _ in range(100):
            reader.feed(b'kube_pod_created{namespace="a",pod="p"} 1\n' * 1000)


def test_a_clusters_page_is_known_by_its_beginning() -> None:
    assert is_cluster_page(Cluster().page())
    assert is_cluster_page(b'kube_pod_info{pod="p"} 1\n')
    assert not is_cluster_page(b"# HELP node_load1 x\n")
    assert not is_cluster_page(b"# HELP kubelet_running_pods x\n")


def ten_thousand_pods() -> Iterator[bytes]:
    for first in range(0, 10_000, 500):
        pods = [
            KubePod("team", f"w-{n}", f"n{n // 8}", ("PyTorchJob", f"job-{n // 64}"), gpus=1)
            for n in range(first, first + 500)
        ]
        yield Cluster(pods=pods).page()


def test_ten_thousand_pods_take_little_memory() -> None:
    pieces = list(ten_thousand_pods())
    tracemalloc.start()
    reader, teller = ClusterPage("ksm:8080"), Teller()
    for page in pieces:
        reader.feed(page)
    facts = teller.tell(reader.end(), AT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(facts) >= 10_000
    assert peak < 60e6


def test_pods_without_number_are_bounded() -> None:
    survey = Survey()
    for n in range(MAX_PODS + 10):
        survey.take("kube_pod_created", {"namespace": "a", "pod": f"p{n}", "uid": str(n)}, 1.0)
    assert len(survey.pods()) == MAX_PODS
    assert survey.left_out == 10


@pytest.mark.parametrize("name", ["k8s-1.31-ksm.prom", "k8s-1.35-ksm.prom"])
def test_real_pages(name: str) -> None:
    folder = os.environ.get("COLDAISLE_SAMPLES")
    if not folder:
        pytest.skip("COLDAISLE_SAMPLES is not set")
    page = (Path(folder) / "prom" / "kube-state-metrics" / name).read_bytes()
    assert is_cluster_page(page)
    survey = read(page)
    pods = pods_of(survey)
    assert survey.left_out == 0
    assert pods["e2e-statefulset-0"].owner == "e2e-statefulset"
    assert {pod.owner for pod in pods.values() if pod.owner_kind == "Deployment"} >= {"coredns"}
    assert survey.replicas("scraper", "Deployment", "e2e-deployment") == (2, 2)
    assert survey.replicas("scraper", "StatefulSet", "e2e-statefulset") == (2, 2)
    assert survey.nodes(survey.pods()) == []
    assert pods["e2e-container-pending"].node == ""
    assert pods["e2e-container-pending"].waiting
    # everything that is read is there under this name, but for what only other set-ups have
    others = {"kube_pod_labels", "kube_pod_resource_request", "kube_node_labels", "kube_pod_status_reason"}
    others.add("kube_pod_container_status_waiting_reason")
    names = parse(page).shape.names
    assert {asked.name for asked in SERIES} - names <= others
