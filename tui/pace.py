"""When the next repaint may go to the terminal: by bytes, by drain and by the terminal's answers.

Pure: time is passed in, in seconds of any steady clock. A frame is one repaint. After each one the
terminal is asked for its status; where it answers, the answer says that everything before it has been
drawn. sshd and the network swallow a megabyte unread, so that without answers only the budget of
bytes keeps the picture from lagging behind the data.
"""

from __future__ import annotations

from collections import deque
from typing import Final

BYTES_PER_SECOND: Final = 50_000
BURST_S: Final = 1.0
"""Seconds of the budget that may be saved up while little is drawn."""
HURRIED_DEBT_S: Final = 2.0
"""Frames that answer a key are charged up to here: typing must not stop the data for long."""
HURRIED_FRAMES: Final = 2
"""Frames that answer a key and may be on their way together: a slow answer is no reason to lag."""
FIRST_ANSWER_S: Final = 1.0
"""A terminal that has never answered is believed mute after this."""
SILENCE_S: Final = 30.0
"""So is one that answered before, after this: whoever attaches another terminal must see data."""
MUTE_ASKS_AGAIN_S: Final = 60.0


LOOK_AGAIN_S: Final = 1.0
"""How soon to look again while waiting for the terminal, which reports by itself."""


class Pace:
    """Decides from what was sent, drained and answered when to paint again."""

    def __init__(self, rate: float = BYTES_PER_SECOND) -> None:
        """Allow `rate` bytes a second on the average."""
        self.rate = rate
        self._paid_at = -BURST_S
        """When what was sent so far is within the budget."""
        self._rest_until = 0.0
        self._asked: deque[float] = deque()
        """When each question still without an answer was put."""
        self._answers: bool | None = None
        """Whether the terminal answers; None: not known yet."""
        self._mute_since = 0.0
        self._frame_at: float | None = None
        """When the frame on its way was sent."""

    @property
    def answers(self) -> bool | None:
        """Whether the terminal answers status requests; None: not known yet."""
        return self._answers

    @property
    def is_answer_due(self) -> bool:
        """Whether a question is out that the terminal is expected to answer."""
        return bool(self._asked) and self._answers is not False

    def reset(self) -> None:
        """Forget the questions: another terminal may be attached now."""
        self._asked.clear()
        self._answers = None
        self._frame_at = None

    def should_ask(self, now: float) -> bool:
        """Whether to put a question behind the next frame."""
        return self._answers is not False or now - self._mute_since >= MUTE_ASKS_AGAIN_S

    def asked(self, now: float) -> None:
        """A status request went out behind a frame."""
        self._asked.append(now)
        if self._answers is False:
            self._mute_since = now

    def answered(self, now: float) -> None:
        """The terminal answered the oldest question; one more answer than questions does no harm."""
        self._answers = True
        if self._asked:
            self._asked.popleft()
        if not self._asked:
            self._arrived(now)

    def sent(self, now: float, size: int, is_hurried: bool = False) -> None:
        """A frame of `size` bytes was handed to the terminal's queue."""
        cost = size / self.rate
        paid_at = max(self._paid_at, now - BURST_S) + cost
        self._paid_at = min(paid_at, max(now + HURRIED_DEBT_S, self._paid_at)) if is_hurried else paid_at
        if self._frame_at is None:
            self._frame_at = now

    def drained(self, now: float) -> None:
        """The operating system has taken every byte."""
        if not self.is_answer_due:
            self._arrived(now)

    def _arrived(self, now: float) -> None:
        """The frame is there: rest half as long as it took, so that a key finds a slow link idle."""
        if self._frame_at is not None:
            self._rest_until = now + (now - self._frame_at) / 2
            self._frame_at = None

    def wait(self, now: float, unsent: int, is_hurried: bool = False) -> float:
        """Seconds that the next repaint must wait, `unsent` bytes being still in the queue; 0: go now.

        `is_hurried`: somebody pressed a key and looks for what it does; only a terminal that is behind
        makes such a repaint wait.
        """
        self._believe(now)
        if unsent:
            return LOOK_AGAIN_S
        may_pass = is_hurried and (self._answers is None or len(self._asked) < HURRIED_FRAMES)
        if self.is_answer_due and not may_pass:
            return LOOK_AGAIN_S
        return 0.0 if is_hurried else max(0.0, self._paid_at - now, self._rest_until - now)

    def _believe(self, now: float) -> None:
        """Give up on a terminal that has been silent for too long."""
        patience = SILENCE_S if self._answers else FIRST_ANSWER_S
        if self._asked and now - self._asked[0] >= patience:
            self._answers = False
            self._mute_since = now
            self._asked.clear()
            self._frame_at = None
