"""The log holds no secrets, and never reaches the terminal."""

import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldaisle.sources import log
from coldaisle.sources.log import redact, start_log, stop_log

OURS = logging.getLogger("coldaisle.test")


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    stop_log()
    logging.getLogger().setLevel(level)


@pytest.mark.parametrize(
    "text",
    [
        "GET https://kim:hunter2@n1:9400/metrics",
        "Authorization: Bearer hunter2hunter2",
        "authorization: 'hunter2'",
        "headers={'X-SLURM-USER-TOKEN': 'hunter2', 'a': 1}",
        "http://n1/api?token=hunter2&x=1",
        "password = hunter2",
        'api_key="hunter2 hunter2"',
        "jwt eyJhbGciOiJIUzI1NiJ9.hunter2.hunter2",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2",
        "passphrase: hunter2",
    ],
)
def test_secrets_are_hidden(text: str) -> None:
    assert "hunter2" not in redact(text)
    assert log.HIDDEN in redact(text)


@pytest.mark.parametrize(
    "text", ["n1: 8 GPUs at 612 W", "https://n1:9400/metrics", "user@host refused", "12 tokens a second"]
)
def test_other_text_is_kept(text: str) -> None:
    assert redact(text) == text


def test_records_are_written_redacted_on_lines_of_their_own(tmp_path: Path) -> None:
    path = start_log(tmp_path / "state" / "coldaisle.log")
    assert path is not None
    OURS.warning("token=%s\n2026-01-01 00:00:00 1 ERROR posing \x1b[31m", "hunter2")
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        OURS.exception("caught")
    stop_log()
    text = path.read_text()
    assert "hunter2" not in text
    assert "\x1b" not in text
    assert "\n    2026-01-01" in text
    assert "    ValueError: password=[hidden]" in text
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_the_file_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_BYTES", 2000)
    path = start_log(tmp_path / "coldaisle.log")
    for _ in range(200):
        OURS.warning("x" * 100)
    stop_log()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + log.KEPT
    assert all(file.stat().st_size <= 2000 for file in files)
    assert path in files


def test_warnings_and_errors_of_threads_go_to_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = start_log(tmp_path / "coldaisle.log")
    assert path is not None
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0, name="divider")
    thread.start()
    thread.join()
    stop_log()
    text = path.read_text()
    assert "old ways" in text
    assert "thread divider ended" in text
    assert "ZeroDivisionError" in text
    assert capfd.readouterr().err == ""


def test_a_place_that_cannot_be_written_is_no_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert start_log(tmp_path / "file" / "coldaisle.log") is None
    OURS.error("lost")
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_no_error() -> None:
    code = """
import logging
from pathlib import Path
from coldaisle.sources import log
assert log.start_log(Path("/dev/full"))
for _ in range(100):
    logging.getLogger("coldaisle").error("x" * 1000)
log.stop_log()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
