"""``coldaisle doctor``: tries every source, says what is missing and how to get it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from coldaisle.analyzers.snapshot import SCHEDULERS
from coldaisle.sources.config import Settings, bare_host
from coldaisle.sources.configured import NO_SECRETS, sources_from
from coldaisle.sources.nodesets import fold
from coldaisle.sources.racks import short_name
from coldaisle.sources.settings import (
    ExporterSettings,
    PrometheusSettings,
    SimulatorSettings,
    SlurmSettings,
    SourceSettings,
    SshSettings,
)
from coldaisle.sources.source import MISSING_TEXT, Kind, Missing, Target, TargetState
from coldaisle.sources.text import natural_key, plain
from coldaisle.sources.units import show
from coldaisle.sources.writing import save
from coldaisle.tui.examination import ROUNDS, Examined, examine, shared_nodes

if TYPE_CHECKING:
    from coldaisle.sources.ssh_login import Secrets

ALL_THERE, SOMETHING_MISSING, SOURCE_FAILS = 0, 1, 2
"""Exit statuses; 3 is bad usage."""
CLOCK_OFF_S = 2.0
"""A node's clock that differs by more is worth a word."""
SHOWN_TARGETS = 20
"""Targets that do not answer which are listed one by one."""


WORDS = {
    Kind.GPU: "GPU", Kind.NODE: "node", Kind.PORT: "port", Kind.DISK: "disk", Kind.SERVER: "server", Kind.RACK: "rack", Kind.JOB: "job",
}  # fmt: skip
"""What a kind of entity is called: of one; several have an s."""
OF_EXPORTERS = ("exporters", "prometheus")
"""Kinds of source that give what exporters export, and lack what these do not."""
SHORTEST_S = 1.0
"""Between two samples while asking."""


class Need(NamedTuple):
    """What a dashboard is poor without; one of ``keys`` is enough, the first is the best."""

    kind: Kind
    name: str
    keys: tuple[str, ...]
    hint: str
    """How else to get it, where a probe cannot give it."""


class Lack(NamedTuple):
    """A need that a source does not meet."""

    need: Need
    why: Missing


@cache
def needs() -> tuple[Need, ...]:
    """All of ``doctor.toml``."""
    tables = tomllib.loads((files("coldaisle.tui") / "doctor.toml").read_text(encoding="utf-8"))
    return tuple(
        Need(Kind(kind), row["name"], tuple(row["any"]), row.get("hint", ""))
        for kind, rows in tables.items()
        for row in rows
    )


def examine_and_print(
    settings: Settings,
    seconds: float,
    secrets: Mapping[str, Secrets] = NO_SECRETS,
    *,
    as_json: bool = False,
    write_to: Path | None = None,
    force: bool = False,
) -> int:
    """The whole command; its exit status."""
    sources = sources_from(hurried(settings, seconds), time.time, secrets)
    begun, cpu = time.monotonic(), time.process_time()
    with _Progress() as progress:
        examined = asyncio.run(examine(sources, seconds, progress, expected_targets(settings)))
    took = time.monotonic() - begun
    # what the first second costs says nothing of the steady state
    share = (time.process_time() - cpu) / took if took > 2 else None
    status = verdict(examined)
    if as_json:
        sys.stdout.write(json.dumps(as_object(examined, status), indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in report(examined, status, share))
    if write_to is not None:
        _write(settings, examined, write_to, force=force)
    return status


def hurried(settings: Settings, seconds: float) -> Settings:
    """The same, with samples so close that a source shows what it has within ``seconds``."""
    longest = max(seconds / (ROUNDS + 1), SHORTEST_S)
    return replace(settings, sources=tuple(_hurried(source, longest) for source in settings.sources))


def _hurried(source: SourceSettings, longest: float) -> SourceSettings:
    if isinstance(source, PrometheusSettings | SlurmSettings) or source.interval <= longest:
        return source  # a server that remembers shows what it has at once; a scheduler is not hurried
    if isinstance(source, ExporterSettings) and source.timeout is None:
        # a slow page keeps the time that the interval to come would give it
        from coldaisle.sources.exporters import timeout_for

        source = msgspec.structs.replace(source, timeout=timeout_for(source.interval))
    return msgspec.structs.replace(source, interval=longest)


def expected_targets(settings: Settings) -> dict[str, int]:
    """How many targets each source was given, where that is known."""
    counts: dict[str, int] = {}
    for source in settings.sources:
        if isinstance(source, SshSettings):
            counts[source.name] = len(set(map(bare_host, source.hosts)))
        elif isinstance(source, ExporterSettings):
            counts[source.name] = len(set(source.targets))
        elif isinstance(source, SimulatorSettings):
            counts[source.name] = source.racks * source.nodes
    return counts


def verdict(examined: Sequence[Examined]) -> int:
    """0: everything is there; 1: something is missing; 2: a source does not deliver at all."""
    if any(one.error or not (one.answering or one.rounds) for one in examined):
        return SOURCE_FAILS
    if any(len(one.answering) < len(one.targets) for one in examined) or open_lacks(examined):
        return SOMETHING_MISSING
    return ALL_THERE


def lacks(one: Examined) -> list[Lack]:
    """Needs that this source does not meet, of the kinds it speaks of."""
    return [
        Lack(need, one.why_missing(need.keys))
        for need in needs()
        if one.entities(need.kind) and not any(one.found(key) for key in need.keys)
    ]


def too_short(examined: Sequence[Examined]) -> list[Lack]:
    """Open lacks that more time may fill: nobody has been heard often enough to say."""
    return [
        lack
        for lack in open_lacks(examined)
        if lack.why is Missing.NOT_SAMPLED
        and all(one.rounds[lack.need.kind] < one.needed for one in examined)
    ]


def open_lacks(examined: Sequence[Examined]) -> list[Lack]:
    """Needs that no source meets, though the hardware could."""
    found = {need for one in examined for need in needs() if any(one.found(key) for key in need.keys)}
    lacking = {lack.need: lack for one in examined for lack in lacks(one)}
    return [
        lack for need, lack in lacking.items() if need not in found and lack.why is not Missing.NOT_SUPPORTED
    ]


def report(examined: Sequence[Examined], status: int, share: float | None) -> Iterator[str]:
    """The lines of the text report; foreign text is inert in them, and all of it is ASCII."""
    for one in examined:
        yield from (plain(line, ascii_only=True) for line in _source_lines(one))
        yield ""
    yield from (plain(line, ascii_only=True) for line in _node_lines(examined))
    if share is not None:
        yield f"cost: {show(share, 'ratio')} of a core of this machine while asking"
    yield plain(f"verdict: {_verdict_text(examined, status)}", ascii_only=True)


def as_object(examined: Sequence[Examined], status: int) -> dict[str, Any]:
    """The same for programs."""
    return {
        "schema": "coldaisle.doctor/1",
        "status": status,
        "verdict": _verdict_text(examined, status),
        "sources": [_source_object(one) for one in examined],
        "nodes": {node: sorted(by) for node, by in sorted(_shared(examined).items())},
        "silent_nodes": sorted(_silent(examined)),
    }


def narrowed(settings: Settings, examined: Sequence[Examined]) -> Settings:
    """The settings with what answered, and nothing else."""
    kept = []
    for source, one in zip(settings.sources, examined, strict=True):
        if one.answering or one.rounds:
            kept.append(_answering_only(source, one))
    return replace(settings, sources=tuple(kept))


def _answering_only(source: SourceSettings, one: Examined) -> SourceSettings:
    names = {target.name for target in one.answering}
    match source:
        case SshSettings():
            hosts = tuple(host for host in source.hosts if bare_host(host) in names)
            return msgspec.structs.replace(source, hosts=hosts or source.hosts)
        case ExporterSettings():
            from coldaisle.sources.exporters import address

            targets = tuple(target for target in source.targets if address(target).name in names)
            return msgspec.structs.replace(source, targets=targets or source.targets)
        case _:
            return source


def _write(settings: Settings, examined: Sequence[Examined], path: Path, *, force: bool) -> None:
    kept = narrowed(settings, examined)
    if not kept.sources:
        sys.stderr.write("coldaisle: nothing answered: nothing is written\n")
        return
    backup = save(kept, path, force=force)
    also = f" (the old one is {backup})" if backup else ""
    sys.stderr.write(plain(f"written: {path}{also}", ascii_only=True) + "\n")


def _source_lines(one: Examined) -> Iterator[str]:
    state = "FAILS" if one.error or not (one.answering or one.rounds) else "ok"
    answered = (
        f"{len(one.answering)} of {len(one.targets)} targets answer" if one.targets else "no target told"
    )
    counts = ", ".join(_count(len(found), WORDS[kind]) for kind in Kind if (found := one.entities(kind)))
    title = one.name if one.name == one.kind else f"{one.name} ({one.kind})"
    yield f"{title}  {state}: {', '.join(filter(None, [answered, counts]))}"
    if one.error:
        yield f"  {one.error}"
        if one.remedy:
            yield f"    -> {one.remedy}"
    yield from _target_lines(one)
    yield from _scheduler_lines(one)
    yield from _clock_lines(one)
    yield from _visibility_lines(one)
    if one.cells:
        yield from _metric_lines(one)


def _target_lines(one: Examined) -> Iterator[str]:
    alike: dict[str, list[Target]] = defaultdict(list)
    for target in one.answering:
        alike[target.what].append(target)
    for what, targets in alike.items():
        times = [target.latency_s for target in targets if target.latency_s is not None]
        ends = dict.fromkeys(show(pick(times), "s", ascii_only=True) for pick in (min, max) if times)
        took = f"  {' to '.join(ends)}"
        yield f"  ok: {fold(target.name for target in targets)}  {what}{took}".rstrip()
    for target in one.answering:
        if target.detail:
            yield f"  {target.name}: {target.detail}"
    silent = [target for target in one.targets.values() if target not in one.answering]
    for target in sorted(silent, key=lambda target: natural_key(target.name))[:SHOWN_TARGETS]:
        yield f"  {target.state}: {target.name}  {target.detail}".rstrip()
        if target.remedy:
            yield f"    -> {target.remedy}"
    if len(silent) > SHOWN_TARGETS:
        yield f"  and {len(silent) - SHOWN_TARGETS} more that do not answer"


def _scheduler_lines(one: Examined) -> Iterator[str]:
    """What a scheduler gives: the expected GPUs, its partitions, its queue."""
    if one.queue is None:
        return
    gpus = sum(fact.gpus_expected or 0 for fact in one.nodes.values())
    out = sum(fact.state in ("down", "drain", "fail", "maint") for fact in one.nodes.values())
    yield f"  expects: {_count(len(one.nodes), 'node')} with {_count(gpus, 'GPU')}" + (
        f", {out} of them drained or down" if out else ""
    )
    if one.partitions:
        apart = [
            f"{partition.name} is {partition.state}"
            for partition in one.partitions
            if partition.state != "up"
        ]
        yield f"  {_count(len(one.partitions), 'partition')}: {', '.join(apart[:10]) or 'all up'}"
    running, waiting, held = one.queue.running, one.queue.waiting, one.queue.held
    yield (
        f"  jobs: {running.jobs} running on {_count(running.gpus, 'GPU')}, {waiting.jobs} waiting for"
        f" {_count(waiting.gpus, 'GPU')}, {held.jobs} for something else"
    )


def _clock_lines(one: Examined) -> Iterator[str]:
    offsets = {
        node: fact.clock_offset_s for node, fact in one.nodes.items() if fact.clock_offset_s is not None
    }
    off = {node: offset for node, offset in offsets.items() if abs(offset) > CLOCK_OFF_S}
    if offsets and not off:
        yield f"  clocks: within {show(max(map(abs, offsets.values())), 's', ascii_only=True)} of ours"
    for node, offset in off.items():
        yield f"  clock of {node}: {show(offset, 's', ascii_only=True)} from ours"
        yield "    -> is time synchronised there (chronyc tracking)?"


def _visibility_lines(one: Examined) -> Iterator[str]:
    for node, fact in one.nodes.items():
        if fact.gpu_pci and fact.gpus_visible is not None and fact.gpus_visible < len(fact.gpu_pci):
            yield f"  {node}: {fact.gpus_visible} of {len(fact.gpu_pci)} GPUs visible to you"
        if fact.problem:
            yield f"  {node}: {fact.problem}"


def _metric_lines(one: Examined) -> Iterator[str]:
    counts = ", ".join(
        f"{number} of {WORDS[kind]}s"
        for kind in Kind
        if (number := sum(key.startswith(f"{kind}.") and one.found(key) > 0 for key in one.cells))
    )
    yield f"  metrics: {counts or 'none yet'}"
    for need in needs():
        total = len(one.entities(need.kind))
        key = next((key for key in need.keys if one.found(key)), None)
        if total and key:
            count = one.found(key)
            share = "" if count == total else f"{count} of {total}"
            yield f"    {need.name:<20} {key:<27} {share}".rstrip()
    missing = lacks(one)
    if missing:
        yield "  missing:"
    for lack in missing:
        yield f"    {lack.need.name:<20} {lack.need.keys[0]:<27} {MISSING_TEXT[lack.why]}"
        if lack.need.hint and one.kind not in OF_EXPORTERS:
            yield f"      -> {lack.need.hint}"
    yield from _counter_lines(one, missing)


def _counter_lines(one: Examined, missing: Iterable[Lack]) -> Iterator[str]:
    """What makes its exporters export what is missing, and where that has to be added."""
    for counters in _counters(one, missing):
        yield f"  -> add to {counters.where}, and restart the exporter:"
        yield from (f"       {line}" for line in counters.lines)


class Counters(NamedTuple):
    """What to add to an exporter's configuration."""

    exporter: str
    where: str
    lines: tuple[str, ...]


def _counters(one: Examined, missing: Iterable[Lack]) -> tuple[Counters, ...]:
    spoken = {name for target in one.targets.values() for name in target.what.split(", ")}
    needed = [lack.need for lack in missing if lack.why is Missing.NOT_EXPORTED]
    if one.kind not in OF_EXPORTERS or not needed:
        return ()
    from coldaisle.sources.vocabularies import counters_for, shipped

    words = [each for each in shipped() if each.name in spoken and each.counters]
    found = []
    for each in words:
        possible = ([key for key in need.keys if counters_for([key], each)] for need in needed)
        lines = counters_for([keys[0] for keys in possible if keys], each)
        found.append(Counters(each.name, each.counters, lines))
    return tuple(counters for counters in found if counters.lines)


def _same_node(examined: Sequence[Examined]) -> Callable[[str], str]:
    """Gives any name of a node the one that all sources share."""
    hosts = {
        node: fact.hostname
        for one in examined
        for node, fact in one.nodes.items()
        if fact.hostname is not None
    }
    return lambda name: short_name(hosts.get(name, name))


def _shared(examined: Sequence[Examined]) -> Mapping[str, list[str]]:
    return shared_nodes(examined, _same_node(examined))


def _silent(examined: Sequence[Examined]) -> set[str]:
    """Nodes that a source names, and of which none has a value."""
    same = _same_node(examined)
    return _shared(examined).keys() - {same(name) for one in examined for name in one.heard_nodes()}


def _node_lines(examined: Sequence[Examined]) -> Iterator[str]:
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    shared, silent = _shared(examined), _silent(examined)
    heard = shared.keys() - silent
    for node, known_by in shared.items():
        alike[tuple(known_by)].append(node)
    yield f"nodes: {len(shared)}"
    if heard and len(examined) == 1:
        yield f"  heard: {fold(sorted(heard, key=natural_key))}"
    if silent and all(one.kind in SCHEDULERS for one in examined):
        yield f"  known, not measured: {fold(sorted(silent, key=natural_key))}"
        yield "    -> a scheduler tells who holds which GPUs; add --ssh, --exporter or --prometheus for what they do"
    elif silent:
        yield f"  nothing is heard of: {fold(sorted(silent, key=natural_key))}"
    if len(examined) > 1:
        for names, nodes in sorted(alike.items(), key=lambda group: -len(group[0])):
            yield f"  {'only ' if len(names) == 1 else ''}{' and '.join(names)}: {fold(nodes)}"


def _verdict_text(examined: Sequence[Examined], status: int) -> str:
    if status == SOURCE_FAILS:
        failing = [one.name for one in examined if one.error or not (one.answering or one.rounds)]
        return f"{', '.join(failing)} {'does' if len(failing) == 1 else 'do'} not deliver"
    silent = sum(len(one.targets) - len(one.answering) for one in examined)
    parts = [f"{_count(silent, 'target')} {'does' if silent == 1 else 'do'} not answer"] if silent else []
    unknown = too_short(examined)
    if missing := [lack for lack in open_lacks(examined) if lack not in unknown]:
        parts.append(f"nobody gives {_names(missing)}")
    if unknown:
        parts.append(f"too short to say whether anybody gives {_names(unknown)}: give --for more")
    return "; ".join(parts) or "all there"


def _names(lacking: Iterable[Lack]) -> str:
    return ", ".join(f"{WORDS[lack.need.kind]} {lack.need.name}" for lack in lacking)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _source_object(one: Examined) -> dict[str, Any]:
    missing = lacks(one)
    return {
        "name": one.name,
        "kind": one.kind,
        "error": one.error or None,
        "remedy": one.remedy or None,
        "targets": [
            {
                "name": target.name,
                "state": str(target.state),
                "what": target.what,
                "nodes": list(target.nodes),
                "latency_s": target.latency_s,
                "detail": target.detail or None,
                "remedy": target.remedy or None,
            }
            for target in one.targets.values()
        ],
        "entities": {str(kind): len(found) for kind in Kind if (found := one.entities(kind))},
        "metrics": {key: count for key in one.cells if (count := one.found(key))},
        "missing": [
            {"need": lack.need.name, "metric": lack.need.keys[0], "why": MISSING_TEXT[lack.why]}
            for lack in missing
        ],
        "counters": {counters.exporter: list(counters.lines) for counters in _counters(one, missing)},
        "partitions": {partition.name: partition.state for partition in one.partitions},
        "clock_offset_s": {
            node: fact.clock_offset_s for node, fact in one.nodes.items() if fact.clock_offset_s is not None
        },
    }


class _Progress:
    """One line on stderr while it takes its time, if somebody sits there; gone afterwards."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __call__(self, examined: Sequence[Examined], seconds: float) -> None:
        if not self._is_shown:
            return
        states = [target.state for one in examined for target in one.targets.values()]
        answered = sum(state is not TargetState.CONNECTING for state in states)
        sys.stderr.write(
            f"\r\x1b[Kasking: {answered} of {len(states)} targets have answered, {seconds:.0f} s"
        )
        sys.stderr.flush()
