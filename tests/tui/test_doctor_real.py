"""The real ``coldaisle doctor`` against real services: sshd and node_exporter."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.sshd import SshLab
from services import require

from coldaisle.sources.config import load
from coldaisle.sources.settings import SshSettings


def doctor(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The program in a process of its own, with a home of its own."""
    environ = {**os.environ, "XDG_STATE_HOME": str(home / "state"), "XDG_CONFIG_HOME": str(home / "config")}
    return subprocess.run(
        [sys.executable, "-c", "from coldaisle.tui.start import main; main()", "doctor", *arguments],
        capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL, env=environ,
    )  # fmt: skip


def targets(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {target["name"]: target for source in answer["sources"] for target in source["targets"]}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[SshLab]:
    with SshLab(tmp_path / "lab", ["n01", "n02", "n03"]) as lab:
        yield lab


def test_hosts_over_ssh(hosts: SshLab, tmp_path: Path) -> None:
    hosts.forget("n02")
    hosts.kill("n03")
    done = doctor(
        tmp_path,
        "--ssh",
        "n[01-03]",
        "--ssh-config",
        str(hosts.config),
        "--interval",
        "500ms",
        "--json",
        "--write",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    found = targets(answer)
    assert found["n01"]["state"] == "ok"
    assert found["n01"]["what"].startswith("probe")
    assert "known_hosts" in found["n02"]["detail"]
    assert f"[{hosts.addresses['n02']}]" in found["n02"]["detail"]
    assert found["n02"]["remedy"]
    assert found["n03"]["remedy"]
    assert answer["sources"][0]["metrics"]["node.mem_ratio"] >= 1
    assert "Traceback" not in done.stderr
    written = load(tmp_path / "config" / "coldaisle" / "config.toml").sources
    assert written == (SshSettings(hosts=("n01",), interval=0.5, ssh_config=(str(hosts.config),)),)


def test_hosts_that_are_all_gone(hosts: SshLab, tmp_path: Path) -> None:
    for name in ("n01", "n02", "n03"):
        hosts.kill(name)
    done = doctor(tmp_path, "--ssh", "n[01-03]", "--ssh-config", str(hosts.config), "--for", "20s")
    assert done.returncode == 2
    assert "0 of 3 targets answer" in done.stdout
    assert "ssh does not deliver" in done.stdout


@pytest.fixture
def node_exporter() -> Iterator[str]:
    program = require("prometheus-node-exporter")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    process = subprocess.Popen(
        [program, f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_node_exporter(node_exporter: str, tmp_path: Path) -> None:
    done = doctor(tmp_path, "--exporter", node_exporter, "--interval", "500ms")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert f"ok: {node_exporter}  node_exporter" in done.stdout
    assert "1 of 1 targets answer" in done.stdout
    assert "node.mem_" in done.stdout


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        process = subprocess.Popen(
            [
                sys.executable, "-c", "from coldaisle.tui.start import main; main()",
                "doctor", "--exporter", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "60s", "--for", "60s",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        )  # fmt: skip
        connection, _ = silent.accept()  # it asks, and nobody answers
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert (out, err.strip()) == ("", "")
