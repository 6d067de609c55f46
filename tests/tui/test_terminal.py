"""The paced driver in real terminals: slow, mute, lost, suspended."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.terminal import Pty, Tmux, clean_environment, descendants, is_running, tmux, wait_for
from services import require

from coldaisle.tui.terminal import ANSWER, CANCEL, Answers, Output

TICKER = (sys.executable, str(Path(__file__).parent.parent / "lab" / "ticker.py"))
TICK_S = 2.0


def age_of_data(terminal: Pty) -> float:
    """How old the oldest line on the screen is, in seconds."""
    drawn = re.findall(r"^at (\d{10}\.\d\d) ", terminal.text(), re.M)
    assert len(drawn) == terminal.size[1]
    return time.time() - min(map(float, drawn))


def worst_age(terminal: Pty, seconds: float) -> float:
    """The greatest age of data seen while `seconds` pass."""
    end = time.monotonic() + seconds
    ages = []
    while time.monotonic() < end:
        ages.append(age_of_data(terminal))
        time.sleep(0.05)
    return max(ages)


def lines_drawn(terminal: Pty) -> bool:
    """Whether every line has been drawn."""
    return len(re.findall(r"^at \d{10}\.\d\d ", terminal.text(), re.M)) == terminal.size[1]


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "mute"])
@pytest.mark.parametrize(("rate", "size"), [(100_000, (200, 50)), (20_000, (80, 24))], ids=str)
def test_a_slow_terminal_shows_data_two_ticks_old_at_most(
    rate: float, size: tuple[int, int], answers: bool
) -> None:
    with Pty(TICKER, size, rate, answers) as terminal:
        wait_for("the whole screen", lambda: lines_drawn(terminal))
        assert worst_age(terminal, 5.0) <= 2 * TICK_S


def test_bytes_stay_within_the_budget() -> None:
    with Pty(TICKER, (120, 34)) as terminal:
        wait_for("the whole screen", lambda: lines_drawn(terminal))
        time.sleep(1.5)  # the budget saved up before the start is spent
        before, start = terminal.taken, time.monotonic()
        time.sleep(4.0)
        frame = 25_000
        assert terminal.taken - before <= 50_000 * (time.monotonic() - start) + frame


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "mute"])
def test_a_key_shows_at_once(answers: bool) -> None:
    with Pty(TICKER, (200, 50), answers=answers) as terminal:
        wait_for("the whole screen", lambda: lines_drawn(terminal))
        for typed in ("x", "xy", "xyz"):
            terminal.send(typed[-1])
            terminal.wait_for(re.escape(f"keys [{typed}]"), seconds=1.0)


def test_answers_are_not_taken_for_keys() -> None:
    with Pty(TICKER) as terminal:
        wait_for("the whole screen", lambda: lines_drawn(terminal))
        time.sleep(1.0)
        terminal.send("ab")
        terminal.wait_for(r"keys \[ab\]")
        terminal.send("\x1b[0")  # an answer in two pieces, and one nobody asked for
        time.sleep(0.03)
        terminal.send("n" + ANSWER + "c")
        terminal.wait_for(r"keys \[abc\]")


@pytest.mark.parametrize("rate", [float("inf"), 20_000], ids=["fast", "slow"])
def test_the_end_leaves_the_terminal_as_it_was(rate: float) -> None:
    with Pty(TICKER, rate=rate) as terminal:
        wait_for("the whole screen", lambda: lines_drawn(terminal))
        terminal.send("\x03")
        assert terminal.process.wait(10) == 0
        terminal.wait_for("ended with 0")
        assert terminal.attributes_are_restored()
        assert "[0n" not in terminal.text(), "an answer reached the shell"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_a_signal_ends_it_and_restores_the_terminal(number: signal.Signals) -> None:
    with Pty(TICKER) as terminal:
        wait_for("the whole screen", lambda: lines_drawn(terminal))
        terminal.process.send_signal(number)
        assert terminal.process.wait(10) == 128 + number
        terminal.wait_for(f"ended with {128 + number}")
        assert terminal.attributes_are_restored()


def test_a_signal_ends_even_what_never_comes_to_rest() -> None:
    busy = ("from coldaisle.tui import terminal; terminal.LAST_RESORT_S = 0.5\n"
            "class Busy(terminal.PacedApp):\n"
            "    def on_ready(self):\n"
            "        while True: pass\n"
            "Busy().run()")  # fmt: skip
    with Pty((sys.executable, "-c", busy)) as terminal:
        wait_for("the alternate screen", lambda: b"\x1b[?1004h" in terminal.recent)
        time.sleep(0.5)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(5) == 128 + signal.SIGTERM
        wait_for("the normal screen", lambda: b"\x1b[?1049l" in terminal.recent)
        assert terminal.attributes_are_restored()


def test_a_terminal_without_a_size_is_80_by_24() -> None:
    unsized = ("sh", "-c", 'stty cols 0 rows 0; exec "$@"', "sh", *TICKER)
    with Pty(unsized) as terminal:
        wait_for("the whole screen", lambda: lines_drawn(terminal))
        before = processor_seconds(terminal.process.pid)
        time.sleep(1.0)
        assert processor_seconds(terminal.process.pid) - before < 0.8
        terminal.send("x")
        terminal.wait_for(r"keys \[x\]", seconds=2.0)


def processor_seconds(pid: int) -> float:
    """What the process has used so far."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def test_a_lost_terminal_ends_it_soon() -> None:
    with Pty(TICKER) as terminal:
        wait_for("the whole screen", lambda: lines_drawn(terminal))
        terminal.close()
        assert terminal.process.wait(5) != 0


def test_a_lost_terminal_ends_it_without_a_signal() -> None:
    deaf = (sys.executable, "-c", "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
            " os.setpgid(0, 0) if os.getpid() != os.getsid(0) else None; os.execv(sys.argv[1], sys.argv[1:])",
            *TICKER)  # fmt: skip
    with Pty(deaf) as terminal:
        wait_for("the whole screen", lambda: lines_drawn(terminal))
        terminal.close()
        assert terminal.process.wait(5) != 0


def test_a_terminal_that_stops_drawing_does_not_keep_it() -> None:
    with Pty((*TICKER, "quiet"), (200, 50), rate=20_000) as terminal:
        wait_for("the whole screen", lambda: lines_drawn(terminal))
        terminal.rate = 1  # what waits in the terminal is enough to block every write
        time.sleep(0.5)
        terminal.process.send_signal(signal.SIGTERM)
        terminal.process.wait(10)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Tmux]:
    """An interactive shell in tmux."""
    require("tmux")
    environ = clean_environment(PS1="ready> ", HISTFILE="/dev/null")
    with tmux(tmp_path, "bash", "--norc", "-i", environ=environ) as terminal:
        terminal.wait_for("ready>")
        yield terminal


def start_ticker(shell: Tmux) -> int:
    """Run the ticker in the shell; its process id."""
    shell.send(" ".join(TICKER), "Enter")
    shell.wait_for(r"^at \d{10}")
    return min(descendants(shell.pid))


def test_suspend_and_continue(shell: Tmux) -> None:
    start_ticker(shell)
    shell.send("a")
    shell.wait_for(r"keys \[a\]")
    for _ in range(2):
        shell.send("C-z")
        shell.wait_for(r"Stopped")
        assert (shell.mode("alternate_on"), shell.mode("cursor_flag")) == ("0", "1")
        assert shell.mode("mouse_any_flag") == "0"
        shell.send("echo e''cho", "Enter")
        shell.wait_for("^echo$")
        shell.send("fg", "Enter")
        shell.wait_until("the whole screen", lambda text: text.count("\nat ") >= 23)
    shell.send("b")
    shell.wait_for(r"keys \[ab\]")
    shell.send("C-c")
    shell.wait_for("ended with 0")
    shell.send("echo e''nd", "Enter")
    shell.wait_for("^end$")


def test_a_plain_stop_is_survived(shell: Tmux) -> None:
    pid = start_ticker(shell)
    os.kill(pid, signal.SIGSTOP)
    shell.wait_until("the prompt", lambda text: "Stopped" in text or "ready>" in text)
    shell.send("fg", "Enter")
    shell.wait_until("the whole screen", lambda text: text.count("\nat ") >= 23)
    shell.send("x")
    shell.wait_for(r"keys \[x")
    shell.send("C-c")
    shell.wait_for("ended with 0")
    shell.send("echo e''nd", "Enter")
    shell.wait_for("^end$")


def test_the_end_of_tmux_leaves_no_process(shell: Tmux) -> None:
    pid = start_ticker(shell)
    shell.kill_server()
    wait_for("the end of the process", lambda: not is_running(pid), 5.0)


@given(
    st.lists(st.sampled_from([ANSWER, "a", "\x1b", "[", "\x1b[A", "\x1b[0", "0", "n", "\x1b[", "\x1b[3~"]))
)
def test_answers_are_found_however_they_are_cut(pieces: list[str]) -> None:
    answers = Answers()
    typed = ""
    count = 0
    for piece in pieces:
        text, found = answers.split(piece)
        typed += text
        count += found
    typed += answers.rest()
    whole = "".join(pieces)
    assert len(typed) + count * len(ANSWER) == len(whole), "nothing is lost"
    assert count >= sum(piece == ANSWER for piece in pieces) - whole.count("\x1b\x1b")


def test_a_cut_frame_ends_in_a_cancel() -> None:
    read, write = os.pipe()
    drained = threading.Event()
    output = Output(write, drained.set, drained.set)
    output.put(b"x" * 200_000)
    output.start()
    wait_for("a full pipe", lambda: output.written >= 60_000)
    assert output.discard()
    output.put(b"farewell")
    taken = b""
    while not taken.endswith(b"farewell"):
        taken += os.read(read, 65536)
    assert taken.strip(b"x") == CANCEL + b"farewell"
    assert output.finish(2.0)
    os.close(read)
    os.close(write)


def test_a_terminal_that_is_gone_swallows_everything() -> None:
    read, write = os.pipe()
    os.close(read)
    lost = threading.Event()
    output = Output(write, lambda: None, lost.set)
    output.start()
    output.put(b"hello")
    assert lost.wait(5)
    output.put(b"again")
    assert output.unsent == 0
    assert output.finish(2.0)
    os.close(write)
