"""What is told of a finding: the texts beside its detector, filled with names that can do no harm. Pure.

Names are other people's text. In sentences they are made inert; in commands only names of ``[A-Za-z0-9._-]`` stand, and a
command that needs another name is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from coldaisle.analyzers.finding import Candidate, Confirm, Loss, Scope, Urgency
from coldaisle.analyzers.rules import Command, Text, rules
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.nodesets import fold
from coldaisle.sources.text import plain

LONGEST_NAME = 80
"""Of a name in a sentence."""
NODES_SHOWN = 120
_PLACE = re.compile(r"\{(\w+)\}")
_SAFE = re.compile(r"(?!-)[A-Za-z0-9._-]{1,255}", re.ASCII)
_SAFE_SETS = {
    "nodes": re.compile(r"(?!-)[A-Za-z0-9._,\[\]-]{1,1000}", re.ASCII),
    "server": re.compile(r"(?!-)[A-Za-z0-9._-]{1,255}:[0-9]{1,5}", re.ASCII),
}
"""What is made of such names: node sets, and a server's address."""

Words = Mapping[str, str]


def text_of(candidate: Candidate) -> Text:
    """The text of a candidate's variant; of one that has none the detector's first."""
    texts = rules(candidate.detector).text
    return texts.get(candidate.variant) or next(
        iter(texts.values()), Text(candidate.detector, "", "", "", Urgency.TODAY, "")
    )


def words_of(snapshot: Snapshot, scope: Scope, step: str, anchor: str, loss: Loss, own: Words) -> Words:
    """What placeholders stand for; ``own``: the candidate's words, which say more than ours, and may be empty on purpose."""
    layout = snapshot.layout
    gpu = scope.gpus[0] if scope.gpus else ""
    index = layout.gpu_of.get(gpu)
    board = layout.gpus[index] if index is not None else None
    job = next((job for job in snapshot.jobs if scope.jobs and job.id == scope.jobs[0]), None)
    server = next((one for one in layout.servers if scope.servers and one.key == scope.servers[0]), None)
    host, _, port = (server.name.split(" ")[0] if server else "").partition(":")
    ours = {
        "gpus": _listed(scope.gpus),
        "gpu": gpu,
        "index": str(board.slot if board.index is None else board.index) if board else "",
        "nodes": _folded(scope.nodes),
        "node": scope.nodes[0] if scope.nodes else "",
        "job": job.title if job else (scope.jobs[0] if scope.jobs else ""),
        "user": job.user if job else "",
        "server": server.name if server else "",
        "host": host,
        "port": scope.ports[0].partition("/")[2] if scope.ports else port,
        "count": counted(scope),
        "where": f"{step} {anchor}" if step in ("job", "leaf") else anchor,
        "loss": f"{loss.fraction:.0%}",
    }
    return {name: word for name, word in ours.items() if word} | dict(own)


def counted(scope: Scope) -> str:
    """``30 GPUs``, ``1 GPU``; of what has no GPUs its nodes, servers or jobs."""
    for names, one in (
        (scope.gpus, "GPU"),
        (scope.servers, "server"),
        (scope.ports, "port"),
        (scope.nodes, "node"),
        (scope.jobs, "job"),
    ):
        if names:
            return f"{len(names)} {one}{'s' if len(names) > 1 else ''}"
    return "nothing"


def filled(text: str, words: Words) -> str:
    """One inert line; a placeholder nobody has a word for becomes a dash."""

    def word(match: re.Match[str]) -> str:
        return plain(words.get(match[1], "-"), LONGEST_NAME * 3)

    return plain(_PLACE.sub(word, text))


def commands(text: Text, words: Words) -> tuple[Confirm, ...]:
    """Those whose names are safe."""
    found = (_command(one, words) for one in text.confirm)
    return tuple(dict.fromkeys(one for one in found if one is not None))


def _command(command: Command, words: Words) -> Confirm | None:
    argv = [_safe(word, words) for word in command.argv]
    on = _safe(command.on, words)
    if on is None or any(word is None for word in argv):
        return None
    return Confirm(tuple(word for word in argv if word is not None), on, command.needs)


def _safe(template: str, words: Words) -> str | None:
    """With every placeholder filled; None: one of them has no word that may stand in a command."""
    for name in _PLACE.findall(template):
        if not _SAFE_SETS.get(name, _SAFE).fullmatch(words.get(name, "")):
            return None
    return _PLACE.sub(lambda match: words[match[1]], template)


def _folded(nodes: Iterable[str]) -> str:
    names = [plain(node, LONGEST_NAME) for node in nodes]
    return plain(fold(names), NODES_SHOWN) if names else ""


def _listed(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(plain(name, LONGEST_NAME) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
