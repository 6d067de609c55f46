"""The real program in a real terminal: the demo, and real hosts over real sshd servers."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from lab.pages import gpu_labels, line
from lab.sshd import SshLab, names_of
from lab.terminal import Tmux, clean_environment, descendants, is_running, tmux, wait_for
from nvml.stub import StubHost
from services import require

COLDAISLE = str(Path(sys.executable).parent / "coldaisle")
DEMO = (COLDAISLE, "demo", "--seed", "3")
START_S = 30.0
"""For starts on a busy machine; what is timed is timed apart."""
TICK_S = 2.0
ALL_RACKS = {f"r{rack:02}" for rack in range(1, 17)}
"""Of the demo."""


@pytest.fixture(autouse=True)
def _tmux() -> None:
    require("tmux")


@contextmanager
def program(folder: Path, *argv: str, size: tuple[int, int] = (80, 24), **environ: str) -> Iterator[Tmux]:
    """The program in tmux, with a home of its own."""
    with tmux(folder, *argv, size=size, environ=clean_environment(HOME=str(folder), **environ)) as terminal:
        yield terminal


def telling_status(*argv: str) -> tuple[str, ...]:
    """A command line that says how it ended: tmux does not always know."""
    return ("sh", "-c", f'{shlex.join(argv)}; echo "status $?"; exec sleep 600')


def demo_is_shown(terminal: Tmux) -> None:
    """Wait until the demo's racks have data."""
    terminal.wait_for(r"LIVE .*/512 GPUs", START_S)
    terminal.wait_for(r"(?<!\S)r\d\d[ !*] *\d+%", START_S)


def racks_shown(text: str) -> set[str]:
    """The racks whose titles are in sight."""
    return set(re.findall(r"(?<!\S)(r\d\d)[ !*] *(?:\d+%|-)", text))


@pytest.mark.parametrize("size", [(80, 24), (120, 34), (200, 50)], ids=str)
def test_the_demo_shows_every_rack(tmp_path: Path, size: tuple[int, int]) -> None:
    with program(tmp_path, *DEMO, size=size) as terminal:
        demo_is_shown(terminal)
        text = terminal.capture()
        assert racks_shown(text) == ALL_RACKS
        assert len(text.splitlines()[0]) <= size[0]


def test_keys_lead_everywhere_and_back(tmp_path: Path) -> None:
    with program(tmp_path, *telling_status(*DEMO)) as terminal:
        demo_is_shown(terminal)
        terminal.send("?")
        terminal.wait_for("Keys on Racks")
        terminal.send("Escape")
        demo_is_shown(terminal)
        terminal.send("4")
        terminal.wait_for(r"^node +state")
        terminal.send("7")
        terminal.wait_for(r"^source +state")
        terminal.send("1")
        demo_is_shown(terminal)
        terminal.send("Enter")
        terminal.wait_for(r"r01n01.*")
        terminal.wait_until("the racks are left", lambda text: not racks_shown(text))
        terminal.send("Escape")
        demo_is_shown(terminal)
        terminal.send("q")
        terminal.wait_for("^status 0$")


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=str)
def test_it_begins_at_a_past_instant_and_only_t_returns(tmp_path: Path, size: tuple[int, int]) -> None:
    with program(tmp_path, *DEMO, "--at", "2h ago", size=size, TZ="Europe/Berlin") as terminal:
        terminal.wait_for(r"PAST (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d CES?T +2h0\d ago", START_S)
        terminal.wait_for(r"(?<!\S)r\d\d[ !*] *\d+%", START_S)
        assert "LIVE" not in terminal.capture()
        assert racks_shown(terminal.capture()) == ALL_RACKS
        terminal.send("[")
        terminal.wait_for(r"PAST .*:\d0 CES?T .*data 0 s")
        terminal.send("{")
        terminal.wait_for(r"PAST .* 2h1\d ago")
        terminal.send("Enter")
        terminal.wait_for(r"-15m .* \d\d:\d\d:\d0")
        terminal.send("Escape")
        terminal.wait_until("the racks are back", lambda text: racks_shown(text) == ALL_RACKS)
        assert "PAST" in terminal.capture()
        terminal.send("t")
        demo_is_shown(terminal)
        assert "PAST" not in terminal.capture()


def test_t_asks_for_an_instant(tmp_path: Path) -> None:
    with program(tmp_path, *DEMO) as terminal:
        demo_is_shown(terminal)
        terminal.send("4", "t")
        terminal.wait_for(r"^go to \d\d:\d\d:\d\d")
        terminal.send("yesterday 25:00")
        terminal.wait_for("a day has 24 hours")
        terminal.send("C-u")
        terminal.wait_for("^go to +03:12, yesterday 03:12")
        terminal.send("yesterday 03:12")
        terminal.wait_for(r"^go to yesterday 03:12 .*:00 UTC.* ago")
        terminal.send("Enter")
        terminal.wait_for(r"PAST \d{4}-\d\d-\d\d 03:12:00 UTC")
        terminal.wait_for(r"^r01n01 +\w+")


def test_where_no_source_has_a_past_it_is_said_and_live_stays(tmp_path: Path) -> None:
    with program(tmp_path, COLDAISLE, "--exporter", "127.0.0.1:9", "--at", "-1h") as terminal:
        terminal.wait_for(r"no source here has a past \(exporters\): live only", START_S)
        assert "LIVE" in terminal.capture()
        terminal.send("j")
        terminal.wait_until("it is gone", lambda text: "has a past" not in text)


def test_any_size_is_survived(tmp_path: Path) -> None:
    with program(tmp_path, *DEMO) as terminal:
        demo_is_shown(terminal)
        for size in ((20, 5), (60, 20), (1, 1), (250, 70), (80, 24)):
            terminal.resize(*size)
            time.sleep(0.3)  # let it lay out each of them
        demo_is_shown(terminal)
        terminal.wait_until("all racks are back", lambda text: racks_shown(text) == ALL_RACKS)


def test_suspend_and_continue(tmp_path: Path) -> None:
    with program(tmp_path, "bash", "--norc", "-i", PS1="ready> ", HISTFILE="/dev/null") as shell:
        shell.wait_for("ready>")
        shell.send(" ".join(DEMO), "Enter")
        demo_is_shown(shell)
        shell.send("C-z")
        shell.wait_for("Stopped")
        assert (shell.mode("alternate_on"), shell.mode("cursor_flag")) == ("0", "1")
        shell.send("fg", "Enter")
        demo_is_shown(shell)
        shell.send("C-c")
        shell.wait_for("ready>$")
        shell.send("echo status $?", "Enter")
        shell.wait_for("^status 0")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    with program(tmp_path, *telling_status(*DEMO)) as terminal:
        demo_is_shown(terminal)
        os.kill(min(descendants(terminal.pid)), number)
        terminal.wait_for(f"^status {128 + number}$")
        assert terminal.mode("alternate_on") == "0"


def test_a_terminal_that_vanishes_leaves_no_process(tmp_path: Path) -> None:
    with program(tmp_path, *DEMO) as terminal:
        demo_is_shown(terminal)
        family = {terminal.pid} | descendants(terminal.pid)
        terminal.kill_server()
        wait_for("the end of every process", lambda: not any(map(is_running, family)), 8.0)
    assert "ERROR" not in (tmp_path / ".local/state/coldaisle/coldaisle.log").read_text()


def test_without_colours_nothing_is_lost(tmp_path: Path) -> None:
    with program(tmp_path, *DEMO, NO_COLOR="1") as terminal:
        demo_is_shown(terminal)
        drawn = terminal.capture(has_colours=True)
        assert not re.search(r"\x1b\[[\d;]*(38|48)[;:][25]|\x1b\[[\d;]*\b(3|4|9|10)[0-7]m", drawn)


def test_without_utf8_only_ascii_is_drawn(tmp_path: Path) -> None:
    with program(tmp_path, *DEMO, LANG="C", LC_ALL="C") as terminal:
        demo_is_shown(terminal)
        assert terminal.capture().isascii()
        for keys, shown in (("Enter", "GPUs Values"), ("Escape", r"^r01[ !*]"), ("4", "^node +state"), ("7", "^source +state"),
                            ("?", "Keys on"), ("Escape", "^source"), (":", "Search for commands")):  # fmt: skip
            terminal.send(keys)
            terminal.wait_for(shown)
            assert terminal.capture().isascii(), keys


def test_nothing_to_see_is_said(tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has a GPU to see")
    with program(tmp_path, *telling_status(COLDAISLE)) as terminal:
        terminal.wait_for("coldaisle demo", START_S)
        terminal.wait_for("^status 3$")


# --- hosts over SSH ------------------------------------------------------------------------------


@pytest.fixture
def gpus(tmp_path: Path) -> dict[str, StubHost]:
    """Two hosts' GPUs, driven by a file each."""
    require("gcc")
    return {name: StubHost(tmp_path / f"{name}-gpus", gpus=8) for name in ("n01", "n02")}


@pytest.fixture
def lab(tmp_path: Path, gpus: dict[str, StubHost]) -> Iterator[SshLab]:
    """Their sshd servers."""
    environment = {name: stub.environment() | {"HOME": str(tmp_path)} for name, stub in gpus.items()}
    with SshLab(tmp_path / "lab", list(gpus), environment=environment) as lab:
        yield lab


def over_ssh(lab: SshLab, hosts: str, *options: str) -> tuple[str, ...]:
    """The command line that shows these hosts' utilisation."""
    return (COLDAISLE, "--ssh", hosts, "--ssh-config", str(lab.config), "--metric", "gpu.util",
            "--interval", f"{TICK_S:g}s", *options)  # fmt: skip


def cells(terminal: Tmux) -> list[str]:
    """The rows of eight cells on the screen, in reading order."""
    return re.findall(r"(?<!\S)[0-9X?.d-]{8}(?![0-9A-Za-z])", terminal.capture())


def wait_for_cells(terminal: Tmux, wanted: list[str], seconds: float) -> float:
    """Wait until exactly these rows of cells are shown; how long it took."""
    begin = time.monotonic()
    wait_for(f"cells {wanted}", lambda: cells(terminal) == wanted, seconds, context=terminal.capture)
    return time.monotonic() - begin


def wait_for_rows(terminal: Tmux, row: str, count: int) -> None:
    """Wait until so many rows of cells are like this one."""
    wait_for(f"{count} {row}", lambda: cells(terminal).count(row) == count, 10.0, context=terminal.capture)


def test_changed_values_show_within_two_ticks(tmp_path: Path, lab: SshLab, gpus: dict[str, StubHost]) -> None:
    with program(tmp_path, *over_ssh(lab, "n[01-02]")) as terminal:
        wait_for_cells(terminal, ["00000000", "00000000"], START_S)
        gpus["n01"].gpu(0).set("util", 75)
        assert wait_for_cells(terminal, ["70000000", "00000000"], 10.0) <= 2 * TICK_S + 0.3
        gpus["n02"].gpu(7).set("util", 92)
        assert wait_for_cells(terminal, ["70000000", "00000009"], 10.0) <= 2 * TICK_S + 0.3


@pytest.mark.timeout(180)
def test_a_killed_host_turns_stale_then_lost_and_recovers(tmp_path: Path, lab: SshLab) -> None:
    with program(tmp_path, *over_ssh(lab, "n[01-02]")) as terminal:
        wait_for_cells(terminal, ["00000000", "00000000"], START_S)
        lab.kill("n02")
        wait_for_cells(terminal, ["00000000", "????????"], 20.0)
        wait_for_cells(terminal, ["00000000", "XXXXXXXX"], 60.0)
        lab.restart("n02")
        wait_for_cells(terminal, ["00000000", "00000000"], 60.0)


def test_two_hung_hosts_of_sixteen_delay_nobody(tmp_path: Path, gpus: dict[str, StubHost]) -> None:
    names = names_of(16)
    alive, hung = names[:14], names[14:]
    environ = gpus["n01"].environment() | {"HOME": str(tmp_path)}
    with SshLab(tmp_path / "lab", alive, environment=dict.fromkeys(alive, environ), share=14) as lab:
        for name in hung:
            lab.silent(name)
        with program(tmp_path, *over_ssh(lab, "n[001-016]")) as terminal:
            terminal.wait_for("14/16 nodes +112", START_S)
            gpus["n01"].gpu(0).set("util", 35)
            wait_for_rows(terminal, "30000000", 14)  # fourteen probes have started on this one machine
            gpus["n01"].gpu(0).set("util", 65)
            begin = time.monotonic()
            wait_for_rows(terminal, "60000000", 14)
            assert time.monotonic() - begin <= 2 * TICK_S + 0.3


def test_a_jump_host_leads_to_the_others(tmp_path: Path, lab: SshLab) -> None:
    lab.add("far", lab.addresses["n02"], ProxyJump="n01")
    with program(tmp_path, *over_ssh(lab, "far")) as terminal:
        wait_for_cells(terminal, ["00000000"], START_S)


def test_a_host_name_that_is_an_option_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [COLDAISLE, "--ssh", "-oProxyCommand=touch /tmp/never"],
        env=clean_environment(HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


# --- hostile names over HTTP ---------------------------------------------------------------------

HOSTILE = "n01\x1b]52;c;aGVsbG8=\x07\x1b[2J[red]\u202e\x9b31m"
"""Would fill the clipboard, clear the screen, colour what follows and turn it round."""


class HostilePage(BaseHTTPRequestHandler):
    """A dcgm-exporter page whose node calls itself that."""

    def do_GET(self) -> None:
        labels = gpu_labels("n01", 0) | {"Hostname": HOSTILE, "modelName": HOSTILE}
        body = "".join(line(name, labels, 50) for name in ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE"))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), HostilePage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        target = f"127.0.0.1:{server.server_address[1]}"
        with program(tmp_path, COLDAISLE, "--exporter", target, "--metric", "gpu.util") as terminal:
            terminal.wait_for("1 GPU|1/1 GPUs", START_S)
            for key in ("4", "7", "1"):
                terminal.send(key)
                time.sleep(1.0)
                drawn = terminal.capture()
                assert "Keys" not in drawn
                assert not re.search(r"[\x07\x1b\x80-\x9f\u202a-\u202e\u2066-\u2069]", drawn)
                assert drawn.splitlines()[0].strip(), "the screen was not cleared"
            assert terminal.clipboard() == ""
    finally:
        server.shutdown()
        server.server_close()
