"""Where an inference server runs: names, ports and GPUs, as far as somebody knows them."""

from __future__ import annotations

import pytest

from coldaisle.sources.cluster import Layout, Server, build_layout
from coldaisle.sources.racks import RackRules
from coldaisle.sources.registry import Registry
from coldaisle.sources.servers import BY_NODE, BY_POD, BY_PROCESS, BY_SOURCE
from coldaisle.sources.source import (
    GpuFact,
    GpuRef,
    JobFact,
    NodeFact,
    Process,
    ProcessFact,
    ServerFact,
    ServerRef,
)

AT = 1_700_000_000.0


def boards(node: str, count: int = 4, first: int = 0) -> tuple[GpuRef, ...]:
    return tuple(GpuRef(node, f"GPU-{n}", f"0000:{0x10 + n:02x}:00.0") for n in range(first, first + count))


CORE = "VLLM::EngineCore_DP0"


def cluster(
    *servers: ServerFact,
    gpus: int = 4,
    processes: dict[int, str | None] | None = None,
    jobs: tuple[JobFact, ...] = (),
) -> Registry:
    """A node n03 with GPUs, the processes on them by GPU, and servers."""
    registry = Registry()
    for ref in boards("n03", gpus):
        registry.take_gpu_fact("probe", GpuFact(AT, ref, "H100"))
    if processes is not None:
        found = tuple(
            Process(boards("n03", gpus)[gpu], 100 + gpu, "u", command, None, None)
            for gpu, command in processes.items()
        )
        registry.take_processes(ProcessFact(AT, "n03", found))
    for job in jobs:
        registry.take_job(job)
    for fact in servers:
        registry.take_server("exporters", fact)
    return registry


def server(port: int = 8000, engine: str = "vLLM", *, host: str = "n03", **more: object) -> ServerFact:
    model = f" {more.pop('behind')}" if "behind" in more else ""
    return ServerFact(AT, ServerRef("n03", f"{host}:{port}{model}"), engine, **more)  # type: ignore[arg-type]


def placed(registry: Registry) -> list[tuple[tuple[int, ...], str | None]]:
    return [(one.gpus, one.gpus_known_by) for one in seen(registry).servers]


def seen(registry: Registry) -> Layout:
    return build_layout(registry, RackRules())


NOBODY = ((), None)
ALL = (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("engine", "command"),
    [
        ("vLLM", CORE),
        ("vLLM", "VLLM::Worker_TP3"),
        ("vLLM", "/usr/bin/python3 /usr/local/bin/vllm serve Qwen/Qwen3-32B --port 8000"),
        ("vLLM", "python -m vllm.entrypoints.openai.api_server --model m --port=8000"),
        ("vLLM", "python3 -m dynamo.vllm --model Qwen/Qwen3-0.6B"),
        ("SGLang", "sglang::scheduler_TP0"),
        ("SGLang", "python3 -m sglang.launch_server --model-path m --tp 4"),
        ("TGI", "/opt/conda/bin/python3.11 /opt/conda/bin/text-generation-server serve m --shard"),
        ("Triton", "/opt/tritonserver/bin/tritonserver --http-port=8080 --metrics-port=8000"),
        ("TensorRT-LLM", "/usr/bin/python3 /usr/local/bin/trtllm-serve m --port 8000"),
    ],
)
def test_an_engines_processes_are_its_servers(engine: str, command: str) -> None:
    registry = cluster(server(engine=engine), processes={0: command, 1: command, 3: "python train.py"})
    assert placed(registry) == [((0, 1), BY_PROCESS)]


def test_processes_of_somebody_else_are_not() -> None:
    for command in ("python /home/vllm-fan/train.py", "python train.py --name notvllm", "/opt/sglangish/x"):
        assert placed(cluster(server(), processes={0: command})) == [NOBODY]


def test_a_sites_own_engine_has_processes_of_its_own() -> None:
    fact = server(engine="Ours", processes=("our-engine",))
    assert placed(cluster(fact, processes={1: "/opt/our-engine --x", 2: CORE})) == [((1,), BY_PROCESS)]
    assert placed(cluster(server(engine="Ours"), processes={1: "/opt/our-engine"})) == [NOBODY]


def test_two_servers_of_an_engine_are_told_apart_by_their_ports() -> None:
    commands: dict[int, str | None] = {0: "vllm serve a --port 8000", 2: "vllm serve b --port 8001"}
    registry = cluster(server(8000), server(8001), processes=commands)
    assert placed(registry) == [((0,), BY_PROCESS), ((2,), BY_PROCESS)]


def test_workers_have_the_port_of_the_parent_that_started_them() -> None:
    found = tuple(
        Process(gpu, 100 + n, "u", CORE, None, None, (8000 + n // 2,)) for n, gpu in enumerate(boards("n03"))
    )
    registry = cluster(server(8000), server(8001))
    registry.take_processes(ProcessFact(AT, "n03", found))
    assert placed(registry) == [((0, 1), BY_PROCESS), ((2, 3), BY_PROCESS)]
    registry = cluster(server(8000), server(8005))  # mapped ports: which is which is not known
    registry.take_processes(ProcessFact(AT, "n03", found))
    assert placed(registry) == [NOBODY, NOBODY]
    registry = cluster(server(8001))  # the other one is not watched
    registry.take_processes(ProcessFact(AT, "n03", found))
    assert placed(registry) == [((2, 3), BY_PROCESS)]


def test_workers_without_a_port_may_be_either_servers() -> None:
    commands: dict[int, str | None] = {0: "vllm serve a --port 8000", 1: CORE}
    assert placed(cluster(server(8000), server(8001), processes=commands)) == [NOBODY, NOBODY]
    assert placed(cluster(server(8000), processes=commands)) == [((0, 1), BY_PROCESS)]


def test_servers_of_different_engines_are_told_apart_by_their_processes() -> None:
    registry = cluster(
        server(8000), server(30000, "SGLang"), processes={0: CORE, 1: "sglang::scheduler_TP0", 2: None}
    )
    assert placed(registry) == [((0,), BY_PROCESS), ((1,), BY_PROCESS)]


def test_a_mapped_port_of_a_lone_server() -> None:
    registry = cluster(server(18000), processes={0: "vllm serve a --port 8000"})
    assert placed(registry) == [((0,), BY_PROCESS)]


def test_models_behind_one_port_share_its_gpus() -> None:
    registry = cluster(server(behind="llama"), server(behind="mistral"), processes={2: CORE})
    assert placed(registry) == [((2,), BY_PROCESS)] * 2
    assert [one.name for one in seen(registry).servers] == ["n03:8000 llama", "n03:8000 mistral"]


@pytest.mark.parametrize("here", ["127.0.0.1", "localhost", "::1"])
def test_a_server_asked_at_loopback_is_where_the_processes_name_its_port(here: str) -> None:
    fact = ServerFact(AT, ServerRef(here, f"{here}:8001"), "vLLM")
    registry = cluster(fact)
    before = registry.version
    gpus = boards("n03")
    registry.take_processes(ProcessFact(AT, "n03", (Process(gpus[2], 7, "u", CORE, None, None, (8001,)),)))
    assert registry.version > before
    assert placed(registry) == [((2,), BY_PROCESS)]
    registry.take_gpu_fact("probe", GpuFact(AT, GpuRef("n04", "GPU-x", "0000:10:00.0"), "H100"))
    registry.take_processes(
        ProcessFact(AT, "n04", (Process(GpuRef("n04", "GPU-x"), 7, "u", CORE, None, None, (8001,)),))
    )
    assert placed(registry) == [NOBODY], "either may be behind the tunnel"
    assert placed(cluster(fact, processes={0: CORE})) == [NOBODY], "no port is named"


def test_a_pods_gpus_are_its_servers() -> None:
    """Its page is at the pod's own address: dcgm-exporter knows the node."""
    job = JobFact(AT, None, "k8s:ml/Pod/llm-0", "llm-0", "", ("n03",), boards("n03", 2, first=1))
    other = JobFact(AT, None, "k8s:ml/Pod/llm-1", "llm-1", "", ("n03",), boards("n03", 1))
    over = JobFact(AT, AT + 1, "k8s:old/Pod/llm-0", "llm-0", "", ("n03",), boards("n03", 1))
    for namespace in ("ml", None):
        fact = ServerFact(
            AT, ServerRef("10.244.1.7", "10.244.1.7:8000"), "vLLM", pod="llm-0", namespace=namespace
        )
        assert placed(cluster(fact, jobs=(job, other, over))) == [((1, 2), BY_POD)]
    assert placed(cluster(server(pod="llm-0", namespace="elsewhere"), server(1), jobs=(job,))) == [NOBODY] * 2


def test_the_only_server_of_a_node_has_its_gpus_unless_something_speaks_against_it() -> None:
    assert placed(cluster(server())) == [(ALL, BY_NODE)]
    assert placed(cluster(server(behind="a"), server(behind="b"))) == [(ALL, BY_NODE)] * 2
    assert placed(cluster(server(), processes={0: None})) == [(ALL, BY_NODE)], "whose is not told"
    assert placed(cluster(server(), server(8001))) == [NOBODY, NOBODY]
    assert placed(cluster(server(), processes={})) == [NOBODY], "there is no process on any GPU"
    assert placed(cluster(server(), gpus=0)) == [NOBODY]


def test_what_the_servers_source_knows_goes_first() -> None:
    fact = server(gpus=boards("n03", 1))
    assert placed(cluster(fact, processes={3: CORE})) == [((0,), BY_SOURCE)]


def test_a_front_end_is_on_no_gpu_and_in_nobodys_way() -> None:
    registry = cluster(server(8000), server(9000, "Dynamo", gpus=()))
    assert placed(registry) == [(ALL, BY_NODE), ((), BY_SOURCE)]


def test_a_layout_follows_the_processes() -> None:
    registry = cluster(server(), processes={0: CORE})
    before = registry.version
    gpu = boards("n03")[0]
    registry.take_processes(ProcessFact(AT + 1, "n03", (Process(gpu, 100, "u", CORE, 5, 0.5),)))
    assert registry.version == before, "what they use of a GPU changes nothing"
    moved = Process(boards("n03")[3], 101, "u", CORE, None, None)
    registry.take_processes(ProcessFact(AT + 2, "n03", (moved,)))
    assert registry.version > before
    assert placed(registry) == [((3,), BY_PROCESS)]


# ---- names


def one_server(registry: Registry) -> Server:
    (found,) = seen(registry).servers
    return found


def test_a_server_is_one_under_every_name_of_its_node() -> None:
    registry = Registry({"10.0.3.7": "n03"})
    for source, node, name in (
        ("exporters", "n03", "n03:8000"),
        ("prometheus", "10.0.3.7", "10.0.3.7:8000"),
        ("other", "n03.cluster.example", "n03.cluster.example:8000"),
        ("query", "n03", "10.0.3.7:8000"),
    ):
        registry.take_server(source, ServerFact(AT, ServerRef(node, name), "vLLM", model="m"))
    assert (one_server(registry).key, one_server(registry).name) == ("n03/n03:8000", "n03:8000")


def test_a_late_join_keeps_what_is_known_of_a_server() -> None:
    registry = Registry()
    registry.take_server("exporters", ServerFact(AT, ServerRef("10.0.3.7", "10.0.3.7:8000"), "vLLM"))
    registry.take_server("query", ServerFact(AT, ServerRef("n03", "n03:8000"), model="m"))
    assert len(seen(registry).servers) == 2
    registry.take_node_fact("node", NodeFact(AT, "10.0.3.7", hostname="n03"))
    found = one_server(registry)
    assert (found.name, found.engine, found.model) == ("n03:8000", "vLLM", "m")
    assert [(move.kind, move.old, move.new) for move in registry.moved if move.kind == "serve"] == [
        ("serve", 0, 1)
    ]


def test_pods_with_addresses_of_their_own_stay_apart_on_the_node_of_their_gpus() -> None:
    registry = cluster()
    for address, gpu in (("10.244.1.7", 0), ("10.244.1.8", 1)):
        mine = boards("n03")[gpu]._replace(node=address)
        registry.take_gpu_fact("exporters", GpuFact(AT, mine, None))
        for _ in range(2):  # again after the join
            name = f"{address}:8002"
            registry.take_server(
                "exporters", ServerFact(AT, ServerRef(address, name), "Triton", gpus=(mine,))
            )
    registry.take_gpu_fact("probe", GpuFact(AT, boards("n03")[0], "H100"))
    layout = seen(registry)
    assert [node.key for node in layout.nodes] == ["n03"]
    assert [(one.name, one.gpus) for one in layout.servers] == [
        ("10.244.1.7:8002", (0,)),
        ("10.244.1.8:8002", (1,)),
    ]


def test_ports_of_one_host_are_servers_of_their_own() -> None:
    registry = Registry()
    for port in (8000, 8001):
        registry.take_server("exporters", ServerFact(AT, ServerRef("127.0.0.1", f"127.0.0.1:{port}"), "vLLM"))
    layout = seen(registry)
    assert [(node.key, len(node.servers)) for node in layout.nodes] == [("127.0.0.1", 2)]
    assert [one.name for one in layout.servers] == ["127.0.0.1:8000", "127.0.0.1:8001"]


def test_a_mig_instance_can_hold_a_server() -> None:
    registry = cluster(server(), gpus=1)
    whole = boards("n03", 1)[0]
    instance = GpuRef("n03", whole.uuid, whole.pci, mig="gi1")
    registry.take_gpu_fact("probe", GpuFact(AT, instance, "H100", mig_profile="3g.40gb"))
    registry.take_processes(ProcessFact(AT, "n03", (Process(instance, 7, "u", CORE, None, None),)))
    (found,) = seen(registry).servers
    assert [seen(registry).gpus[number].key for number in found.gpus] == ["n03/0:gi1"]
