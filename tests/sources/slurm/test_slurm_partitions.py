"""Partitions: the same facts in every release and through every door, and what becomes news of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab.slurm import SlurmLab
from lab.slurm_records import AT, node, told, waiting
from lab.slurm_samples import SAMPLES, VERSIONS, sample
from lab.watching import watching

from coldaisle.sources.errors import Garbled, Unusable
from coldaisle.sources.settings import SlurmSettings
from coldaisle.sources.slurm.partitions import read_json, read_text
from coldaisle.sources.slurm.records import Jobs, Nodes, Partitions
from coldaisle.sources.slurm.source import DOUBT_S, Schedule, SlurmSource, door_to
from coldaisle.sources.source import Partition, PartitionFact

captured = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no captured samples (COLDAISLE_SAMPLES)")


def partition(name: str, **said: Any) -> Partition:
    plain: dict[str, Any] = dict.fromkeys(Partition._fields)
    return Partition(**(plain | {"name": name, "state": "up", "accounts": (), "accounts_denied": ()} | said))


@captured
@pytest.mark.parametrize("version", VERSIONS)
def test_json_of_every_release(version: str) -> None:
    said = read_json(sample(version, "slurm-partitions"), "sample")
    assert said.left_out == 0
    found = {one.name: one for one in said.partitions}
    names = {"24.05/v0.0.41": ("debug", "ia"), "24.11/v0.0.42": ("standard", "ia")}
    first, gpus = (found[name] for name in names.get(version, ("normal", "gpu")))
    if version == "24.05/v0.0.41":
        assert (found["batch"].limit_s, found["batch"].nodes) == (None, 512)
        assert (first.limit_s, first.nodes, first.cpus) == (3600.0, 19, 1216)
        assert (gpus.limit_s, gpus.nodes, gpus.memory) == (600.0, 40, 20 * 2**40)
    else:
        assert (first.limit_s, first.nodes, first.cpus, first.memory) == (7200.0, 4, 256, 512 * 2**30)
        assert (gpus.limit_s, gpus.nodes, gpus.cpus, gpus.memory) == (7200.0, 2, 64, 2**40)
    for one in (first, gpus):
        assert (one.state, one.tier, one.accounts, one.accounts_denied) == ("up", 1, (), ())
        assert (one.default_s, one.most_nodes, one.gpus) == (None, None, None)


@captured
def test_json_of_22_05() -> None:
    (one,) = read_json((SAMPLES / "json-22.05/telegraf-partitions.json").read_bytes(), "sample").partitions
    assert (one.name, one.state, one.is_default, one.limit_s) == ("atlas", "up", True, None)
    assert (one.nodes, one.cpus, one.tier, one.most_nodes) == (21, 632, 1, None)


@captured
def test_text() -> None:
    said = read_text((SAMPLES / "text/zabbix-scontrol_show_partition.txt").read_bytes())
    found = {one.name: one for one in said.partitions}
    gpu, debug = found["gpu"], found["debug"]
    assert [one.is_default for one in found.values()][:3] == [True, False, False]
    assert (gpu.state, gpu.limit_s, gpu.default_s, gpu.gpus, gpu.tier) == ("up", 2 * 86400.0, None, 8, 10)
    assert (debug.state, debug.limit_s, debug.default_s, debug.most_nodes) == ("inactive", 3600.0, 1800.0, 2)
    many = {
        one.name: one
        for one in read_text((SAMPLES / "text/ood-owens_partitions.txt").read_bytes()).partitions
    }
    assert many["batch"].gpus == 154
    assert many["batch"].accounts == ()
    assert "pcon0014" in many["batch"].accounts_denied


@pytest.mark.parametrize("body", [b"", b"{", b'{"partitions": 7}', b"\xff\xfe", b'{"partitions": [{"name"'])
def test_half_an_answer(body: bytes) -> None:
    with pytest.raises(Garbled):
        read_json(body, "slurmrestd")


def test_odd_partitions() -> None:
    rows = [
        {"name": 7},
        {"name": "x" * 9999, "state": {"odd": 1}, "total_nodes": 2**70, "max_time_limit": -1, "tres": 5},
        {"name": "\x1b[31m", "partition": {"state": []}, "accounts": {"allowed": 3}, "nodes": "n[1-9]"},
    ]
    said = read_json(b"warning {old}\n" + json.dumps({"partitions": rows}).encode(), "")
    assert said.left_out == 1
    long, odd = said.partitions
    assert (len(long.name), long.limit_s, long.gpus) == (400, None, None)
    assert (odd.state, odd.nodes) == ("unknown", None)
    text = read_text(b"PartitionName=a State=UP MaxTime=odd TotalNodes=-3 AllowAccounts=\nnonsense\n")
    assert [(one.name, one.limit_s, one.nodes) for one in text.partitions] == [("a", None, None)]


def test_only_news_of_partitions_is_told() -> None:
    teller = told(node("n1"), node("n2"))
    said = Partitions([partition("gpu"), partition("cpu", gpus=0)])
    (fact,) = teller.take_partitions(said, AT)
    assert isinstance(fact, PartitionFact)
    assert [(one.name, one.gpus) for one in fact.partitions] == [("cpu", 0), ("gpu", 8)]
    assert teller.take_partitions(said, AT + 60) == []
    assert teller.take_partitions(Partitions([partition("gpu", state="down")]), AT + 60) != []


def test_a_queue_that_speaks_against_what_is_known() -> None:
    teller = told(node())
    teller.take_partitions(Partitions([partition("up"), partition("off", state="down")]), AT)

    def doubts(reason: str, name: str) -> bool:
        return teller.doubts_partitions(Jobs([waiting(reason=reason, partition=name)]))

    assert doubts("PartitionDown", "up")
    assert doubts("PartitionInactive", "new,up")
    assert not doubts("PartitionDown", "off")
    assert doubts("Resources", "off")
    assert not doubts("Resources", "up")
    assert not doubts("JobHeldUser", "off")
    assert DOUBT_S >= 300


class Door:
    """Answers from memory."""

    target, what = "nobody", "memory"

    def __init__(self) -> None:
        self.asked = 0
        self.reason = "Resources"

    async def jobs(self) -> Jobs:
        return Jobs([waiting(reason=self.reason)])

    async def nodes(self) -> Nodes:
        return Nodes([node()])

    async def partitions(self) -> Partitions:
        self.asked += 1
        raise Unusable(self.target, "not for you")

    async def topology(self) -> None: ...

    async def diagnosis(self) -> None:
        raise Unusable(self.target, "not for you")


async def test_when_they_are_asked_for() -> None:
    """At the first look, then every half hour, sooner in doubt; a refusal costs nothing else."""
    door = Door()
    source = SlurmSource(SlurmSettings(), door=door)  # type: ignore[arg-type]
    teller, schedule = source._teller(), Schedule()

    async def look() -> int:
        items = [item async for item in source._look(teller, schedule)]
        assert len(items) >= 1
        return door.asked

    assert await look() == 1
    assert await look() == 1
    door.reason = "PartitionDown"
    assert await look() == 1  # it was asked for just now
    schedule.partitions_asked -= DOUBT_S
    assert await look() == 2
    assert await look() == 2


@pytest.mark.timeout(300)
async def test_every_door_of_a_real_slurm(slurm: SlurmLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JWT", slurm.token())
    slurm.run("scontrol", "update", "partition=late", "state=down")
    try:
        for via in ("local", slurm.rest_url, str(slurm.rest_socket)):
            door = door_to(SlurmSettings(via=via))
            said = {one.name: one for one in (await door.partitions()).partitions}
            await door.aclose()
            assert said["gpu"] == Partition(
                "gpu", "up", True, None, 2 * 86400.0, None, 7, 448, 40, 3_500_000 * 2**20, (), (), 1
            )
            assert said["late"] == Partition(
                "late", "down", False, 86400.0, None, None, 2, 128, 16, 1_000_000 * 2**20, (), (), 1
            )
        async with watching(SlurmSource(SlurmSettings(interval=0.5))) as seen:
            await seen.until("partitions", lambda one: len(one.now.partitions) == 2)
            assert [(one.name, one.state) for one in seen.now.partitions] == [("gpu", "up"), ("late", "down")]
    finally:
        slurm.run("scontrol", "update", "partition=late", "state=up")
