"""The terminal, driven so that what it shows is never old: paced output, status replies, signals.

Textual queues what it paints. On a slow link the queue grows, and the picture falls behind the data
without a sign of it. Here at most one frame is on its way: further repaints wait in the app, where
they merge, until the terminal has taken the last one and the budget of bytes allows the next (see
:mod:`~coldaisle.tui.pace`). Keys are answered before their turn.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import termios
import threading
import time
from codecs import getincrementaldecoder
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Final, TypeVar

from rich.console import RenderableType
from textual import events
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.screen import Screen

from coldaisle.tui.capabilities import capabilities
from coldaisle.tui.pace import BYTES_PER_SECOND, Pace

R = TypeVar("R")

QUESTION: Final = "\x1b[5n"
"""Device status report, ECMA-48: a terminal that is up and has drawn everything before it ..."""
ANSWER: Final = "\x1b[0n"
"""... answers this. No key sends it."""
CANCEL: Final = b"\x18"
"""Ends a control sequence that was cut."""
CHUNK: Final = 4096
"""Bytes a write: what is still unsent is known this exactly."""
HURRY_S: Final = 0.5
"""After a key, repaints answer that key for this long."""
FAREWELL_S: Final = 2.0
"""How long the end waits for a slow terminal to take its last bytes."""
ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""Signals that end the app. Python's handlers run even where the event loop is never idle; asyncio's do not."""
LAST_RESORT_S: Final = 6.0
"""After one of them the process ends within this, whatever still hangs in it."""
LEAVE: Final = (b"\x18\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?2004l\x1b[?1004l\x1b[<u\x1b[?25h"
                b"\x1b[?1049l")  # fmt: skip
"""Without mouse, paste and focus reports and key protocol, with a cursor, on the normal screen."""
HURRYING: Final = (events.Key, events.Paste, events.MouseDown, events.MouseUp, events.MouseScrollDown,
                   events.MouseScrollUp, events.Resize, events.AppFocus)  # fmt: skip


class Output(threading.Thread):
    """Writes to a terminal without ever making the screen wait for it."""

    def __init__(self, fd: int, drained: Callable[[], None], lost: Callable[[], None]) -> None:
        """`drained` is called when everything was taken, `lost` when the terminal is gone; both in this thread."""
        super().__init__(daemon=True, name="terminal-output")
        self._fd = fd
        self._drained = drained
        self._lost = lost
        self._pending = bytearray()
        self._in_hand = 0
        """Bytes of the piece being written."""
        self._changed = threading.Condition()
        self._is_closing = False
        self.written = 0
        """Bytes taken since the start."""

    @property
    def unsent(self) -> int:
        """Bytes accepted here and not yet taken by the operating system."""
        return len(self._pending) + self._in_hand

    def put(self, data: bytes) -> None:
        """Queue `data`; a terminal that is gone swallows it."""
        with self._changed:
            if not self._is_closing:
                self._pending += data
                self._changed.notify_all()

    def discard(self) -> bool:
        """Drop what is not begun; whether there was anything. The cut may fall into a control sequence."""
        with self._changed:
            had_any = bool(self._pending)
            self._pending.clear()
            if had_any:
                self._pending += CANCEL
        return had_any

    def finish(self, timeout: float) -> bool:
        """Write what is queued and end; False if the terminal took longer than `timeout` seconds."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self.join(timeout)
        return not self.is_alive()

    def run(self) -> None:
        """Write until closed or the terminal is gone."""
        try:
            while piece := self._next():
                self._write(piece)
                if not self.unsent:
                    self._drained()
        except OSError:
            with self._changed:
                self._is_closing = True
                self._pending.clear()
                self._in_hand = 0
            self._lost()

    def _next(self) -> bytes:
        """The next piece to write; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._is_closing)
            piece = bytes(self._pending[:CHUNK])
            del self._pending[: len(piece)]
            self._in_hand = len(piece)
        return piece

    def _write(self, piece: bytes) -> None:
        while piece:
            try:
                count = os.write(self._fd, piece)
            except BlockingIOError:  # a child that shares the terminal has made it non-blocking
                select.select([], [self._fd], [])
                continue
            piece = piece[count:]
            with self._changed:
                self._in_hand -= count
                self.written += count


class Answers:
    """Takes the terminal's answers out of what people type."""

    def __init__(self) -> None:
        """Start with nothing held back."""
        self._tail = ""

    def split(self, text: str) -> tuple[str, int]:
        """What was typed, and the number of answers that stood in it.

        An answer may come in pieces; its beginning is held back until the next call. A bare ESC is not:
        it is a key of its own, and the parser knows how long to wait for more.
        """
        text = self._tail + text
        typed = text.replace(ANSWER, "")
        count = (len(text) - len(typed)) // len(ANSWER)
        self._tail = next((ANSWER[:n] for n in (3, 2) if typed.endswith(ANSWER[:n])), "")
        return typed[: len(typed) - len(self._tail)], count

    def rest(self) -> str:
        """What was held back and was no answer after all."""
        tail, self._tail = self._tail, ""
        return tail


class PacedDriver(LinuxDriver):
    """Textual's driver with one frame on its way at most, and an end for every way a terminal ends."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        """`options` are Textual's."""
        super().__init__(app, **options)
        # Textual writes to stderr, which people redirect into a file.
        file = sys.__stderr__ if _is_terminal(sys.__stderr__) else sys.__stdout__
        self._fd = file.fileno() if file is not None else -1
        self._file = file
        self._encoding = "utf-8" if capabilities(os.environ).utf8 else "ascii"
        self._output: Output | None = None
        self._frame_bytes = 0
        self._written_before = 0
        self._questions = threading.Condition()
        self._is_ending = False
        self._due = 0
        """Answers that are still to come, as the input thread knows."""
        self.pace = Pace(app.bytes_per_second if isinstance(app, PacedApp) else BYTES_PER_SECOND)
        if self._size is None:
            # Rich's guess for a terminal without a size differs from Textual's, by a line.
            self._size = self._get_terminal_size()

    @property
    def written(self) -> int:
        """Bytes that the terminal was sent since the start."""
        return self._written_before + (self._output.written if self._output else 0)

    @property
    def unsent(self) -> int:
        """Bytes not yet taken by the operating system."""
        return self._output.unsent if self._output else 0

    def write(self, data: str) -> None:
        """Queue `data`; while the app is suspended there is no terminal to write to."""
        if self._output is not None:
            encoded = data.encode(self._encoding, "replace")
            self._frame_bytes += len(encoded)
            self._output.put(encoded)
        elif self._writer_thread is not None and self._writer_thread.is_alive():
            super().write(data)  # Textual's own opening sequences

    def flush(self) -> None:
        """Do nothing: what was written is on its way already."""

    def end_frame(self, is_hurried: bool) -> None:
        """Count a repaint, and ask the terminal to say when it has drawn it."""
        if self._output is None or not self._frame_bytes:
            return
        now = time.monotonic()
        if self.input_tty and self.pace.should_ask(now):
            self.pace.asked(now)
            with self._questions:
                self._due += 1
            self.write(QUESTION)
        self.pace.sent(now, self._frame_bytes, is_hurried)
        self._frame_bytes = 0

    def start_application_mode(self) -> None:
        """Enter the alternate screen, with our own output in place of Textual's queue."""
        if self._is_ending:
            return  # whoever takes a terminal away sends SIGCONT behind SIGHUP
        super().start_application_mode()  # type: ignore[no-untyped-call]
        if self._writer_thread is None or not self._writer_thread.is_alive():
            return  # continued in the background: stopped again before it began
        self._writer_thread.stop()
        self._writer_thread = None
        self.pace.reset()
        self._frame_bytes = 0
        self._output = Output(self._fd, self._wake, self._hang_up)
        self._output.start()
        self._catch_signals()

    def stop_application_mode(self) -> None:
        """Give the terminal back as it was found; a repaint that a slow one has not taken yet is dropped."""
        if self._output is not None:
            if self._output.discard():
                self._due -= 1  # the question stands at the end of what was dropped
            super().stop_application_mode()

    def disable_input(self) -> None:
        """Stop reading keys, but not before the answers that are due: a shell would print them."""
        if self._output is not None and self._output.is_alive() and self.pace.answers is not False:
            with self._questions:
                self._questions.wait_for(lambda: self._due <= 0, FAREWELL_S if self.pace.answers else 0.5)
        self._due = 0
        super().disable_input()

    def close(self) -> None:
        """End the output; a terminal that no longer drains does not keep the process."""
        output, self._output = self._output, None
        if output is not None:
            if not output.finish(FAREWELL_S):
                with suppress(termios.error):
                    termios.tcflush(self._fd, termios.TCOFLUSH)
            self._written_before += output.written

    def run_input_thread(self) -> None:
        """Read keys and answers until the end, or until the terminal is gone."""
        parser = XTermParser(self._debug)
        answers = Answers()
        # Bytes that are no UTF-8 come from a Latin-1 terminal's keys; they are no reason to end.
        decode = getincrementaldecoder("utf-8")("replace").decode
        while not self.exit_event.is_set():
            readable, _, _ = select.select([self.fileno], [], [], 0.1)
            if readable:
                data = self._read()
                if not data:
                    self._hang_up()
                    return
                typed, count = answers.split(decode(data))
                self._take_answers(count)
            else:
                typed = answers.rest()
            if typed:
                for event in parser.feed(typed):
                    self.process_message(event)
            for event in parser.tick():
                self.process_message(event)

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno, CHUNK)
        except OSError:
            return b""

    def _take_answers(self, count: int) -> None:
        if count:
            with self._questions:
                self._due = max(0, self._due - count)
                self._questions.notify_all()
            self._call(self._note_answers, count)

    def _note_answers(self, count: int) -> None:
        now = time.monotonic()
        for _ in range(count):
            self.pace.answered(now)
        self._settle()

    def _wake(self) -> None:
        """Called in the output's thread."""
        self._call(self._note_drained)

    def _note_drained(self) -> None:
        if not self.unsent:
            self.pace.drained(time.monotonic())
        self._settle()

    def _settle(self) -> None:
        if isinstance(self._app, PacedApp):
            self._app.settle()

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call `function` in the app's thread, unless the app has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _catch_signals(self) -> None:
        """End as asked for, with the terminal restored: Python's own answer leaves it as it is."""
        with suppress(ValueError):  # not the main thread
            for number in ENDING:
                signal.signal(number, lambda number, _: self._end(number))

    def _hang_up(self) -> None:
        """The terminal is gone."""
        self._end(signal.SIGHUP)

    def _end(self, number: int) -> None:
        """End soon, and end even if something in the process hangs; from any thread, or in a signal handler."""
        if not self._is_ending:
            self._is_ending = True
            last_resort = threading.Timer(LAST_RESORT_S, self._give_up, (128 + number,))
            last_resort.daemon = True
            last_resort.start()
        self._call(self._app.exit, None, 128 + number)

    def _give_up(self, status: int) -> None:
        """End without the app, the terminal restored as well as that can be done from outside."""
        with suppress(OSError, termios.error):
            os.set_blocking(self._fd, False)
            os.write(self._fd, LEAVE)
            if self.attrs_before is not None:
                termios.tcsetattr(self.fileno, termios.TCSANOW, self.attrs_before)
        os._exit(status)

    def _sigcont_application(self, *_: object) -> None:
        """Continue: also after a plain SIGSTOP, when the shell has had the terminal unannounced."""
        if not self._auto_restart:
            return
        if self._output is not None:
            self.suspend_application_mode()
            self._must_signal_resume = True
        self.resume_application_mode()


def _is_terminal(file: Any) -> bool:
    try:
        return file is not None and os.isatty(file.fileno())
    except (OSError, ValueError):
        return False


class PacedApp(App[R]):
    """An app that paints no faster than its terminal takes: repaints that must wait merge."""

    bytes_per_second: float = BYTES_PER_SECOND
    """The budget of bytes to the terminal, on the average."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """The arguments are Textual's; the driver is the paced one unless another is given."""
        options.setdefault("driver_class", PacedDriver)
        super().__init__(*arguments, **options)
        self._hold = ExitStack()
        self._is_held = False
        self._has_lost_update = False
        self._hurry_until = 0.0
        self._look_again: asyncio.TimerHandle | None = None

    def is_hurried(self, now: float) -> bool:
        """Whether somebody pressed a key just now and looks for what it does."""
        return now < self._hurry_until

    async def on_event(self, event: events.Event) -> None:
        """Let what people do go first."""
        if isinstance(event, HURRYING):
            self._hurry_until = time.monotonic() + HURRY_S
            self.settle()
        await super().on_event(event)

    def settle(self) -> None:
        """Hold or release repaints, as the terminal stands now."""
        driver = self._driver
        if not isinstance(driver, PacedDriver) or not self._running:
            return
        now = time.monotonic()
        wait = driver.pace.wait(now, driver.unsent, self.is_hurried(now))
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
        if wait:
            self._look_again = asyncio.get_running_loop().call_later(wait, self.settle)
            self._hold_repaints()
        else:
            self._release_repaints()

    def _hold_repaints(self) -> None:
        if not self._is_held:
            self._is_held = True
            self._hold.enter_context(self.batch_update())

    def _release_repaints(self) -> None:
        if not self._is_held:
            return
        self._is_held = False
        self._hold.close()
        if self._screen_stack:
            if self._has_lost_update:
                self.screen.refresh()
            self.screen.check_idle()
        self._has_lost_update = False

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Display, then see when the next repaint may go.

        Textual drops the update of a layout that falls into a batch: it is painted anew at the release.
        """
        self._has_lost_update |= self._is_held and renderable is not None
        super()._display(screen, renderable)
        if isinstance(self._driver, PacedDriver) and not self._is_held:
            self._driver.end_frame(self.is_hurried(time.monotonic()))
            self.settle()

    def on_driver_signal_resume(self, _: Driver.SignalResume) -> None:
        """Repaint: the shell has written over the screen."""
        self._hurry_until = time.monotonic() + HURRY_S
        self.settle()
        self.refresh(layout=True)
