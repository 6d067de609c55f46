"""What becomes news of what Slurm says: jobs, nodes, queues, racks, clocks. No Slurm is asked."""

from __future__ import annotations

import pytest
from lab.slurm_records import AT, job, node, told, waiting

from coldaisle.sources.cluster import build_layout
from coldaisle.sources.racks import RackRules
from coldaisle.sources.registry import ASSUMED_SLOTS, Registry
from coldaisle.sources.slurm.records import Board, Jobs, Nodes, SlurmJob, SlurmNode, Topology
from coldaisle.sources.slurm.telling import Teller, happened_to, in_order
from coldaisle.sources.slurm.topology import from_nodes, leaves_from_features, read_conf, read_yaml
from coldaisle.sources.source import (
    Demand,
    Event,
    GpuRef,
    Gres,
    Item,
    JobFact,
    JobRef,
    Kind,
    NodeFact,
    QueueFact,
)


def facts(items: list[Item]) -> list[JobFact]:
    return [item for item in items if isinstance(item, JobFact)]


def events(items: list[Item]) -> list[tuple[str, str]]:
    return [(item.kind, item.detail) for item in items if isinstance(item, Event)]


def test_only_news_is_told() -> None:
    teller = told(node())
    items = teller.take_jobs(Jobs([job(), waiting()]), AT)
    assert [fact.id for fact in facts(items)] == ["slurm:7", "slurm:8"]
    assert events(items) == []
    again = teller.take_jobs(Jobs([job(), waiting()]), AT + 60)
    assert facts(again) == []
    assert isinstance(again[-1], QueueFact)
    assert teller.take_nodes(Nodes([node()]), AT + 60) == []


def test_a_job_from_its_submission_to_its_end() -> None:
    teller = told(node())
    teller.take_jobs(Jobs([]), AT - 120)
    (first, _) = teller.take_jobs(Jobs([waiting(7, start=AT + 500)]), AT - 90)
    assert isinstance(first, JobFact)
    assert (first.since, first.until, first.is_waiting, first.expected_at) == (AT - 100, None, True, AT + 500)
    started = teller.take_jobs(Jobs([job(7)]), AT)
    assert events(started) == [("job_start", "kim's train started on 2 GPUs of n1")]
    (fact,) = facts(started)
    assert fact.gpus == (GpuRef("n1", slurm=0), GpuRef("n1", slurm=1))
    assert (fact.since, fact.limit_at, fact.submitted_at) == (AT - 60, AT + 3600, AT - 100)
    over = job(7, state="TIMEOUT", is_holding=False, boards=(), gpus=None, end=AT + 30)
    ended = teller.take_jobs(Jobs([over]), AT + 60)
    (fact,) = facts(ended)
    assert (fact.until, fact.state, fact.gpus, fact.gpu_count) == (AT + 30, "TIMEOUT", (GpuRef("n1", slurm=0), GpuRef("n1", slurm=1)), 2)  # fmt: skip
    assert events(ended) == [("job_end", "kim's train ended: TIMEOUT on 2 GPUs of n1")]
    assert facts(teller.take_jobs(Jobs([]), AT + 120)) == []


def test_a_job_that_vanishes_has_ended() -> None:
    teller = told(node())
    teller.take_jobs(Jobs([job(), waiting()]), AT)
    items = teller.take_jobs(Jobs([]), AT + 60)
    assert {(fact.id, fact.until, fact.state) for fact in facts(items)} == {
        ("slurm:7", AT + 60, "ENDED"),
        ("slurm:8", AT + 60, "PENDING"),
    }
    assert {kind for kind, _ in events(items)} == {"job_end"}


def test_a_start_that_slurm_corrects_is_no_second_one() -> None:
    teller, registry = told(node()), Registry()
    looks = [
        job(state="CONFIGURING", start=AT - 60, restarts=0), job(start=AT - 58, restarts=0),
        job(start=AT - 5, restarts=1),
    ]  # fmt: skip
    teller.take_jobs(Jobs([]), AT - 70)
    said = [teller.take_jobs(Jobs([look]), AT) for look in looks]
    assert [[kind for kind, _ in events(items)] for items in said] == [
        ["job_start"],
        [],
        ["job_requeue", "job_start"],
    ]
    for items in said:
        registry.take_job(facts(items)[0], "slurm")
    assert [fact.since for fact in registry.jobs_at(AT - 30)] == [AT - 58]
    assert [fact.since for fact in registry.jobs_at(AT)] == [AT - 5]
    assert registry.jobs_at(AT - 59) == []


def test_a_job_keeps_its_gpus_until_its_nodes_are_clean() -> None:
    """As 22.05 tells it: what is requeued has no GPUs and its next start while it still holds its nodes."""
    teller = told(node())
    teller.take_jobs(Jobs([]), AT - 70)
    teller.take_jobs(Jobs([job(restarts=0)]), AT)
    completing = job(state="COMPLETING", boards=(), gpus=None, start=AT + 1, restarts=1)
    items = teller.take_jobs(Jobs([completing]), AT + 1)
    (fact,) = facts(items)
    assert (fact.since, fact.state, fact.gpu_count, len(fact.gpus)) == (AT - 60, "COMPLETING", 2, 2)
    assert events(items) == []
    items = teller.take_jobs(Jobs([waiting(7, submitted=AT + 1, restarts=1)]), AT + 2)
    assert [kind for kind, _ in events(items)] == ["job_requeue"]


def test_a_job_that_is_cancelled_before_it_started_held_nothing() -> None:
    teller = told(node())
    teller.take_jobs(Jobs([waiting()]), AT)
    over = waiting(8, state="CANCELLED", is_waiting=False, end=AT + 5, start=None)
    (fact,) = facts(teller.take_jobs(Jobs([over]), AT + 60))
    assert (fact.until, fact.state, fact.reason, fact.nodes) == (AT + 5, "PENDING", "CANCELLED", ())


def test_jobs_without_gpus_elsewhere_are_nobodys_business() -> None:
    cpu_only = {"boards": (), "gpus": None, "gpus_asked": 0}
    jobs = [job(1), job(2, nodes=("c1",), **cpu_only), job(3, **cpu_only), waiting(4, gpus=0, gpus_asked=0)]
    nodes = [node(), node("c1", gres=())]
    for is_all, shown in ((False, [1, 3]), (True, [1, 2, 3, 4])):
        teller = told(*nodes, all_nodes=is_all)
        found = facts(teller.take_jobs(Jobs(jobs), AT))
        assert [fact.id for fact in found] == [f"slurm:{number}" for number in shown]
    without = Teller()
    assert len(without.take_nodes(Nodes([node("c1", gres=()), node("c2", gres=())]), AT)) == 2


def test_whole_nodes_need_no_numbers() -> None:
    teller = told(node(), node("n2"))
    (whole,) = facts(teller.take_jobs(Jobs([job(nodes=("n1", "n2"), boards=(), gpus=8)]), AT))
    assert len(whole.gpus) == 8
    (part,) = facts(teller.take_jobs(Jobs([job(nodes=("n1", "n2"), boards=(), gpus=4)]), AT))
    assert (part.gpus, part.gpu_count) == ((), 4)


def test_what_the_queue_comes_to() -> None:
    teller = told(node())
    queue = [
        job(1), waiting(2, gpus=8, reason="Resources"), waiting(3, gpus=2, tasks=10), waiting(4, gpus=4, reason="Dependency"),
        waiting(5, gpus=1, reason="JobHeldUser", partition="late"), waiting(6, gpus=1, reason=None, start=AT + 100),
        waiting(7, gpus=1, start=AT + 50),
    ]  # fmt: skip
    fact = teller.take_jobs(Jobs(queue), AT)[-1]
    assert isinstance(fact, QueueFact)
    assert (fact.running, fact.waiting, fact.held) == (Demand(1, 2), Demand(13, 30), Demand(2, 5))
    assert fact.next_start_at == AT + 50
    assert fact.partitions == (("gpu", Demand(1, 2), Demand(13, 30)), ("late", Demand(0, 0), Demand(0, 0)))


def test_clocks_that_differ() -> None:
    teller = told(node())
    teller.offset_s = 30.0
    (fact,) = facts(teller.take_jobs(Jobs([job()]), AT))
    assert (fact.since, fact.limit_at) == (AT - 90, AT + 3570)
    teller = told(node())
    teller.offset_s = 1.2
    (fact,) = facts(teller.take_jobs(Jobs([job()]), AT))
    assert fact.since == AT - 60


def test_what_happens_to_a_node() -> None:
    teller = told(node())
    busy = teller.take_nodes(Nodes([node(state="alloc", gpus_used=4)]), AT + 1)
    assert events(busy) == []
    drained = node(state="drain", flags=("idle", "drain"), reason="ECC", reason_by="root", reason_at=AT)
    assert events(teller.take_nodes(Nodes([drained]), AT + 2)) == [("drain", "alloc -> drain: ECC (root)")]
    again = drained._replace(reason="fan")
    assert events(teller.take_nodes(Nodes([again]), AT + 3)) == [("drain", "drain -> drain: fan (root)")]
    back = node(booted=AT + 3)
    assert events(teller.take_nodes(Nodes([back]), AT + 4)) == [
        ("reboot", "it was booted again"),
        ("node_state", "drain -> mix"),
    ]
    assert events(teller.take_nodes(Nodes([node("n2")]), AT + 5)) == [
        ("node_state", "Slurm has no such node any more")
    ]


def test_an_old_drain_is_no_event_at_the_first_look() -> None:
    old = node(state="drain", reason="x", reason_at=AT - 2 * 86400)
    new = node("n2", state="down", reason="y", reason_at=AT - 60)
    teller = Teller()
    assert events(teller.take_nodes(Nodes([old, new]), AT)) == [("down", "down: y")]


def test_addresses_that_nodes_share_say_nothing() -> None:
    nodes = [
        node(address="10.0.0.1"),
        node("n2", address="10.0.0.9"),
        node("n3", address="10.0.0.9"),
        node("n4", address="127.0.0.4"),
    ]
    items = Teller().take_nodes(Nodes(nodes), AT)
    assert [item.address for item in items if isinstance(item, NodeFact)] == ["10.0.0.1", None, None, None]


# --- the registry --------------------------------------------------------------------------------


def registry_of(teller: Teller, nodes: list[SlurmNode], jobs: list[SlurmJob]) -> Registry:
    registry = Registry()
    for item in (*teller.take_nodes(Nodes(nodes), AT), *teller.take_jobs(Jobs(jobs), AT)):
        if isinstance(item, NodeFact):
            registry.take_node_fact("slurm", item)
        elif isinstance(item, JobFact):
            registry.take_job(item, "slurm")
    return registry


def boards(count: int, *, minors: list[int] | None = None, name: str = "n1") -> tuple[GpuRef, ...]:
    return tuple(
        GpuRef(name, f"GPU-{n}", f"0000:{n:02x}:00.0", minors[n] if minors else None, n) for n in range(count)
    )


def slots_of(registry: Registry, key: str = "slurm:7") -> tuple[list[int], str | None]:
    rows, how = registry.gpu_rows_known_by(registry.jobs[key].gpus)
    layout = build_layout(registry, RackRules())
    place = {int(row): gpu.slot for row, gpu in zip(layout.rows[Kind.GPU], layout.gpus, strict=True)}
    return [place[row] for row in rows], how


def test_with_slurm_alone_its_numbers_are_the_slots() -> None:
    registry = registry_of(Teller(), [node()], [job(boards=(Board("n1", (1, 3)),))])
    layout = build_layout(registry, RackRules())
    assert [gpu.key for gpu in layout.gpus] == ["n1/0", "n1/1", "n1/2", "n1/3"]
    assert slots_of(registry) == ([1, 3], "Slurm's own numbers")


def test_boards_that_are_seen_later_take_the_expected_places() -> None:
    registry = registry_of(Teller(), [node()], [job(boards=(Board("n1", (1, 3)),))])
    rows = registry.rows_of("ssh", Kind.GPU, boards(4, minors=[3, 2, 1, 0]), AT + 1)
    assert sorted(rows) == [0, 1, 2, 3]
    layout = build_layout(registry, RackRules())
    assert [(gpu.slot, gpu.minor, gpu.uuid) for gpu in layout.gpus] == [
        (0, 3, "GPU-0"), (1, 2, "GPU-1"), (2, 1, "GPU-2"), (3, 0, "GPU-3"),
    ]  # fmt: skip
    # minor 1 is in slot 2 and minor 3 in slot 0: PCI order is not that of the device files
    assert slots_of(registry) == ([2, 0], "minor number")


def test_boards_that_were_seen_before_are_not_expected_again() -> None:
    registry = Registry()
    registry.rows_of("exporters", Kind.GPU, boards(4), AT)
    teller = Teller()
    for item in teller.take_nodes(Nodes([node()]), AT):
        if isinstance(item, NodeFact):
            registry.take_node_fact("slurm", item)
    registry.take_job(facts(teller.take_jobs(Jobs([job()]), AT))[0], "slurm")
    assert len(build_layout(registry, RackRules()).gpus) == 4
    assert slots_of(registry) == ([0, 1], ASSUMED_SLOTS)


def test_a_lost_card_is_still_expected() -> None:
    registry = registry_of(Teller(), [node()], [job(boards=(Board("n1", (2,)),))])
    seen = tuple(ref for ref in boards(4, minors=[0, 1, 2, 3]) if ref.minor != 2)
    registry.rows_of("ssh", Kind.GPU, seen, AT + 1)
    layout = build_layout(registry, RackRules())
    assert [gpu.minor for gpu in layout.gpus] == [0, 1, 3, None]
    assert slots_of(registry) == ([3], "Slurm's own numbers")


def test_mig_instances_are_counted_board_by_board() -> None:
    gres = (Gres("gpu", "a100_1g.10gb", 4),)
    boards_held = (Board("n1", (1, 2), is_mig=True),)
    registry = registry_of(Teller(), [node(gres=gres)], [job(boards=boards_held)])
    assert len(build_layout(registry, RackRules()).gpus) == 0
    parents = boards(2, minors=[0, 1])
    instances = [
        ref._replace(mig=f"gi{gi}", mig_uuid=f"MIG-{ref.minor}-{gi}") for ref in parents for gi in (7, 13)
    ]
    registry.rows_of("ssh", Kind.GPU, (*parents, *instances), AT + 1)
    rows, how = registry.gpu_rows_known_by(registry.jobs["slurm:7"].gpus)
    assert [(registry.gpus[row].uuid) for row in rows] == ["MIG-0-13", "MIG-1-7"]
    assert how is not None
    assert how.startswith("assumed")


def test_an_exporters_label_says_which_gpus_a_job_has() -> None:
    registry = registry_of(Teller(), [node()], [job(boards=(), gpus=2)])
    registry.rows_of("exporters", Kind.GPU, boards(4), AT)
    claim = JobFact(AT, None, "slurm:7", "7", "", ("n1",), (boards(4)[3], boards(4)[1]))
    registry.take_job(claim, "exporters")
    known = registry.jobs["slurm:7"]
    assert (known.user, known.name, known.since) == ("kim", "train", AT - 60)
    assert slots_of(registry) == ([3, 1], "UUID")
    over = JobFact(AT, AT + 5, "slurm:7", "7", "", ("n1",), claim.gpus)
    registry.take_job(over, "exporters")
    assert registry.jobs["slurm:7"].until is None


def test_who_ran_and_who_waited_then() -> None:
    teller = Teller()
    registry = registry_of(teller, [node()], [job(), waiting()])
    assert [one.id for one in registry.jobs_at(AT)] == ["slurm:7"]
    assert [one.id for one in registry.waiting_at(AT)] == ["slurm:8"]
    assert [(one.id, one.is_waiting, one.until) for one in registry.waiting_at(AT - 80)] == [
        ("slurm:7", True, AT - 60),
        ("slurm:8", True, None),
    ]
    over = job(state="FAILED", is_holding=False, boards=(), end=AT + 5)
    for fact in facts(teller.take_jobs(Jobs([over]), AT + 60)):
        registry.take_job(fact, "slurm")
    assert registry.jobs_at(AT + 6) == []
    (then,) = registry.jobs_at(AT)
    assert (then.state, len(then.gpus)) == ("RUNNING", 2)


def test_a_nodes_own_word_counts_more_than_the_configuration() -> None:
    registry = Registry()
    registry.take_node_fact("ssh", NodeFact(AT, "n1", cpus=128, kernel="6.1"))
    registry.take_node_fact(
        "slurm", NodeFact(AT, "n1", cpus=64, memory_bytes=5, state="mix", is_hearsay=True)
    )
    fact = registry.node("n1", AT).fact
    assert fact is not None
    assert (fact.cpus, fact.memory_bytes, fact.state, fact.kernel) == (128, 5, "mix", "6.1")
    registry.take_node_fact("slurm", NodeFact(AT, "n1", address="10.0.0.1", is_hearsay=True))
    assert registry.node("10.0.0.1", AT).key == "n1"


# --- topology ------------------------------------------------------------------------------------

CONF = """
# comment
SwitchName=s0 Nodes=dev[0-1] LinkSpeed=1
SwitchName=s1 Nodes=dev[2-3]   # behind
SwitchName=top Switches=s[0-1]
SwitchName=core Switches=top,core
"""
YAML = """
---
- topology: gpus
  cluster_default: false
  block:
    block_sizes: [4, 8]
    blocks:
      - block: b1
        nodes: node[01-02]
      - block: b2
        nodes: "node[03-04]"
- topology: fabric
  cluster_default: true   # this one
  tree:
    switches:
      - switch: sw_root
        children: s[1-2]
      - switch: s1
        nodes: node[01-02]
      - switch: s2
        nodes: node[03-04]
"""


def test_topology_conf() -> None:
    found = read_conf(CONF)
    assert found.switches["dev0"] == ("s0", "top", "core")
    assert found.switches["dev3"] == ("s1", "top", "core")
    assert len(found.switches) == 4
    blocks = read_conf("BlockName=b1 Nodes=n[1-2]\nBlockName=b2 Nodes=n[3-4]\nBlockSizes=2,4\n")
    assert (blocks.kind, blocks.switches["n3"]) == ("block", ("b2",))
    assert read_conf("SwitchName=s Nodes=n[1-1000000]").switches == {}


def test_topology_yaml() -> None:
    found = read_yaml(YAML)
    assert (found.kind, found.source) == ("tree", "topology.yaml")
    assert found.switches == {
        "node01": ("s1", "sw_root"), "node02": ("s1", "sw_root"), "node03": ("s2", "sw_root"), "node04": ("s2", "sw_root"),
    }  # fmt: skip
    blocks = read_yaml(YAML.replace("cluster_default: true", "cluster_default: false"))
    assert blocks.switches["node04"] == ("b2",)
    assert read_yaml("hello: world\n\x00").switches == {}


def test_topology_of_nodes_and_features() -> None:
    assert from_nodes([node(topology="default:core:leaf3,other:b1")]).switches == {"n1": ("leaf3", "core")}
    owens = [
        node(
            f"o{n}",
            features=("c6320", "cpu", f"eth-owens-rack0{1 + n // 4}h1", f"ib-i1l1s0{1 + n // 4}", "ib-i1"),
        )
        for n in range(8)
    ]
    assert leaves_from_features(owens).switches["o5"] == ("ib-i1l1s02", "ib-i1")
    items = Teller(has_racks=True).take_nodes(Nodes(owens), AT)
    found = {
        item.node: (item.rack, item.place, item.switches) for item in items if isinstance(item, NodeFact)
    }
    assert found["o0"] == ("rack01", "Slurm features", ("ib-i1l1s01", "ib-i1"))


@pytest.mark.parametrize(
    ("text", "rack"), [("BlockName=b1 Nodes=n[1-2]", "b1"), ("SwitchName=leaf1 Nodes=n[1-2]", "leaf1")]
)
def test_racks_from_the_topology(text: str, rack: str) -> None:
    for has_racks in (True, False):
        teller = Teller(has_racks=has_racks, topology=read_conf(text))
        (fact,) = [item for item in teller.take_nodes(Nodes([node()]), AT) if isinstance(item, NodeFact)]
        assert (fact.rack, fact.switches) == (rack if has_racks else None, (rack,))


def test_no_topology_says_nothing() -> None:
    assert from_nodes([node()]) == Topology({}, "scontrol show node")


def test_what_happened_in_a_past_of_accounting() -> None:
    teller = told(node())
    jobs = [
        job(1, start=AT - 500, end=AT - 100, state="COMPLETED", is_holding=False, boards=()),
        job(2, start=AT - 5000, end=AT - 50, state="FAILED", is_holding=False, boards=()),
        job(3, start=AT - 300),
        waiting(4),
    ]
    facts_then = teller.past(jobs, AT - 600, AT)
    happened = happened_to(facts_then, AT - 600, AT)
    assert [(one.at - AT, one.kind, one.entity) for one in in_order([], happened)] == [  # type: ignore[union-attr]
        (-500, "job_start", JobRef("slurm:1")),
        (-300, "job_start", JobRef("slurm:3")),
        (-100, "job_end", JobRef("slurm:1")),
        (-50, "job_end", JobRef("slurm:2")),
    ]
    order = in_order(facts_then, happened)
    assert order.index(facts_then[1]) < order.index(happened[0])
