"""The real probe and the real pynvml on hosts behind real sshd servers, each with GPUs of its own (a C stub of NVML)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from lab.listening import Heard, listening
from lab.sshd import SshLab, wait_until
from nvml.stub import StubHost
from services import require

from coldaisle.sources.bootstrap import local_command
from coldaisle.sources.fleet import Backoff
from coldaisle.sources.local import LocalSource
from coldaisle.sources.settings import LocalSettings
from coldaisle.sources.source import Event, GpuRef, Kind, Missing, NodeRef, TargetState
from coldaisle.sources.ssh import Patience, SshSource

QUICK = Patience(connect=10.0, login=20.0, start=30.0, first_pause=0.2, longest_pause=1.0, scout=0.5)
INTERVAL = 0.5
NAMES = ("n01", "n02", "n03")
PROBE = b"coldaisle-probe"


class Site(NamedTuple):
    """Three hosts of two GPUs, at 100, 200 and 300 W."""

    lab: SshLab
    hosts: dict[str, StubHost]

    def source(self, *names: str, **changes: str) -> SshSource:
        return SshSource(self.lab.settings(*names, interval=INTERVAL, **changes), patience=QUICK)

    def probes(self, name: str) -> list[int]:
        """The processes on a host that are a probe."""
        return [pid for pid in self.lab.processes(name) if PROBE in command_of(pid)]


def command_of(pid: int) -> bytes:
    """Of a process; empty: it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def own_gpus(folder: Path, name: str, watts: int) -> StubHost:
    """A host whose boards are no other host's."""
    host = StubHost(folder, gpus=2)
    for gpu in range(2):
        host.gpu(gpu).put(uuid=f"GPU-{name}-{gpu}", power=watts * 1000)
    return host


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    require("gcc")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    hosts = {
        name: own_gpus(tmp_path / f"nvml-{name}", name, 100 * place) for place, name in enumerate(NAMES, 1)
    }
    environment = {name: {**host.environment(), "HOME": str(tmp_path)} for name, host in hosts.items()}
    with SshLab(tmp_path / "lab", NAMES, environment=environment) as lab:
        yield Site(lab, hosts)


async def all_read(heard: Heard, *names: str) -> None:
    """Wait until each of the hosts has given its first GPU's power."""
    for name in names:
        await heard.until(f"{name} reads", lambda name=name: heard.value(name, "gpu.power") is not None)  # type: ignore[misc]


def powers(heard: Heard, node: str, since: int = 0) -> list[float]:
    """What the batches from that one on say of a node's first GPU's power, missing ones left out."""
    found = []
    for batch in heard.batches[since:]:
        if batch.kind is Kind.GPU and "gpu.power" in batch.metrics:
            row = next((row for row, gpu in enumerate(batch.entities) if gpu[0] == node), None)
            value = float("nan") if row is None else batch.values[row, batch.metrics.index("gpu.power")]
            found += [float(value)] if value == value else []
    return found


async def changes_within_two_samples(site: Site, heard: Heard, node: str, watts: int) -> None:
    """Change a host's power; at most two of its samples may still say the old one."""
    before = len(heard.batches)
    site.hosts[node].gpu(0).set("power", watts * 1000)
    await heard.until(f"{watts} W on {node}", lambda: watts in powers(heard, node, before))
    assert powers(heard, node, before).index(watts) <= 2


async def test_each_host_reads_its_own_gpus_and_changes_show_at_once(site: Site) -> None:
    async with listening(site.source()) as heard:
        await all_read(heard, *NAMES)
        await heard.until("100, 200, 300 W", lambda: [powers(heard, n)[0] for n in NAMES] == [100, 200, 300])
        batch = next(batch for batch in reversed(heard.batches) if batch.kind is Kind.GPU)
        gpus = [gpu for gpu in batch.entities if isinstance(gpu, GpuRef)]
        assert [gpu.uuid for gpu in gpus] == [f"GPU-{name}-{gpu}" for name in NAMES for gpu in range(2)]
        assert {fact.model for fact in heard.gpus} == {"NVIDIA H100 80GB HBM3"}
        assert heard.nodes["n02"].driver == "580.95.05"
        assert len(heard.nodes["n02"].gpu_pci or ()) == heard.nodes["n02"].gpus_visible == 2
        for place, name in enumerate(NAMES):
            await changes_within_two_samples(site, heard, name, 511 + place)


async def test_a_lost_gpu_is_that_gpu_only(site: Site) -> None:
    async with listening(site.source()) as heard:
        await all_read(heard, *NAMES)
        site.hosts["n02"].gpu(0).lose()
        await heard.until("it is lost", lambda: heard.reason("n02", "gpu.power") is Missing.LOST)
        lost = next(event for event in heard.events if event.kind == "gpu_lost")
        assert isinstance(lost.entity, GpuRef)
        assert (lost.entity.node, lost.entity.uuid) == ("n02", "GPU-n02-0")
        assert heard.state("n02") is TargetState.OK
        batch = next(batch for batch in reversed(heard.batches) if batch.kind is Kind.GPU)
        row = [gpu.uuid for gpu in batch.entities if isinstance(gpu, GpuRef)].index("GPU-n02-1")
        assert batch.reasons is not None
        assert batch.reasons[row, batch.metrics.index("gpu.power")] == Missing.PRESENT
        assert heard.reason("n01", "gpu.power") is Missing.PRESENT


async def test_an_xid_is_an_event_of_its_gpu(site: Site) -> None:
    async with listening(site.source("n03")) as heard:
        await all_read(heard, "n03")
        site.hosts["n03"].xid(1, 79)
        await heard.until("the event", lambda: any(event.kind == "xid" for event in heard.events))
        event = next(event for event in heard.events if event.kind == "xid")
        assert isinstance(event.entity, GpuRef)
        assert event.entity.uuid == "GPU-n03-1"
        assert "79" in event.detail


async def test_a_hanging_call_on_one_host_delays_no_other(site: Site) -> None:
    async with listening(site.source()) as heard:
        await all_read(heard, *NAMES)
        site.hosts["n01"].delay("nvmlDeviceGetPowerUsage", 300)
        await heard.until("it fails", lambda: heard.reason("n01", "gpu.power") is Missing.FAILED)
        assert any(
            event.kind == "gpu_hung" and event.entity and event.entity[0] == "n01" for event in heard.events
        )
        for name in ("n02", "n03"):
            await changes_within_two_samples(site, heard, name, 612)
        before = heard.samples("n01")
        await heard.until("its host's numbers still come", lambda: heard.samples("n01") > before + 1)
        site.hosts["n01"].delay("nvmlDeviceGetPowerUsage", 0)
        await heard.until("it reads again", lambda: heard.value("n01", "gpu.power") == 100, 45.0)


async def test_the_probe_is_gone_with_its_connection(site: Site) -> None:
    async with listening(site.source()) as heard:
        await all_read(heard, *NAMES)
        pids = [pid for name in NAMES for pid in site.probes(name)]
        assert len(pids) >= 3
    await asyncio.to_thread(
        wait_until, "no probe is left", lambda: not any(PROBE in command_of(pid) for pid in pids), 40.0
    )


async def test_a_host_that_is_killed_fails_and_comes_back(site: Site) -> None:
    async with listening(site.source()) as heard:
        await all_read(heard, *NAMES)
        site.lab.kill("n02")
        await heard.until_state("n02", TargetState.FAILING)
        await heard.until(
            "it is unreachable", lambda: heard.reason("n02", "gpu.power") is Missing.UNREACHABLE
        )
        site.hosts["n02"].gpu(0).set("power", 450_000)
        await asyncio.to_thread(site.lab.restart, "n02")
        await heard.until_state("n02", TargetState.OK, 40.0)
        await heard.until("it reads", lambda: heard.value("n02", "gpu.power") == 450)
        assert heard.state("n01") is TargetState.OK


async def test_through_a_jump_host(site: Site) -> None:
    async with listening(site.source("n02", "n03", jump="n01")) as heard:
        await all_read(heard, "n02", "n03")
        assert site.lab.connections("n01") == 1
        assert site.probes("n01") == []
        await changes_within_two_samples(site, heard, "n03", 333)


def local(host: StubHost) -> LocalSource:
    """This machine with the stub's GPUs."""
    return LocalSource(
        LocalSettings(interval=INTERVAL),
        command=local_command(),
        environment={**os.environ, **host.environment()},
        node="here",
        backoff=Backoff(0.1, 0.5),
    )


async def test_this_machine(tmp_path: Path) -> None:
    require("gcc")
    host = own_gpus(tmp_path / "nvml", "here", 250)
    async with listening(local(host)) as heard:
        await all_read(heard, "here")
        assert heard.value("here", "gpu.power") == 250
        assert heard.targets["here"].what.startswith("probe 3.")
        host.gpu(0).set("power", 700_000)
        await heard.until("the new value", lambda: heard.value("here", "gpu.power") == 700)
        host.gpu(0).lose()
        await heard.until("it is lost", lambda: heard.reason("here", "gpu.power") is Missing.LOST)
        assert any(isinstance(event, Event) and event.kind == "gpu_lost" for event in heard.events)
        await heard.until(
            "the host's own numbers come", lambda: heard.value("here", "node.load1") is not None
        )
        assert NodeRef("here") in next(b for b in heard.batches if b.kind is Kind.NODE).entities


async def test_a_hanging_driver_here_does_not_hold_up_the_end(tmp_path: Path) -> None:
    require("gcc")
    host = own_gpus(tmp_path / "nvml", "here", 250)
    async with listening(local(host)) as heard:
        await all_read(heard, "here")
        host.delay("nvmlDeviceGetPowerUsage", 300)
        await heard.until("it fails", lambda: heard.reason("here", "gpu.power") is Missing.FAILED)
        ended = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - ended < 8.0
