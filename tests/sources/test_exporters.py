"""Scraping over real HTTP on loopback: what answers, what misbehaves, and that one target never harms another."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import math
import os
import socket
import ssl
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.feed import at, fed, why
from lab.pages import (
    Behaviour,
    Pages,
    Writer,
    amd_page,
    dcgm_page,
    gpu_labels,
    ipmi_page,
    line,
    ok,
    one_gpu,
    served,
)
from services import require

from coldaisle.sources.errors import ConfigError
from coldaisle.sources.exporters import ExporterSource, address, addresses
from coldaisle.sources.exposition import Limits
from coldaisle.sources.source import (
    Batch,
    Event,
    GpuFact,
    GpuRef,
    JobFact,
    Kind,
    Missing,
    NodeFact,
    NodeRef,
    RackRef,
    Target,
    TargetState,
)
from coldaisle.sources.trust import trusting

SMALL = Limits(page_bytes=200_000)


async def test_a_page_becomes_facts_batches_and_a_target() -> None:
    async with served(Pages(dcgm_page("n01"))) as pages, fed(pages.target) as feed:
        target = await feed.target(pages.target, TargetState.OK)
        assert (target.what, target.nodes) == ("dcgm-exporter", ("n01",))
        assert "does not export gpu.sm_active" in target.detail
        assert "DCGM_FI_PROF_SM_ACTIVE, gauge" in target.remedy
        first = await feed.batch()
        second = await feed.batch()
    assert first.entities is second.entities
    assert first.metrics is second.metrics
    assert second.reasons is not None
    assert len(first.entities) == 8
    assert 0 <= at(first, 0, "gpu.util") <= 1
    assert why(first, 0, "gpu.sm_active") is Missing.NOT_EXPORTED
    facts = [item for item in feed.items if isinstance(item, GpuFact)]
    assert len(facts) == 8
    assert facts[0].model == "NVIDIA H100 80GB HBM3"
    assert facts[0].gpu.pci == "0000:10:00.0"
    nodes = [item for item in feed.items if isinstance(item, NodeFact)]
    assert [(node.hostname, node.driver, node.gpus_visible) for node in nodes] == [("n01", "580.105.08", 8)]
    assert pages.connections == 1, "the connection is kept"


async def test_rates_span_the_time_between_two_different_pages() -> None:
    started = time.monotonic()

    def page() -> bytes:
        energy = (time.monotonic() - started) * 250_000  # 250 W in mJ
        return one_gpu(
            {"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": f"{3e14 + energy:.0f}", "DCGM_FI_DEV_GPU_TEMP": 40}
        )

    async with served(Pages(page)) as pages, fed(pages.target) as feed:
        first = await feed.batch()
        assert why(first, 0, "gpu.energy") is Missing.NOT_SAMPLED
        later = await feed.batch(where=lambda batch: not math.isnan(at(batch, 0, "gpu.energy")))
        assert at(later, 0, "gpu.energy") == pytest.approx(250, rel=0.15)
        assert later.intervals is not None
        assert 0.05 < later.intervals[0] < 2


async def test_a_page_that_did_not_change_is_no_new_sample_for_rates() -> None:
    """dcgm-exporter renews its page every 30 s: between two renewals the rate stands, it does not drop to 0."""
    pages = Pages(one_gpu({"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 1_000_000}))
    async with served(pages), fed(pages.target) as feed:
        await feed.batch()
        pages.answer = one_gpu({"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 2_000_000})
        risen = await feed.batch(where=lambda batch: not math.isnan(at(batch, 0, "gpu.energy")))
        for _ in range(3):
            assert at(await feed.batch(), 0, "gpu.energy") == at(risen, 0, "gpu.energy")


async def test_counters_that_go_back_are_missing_once() -> None:
    counter = iter(range(10_000_000, 10**9, 1_000))
    pages = Pages(lambda: one_gpu({"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": next(counter)}))
    async with served(pages), fed(pages.target) as feed:
        await feed.batch(where=lambda batch: at(batch, 0, "gpu.energy") > 0)
        counter = iter(range(0, 10**9, 1_000))
        await feed.batch(where=lambda batch: math.isnan(at(batch, 0, "gpu.energy")))
        back = await feed.batch()
        assert at(back, 0, "gpu.energy") >= 0


async def test_an_xid_that_changes_is_an_event_and_the_first_sight_is_none() -> None:
    labels = gpu_labels("n01", 0)
    pages = Pages(one_gpu({"DCGM_FI_DEV_XID_ERRORS": 31}, labels))
    async with served(pages), fed(pages.target) as feed:
        await feed.batch()
        pages.answer = one_gpu(
            {"DCGM_FI_DEV_XID_ERRORS": 79}, {**labels, "err_msg": "GPU has fallen off the bus"}
        )
        event = await feed.until(lambda item: isinstance(item, Event))
        assert isinstance(event, Event)
        assert (event.kind, event.detail) == ("xid", "xid 79 GPU has fallen off the bus")
        assert isinstance(event.entity, GpuRef)
        pages.answer = one_gpu({"DCGM_FI_DEV_XID_ERRORS": 0}, labels)
        await feed.batch(where=lambda batch: at(batch, 0, "gpu.xid_last") == 0)
    assert len([item for item in feed.items if isinstance(item, Event)]) == 1


async def test_jobs_come_and_go_with_the_labels_over_several_nodes() -> None:
    def page(node: str, job: str | None) -> bytes:
        labels = gpu_labels(node, 0) | ({"hpc_job": job} if job else {})
        return one_gpu({"DCGM_FI_DEV_GPU_TEMP": 40}, labels)

    one, two = Pages(page("n01", "4711")), Pages(page("n02", "4711"))
    async with served(one), served(two), fed(one.target, two.target) as feed:
        job = await feed.until(lambda item: isinstance(item, JobFact) and len(item.gpus) == 2)
        assert isinstance(job, JobFact)
        assert (job.id, set(job.nodes), job.until) == ("slurm:4711", {"n01", "n02"}, None)
        one.answer = page("n01", None)
        less = await feed.until(lambda item: isinstance(item, JobFact) and len(item.gpus) == 1)
        two.answer = page("n02", None)
        end = await feed.until(lambda item: isinstance(item, JobFact) and item.until is not None)
        assert isinstance(less, JobFact)
        assert isinstance(end, JobFact)
        assert less.since == end.since == job.since


async def drip(writer: Writer, _: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.05)


async def endless(writer: Writer, _: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"a 1\n" * 4096
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()


async def huge(writer: Writer, _: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        for _block in range(200):
            writer.write(b"a 1\n" * 250_000)
            await writer.drain()


async def bomb(writer: Writer, _: bytes) -> None:
    writer.write(ok(b"\n" * 50_000_000, packed=True))
    await writer.drain()


async def cut(writer: Writer, _: bytes) -> None:
    writer.write(ok(dcgm_page())[:20_000])
    await writer.drain()


async def hang(writer: Writer, _: bytes) -> None:
    await asyncio.sleep(60)


async def not_http(writer: Writer, _: bytes) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await writer.drain()


async def not_packed(writer: Writer, _: bytes) -> None:
    writer.write(ok(b"plain", extra="Content-Encoding: gzip\r\n"))
    await writer.drain()


def answering(body: bytes) -> Behaviour:
    async def answer(writer: Writer, _: bytes) -> None:
        writer.write(ok(body))
        await writer.drain()

    return answer


GPU = 'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-x"'
MISBEHAVIOURS: list[tuple[str, Behaviour, str]] = [
    ("a slow drip", drip, "no whole page within 1 s"),
    ("silence", hang, "no whole page within 1 s"),
    ("endless", endless, "larger than 195 KiB, or has no end"),
    ("200 MB", huge, "larger than 195 KiB, or has no end"),
    ("a packed bomb", bomb, "larger than 195 KiB, or has no end"),
    ("cut off", cut, "broke the HTTP protocol"),
    ("not HTTP", not_http, "broke the HTTP protocol"),
    ("not packed", not_packed, "not packed as it says"),
    ("cut in a number", answering(b"DCGM_FI_DEV_GPU_TEMP 4"), "the page is cut off"),
    ("binary", answering(bytes(range(256)) * 20 + b"\n"), "line 1: not a sample: "),
    ("a web page", answering(b"<!DOCTYPE html>\n<html>\n"), "a web page (HTML), not metrics"),
    ("a label twice", answering(f'{GPU},gpu="1"}} 40\n'.encode()), "the label 'gpu' twice"),
    ("hostile", answering(f'{GPU},x="\x1b]52;c;aGk=\x07[red]"}} 4 0 0\n'.encode()), "more than a number"),
    (
        "something else",
        answering(b"haproxy_up 1\nup 1\n"),
        "no vocabulary knows what it exports: haproxy_up, up",
    ),
    ("an empty page", answering(b""), "what it exports: nothing"),
]


@pytest.mark.parametrize(
    ("behave", "says"), [one[1:] for one in MISBEHAVIOURS], ids=[one[0] for one in MISBEHAVIOURS]
)
async def test_a_bad_page_is_told_and_harms_nobody(behave: Behaviour, says: str) -> None:
    bad = Pages(behave=behave)
    async with (
        served(Pages(dcgm_page("good"))) as good,
        served(bad),
        fed(bad.target, good.target, limits=SMALL) as feed,
    ):
        target = await feed.target(bad.target, TargetState.FAILING)
        assert says in target.detail
        assert not any(char in target.detail for char in "\x1b\x07\n")
        batch = await feed.batch()
        assert {entity.node for entity in batch.entities if isinstance(entity, GpuRef)} == {"good"}
        assert not math.isnan(at(batch, 0, "gpu.power"))


async def test_200_megabytes_cost_no_memory() -> None:
    async with served(Pages(behave=huge)) as bad:
        tracemalloc.start()
        async with fed(bad.target, limits=SMALL) as feed:
            await feed.target(bad.target, TargetState.FAILING)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 << 20  # the server's own chunk of 1 MB is in here too


async def test_hostile_and_long_labels_come_through_as_text() -> None:
    text = "\x1b]52;c;aGk=\x07[red]\u202e" + "x" * 10_000
    labels = {**gpu_labels("n01", 0), "modelName": text}
    async with (
        served(Pages(one_gpu({"DCGM_FI_DEV_GPU_TEMP": 40}, labels))) as pages,
        fed(pages.target) as feed,
    ):
        batch = await feed.batch()
        assert at(batch, 0, "gpu.temp") == 40
    (fact,) = [item for item in feed.items if isinstance(item, GpuFact)]
    assert fact.model == text, "made inert where it is shown"


async def test_hung_targets_delay_nobody_and_a_lost_one_says_unreachable() -> None:
    async with contextlib.AsyncExitStack() as stack:
        good = [
            await stack.enter_async_context(served(Pages(dcgm_page(f"n{i:02d}", seed=i)))) for i in range(14)
        ]
        hung = [await stack.enter_async_context(served(Pages(behave=hang))) for _ in range(2)]
        feed = await stack.enter_async_context(
            fed(*(pages.target for pages in (*hung, *good)), interval=0.3, timeout=5.0)
        )
        whole = await feed.batch(where=lambda batch: len(batch.entities) == 14 * 8)
        started = time.monotonic()
        fresh = 0
        for _ in range(4):
            batch = await feed.batch()
            assert batch.entities is whole.entities
            fresh += sum(not math.isnan(at(batch, row, "gpu.power")) for row in range(14 * 8))
        assert fresh >= 3 * 14 * 8, "a busy machine may miss a turn; a hung target would cost seconds"
        assert time.monotonic() - started < 5.0
        good[0].behave = hang
        lost = await feed.batch(where=lambda batch: why(batch, 0, "gpu.power") is Missing.UNREACHABLE)
        assert math.isnan(at(lost, 0, "gpu.power"))
        assert why(lost, 8, "gpu.power") is Missing.PRESENT


async def test_a_server_that_comes_back_is_read_again() -> None:
    pages = Pages(dcgm_page("n01"))
    async with served(pages), fed(pages.target) as feed:
        await feed.batch()
        pages.status = "500 Oops"
        failing = await feed.target(pages.target, TargetState.FAILING)
        assert "HTTP 500" in failing.detail
        pages.status = ""
        await feed.target(pages.target, TargetState.OK)
        assert not math.isnan(at(await feed.batch(), 0, "gpu.power"))


async def test_refused_unknown_and_denied() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with (
        served(Pages(status="401 Unauthorized")) as denied,
        fed(f"127.0.0.1:{port}", denied.target) as feed,
    ):
        refused = await feed.target(f"127.0.0.1:{port}", TargetState.FAILING)
        assert refused.detail == "no connection: nothing listens there"
        assert refused.remedy
    async with served(Pages(status="401 Unauthorized")) as denied, fed(denied.target) as feed:
        assert "HTTP 401" in (await feed.target(denied.target, TargetState.DENIED)).detail
        assert len(denied.requests) == 1


async def test_a_name_that_is_not_known_is_said() -> None:
    async with fed("nowhere.invalid:9400") as feed:
        target = await feed.target("nowhere.invalid:9400", TargetState.FAILING)
    assert target.detail == "its name is not known"
    assert "DNS" in target.remedy


async def test_a_token_goes_to_loopback_and_is_read_again_when_refused() -> None:
    tokens = iter(["old", "new"])

    class Guarded(Pages):
        def _whole(self) -> bytes:
            self.status = "" if b"Bearer new" in self.requests[-1] else "401 Unauthorized"
            return super()._whole()

    async with served(Guarded(dcgm_page())) as pages, fed(pages.target, token=lambda: next(tokens)) as feed:
        await feed.target(pages.target, TargetState.OK)


def test_a_token_never_goes_out_in_clear_text() -> None:
    with pytest.raises(ConfigError, match="n01:9400 in clear text"):
        ExporterSource(["n01:9400"], token=lambda: "secret")
    ExporterSource(["n01:9400"], token=lambda: "secret", insecure=True)
    ExporterSource(["https://n01:9400"], token=lambda: "secret")


async def test_redirects_stay_on_the_server() -> None:
    async with served(Pages(dcgm_page())) as other, served(Pages(status="302 Found")) as pages:
        pages.extra = f"Location: http://{other.target}/metrics\r\n"
        async with fed(pages.target) as feed:
            target = await feed.target(pages.target, TargetState.FAILING)
            assert "redirects to another server" in target.detail
        assert other.requests == []

    class Moved(Pages):
        def _whole(self) -> bytes:
            self.status = "" if b"GET /real " in self.requests[-1] else "302 Found"
            self.extra = "" if not self.status else "Location: /real\r\n"
            return super()._whole()

    async with served(Moved(dcgm_page())) as pages, fed(pages.target) as feed:
        await feed.target(pages.target, TargetState.OK)


async def test_packed_pages_are_unpacked() -> None:
    async def packed(writer: Writer, head: bytes) -> None:
        assert b"gzip" in head
        writer.write(ok(dcgm_page(), packed=True))
        await writer.drain()

    async with served(Pages(behave=packed)) as pages, fed(pages.target, compress=True) as feed:
        assert len((await feed.batch()).entities) == 8
    assert gzip.compress(b"x")


async def test_two_exporters_of_one_node_are_one_node() -> None:
    node = b'node_uname_info{nodename="n01",release="6.1"} 1\nnode_load1 3\n'
    dcgm, host = Pages(dcgm_page("n01")), Pages(node)
    async with served(dcgm), served(host), fed(dcgm.target, host.target) as feed:
        batch = await feed.batch(Kind.NODE)
        assert batch.entities == (NodeRef("n01"),)
        assert at(batch, 0, "node.load1") == 3
        gpus = await feed.batch(Kind.GPU)
        assert {entity.node for entity in gpus.entities if isinstance(entity, GpuRef)} == {"n01"}
    facts = [item for item in feed.items if isinstance(item, NodeFact)]
    assert (facts[-1].driver, facts[-1].kernel) == ("580.105.08", "6.1"), (
        "what one exporter knows the other does not take away"
    )


async def test_the_same_gpu_from_two_targets_is_one_row() -> None:
    """A second exporter of the same board fills what the first lacks and never overwrites it."""
    labels = gpu_labels("n01", 0)
    one = Pages(one_gpu({"DCGM_FI_DEV_GPU_TEMP": 40, "DCGM_FI_DEV_POWER_USAGE": 300}, labels))
    two = Pages(one_gpu({"DCGM_FI_DEV_GPU_TEMP": 50, "DCGM_FI_PROF_SM_ACTIVE": 0.5}, labels))
    async with served(one), served(two), fed(one.target, two.target) as feed:
        batch = await feed.batch(
            where=lambda batch: "gpu.sm_active" in batch.metrics and at(batch, 0, "gpu.sm_active") == 0.5
        )
        assert len(batch.entities) == 1
        assert at(batch, 0, "gpu.temp") == 40
        assert at(batch, 0, "gpu.power") == 300


async def test_a_gpu_that_vanishes_from_a_page_is_lost_until_it_is_back() -> None:
    pages = Pages(dcgm_page("n01", gpus=3))
    whole = [GpuRef("n01", gpu_labels("n01", gpu)["UUID"]).uuid for gpu in range(3)]

    def reasons(batch: Batch) -> dict[str | None, Missing]:
        assert batch.reasons is not None
        column = batch.metrics.index("gpu.temp")
        refs = [entity for entity in batch.entities if isinstance(entity, GpuRef)]
        return {ref.uuid: Missing(batch.reasons[row, column]) for row, ref in enumerate(refs)}

    async with served(pages), fed(pages.target) as feed:
        await feed.batch(where=lambda batch: len(batch.entities) == 3)
        pages.answer = dcgm_page("n01", gpus=2)
        batch = await feed.batch(where=lambda batch: Missing.LOST in reasons(batch).values())
        assert reasons(batch) == dict(
            zip(whole, [Missing.PRESENT, Missing.PRESENT, Missing.LOST], strict=True)
        )
        pages.answer = b"DCGM_FI_DEV_COUNT 0\nnode_load1 3\n" + dcgm_page("n01", gpus=0)
        batch = await feed.batch(where=lambda batch: [*reasons(batch).values()] == [Missing.LOST] * 3)
        pages.answer = dcgm_page("n01", gpus=3)
        await feed.batch(where=lambda batch: [*reasons(batch).values()] == [Missing.PRESENT] * 3)
    lost = [item for item in feed.items if isinstance(item, Event) and item.kind == "gpu_lost"]
    uuids = [event.entity.uuid for event in lost if isinstance(event.entity, GpuRef)]
    assert sorted(map(str, uuids)) == sorted(map(str, whole))
    assert "does not export it any more" in lost[0].detail


async def test_another_board_at_the_same_address_is_a_replacement_not_a_loss() -> None:
    old, new = gpu_labels("n01", 0), {**gpu_labels("n01", 0), "UUID": "GPU-new"}
    pages = Pages(one_gpu({"DCGM_FI_DEV_GPU_TEMP": 40}, old))
    async with served(pages), fed(pages.target) as feed:
        await feed.batch()
        pages.answer = one_gpu({"DCGM_FI_DEV_GPU_TEMP": 41}, new)
        batch = await feed.batch(where=lambda batch: at(batch, 0, "gpu.temp") == 41)
        assert [gpu.uuid for gpu in batch.entities if isinstance(gpu, GpuRef)] == ["GPU-new"]


async def test_a_reboot_an_oom_kill_and_a_link_down_are_events() -> None:
    def page(booted: int, kills: int, downs: int) -> bytes:
        link = f'node_infiniband_link_downed_total{{device="mlx5_0",port="1"}} {downs}\n'
        return f"node_exporter_build_info 1\nnode_load1 3\nnode_boot_time_seconds {booted}\nnode_vmstat_oom_kill {kills}\n{link}".encode()

    pages = Pages(page(1_700_000_000, 4, 2))
    async with served(pages), fed(pages.target) as feed:
        await feed.batch(Kind.NODE)
        await feed.batch(Kind.NODE)
        pages.answer = page(1_700_000_000, 5, 3)
        await feed.until(lambda item: isinstance(item, Event) and item.kind == "oom")
        await feed.batch(Kind.NODE)
        pages.status = "503 Booting"
        await feed.target(pages.target, TargetState.FAILING)
        pages.status, pages.answer = "", page(1_700_009_000, 0, 0)
        await feed.until(lambda item: isinstance(item, Event) and item.kind == "reboot")
    events = [item for item in feed.items if isinstance(item, Event)]
    assert sorted((event.kind, event.entity[1:]) for event in events if event.entity) == [
        ("link_down", ("mlx5_0/1",)),
        ("oom", ()),
        ("reboot", ()),
    ]


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A server's own, signed by nobody."""
    require("openssl")
    key, file = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*made, "-keyout", str(key), "-out", str(file)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused_with_what_to_do(
    certificate: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(dcgm_page("n01", gpus=1), tls=certificate)
    async with served(pages):
        async with fed(f"https://{pages.target}") as feed:
            target = await feed.target(pages.target, TargetState.FAILING)
            assert "its certificate is not trusted: self" in target.detail
            assert 'ca = "ca.pem"' in target.remedy
            assert "SSL_CERT_FILE" in target.remedy
        async with fed(f"https://{pages.target}", tls=trusting(str(tmp_path / "cert.pem"))) as feed:
            await feed.target(pages.target, TargetState.OK)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        async with fed(f"https://{pages.target}") as feed:
            await feed.target(pages.target, TargetState.OK)
    assert not [head for head in pages.requests if b"GET" not in head]


async def test_https_to_a_plain_server_says_so() -> None:
    async def answer(reader: asyncio.StreamReader, writer: Writer) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        name = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with fed(f"https://{name}") as feed:
            target = await feed.target(name, TargetState.FAILING)
        assert "does not speak TLS" in target.detail
        assert target.remedy == "write http://host:port"


async def test_1024_targets_are_all_shown() -> None:
    """A page each for 1,024 nodes of two GPUs, all from one server."""
    pages = Pages(status="404 None")
    answers = {f"/n{place:04d}": dcgm_page(f"n{place:04d}", gpus=2) for place in range(1024)}

    async def behave(writer: Writer, head: bytes) -> None:
        writer.write(ok(answers[head.split()[1].decode()], extra="Connection: close\r\n"))
        await writer.drain()

    pages.behave = behave
    async with served(pages):
        targets = [f"http://{pages.target}{path}" for path in answers]
        async with fed(*targets, interval=10.0, timeout=30.0) as feed:
            async with asyncio.timeout(60.0):
                batch = await feed.batch(where=lambda batch: len(batch.entities) == 2048, seconds=60.0)
    assert {entity[0] for entity in batch.entities} == {path[1:] for path in answers}
    states = {item.name: item.state for item in feed.items if isinstance(item, Target)}
    assert len(states) == 1024
    assert set(states.values()) <= {TargetState.OK, TargetState.SLOW, TargetState.CONNECTING}


async def test_a_flood_of_gpus_is_cut_and_said() -> None:
    page = dcgm_page("n01", gpus=64) + b"".join(
        line("DCGM_FI_DEV_GPU_TEMP", gpu_labels("n01", 100) | {"UUID": f"GPU-{number}"}, 40).encode()
        for number in range(500)
    )
    async with served(Pages(page)) as pages, fed(pages.target) as feed:
        target = await feed.target(pages.target, TargetState.OK)
        assert "500 GPUs left out" in target.detail
        batch = await feed.batch()
        assert len(batch.entities) == 64
        assert sum(isinstance(item, GpuFact) for item in feed.items) == 64


async def test_two_hosts_that_call_themselves_alike_are_told_apart() -> None:
    page = b'node_uname_info{nodename="gpu",release="6.1"} 1\nnode_load1 3\n'
    one, two = Pages(page, host="127.0.0.2"), Pages(page, host="127.0.0.3")
    async with served(one), served(two), fed(one.target, two.target) as feed:
        batch = await feed.batch(Kind.NODE, where=lambda batch: len(batch.entities) == 2)
        names = {entity.node for entity in batch.entities if isinstance(entity, NodeRef)}
        assert "gpu" in names
        assert names & {"127.0.0.2", "127.0.0.3"}
    assert any("calls itself gpu" in item.detail for item in feed.items if isinstance(item, Target))


@pytest.mark.parametrize(
    ("text", "name", "url"),
    [
        ("n01:9400", "n01:9400", "http://n01:9400/metrics"),
        ("http://n01:9400", "n01:9400", "http://n01:9400/metrics"),
        ("https://n01/gpu", "n01:443/gpu", "https://n01/gpu"),
        ("[::1]:9100", "[::1]:9100", "http://[::1]:9100/metrics"),
    ],
)
def test_addresses(text: str, name: str, url: str) -> None:
    assert address(text)[:2] == (name, url)


def test_node_sets_and_mistakes_in_addresses() -> None:
    assert [one.name for one in addresses(["r[01-02]n[01-02]:9400", "r01n01:9400"])] == [
        "r01n01:9400",
        "r01n02:9400",
        "r02n01:9400",
        "r02n02:9400",
    ]
    for text in (
        "n01",
        "-oProxy:9400",
        "ftp://n01:9400",
        "http://user:pass@n01:9400",
        "n[01-:9400",
        "http://:9400",
    ):
        with pytest.raises(ConfigError):
            addresses([text])


@pytest.fixture
def node_exporter() -> Iterator[str]:
    """The real prometheus-node-exporter."""
    program = require("prometheus-node-exporter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [program, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def test_a_real_node_exporter(node_exporter: str) -> None:
    async with fed(node_exporter, interval=1.0, timeout=5.0) as feed:
        target = await feed.target(node_exporter, TargetState.OK, TargetState.SLOW)
        assert target.what == "node_exporter"
        batch = await feed.batch(Kind.NODE, where=lambda batch: not math.isnan(at(batch, 0, "node.cpu_util")))
    assert batch.entities == (NodeRef(socket.gethostname()),)
    assert at(batch, 0, "node.cpus") == os.cpu_count()
    assert 0 <= at(batch, 0, "node.cpu_util") <= 1
    assert 0 < at(batch, 0, "node.mem_ratio") < 1
    (fact, *_) = [item for item in feed.items if isinstance(item, NodeFact)]
    assert fact.kernel == os.uname().release
    assert fact.clock_offset_s is not None
    assert abs(fact.clock_offset_s) < 5


async def test_a_central_ipmi_exporter_is_asked_for_each_bmc() -> None:
    async with served(Pages(ipmi_page())) as pages:
        target = f"http://{pages.target}/ipmi?target=n[01-02]-bmc&module=dell"
        async with fed(target) as feed:
            batch = await feed.batch(Kind.NODE, where=lambda batch: len(batch.entities) == 2)
            assert batch.entities == (NodeRef("n01-bmc"), NodeRef("n02-bmc"))
            assert at(batch, 1, "node.power") == 6400
            assert why(batch, 0, "node.inlet_temp") is Missing.PRESENT
        assert {head.split()[1] for head in pages.requests} == {
            b"/ipmi?target=n01-bmc&module=dell",
            b"/ipmi?target=n02-bmc&module=dell",
        }
        names = {item.name for item in feed.items if isinstance(item, Target)}
        assert names == {f"{pages.target}/ipmi?target=n0{n}-bmc&module=dell" for n in (1, 2)}


async def test_a_merged_page_gives_every_vocabulary_its_batch() -> None:
    page = amd_page("a01", 2) + ipmi_page() + b'node_uname_info{nodename="a01"} 1\nnode_load1 3\n'
    async with served(Pages(page)) as pages, fed(pages.target) as feed:
        target = await feed.target(pages.target, TargetState.OK)
        assert target.what == "AMD device-metrics-exporter, ipmi_exporter, node_exporter"
        assert target.nodes == ("a01",)
        gpus, node = await feed.batch(Kind.GPU), await feed.batch(Kind.NODE)
    assert len(gpus.entities) == 2
    assert at(gpus, 0, "gpu.mem_total") == 196592 * 1048576
    assert node.entities == (NodeRef("a01"),)
    assert (at(node, 0, "node.power"), at(node, 0, "node.load1")) == (6400, 3)
    facts = [item for item in feed.items if isinstance(item, NodeFact)]
    assert {fact.node for fact in facts} == {"a01"}
    assert [fact.driver for fact in facts][-1] == "6.14.14"


async def test_where_two_vocabularies_speak_of_one_cell_the_first_counts() -> None:
    uuid = gpu_labels("n01", 0)["UUID"]
    page = (
        one_gpu({"DCGM_FI_DEV_GPU_UTIL": 90, "DCGM_FI_DEV_GPU_TEMP": 61})
        + (
            f'all_smi_gpu_utilization{{uuid="{uuid}",index="0"}} 10\nall_smi_gpu_power_limit_current_watts{{uuid="{uuid}"}} 700\n'
        ).encode()
    )
    async with served(Pages(page)) as pages, fed(pages.target) as feed:
        batch = await feed.batch()
    assert len(batch.entities) == 1
    assert [at(batch, 0, key) for key in ("gpu.util", "gpu.temp", "gpu.power_limit")] == pytest.approx(
        [0.1, 61, 700]
    )


async def test_a_page_that_speaks_of_no_node_makes_none() -> None:
    from coldaisle.sources.settings import MetricSettings
    from coldaisle.sources.vocabularies import vocabularies_for

    words = vocabularies_for([], [MetricSettings(key="rack.power", names=("pdu_watts",), rack="rack")])
    page = Pages(b'pdu_watts{rack="r07"} 31000\n')
    async with served(page) as pages, fed(pages.target, vocabularies=words) as feed:
        target = await feed.target(pages.target, TargetState.OK)
        batch = await feed.batch(Kind.RACK)
    assert batch.entities == (RackRef("r07"),)
    assert target.nodes == ()
    assert not [item for item in feed.items if isinstance(item, NodeFact)]
