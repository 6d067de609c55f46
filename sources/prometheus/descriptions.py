"""What a vocabulary on a server says of nodes, boards and inference servers, as facts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from coldaisle.sources.facts import Told, server_fact
from coldaisle.sources.prometheus.answers import Values
from coldaisle.sources.prometheus.identity import rack_of
from coldaisle.sources.prometheus.spoken import Place, Spoken
from coldaisle.sources.prometheus.tables import Frame, KeyValues
from coldaisle.sources.source import GpuFact, Kind, NodeFact, ServerFact
from coldaisle.sources.translation import Board, first_of


def describe(spoken: Spoken, at: float, ahead: float) -> Iterator[Told]:
    """Of every node, board and server; ``at`` by our clock, ``ahead``: our clock minus the server's."""
    for old, new in spoken.renamed.items():
        yield NodeFact(at=at, node=old, hostname=new)
    for (key, place), nodes in zip(spoken.places.items(), spoken.nodes(), strict=True):
        if place.node in nodes:
            yield _node_fact(spoken, key, place, at, ahead)
    yield from _server_facts(spoken, at)
    frame = spoken.frames.get(Kind.GPU)
    if frame is not None:
        rows = {ref: row for row, ref in enumerate(frame.entities)}
        for boards in spoken.boards.values():
            for board in boards.all():
                yield _gpu_fact(board, _reader(frame, rows.get(board.gpu)), at)


def _gpu_fact(board: Board, value: _Reader, at: float) -> GpuFact:
    return GpuFact(
        at=at,
        gpu=board.gpu,
        model=board.model,
        memory_bytes=_whole(value("gpu.mem_total")),
        power_limit_w=value("gpu.power_limit"),
        power_max_w=value("gpu.power_max"),
        slowdown_c=value("gpu.temp_slowdown"),
        mig_profile=board.mig_profile,
        mig_enabled=True if board.gpu.mig else None,
        serial=board.serial,
    )


def _server_facts(spoken: Spoken, at: float) -> Iterator[ServerFact]:
    engine = spoken.vocabulary.server
    if engine is None:
        return
    for key, servers in spoken.servers.items():
        place = spoken.places.get(key)
        boards = spoken.boards.get(place.node) if place else None
        whole = tuple(board.gpu for board in boards.all() if board.gpu.mig is None) if boards else ()
        for hosted in servers.all():
            yield server_fact(hosted, engine, whole, at)


def _node_fact(spoken: Spoken, key: KeyValues, place: Place, at: float, ahead: float) -> NodeFact:
    frame = spoken.frames.get(Kind.NODE)
    value = _reader(frame, _node_row(frame, key))
    own, numbers = spoken.owns.get(key, {}), spoken.numbers.get(key, {})
    rack = rack_of(place.labels)
    boards = spoken.boards.get(place.node) if spoken.vocabulary.server is None else None
    whole = [board for board in boards.all() if board.gpu.mig is None] if boards else []
    booted, clock = numbers.get("booted_at"), numbers.get("clock")
    return NodeFact(
        at=at,
        node=place.node,
        # a rule has given the node its name: what it calls itself would join it to another
        hostname=own.get("=hostname") if place.how != "rewrite rule" else None,
        rack=rack[0] if rack else None,
        place=f"label {rack[1]}" if rack else None,
        cpus=_whole(value("node.cpus")),
        memory_bytes=_whole(value("node.mem_total")),
        kernel=own.get("=kernel"),
        driver=first_of(spoken.vocabulary.labels.driver, place.labels),
        booted_at=booted + ahead if booted is not None else None,
        gpus_visible=len(whole) or None,
        clock_offset_s=round(clock - ahead, 1) if clock is not None else None,
    )


def _node_row(frame: Frame | None, key: KeyValues) -> int | None:
    """Of the target's own node: what could name another is empty."""
    if frame is None or not frame.row_of:
        return None
    length = len(next(iter(frame.row_of)))
    return frame.row_of.get((*key, *[""] * (length - len(key))))


class _Reader(NamedTuple):
    """An entity's newest values by key."""

    values: Values | None
    metrics: Mapping[str, int]

    def __call__(self, key: str) -> float | None:
        if self.values is None or key not in self.metrics:
            return None
        value = float(self.values[self.metrics[key]])
        return value if value == value else None


def _reader(frame: Frame | None, row: int | None) -> _Reader:
    if frame is None or row is None or frame.newest is None:
        return _Reader(None, {})
    return _Reader(frame.newest[row], frame.place_of)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
