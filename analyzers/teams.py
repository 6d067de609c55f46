"""GPUs that work together: those of a job; where no job is known, those of a node are presumed to.

A presumed team proves nothing by itself: who relates its GPUs to each other asks whether they move in step
(:func:`~coldaisle.analyzers.features.synchrony`). Boards that are cut into MIG instances belong to no team, nor do GPUs
that a server without a job runs on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.finding import Scope
from coldaisle.analyzers.window import Bools, Window
from coldaisle.sources.cluster import Rows
from coldaisle.sources.source import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Teams:
    """Integers only; made once a window. ``[..., entity]`` arrays become ``[..., team]``, NaN-aware."""

    of: Rows
    """[gpu] team; -1: none."""
    job: Rows
    """[team] index into ``window.jobs``; -1: presumed."""
    since: NDArray[np.float64]
    """[team] when its job began; NaN: not known."""
    size: Rows
    """[team] GPUs."""
    gpus: Rows
    """GPUs by team."""
    first: Rows
    """[team] where its GPUs begin in ``gpus``."""
    nodes: Rows
    """Nodes by team; one that several teams share is listed for each."""
    first_node: Rows
    node_count: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

    def __len__(self) -> int:
        return len(self.job)

    def members(self, team: int) -> Rows:
        """Indices of its GPUs."""
        return self.gpus[self.first[team] : self.first[team] + self.size[team]]

    def nodes_of(self, team: int) -> Rows:
        """Indices of the nodes that its GPUs are in."""
        return self.nodes[self.first_node[team] : self.first_node[team] + self.node_count[team]]

    def mean(self, values: Floats) -> Floats:
        """Of its GPUs."""
        return _mean(values, self.gpus, self.first)

    def low(self, values: Floats) -> Floats:
        """The lowest of its GPUs."""
        return _extreme(np.fmin, values, self.gpus, self.first)

    def high(self, values: Floats) -> Floats:
        """The highest of its GPUs."""
        return _extreme(np.fmax, values, self.gpus, self.first)

    def share(self, mask: Bools, have: Bools) -> Floats:
        """Of its GPUs that have a value, those that are meant."""
        return self.mean(np.where(have, mask, np.nan).astype(np.float32))

    def node_mean(self, values: Floats) -> Floats:
        """Of its nodes."""
        return _mean(values, self.nodes, self.first_node)

    def node_high(self, values: Floats) -> Floats:
        """The highest of its nodes."""
        return _extreme(np.fmax, values, self.nodes, self.first_node)

    def scope(self, window: Window, team: int) -> Scope:
        """The whole team: its job with nodes and GPUs; without a job the GPUs with their nodes."""
        layout, job = window.layout, int(self.job[team])
        return Scope(
            nodes=tuple(layout.nodes[node].key for node in self.nodes_of(team)),
            gpus=tuple(layout.gpus[gpu].key for gpu in self.members(team)),
            jobs=(window.jobs[job].id,) if job >= 0 else (),
        )


def teams(window: Window) -> Teams:
    """The teams of this instant."""
    return window.cached("teams", lambda: _teams(window))


def serving(window: Window) -> Bools:
    """[gpu] an inference server is known to run on it."""

    def make() -> Bools:
        mask = np.zeros(len(window.layout.gpus), dtype=np.bool_)
        for server in window.layout.servers:
            mask[list(server.gpus)] = True
        return mask

    return window.cached("serving", make)


def _teams(window: Window) -> Teams:
    groups, snapshot = window.groups, window.snapshot
    job_of = window.gpu_job.astype(np.intp)
    unknown = snapshot.gpu_unnamed if len(snapshot.gpu_unnamed) else np.zeros(len(job_of), dtype=np.bool_)
    presumed = (job_of < 0) & (unknown if snapshot.jobs_known else np.ones_like(unknown)) & ~serving(window)
    code = np.where(job_of >= 0, job_of, np.where(presumed, len(window.jobs) + groups.gpu_node, -1))
    code[groups.has_instances] = -1
    codes, of = np.unique(code, return_inverse=True)
    if len(codes) and codes[0] < 0:
        codes, of = codes[1:], of - 1
    gpus = np.argsort(of, kind="stable")
    gpus = gpus[of[gpus] >= 0]
    size = np.bincount(of[of >= 0], minlength=len(codes))
    pairs = np.unique(of[gpus] * max(len(window.layout.nodes), 1) + groups.gpu_node[gpus])
    pair_team = pairs // max(len(window.layout.nodes), 1)
    job = np.where(codes < len(window.jobs), codes, -1)
    node_count = np.bincount(pair_team, minlength=len(codes))
    return Teams(
        of=of,
        job=job,
        since=np.array([window.jobs[number].since if number >= 0 else np.nan for number in job.tolist()]),
        size=size,
        gpus=gpus,
        first=np.cumsum(size) - size,
        nodes=pairs % max(len(window.layout.nodes), 1),
        first_node=np.cumsum(node_count) - node_count,
        node_count=node_count,
    )


def _mean(values: Floats, members: Rows, first: Rows) -> Floats:
    if not len(first):
        return np.zeros((*values.shape[:-1], 0), dtype=np.float32)
    picked = np.take(values, members, axis=-1)
    have = ~np.isnan(picked)
    total = np.add.reduceat(np.where(have, picked, np.float32(0)), first, axis=-1)
    count = np.add.reduceat(have, first, axis=-1, dtype=np.float32)
    means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return means


def _extreme(pick: np.ufunc, values: Floats, members: Rows, first: Rows) -> Floats:
    if not len(first):
        return np.zeros((*values.shape[:-1], 0), dtype=np.float32)
    found: Floats = pick.reduceat(np.take(values, members, axis=-1), first, axis=-1)
    return found
