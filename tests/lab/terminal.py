"""Real terminals for tests: tmux on its own socket, and a pty that drains as slowly as a bad link."""

from __future__ import annotations

import copy
import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import pyte

T = TypeVar("T")

QUESTION, ANSWER = b"\x1b[5n", "\x1b[0n"
"""A status request, and what a terminal says to it."""
FRAME = b"\x1b[1;1H"
"""A frame of the whole screen begins at its first cell."""
ALTERNATE_SCREEN: Final = 1049
"""The private mode of a second screen; whoever leaves it finds cells and cursor of the first as they were."""


def wait_for(
    what: str,
    probe: Callable[[], T | None],
    seconds: float = 20.0,
    context: Callable[[], str] = str,
    pause: float = 0.05,
) -> T:
    """What `probe` returns once it is true; fails after `seconds`, showing `context`."""
    deadline = time.monotonic() + seconds
    while not (result := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}\n{context()}")
        time.sleep(pause)
    return result


def clean_environment(**changes: str) -> dict[str, str]:
    """This environment without what a test's own terminal leaves in it, with `changes`."""
    dropped = ("TMUX", "TMUX_PANE", "STY", "NO_COLOR", "COLORTERM", "LC_ALL", "LC_CTYPE", "TERM_PROGRAM")
    kept = {
        k: v for k, v in os.environ.items() if k not in dropped and not k.startswith(("TEXTUAL", "PYTHON"))
    }
    return kept | {"LANG": "C.UTF-8", "TERM": "xterm-256color"} | changes


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def descendants(pid: int) -> set[int]:
    """The process ids of all its children, and theirs."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{todo.pop()}/task").iterdir():
                children = {int(child) for child in (task / "children").read_text().split()} - found
                found |= children
                todo += children
    return found


class Tmux:
    """A tmux server of its own with one window."""

    def __init__(
        self, directory: Path, argv: Sequence[str], environ: Mapping[str, str], size: tuple[int, int]
    ):
        """Run `argv` in a window of `size` (columns, lines)."""
        self._base = ["tmux", "-S", str(directory / "tmux"), "-f", "/dev/null"]
        inner = ["env", "-i", *(f"{k}={v}" for k, v in environ.items() if k != "TERM"), "TERM=tmux-256color"]
        columns, lines = size
        self._run("new-session", "-d", "-x", str(columns), "-y", str(lines), shlex.join([*inner, *argv]),
                  ";", "set", "-g", "status", "off", ";", "set", "-g", "remain-on-exit", "on",
                  ";", "set", "-g", "set-clipboard", "on")  # fmt: skip
        self.resize(columns, lines)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._base, *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            env=clean_environment(TERM="xterm-256color"),
        )
        return done.stdout

    @property
    def pid(self) -> int:
        """Of what runs in the window."""
        return int(self._run("display", "-p", "#{pane_pid}"))

    @property
    def server_pid(self) -> int:
        """Of the tmux server."""
        return int(self._run("display", "-p", "#{pid}"))

    def capture(self, *, has_colours: bool = False) -> str:
        """What the window shows."""
        return self._run("capture-pane", "-p", *(["-e"] if has_colours else []))

    def mode(self, name: str) -> str:
        """A terminal mode as tmux names it: ``alternate_on``, ``cursor_flag``, ``mouse_any_flag`` ..."""
        return self._run("display", "-p", f"#{{{name}}}").strip()

    def clipboard(self) -> str:
        """tmux's newest buffer, which a program can fill with OSC 52; empty: none."""
        return self._run("list-buffers", "-F", "#{buffer_sample}").strip()

    def exit_status(self) -> str:
        """Of what ran in the window: a number, ``SIG9``, or empty while it runs."""
        line = self._run("display", "-p", "#{pane_dead} #{pane_dead_status} #{pane_dead_signal}")
        dead, _, status = line.strip().partition(" ")
        return status.strip() if dead == "1" else ""

    def send(self, *keys: str) -> None:
        """Press keys, as tmux names them."""
        self._run("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        """Make the window this large."""
        self._run("resize-window", "-x", str(columns), "-y", str(lines))

    def wait_for(self, pattern: str, seconds: float = 20.0) -> re.Match[str]:
        """The first place on the screen that `pattern` matches, within `seconds`."""
        return wait_for(
            pattern, lambda: re.search(pattern, self.capture(), re.M), seconds, context=self.capture
        )

    def wait_until(self, what: str, holds: Callable[[str], object], seconds: float = 20.0) -> None:
        """Wait until `holds` is true of the screen."""
        wait_for(what, lambda: holds(self.capture()), seconds, context=self.capture)

    def kill_server(self) -> None:
        """End the server, and with it the terminal of what runs in it."""
        with suppress(subprocess.CalledProcessError):
            self._run("kill-server")


@contextmanager
def tmux(
    directory: Path, *argv: str, size: tuple[int, int] = (80, 24), environ: Mapping[str, str] | None = None
) -> Iterator[Tmux]:
    """A tmux that runs `argv`; whatever runs in it must end with it."""
    terminal = Tmux(directory, argv, environ or clean_environment(), size)
    pids = {terminal.pid} | descendants(terminal.pid)
    try:
        yield terminal
    finally:
        with suppress(subprocess.SubprocessError, ValueError):
            pids |= {terminal.pid} | descendants(terminal.pid)
        terminal.kill_server()
        _bury(pids)


def _bury(pids: set[int], seconds: float = 8.0) -> None:
    """Wait until these processes have ended by themselves; kill those that do not, and say so."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"{len(left)} processes outlived their terminal by {seconds:g} s"


class _Screen(pyte.Screen):
    """A screen that gives out what a terminal answers."""

    def __init__(self, columns: int, lines: int, answer: Callable[[str], None]):
        self._answer = answer
        self._normal: tuple[Any, Any] | None = None
        """The normal screen's cells and cursor while the alternate one is shown."""
        super().__init__(columns, lines)

    def write_process_input(self, data: str) -> None:
        self._answer(data)

    def set_mode(self, *modes: int, **options: Any) -> None:
        """Also the alternate screen, which pyte has not: cleared at entry, the cursor of the normal one kept."""
        if ALTERNATE_SCREEN in modes and options.get("private") and self._normal is None:
            self._normal = copy.deepcopy(self.buffer), copy.copy(self.cursor)
            self.erase_in_display(2)
        super().set_mode(*modes, **options)

    def reset_mode(self, *modes: int, **options: Any) -> None:
        """Also the normal screen, as it was left."""
        super().reset_mode(*modes, **options)
        if ALTERNATE_SCREEN in modes and options.get("private") and self._normal is not None:
            (self.buffer, self.cursor), self._normal = self._normal, None
            self.dirty.update(range(self.lines))


class Pty:
    """A program in a terminal of our own that takes a limited number of bytes a second."""

    def __init__(
        self,
        argv: Sequence[str],
        size: tuple[int, int] = (80, 24),
        rate: float = float("inf"),
        answers: bool = True,
        environ: Mapping[str, str] | None = None,
        draws: bool = True,
        directory: Path | None = None,
    ):
        """`rate`: bytes a second that are drawn; `answers`: whether status requests are answered.

        Without `draws` the bytes are only looked through, which costs no CPU to speak of.
        """
        self.size = size
        self.rate = rate
        self.answers = answers
        self.draws = draws
        self.taken = 0
        """Bytes drawn so far."""
        self.recent = b""
        """The last bytes, at most a quarter of a megabyte."""
        self.first_paint: float | None = None
        """When the first frame came, by time.perf_counter()."""
        columns, lines = size
        self.screen = _Screen(columns, lines, self._answer)
        self._stream = pyte.ByteStream(self.screen)
        self._drawing = threading.Lock()
        master, slave = pty.openpty()
        self._master = master
        self.resize(columns, lines)
        self._slave_attributes = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environ or clean_environment(),
            cwd=directory,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )
        os.close(slave)
        self._ending = threading.Event()
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the program and the terminal."""
        self.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    def _answer(self, data: str) -> None:
        if self.answers:
            with suppress(OSError):
                os.write(self._master, data.encode())

    def _drain(self) -> None:
        """Read as a link of `rate` does: in pieces of a twentieth of a second."""
        due = time.monotonic()
        while not self._ending.is_set():
            piece = int(min(65536, max(64, self.rate / 20)))
            try:
                if not select.select([self._master], [], [], 0.1)[0]:
                    due = time.monotonic()
                    continue
                data = os.read(self._master, piece)
            except OSError:
                return
            if not data:
                return
            if self.first_paint is None and FRAME in data:
                self.first_paint = time.perf_counter()
            with self._drawing:
                self.taken += len(data)
                self.recent = (self.recent + data)[-250_000:]
                if self.draws:
                    self._stream.feed(_without_private(data))
                elif QUESTION in data:
                    self._answer(ANSWER)
            due = max(due, time.monotonic() - 0.05) + len(data) / self.rate
            self._ending.wait(max(0.0, due - time.monotonic()))

    def text(self) -> str:
        """What the terminal shows."""
        with self._drawing:
            return "\n".join(self.screen.display)

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the terminal's size; the program is told."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_for(self, pattern: str, seconds: float = 20.0) -> re.Match[str]:
        """The first place on the screen that `pattern` matches, within `seconds`."""
        return wait_for(pattern, lambda: re.search(pattern, self.text(), re.M), seconds, context=self.text)

    def wait_for_bytes(self, wanted: bytes, seconds: float = 20.0) -> None:
        """Wait until `wanted` is among the recent bytes."""
        wait_for(
            repr(wanted), lambda: wanted in self.recent, seconds, context=lambda: repr(self.recent[-2000:])
        )

    def attributes_are_restored(self) -> bool:
        """Whether echo and line editing are as they were at the start."""
        return bool(termios.tcgetattr(self._master)[3] == self._slave_attributes[3])

    def close(self) -> None:
        """Hang up."""
        self._ending.set()
        if self._reader is not threading.current_thread():
            self._reader.join(5)
        with suppress(OSError):
            os.close(self._master)
        self._master = -1


_PRIVATE = re.compile(rb"\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b\[\?[0-9;]*\$p")


def _without_private(data: bytes) -> bytes:
    """Leave out what pyte prints instead of ignoring: keyboard protocols and mode requests."""
    return _PRIVATE.sub(b"", data)
