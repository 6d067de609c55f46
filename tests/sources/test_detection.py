"""What this machine can see by itself."""

import ctypes
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldaisle.sources.config import Settings
from coldaisle.sources.detection import detect, nvidia_driver
from coldaisle.sources.settings import ExporterSettings, LocalSettings, SlurmSettings


@pytest.fixture(autouse=True)
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_nothing_to_see(tmp_path: Path, closed_port: int) -> None:
    found = detect(tmp_path, [(closed_port, "dcgm-exporter")])
    assert found.sources == ()
    assert found.notes == (
        "NVIDIA driver: none found",
        f"dcgm-exporter on 127.0.0.1:{closed_port}: nothing there",
        "Slurm: no squeue with a configuration",
    )


def test_slurm_is_its_commands_and_their_configuration(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin" / "squeue"
    environment = {"PATH": str(squeue.parent)}
    (tmp_path / "etc" / "slurm").mkdir(parents=True)
    conf = tmp_path / "etc" / "slurm" / "slurm.conf"
    conf.touch()
    assert detect(tmp_path, [], environment).sources == ()
    squeue.touch(mode=0o755)
    found = detect(tmp_path, [], environment)
    assert Settings().with_sources(found.sources).sources == (SlurmSettings(),)
    assert found.notes[-1] == f"Slurm: {conf}"
    assert detect(tmp_path, [], environment | {"SLURM_CONF": str(tmp_path / "none")}).sources == ()


def test_a_driver_and_an_exporter(tmp_path: Path, listener: int, closed_port: int) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    found = detect(tmp_path, [(listener, "dcgm-exporter"), (closed_port, "node_exporter")])
    assert Settings().with_sources(found.sources).sources == (
        LocalSettings(),
        ExporterSettings(targets=(f"127.0.0.1:{listener}",)),
    )
    assert found.notes[0] == "NVIDIA driver: /dev/nvidiactl"
    assert found.notes[1].endswith("answers")


def test_a_library_alone_is_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: name)
    assert nvidia_driver(tmp_path) == "libnvidia-ml.so.1"
