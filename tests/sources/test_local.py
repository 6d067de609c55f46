"""This machine through a child process, which is ended with certainty."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from pathlib import Path

import pytest
from lab import scripted_probe
from lab.listening import listening
from lab.sshd import children_of, wait_until

from coldaisle.sources.fleet import Backoff
from coldaisle.sources.local import LocalSource
from coldaisle.sources.settings import LocalSettings
from coldaisle.sources.source import TargetState

PROBE = [sys.executable, "-u", scripted_probe.__file__, "0.3", "2"]


def source_of(*command: str, interval: float = 0.3) -> LocalSource:
    return LocalSource(
        LocalSettings(interval=interval), command=command or PROBE, node="here", backoff=Backoff(0.1, 0.5)
    )


def children(probe: str) -> list[int]:
    """Our child processes whose command holds this text."""
    found = []
    for pid in children_of(os.getpid()):
        try:
            if probe.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


async def test_the_child_reads_and_ends_with_the_stream() -> None:
    async with listening(source_of()) as heard:
        await heard.until("it reads", lambda: heard.value("here", "gpu.power") == 300.0)
        target = await heard.until_state("here", TargetState.OK)
        assert target.what == "probe 3.11 nvml 580.95"
        assert len(children("scripted_probe")) == 1
    assert children("scripted_probe") == []


async def test_a_killed_child_is_started_again() -> None:
    async with listening(source_of()) as heard:
        await heard.until_state("here", TargetState.OK)
        (pid,) = children("scripted_probe")
        os.kill(pid, 9)
        target = await heard.until_state("here", TargetState.FAILING)
        assert "the probe ended" in target.detail
        await heard.until_state("here", TargetState.OK)
        assert children("scripted_probe") != [pid]


async def test_a_child_deaf_to_signals_is_killed() -> None:
    script = "import signal,time;[signal.signal(n, signal.SIG_IGN) for n in (1,2,15)];time.sleep(99)#deaf"
    async with listening(source_of(sys.executable, "-c", script)) as heard:
        await heard.until("it runs", lambda: bool(heard.targets))
        await asyncio.to_thread(wait_until, "it runs", lambda: bool(children("#deaf")))
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert children("#deaf") == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('no module named pynvml')", "no module named pynvml"),
        ("import sys\nwhile True: sys.stdout.write('y' * 9999 + chr(10))", "prints without end"),
        ("pass", "the probe ended"),
    ],
)
async def test_a_probe_that_cannot_is_told_and_tried_again(script: str, said: str) -> None:
    async with listening(source_of(sys.executable, "-c", script)) as heard:
        target = await heard.until_state("here", TargetState.FAILING)
        assert said in target.detail


async def test_what_a_child_printed_is_in_the_log_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    script = "import sys; sys.stderr.write('first line\\nlast \\033[31mline\\n'); sys.exit(1)"
    async with listening(source_of(sys.executable, "-c", script)) as heard:
        target = await heard.until_state("here", TargetState.FAILING)
    assert target.detail.startswith("the probe ended: last ")
    assert "first line" in caplog.text
    assert "\033" not in caplog.text


async def test_a_command_that_is_not_there_is_told() -> None:
    async with listening(source_of("/nonexistent/python")) as heard:
        target = await heard.until_state("here", TargetState.FAILING)
        assert "does not start" in target.detail


async def test_a_stopped_child_turns_stale() -> None:
    async with listening(source_of()) as heard:
        await heard.until_state("here", TargetState.OK)
        (pid,) = children("scripted_probe")
        os.kill(pid, 19)
        await heard.until_state("here", TargetState.STALE)
        os.kill(pid, 18)
        await heard.until_state("here", TargetState.OK)


async def test_the_pace_is_the_interval() -> None:
    async with listening(source_of(interval=0.25)) as heard:
        await heard.until("some ticks", lambda: len(heard.batches) >= 16)
    times = sorted({batch.at for batch in heard.batches})
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(0.25, abs=0.1)
