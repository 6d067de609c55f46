"""Where each cell stands: groups of GPUs as tiles in a grid, at the closest zoom that fits.

Pure. Places are in character cells from the map's top left corner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from coldaisle.sources.text import cell_width, plain

if TYPE_CHECKING:
    import numpy as np

    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.cluster import Job, Node
    from coldaisle.tui.cells import Indices

TITLE: Final = 8
"""Cells that a tile's title takes at least: ``r01* 85%``, or ``r01n02*`` where the name leaves no room for a value."""
VALUE: Final = 5
"""Of these, the mark and the value."""
NAME: Final = 12
"""Cells that a group's name gets at most."""
GAP: Final = 2


class Zoom(IntEnum):
    """How much of a group is shown."""

    SLICES = 0  # as TILES, MIG instances in place of their boards
    TILES = 1  # a title over a row a node, one character a GPU
    DENSE = 2  # no titles
    HALVES = 3  # two GPUs a character
    GROUPS = 4  # one cell a group


ZOOM_NAMES: Final = ("MIG slices", "tiles", "dense", "half blocks", "one cell each")


class Group(NamedTuple):
    """GPUs that are drawn together."""

    name: str
    """Inert."""
    rows: tuple[tuple[int, ...], ...]
    """Indices into Layout.gpus, a node each."""


class Line(NamedTuple):
    """A place on the map that belongs to a group: its title or its foot."""

    y: int
    x: int
    width: int
    group: int
    is_foot: bool


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The map of a cluster at one zoom and width."""

    zoom: Zoom
    width: int
    height: int
    """Lines it takes; more than there are: it scrolls."""
    gpu: Indices
    """[cell] index into Layout.gpus; at Zoom.GROUPS the group's first."""
    x: Indices
    y: Indices
    """[cell] line; at Zoom.HALVES in half lines."""
    group: Indices
    """[cell] which group it belongs to."""
    labels: tuple[Line, ...]

    @property
    def halves(self) -> int:
        """Cells above each other in one character."""
        return 2 if self.zoom is Zoom.HALVES else 1

    def cell_of(self, gpu: int) -> int | None:
        """The cell that shows a GPU."""
        import numpy as np

        found = np.flatnonzero(self.gpu == gpu)
        return int(found[0]) if len(found) else None

    def cell_at(self, x: int, y: int) -> int | None:
        """The cell at a place, or the first of the group whose title is there."""
        import numpy as np

        found = np.flatnonzero((self.x == x) & (self.y // self.halves == y))
        if len(found):
            return int(found[0])
        for line in self.labels:
            if line.y == y and line.x <= x < line.x + line.width:
                return int(np.flatnonzero(self.group == line.group)[0])
        return None

    def neighbour(self, cell: int, dx: int, dy: int) -> int:
        """The next cell in a direction; itself at the edge. ``dy`` lines, of which more than one is a page."""
        import numpy as np

        x, y = self.x[cell], self.y[cell]
        if dx:
            ahead = np.flatnonzero((self.y == y) & ((self.x - x) * dx > 0))
            return int(ahead[np.argmin(np.abs(self.x[ahead] - x))]) if len(ahead) else cell
        ahead = np.flatnonzero((self.y - y) * dy > 0)
        if not len(ahead):
            return cell
        wanted = y + dy
        away = np.abs(self.y[ahead] - wanted) * 4096 + np.abs(self.x[ahead] - x)
        return int(ahead[np.argmin(away)])


class Shape(NamedTuple):
    """How tiles are cut for one zoom."""

    zoom: Zoom
    abreast: int
    """Nodes next to each other in a tile."""
    gap: int
    """Blank columns between tiles."""
    foot: bool
    """A line under the tile for power and inlet."""
    spaced: bool
    """A blank line between tiles."""
    title: int
    """Width of the title at least; 0: none."""


def groups_of(snapshot: Snapshot, by: str, *, slices: bool = False) -> tuple[Group, ...]:
    """The cluster's GPUs by rack, node, job, model, partition, leaf switch, user or account, in reading order."""
    rows = {
        index: row
        for index in range(len(snapshot.layout.nodes))
        if (row := _node_row(snapshot, index, slices))
    }
    if by == "rack":
        racks = snapshot.layout.racks
        found = [Group(plain(rack.name), tuple(rows[n] for n in rack.nodes if n in rows)) for rack in racks]
        return tuple(group for group in found if group.rows)
    if by == "node":
        return tuple(Group(plain(snapshot.layout.nodes[n].key), (row,)) for n, row in rows.items())
    return _split(rows, _names(snapshot, by))


def _names(snapshot: Snapshot, by: str) -> list[str]:
    """[gpu] the group that it belongs to, inert; what begins with ``~`` stands behind all others."""
    layout = snapshot.layout
    if by == "job":
        return _job_names(snapshot)
    if by in ("user", "account"):
        jobs = snapshot.jobs
        return _by_job(
            snapshot, [plain((job.user if by == "user" else job.account) or "not told") for job in jobs]
        )
    if by == "leaf":
        return [plain(layout.nodes[gpu.node].leaf or "~no leaf told") for gpu in layout.gpus]
    if by == "partition" and any(node.partitions for node in layout.nodes):
        out = {one.name: f" {one.state}" for one in snapshot.partitions if one.state != "up"}
        named = [
            plain("+".join(name + out.get(name, "") for name in node.partitions)) or "~none"
            for node in layout.nodes
        ]
        return [named[gpu.node] for gpu in layout.gpus]
    if by == "partition":
        return _by_job(snapshot, [plain(job.partition or "not told") for job in snapshot.jobs])
    types = [_type_told(node) for node in layout.nodes]
    return [plain(gpu.model or types[gpu.node] or "model unknown") for gpu in layout.gpus]


def _type_told(node: Node) -> str:
    """What the scheduler calls all GPUs of a node; empty: it does not say, or they are of several types."""
    types = {one.type for one in node.gres if one.name == "gpu"}
    return types.pop() if len(types) == 1 else ""


def _node_row(snapshot: Snapshot, node: int, slices: bool) -> tuple[int, ...]:
    gpus, span = snapshot.layout.gpus, snapshot.layout.nodes[node].gpus
    if not slices:
        return tuple(g for g in span if gpus[g].parent < 0)
    split = {gpus[g].parent for g in span if gpus[g].parent >= 0}
    return tuple(g for g in span if g not in split)


def _job_name(job: Job) -> str:
    """Id and name; a Kubernetes workload's namespace and name: a tile's title has no room for its kind."""
    key = job.workload_key
    return f"{key[0]}/{key[2]}" if key else f"{job.title} {job.name}".rstrip()


def _job_names(snapshot: Snapshot) -> list[str]:
    short = [_job_name(job) for job in snapshot.jobs]
    twice = {name for name, times in Counter(short).items() if times > 1}
    jobs = [
        plain(job.title if name in twice else name) for job, name in zip(snapshot.jobs, short, strict=True)
    ]
    return _by_job(snapshot, jobs)


def _by_job(snapshot: Snapshot, jobs: Sequence[str]) -> list[str]:
    """[gpu] what its job is called; ``jobs``: [job]."""
    gpus, held = snapshot.layout.gpus, snapshot.gpu_job
    of = [
        int(held[i]) if held[i] >= 0 or gpu.parent < 0 else int(held[gpu.parent])
        for i, gpu in enumerate(gpus)
    ]
    # "~" sorts behind every number and letter
    without = ["~not known" if unnamed else "~no job" for unnamed in snapshot.gpu_unnamed]
    without = without or ["~no job"] * len(gpus)
    return [jobs[job] if job >= 0 else without[gpu] for gpu, job in enumerate(of)]


def _split(rows: dict[int, tuple[int, ...]], names: Sequence[str]) -> tuple[Group, ...]:
    found: dict[str, list[tuple[int, ...]]] = {}
    for row in rows.values():
        parts: dict[str, list[int]] = {}
        for gpu in row:
            parts.setdefault(names[gpu], []).append(gpu)
        for name, part in parts.items():
            found.setdefault(name, []).append(tuple(part))
    return tuple(Group(name.removeprefix("~"), tuple(found[name])) for name in sorted(found))


def plan_map(
    groups: Sequence[Group], width: int, height: int, zoom: Zoom | None, *, foot: bool, halves: bool
) -> Plan:
    """The map at a zoom, or (None) at the closest that fits ``width`` x ``height``.

    Args:
        foot: whether there is anything to write under a rack.
        halves: whether the terminal can show half blocks in colour.
    """
    smallest: Shape | None = None
    for shape in _shapes(groups, width, zoom, foot=foot, halves=halves):
        smallest = shape
        if shaped_height(groups, shape, width) <= height:
            break
    assert smallest is not None
    return _lay(groups, smallest, width)


def _shapes(
    groups: Sequence[Group], width: int, zoom: Zoom | None, *, foot: bool, halves: bool
) -> Iterator[Shape]:
    """Ways to cut the tiles, the most telling first."""
    wanted = (Zoom.TILES, Zoom.DENSE, Zoom.HALVES, Zoom.GROUPS) if zoom is None else (zoom,)
    deepest = max((len(group.rows) for group in groups), default=1)
    longest = max((cell_width(group.name) for group in groups), default=1)
    full = max(TITLE, min(longest, NAME) + VALUE)
    named = max(TITLE, min(longest, NAME) + 1)
    for each in wanted:
        if each in (Zoom.TILES, Zoom.SLICES):
            if foot:
                yield Shape(each, 1, GAP, True, True, full)
                yield Shape(each, 1, GAP, True, False, full)
            yield Shape(each, 1, GAP, False, True, full)
            for title in dict.fromkeys((full, named, TITLE)):
                yield from (Shape(each, abreast, GAP, False, False, title) for abreast in _divisions(deepest))
        elif each is Zoom.GROUPS:
            yield Shape(each, 1, GAP, False, False, full)
            yield Shape(each, 1, 0, False, False, 0)
        elif each is Zoom.DENSE or halves:
            for gap in (1, 0):
                yield from (Shape(each, abreast, gap, False, False, 0) for abreast in _divisions(deepest))


def _divisions(deepest: int) -> list[int]:
    """How many nodes abreast are worth trying: each that makes a tile lower, the narrowest of its height."""
    heights = {abreast: -(-deepest // abreast) for abreast in range(deepest, 0, -1)}
    return sorted({height: abreast for abreast, height in heights.items()}.values())


def shaped_height(groups: Sequence[Group], shape: Shape, width: int) -> int:
    """Lines that a shape takes."""
    across, _, fold = _across(groups, shape, width)
    heights = [_tile_height(group, shape, fold) for group in groups]
    shelves = [max(heights[at : at + across]) for at in range(0, len(groups), across)]
    lines = sum(shelves) + max(len(shelves) - 1, 0) * shape.spaced
    return -(-lines // 2) if shape.zoom is Zoom.HALVES else lines


def _tile_height(group: Group, shape: Shape, fold: int) -> int:
    if shape.zoom is Zoom.GROUPS:
        return 1
    rows = -(-len(group.rows) // shape.abreast) * fold
    if shape.zoom is Zoom.HALVES:
        return rows + rows % 2  # a tile begins in an upper half
    return rows + bool(shape.title) + shape.foot


def _across(groups: Sequence[Group], shape: Shape, width: int) -> tuple[int, int, int]:
    """Tiles next to each other, the width of one, and the lines that its widest row of nodes takes."""
    if shape.zoom is Zoom.GROUPS:
        cells = shape.title or 1
    else:
        deepest = max((len(group.rows) for group in groups), default=1)
        cells = _widest(groups) * min(shape.abreast, deepest)
    tile = max(1, min(max(cells, shape.title), width))
    return max(1, (width + shape.gap) // (tile + shape.gap)), tile, -(-cells // tile)


def _widest(groups: Sequence[Group]) -> int:
    return max((len(row) for group in groups for row in group.rows), default=1)


def _lay(groups: Sequence[Group], shape: Shape, width: int) -> Plan:
    import numpy as np

    across, tile, fold = _across(groups, shape, width)
    tops = _tops(groups, shape, across, fold)
    slots = _widest(groups)
    places: list[tuple[int, int, int, int]] = []
    labels: list[Line] = []
    for at, group in enumerate(groups):
        left, top = at % across * (tile + shape.gap), tops[at // across]
        if shape.zoom is Zoom.GROUPS:
            places.append((group.rows[0][0], left + (tile - 1 if shape.title else 0), top, at))
        else:
            places += _cells(group, shape, left, top + bool(shape.title), tile, fold, slots, at)
        if shape.title:
            labels.append(Line(top, left, tile - (shape.zoom is Zoom.GROUPS), at, False))
        if shape.foot:
            labels.append(Line(top + _tile_height(group, shape, fold) - 1, left, tile, at, True))
    table = np.array(places, dtype=np.intp).reshape(-1, 4)
    gpu, x, y, group_of = (np.ascontiguousarray(table[:, column]) for column in range(4))
    return Plan(shape.zoom, width, shaped_height(groups, shape, width), gpu, x, y, group_of, tuple(labels))


def _tops(groups: Sequence[Group], shape: Shape, across: int, fold: int) -> list[int]:
    """The first line of each row of tiles."""
    tops = [0]
    for start, end in pairwise([*range(0, len(groups), across), len(groups)]):
        tallest = max(_tile_height(group, shape, fold) for group in groups[start:end])
        tops.append(tops[-1] + tallest + shape.spaced)
    return tops


def _cells(
    group: Group, shape: Shape, left: int, top: int, tile: int, fold: int, slots: int, at: int
) -> Iterator[tuple[int, int, int, int]]:
    """(gpu, x, y, group) of each cell; a row wider than the map goes on below."""
    for place, row in enumerate(group.rows):
        line, column = divmod(place, shape.abreast)
        for slot, gpu in enumerate(row):
            over, x = divmod(column * slots + slot, tile)
            yield gpu, left + x, top + line * fold + over, at


def frame(
    plan: Plan, codes: np.ndarray[tuple[int], np.dtype[np.uint8]]
) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """[line, column] of codes; at Zoom.HALVES two lines a character line.

    Args:
        codes: [cell]
    """
    import numpy as np

    picture = np.zeros((plan.height * plan.halves, plan.width), dtype=np.uint8)
    picture[plan.y, plan.x] = codes
    return picture


def tail(name: str, width: int, ellipsis: str) -> str:
    """A name cut at its front: racks and nodes differ at the end."""
    return (
        name
        if cell_width(name) <= width
        else (ellipsis + name[-(width - 1) :] if width > 1 else ellipsis[:width])
    )
