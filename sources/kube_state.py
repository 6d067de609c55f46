"""The page of kube-state-metrics, or of kube-scheduler's ``/metrics/resources``, read as it arrives.

It speaks of a whole cluster: 10,000 pods are half a million lines, of which a tenth is wanted. So nothing of
it is kept but what a :class:`~coldaisle.sources.kubernetes.Survey` makes of it: each piece that comes
from the network is cut into lines, the wanted ones are taken apart, and the piece is forgotten.
"""

from __future__ import annotations

import re

from coldaisle.sources.errors import Garbled, Unusable
from coldaisle.sources.exposition import sample
from coldaisle.sources.kubernetes import SERIES, Asked, Survey
from coldaisle.sources.units import show

MAX_PAGE_BYTES = 512 << 20
MAX_LINE_BYTES = 64 << 10
MAX_BLOCKS = 20_000
"""Label blocks that are remembered while a page is read: the families of pods follow each other."""
_BEGINNING = re.compile(rb"\s*(?:# (?:HELP|TYPE) )?kube_[a-z]")
_WANTED = {asked.name.encode(): asked for asked in SERIES}
_NEEDLES = {asked.name: tuple(needle.encode() for needle in asked.needles) for asked in SERIES}


def is_cluster_page(beginning: bytes) -> bool:
    """Whether a page that begins so speaks of a cluster. Its first families are ``kube_...``, whatever it leaves out."""
    return _BEGINNING.match(beginning) is not None


class ClusterPage:
    """One page, piece by piece. Raises Garbled when it is none, is cut off or has no end."""

    def __init__(self, target: str, *, page_bytes: int = MAX_PAGE_BYTES) -> None:
        self._target = target
        self._page_bytes = page_bytes
        self._survey = Survey()
        self._blocks: dict[str, tuple[tuple[str, str], ...]] = {}
        self._rest = b""
        self._size = 0

    def feed(self, piece: bytes) -> None:
        """The next bytes, as they come."""
        self._size += len(piece)
        if self._size > self._page_bytes:
            raise Garbled(
                self._target, f"the page is larger than {show(self._page_bytes, 'B')}, or has no end"
            )
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_BYTES:
            raise Garbled(self._target, f"a line longer than {MAX_LINE_BYTES} bytes")
        for line in lines:
            asked = _WANTED.get(line[: line.find(b"{")])
            if asked is not None:
                self._take(asked, line)

    def end(self) -> Survey:
        """What the whole page says. Raises Garbled when it is cut off, Unusable when it says nothing."""
        if self._rest.strip() not in (b"", b"# EOF"):
            raise Garbled(self._target, "the page is cut off: its last line has no end", "ask again")
        if self._survey.is_empty:
            raise Unusable(
                self._target,
                "tells of no pod and no node",
                "look at kube-state-metrics' log: may it list pods, nodes, replicasets, jobs and deployments?",
            )
        return self._survey

    def _take(self, asked: Asked, line: bytes) -> None:
        if asked.is_flag and line.endswith(b" 0"):
            return
        needles = _NEEDLES[asked.name]
        if needles and not any(needle in line for needle in needles):
            return
        if len(self._blocks) > MAX_BLOCKS:
            self._blocks.clear()
        try:
            series, value = sample(line, self._blocks)
        except ValueError as error:
            shown = line[:60].decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")
            raise Garbled(self._target, f"not a metrics page: {error}: {shown}") from None
        self._survey.take(series.name, dict(series.labels), value)
