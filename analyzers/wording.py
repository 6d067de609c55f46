"""What is told of a finding: the texts beside its detector, filled with names and numbers; commands that confirm it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence

from coldaisle.analyzers.finding import Confirm, Scope
from coldaisle.analyzers.grouping import bare
from coldaisle.analyzers.happenings import KIND_WORDS
from coldaisle.analyzers.rules import Command, Text, rules
from coldaisle.analyzers.snapshot import EventView, Snapshot
from coldaisle.sources.nodesets import fold

SAFE = re.compile(r"[A-Za-z0-9._:,\[\]-]{1,128}", re.ASCII)
"""What may stand for a placeholder in a command."""
MOST_COMMANDS = 6


class _Words(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "-"


def text_of(detector: str, variant: str) -> Text:
    """The text of a variant; the detector's first where it has none of its own."""
    known = rules(detector).text
    return known.get(variant) or next(iter(known.values()))


def words_of(snapshot: Snapshot, scope: Scope, loss: float, own: Mapping[str, str]) -> dict[str, str]:
    """What placeholders stand for, with the candidate's own words."""
    layout = snapshot.layout
    gpu = scope.gpus[0] if scope.gpus else ""
    index = layout.gpu_of.get(gpu)
    number = layout.gpus[index].index if index is not None else None
    slot = layout.gpus[index].slot if index is not None else 0
    job = next((one for one in snapshot.jobs if one.id in scope.jobs), None)
    nodes = scope.nodes or ((gpu.partition("/")[0],) if gpu else ())
    made = {
        "gpus": _list(scope.gpus),
        "gpu": gpu,
        "index": str(slot if number is None else number),
        "nodes": fold(nodes) if nodes else "",
        "node": nodes[0] if nodes else "",
        "job": job.title if job is not None else "",
        "user": job.user if job is not None else "",
        "server": scope.servers[0] if scope.servers else "",
        "port": scope.ports[0].partition("/")[2] if scope.ports else "",
        "count": _count(scope),
        "where": _where(scope),
        "loss": f"{loss:.0%}",
    }
    return {**made, **own}


def filled(template: str, words: Mapping[str, str]) -> str:
    """A template with its words; a word that is missing is a dash."""
    return template.format_map(_Words({key: value or "-" for key, value in words.items()}))


def confirmations(text: Text, scope: Scope, words: Mapping[str, str]) -> tuple[Confirm, ...]:
    """The commands for the first node of a finding; one whose words are not plain names is left out."""
    made = (_confirm(command, words) for command in text.confirm)
    return tuple(one for one in made if one is not None)[:MOST_COMMANDS]


def _confirm(command: Command, words: Mapping[str, str]) -> Confirm | None:
    argv = []
    for part in command.argv:
        for name in re.findall(r"\{(\w+)\}", part):
            if not SAFE.fullmatch(words.get(name) or "") or words[name].startswith("-"):
                return None
        argv.append(filled(part, words))
    on = filled(command.on, words)
    return None if on == "-" else Confirm(tuple(argv), on, command.needs)


def change(event: EventView) -> str:
    """``03:03 r07 inlet rises: 27 -> 31 C``"""
    kind = KIND_WORDS.get(event.kind, event.kind.replace("_", " "))
    whose = event.display or bare(event.entity)
    when = time.strftime("%H:%M", time.localtime(event.at))
    return " ".join(filter(None, (when, whose, f"{kind}:" if event.detail else kind, event.detail)))


def _list(keys: Sequence[str]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")


def _count(scope: Scope) -> str:
    for keys, one, many in (
        (scope.ports, "port", "ports"), (scope.servers, "server", "servers"), (scope.gpus, "GPU", "GPUs"),
        (scope.nodes, "node", "nodes"), (scope.jobs, "job", "jobs"),
    ):  # fmt: skip
        if keys:
            return f"{len(keys)} {one if len(keys) == 1 else many}"
    return "the cluster"


def _where(scope: Scope) -> str:
    if len(scope.racks) == 1 and len(scope.nodes) > 1:
        return scope.racks[0]
    if len(scope.gpus) == 1:
        return scope.gpus[0]
    if scope.servers:
        return _list(scope.servers)
    return fold(scope.nodes) if scope.nodes else _list([bare(job) for job in scope.jobs])


def merged(words: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The first candidate's words: candidates come worst first."""
    return dict(next(iter(words), {}))
