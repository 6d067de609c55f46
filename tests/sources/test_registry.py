"""Who is who: names, boards, slots, joins and doubts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coldaisle.sources.cluster import build_layout
from coldaisle.sources.errors import Garbled
from coldaisle.sources.racks import RackRules
from coldaisle.sources.registry import (
    ENDED_JOB_KEPT_S,
    JOBS_PRUNED_EVERY_S,
    MAX_BOARDS,
    MAX_INSTANCES,
    MAX_NODES,
    Happened,
    Registry,
)
from coldaisle.sources.source import Event, GpuFact, GpuRef, JobFact, JobRef, Kind, NodeFact, NodeRef, PortRef

AT = 1_700_000_000.0


def boards(
    node: str, count: int = 4, first: int = 0, *, pci: bool = True, uuid: bool = True, minor: bool = False
) -> tuple[GpuRef, ...]:
    return tuple(
        GpuRef(
            node,
            f"GPU-{n}" if uuid else None,
            f"0000:{0x10 + n:02x}:00.0" if pci else None,
            n if minor else None,
            n - first,
        )
        for n in range(first, first + count)
    )


def keys(registry: Registry) -> list[str]:
    return [gpu.key for gpu in build_layout(registry, RackRules()).gpus]


def live(registry: Registry) -> list[str]:
    return [node.key for node in registry.nodes if node.joined_to is None]


def test_a_full_name_and_a_short_one_are_one_node() -> None:
    registry = Registry()
    assert registry.node("n03", AT) is registry.node("n03.cluster.example", AT)
    assert registry.joins[-1].how == "short name"


def test_the_same_short_name_in_two_domains_is_two_nodes() -> None:
    registry = Registry()
    first = registry.node("n03.a.example", AT)
    second = registry.node("n03.b.example", AT)
    assert first is not second
    assert (first.key, second.key) == ("n03", "n03.b.example")
    assert registry.joins[-1].conflict


def test_configuration_joins_an_address() -> None:
    registry = Registry({"10.0.3.7": "n03"})
    assert registry.node("10.0.3.7", AT).key == "n03"


def test_an_address_takes_the_hostname_it_reports() -> None:
    registry = Registry()
    registry.take_node_fact("ssh", NodeFact(AT, "10.0.3.7", hostname="n03"))
    assert registry.node("n03", AT).key == "n03"
    assert len(live(registry)) == 1


def test_a_late_hostname_joins_two_nodes_and_their_history() -> None:
    registry = Registry()
    registry.rows_of("exporters", Kind.GPU, boards("n03"), AT)
    registry.rows_of("ssh", Kind.GPU, boards("10.0.3.7", uuid=False), AT)
    registry.take_node_fact("ssh", NodeFact(AT, "10.0.3.7", hostname="n03"))
    assert live(registry) == ["n03"]
    assert len(keys(registry)) == 4
    assert {move.kind for move in registry.moved} == {Kind.NODE, Kind.GPU}


def test_two_targets_of_one_source_with_one_hostname_stay_two_nodes() -> None:
    registry = Registry()
    for name in ("r01n01", "r01n02", "r01n03"):
        registry.take_node_fact("ssh", NodeFact(AT, name, hostname="localhost"))
    assert live(registry) == ["r01n01", "r01n02", "r01n03"]
    assert any(join.conflict for join in registry.joins)


def test_the_same_boards_under_another_name_are_the_same_node() -> None:
    registry = Registry()
    probe = registry.rows_of("ssh", Kind.GPU, boards("n03"), AT)
    page = tuple(ref._replace(node="10.0.3.7", pci=None) for ref in boards("n03"))
    exporter = registry.rows_of("exporters", Kind.GPU, page, AT)
    assert live(registry) == ["n03"]
    assert exporter.tolist() == probe.tolist()
    assert registry.joins[-1].how == "GPU UUID"


def test_some_shared_boards_are_a_doubt_not_a_join() -> None:
    registry = Registry()
    registry.rows_of("ssh", Kind.GPU, boards("n03"), AT)
    registry.rows_of("exporters", Kind.GPU, boards("n04", 4, first=2), AT)
    assert live(registry) == ["n03", "n04"]
    assert registry.joins[-1].conflict


def test_slots_follow_the_pci_order() -> None:
    registry = Registry()
    registry.rows_of("ssh", Kind.GPU, tuple(reversed(boards("n03"))), AT)
    layout = build_layout(registry, RackRules())
    assert [gpu.uuid for gpu in layout.gpus] == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
    assert [gpu.key for gpu in layout.gpus] == ["n03/0", "n03/1", "n03/2", "n03/3"]


def test_slots_survive_a_lost_card() -> None:
    registry = Registry()
    everything = boards("n03")
    before = registry.rows_of("ssh", Kind.GPU, everything, AT)
    after = registry.rows_of("ssh", Kind.GPU, everything[:1] + everything[2:], AT + 2)
    assert after.tolist() == [before[0], before[2], before[3]]
    assert keys(registry) == ["n03/0", "n03/1", "n03/2", "n03/3"]


def test_inside_a_job_the_index_counts_from_zero_and_is_not_believed() -> None:
    registry = Registry()
    whole = registry.rows_of("exporters", Kind.GPU, boards("n03", 8), AT)
    inside = registry.rows_of("ssh", Kind.GPU, boards("n03", 2, first=4), AT)
    assert [ref.index for ref in boards("n03", 2, first=4)] == [0, 1]
    assert inside.tolist() == [whole[4], whole[5]]


def test_a_board_without_an_address_joins_by_minor_number() -> None:
    registry = Registry()
    probe = registry.rows_of("ssh", Kind.GPU, boards("n03", minor=True), AT)
    page = tuple(GpuRef("n03", minor=n) for n in range(4))
    assert registry.rows_of("exporters", Kind.GPU, page, AT).tolist() == probe.tolist()


def test_another_board_at_an_address_restarts_its_baselines() -> None:
    registry = Registry()
    refs = boards("n03")
    row = registry.rows_of("ssh", Kind.GPU, refs, AT)[1]
    registry.take_gpu_fact("ssh", GpuFact(AT, refs[1], model="H100"))
    changed = (refs[0], refs[1]._replace(uuid="GPU-new"), *refs[2:])
    assert registry.rows_of("ssh", Kind.GPU, changed, AT + 60)[1] == row
    assert registry.moved[-1].old == registry.moved[-1].new == row
    assert registry.events[-1].what == "gpu_replaced"
    gpu = build_layout(registry, RackRules()).gpus[1]
    assert (gpu.uuid, gpu.model, gpu.since) == ("GPU-new", None, AT + 60)


def test_a_mig_instance_is_a_child_of_its_board() -> None:
    registry = Registry()
    board = boards("n03", 1)[0]
    refs = (board, board._replace(mig="gi1", mig_uuid="MIG-1"), board._replace(mig="gi2", mig_uuid="MIG-2"))
    registry.rows_of("ssh", Kind.GPU, refs, AT)
    layout = build_layout(registry, RackRules())
    assert [gpu.key for gpu in layout.gpus] == ["n03/0", "n03/0:gi1", "n03/0:gi2"]
    assert [gpu.parent for gpu in layout.gpus] == [-1, 0, 0]
    assert layout.boards.tolist() == [0]
    assert layout.gpus[1].uuid == "MIG-1"


def test_mig_instances_alone_make_their_board() -> None:
    registry = Registry()
    ref = boards("n03", 1)[0]._replace(mig="gi1", mig_uuid="MIG-1")
    registry.rows_of("exporters", Kind.GPU, (ref,), AT)
    assert keys(registry) == ["n03/0", "n03/0:gi1"]


def test_ports_and_events_have_stable_rows() -> None:
    registry = Registry()
    ports = (PortRef("n03", "mlx5_0/1"), PortRef("n03", "eth0"))
    rows = registry.rows_of("ssh", Kind.PORT, ports, AT)
    registry.take_event("ssh", Event(AT, PortRef("n03", "mlx5_0/1"), "link_down", "polling"))
    assert registry.events[-1].row == rows[0]
    layout = build_layout(registry, RackRules())
    assert [part.key for part in layout.ports] == ["n03/eth0", "n03/mlx5_0/1"]
    assert layout.rows[Kind.PORT].tolist() == [1, 0]


def test_jobs_are_dated() -> None:
    registry = Registry()
    registry.rows_of("ssh", Kind.GPU, boards("n03"), AT)
    registry.take_job(JobFact(AT, None, "slurm:1", "a", "kim", ("n03",), boards("n03", 2)))
    assert [job.id for job in registry.jobs_at(AT + 5)] == ["slurm:1"]
    assert registry.jobs_at(AT - 5) == []
    registry.take_job(JobFact(AT, AT + 10, "slurm:1", "a", "kim", ("n03",), boards("n03", 2)))
    assert registry.jobs_at(AT + 10) == []
    assert len(registry.gpu_rows(boards("n03", 2))) == 2


def test_a_schedulers_index_is_the_slot_of_that_number() -> None:
    registry = Registry()
    rows = registry.rows_of("ssh", Kind.GPU, boards("n03"), AT)
    assert registry.gpu_rows([GpuRef("n03", index=2), GpuRef("elsewhere", index=0)]) == [rows[2]]


def test_the_layout_is_in_reading_order_and_places_are_explained() -> None:
    registry = Registry()
    for name in ("r02n01", "r01n10", "r01n2"):
        registry.node(name, AT)
        registry.take_node_fact("sim", NodeFact(AT, name, rack=name[:3], place="simulator"))
    layout = build_layout(registry, RackRules())
    assert [node.key for node in layout.nodes] == ["r01n2", "r01n10", "r02n01"]
    assert [(rack.name, rack.place, rack.nodes) for rack in layout.racks] == [
        ("r01", "simulator", range(2)),
        ("r02", "simulator", range(2, 3)),
    ]


def test_a_flood_of_names_is_refused() -> None:
    registry = Registry()
    with pytest.raises(Garbled, match="different node names"):
        for number in range(MAX_NODES + 1):
            registry.row_of("exporters", NodeRef(f"pod-{number}"), AT)


def test_a_flood_of_boards_is_cut_and_said_once() -> None:
    registry = Registry()
    flood = tuple(GpuRef("n03", uuid=f"GPU-{number}") for number in range(1000))
    rows = registry.rows_of("exporters", Kind.GPU, flood, AT)
    assert rows[:MAX_BOARDS].tolist() == list(range(MAX_BOARDS))
    assert set(rows[MAX_BOARDS:].tolist()) == {-1}
    registry.take_gpu_fact("exporters", GpuFact(AT, flood[-1], model="none"))
    registry.take_event("exporters", Event(AT, flood[-1], "xid", "79"))
    assert len(registry.gpus) == MAX_BOARDS
    assert not any(record.fact for record in registry.gpus)
    assert not registry.events
    assert [join.how for join in registry.joins] == ["more GPUs than a node can have; the rest is left out"]


def test_a_flood_of_mig_instances_is_cut() -> None:
    registry = Registry()
    board = boards("n03", 1)[0]
    flood = tuple(board._replace(mig=f"gi{n}", mig_uuid=f"MIG-{n}") for n in range(100))
    rows = registry.rows_of("ssh", Kind.GPU, flood, AT)
    assert (rows >= 0).sum() == MAX_INSTANCES
    assert len(registry.gpus) == 1 + MAX_INSTANCES


def test_a_slot_whose_board_changes_all_the_time_keeps_little_of_it() -> None:
    registry = Registry()
    for number in range(1000):
        ref = GpuRef("n03", uuid=f"GPU-{number}", pci="0000:1b:00.0")
        assert registry.rows_of("exporters", Kind.GPU, (ref,), AT + number).tolist() == [0]
    assert registry.gpu_rows([GpuRef("n03", uuid="GPU-3")]) == []
    assert registry.gpu_rows([GpuRef("n03", uuid="GPU-999")]) == [0]
    assert len(registry.gpus[0].past) < 100


def test_another_driver_is_an_event() -> None:
    registry = Registry()
    registry.take_node_fact("ssh", NodeFact(AT, "n03", driver="570.86.15"))
    registry.take_node_fact("ssh", NodeFact(AT + 1, "n03", driver="570.86.15"))
    registry.take_node_fact("ssh", NodeFact(AT + 2, "n03", kernel="6.1"))
    assert not registry.events
    registry.take_node_fact("ssh", NodeFact(AT + 3, "n03", driver="580.95.05"))
    row = registry.node("n03", AT).row
    assert [*registry.events] == [Happened(AT + 3, Kind.NODE, row, "driver", "driver 570.86.15 -> 580.95.05")]


def test_an_event_keeps_its_job_when_the_job_is_forgotten() -> None:
    registry = Registry()
    task = JobFact(AT, None, "slurm:4733", "sweep", "kim", ("n03",), (), display="4700_3")
    registry.take_job(task, "slurm")
    registry.take_event("slurm", Event(AT, JobRef("slurm:4733"), "job_start", "started"))
    registry.take_job(replace(task, until=AT + 60), "slurm")
    for number in range(100):
        later = AT + 2 * ENDED_JOB_KEPT_S + number * JOBS_PRUNED_EVERY_S
        registry.take_job(JobFact(later, None, f"slurm:{number}", "a", "kim", (), ()), "slurm")
    assert "slurm:4733" not in registry.jobs
    (told,) = registry.events
    assert told.job is not None
    assert (told.job.display, told.job.user, told.job.nodes) == ("4700_3", "kim", ("n03",))
