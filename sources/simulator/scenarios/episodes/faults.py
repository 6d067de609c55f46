"""Boards that break, and what only sounds like it; feeds that fall silent or stand still."""

from __future__ import annotations

import math
from dataclasses import replace

from coldaisle.sources.simulator.plan import Part
from coldaisle.sources.simulator.scenarios.episodes.registry import (
    Draw,
    any_gpu,
    begin,
    killed,
    scenario,
    train,
)
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.pieces import (
    CONSTANT,
    CORPSE,
    SLOTS,
    STUCK,
    Cause,
    Feed,
    Piece,
    Told,
)

FAULT, GAP, STALL = "gpu_fault", "telemetry_gap", "communication_stall"
NODE = tuple(range(SLOTS))
OFF_THE_BUS = "Xid 79, pid='<unknown>', GPU has fallen off the bus."


def _code(line: str) -> float:
    return float(line.split()[1].rstrip(","))


def told(made: Piece, at: float, where: tuple[int, ...], *lines: str) -> Piece:
    """Kernel lines of some boards, and the exporter's gauge of the last of their codes."""
    events = tuple(Told(at + 0.2 * i, "xid", gpu, line) for gpu in where for i, line in enumerate(lines))
    gauge = tuple(Feed("xid_last", at, where=(gpu,), value=_code(lines[-1])) for gpu in where)
    return replace(made, told=(*made.told, *events), feeds=(*made.feeds, *gauge))


def _broken(s: Scenario, part: Part, draw: Draw, *lines: str) -> tuple[Piece, float, tuple[int, ...]]:
    """A job, when something happens to one of its boards, and which."""
    at, gpu = begin(draw), (any_gpu(draw, s.nodes),)
    made = replace(train(s, part, draw), start=at, roots=gpu, loss=math.nan)
    return (told(made, at, gpu, *lines) if lines else made), at, gpu


def _dead(made: Piece, at: float, where: tuple[int, ...], feed: str) -> Piece:
    """Boards are off the bus: the others wait, the samples end or stand."""
    gone = Cause("dead", 1.0, where, at)
    return replace(
        made,
        causes=(*made.causes, gone),
        feeds=(*made.feeds, Feed(feed, at, where=where, value=CORPSE)),
        loss=1.0,
    )


@scenario(
    "xid79_gone", "a board falls off the bus, its series end", FAULT, (STALL, GAP, "idle_allocation"), "lost"
)
def _gone(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw, OFF_THE_BUS)
    return _dead(made, at, gpu, "gone")


@scenario(
    "xid79_frozen", "a board falls off the bus, its exporter serves a corpse", FAULT, (STALL, GAP), "lost"
)
def _corpse(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw, OFF_THE_BUS)
    return _dead(made, at, gpu, "frozen")


@scenario(
    "frozen_silent", "a dead board's last values for ever, and no word of it", FAULT, (STALL, GAP), "lost"
)
def _wordless(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw)
    # Feeds of healthy boards stand for up to four samples (3.2 of the physics; GWDG's healthy boards too).
    return replace(_dead(made, at, gpu, "frozen"), evident_after=60.0, evident_samples=5)


@scenario("vanished_silent", "a board's series end without a word", FAULT, (GAP, STALL), "lost")
def _vanished(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw)
    # Of a hundred samples one gets lost: two in a row do every minute somewhere among a thousand boards, three every hour.
    return replace(_dead(made, at, gpu, "gone"), evident_samples=3)


@scenario("node_79", "all boards of a node fall off the bus together", FAULT, (GAP, STALL), "node")
def _node(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    made = told(replace(train(s, part, draw), start=at, roots=NODE, root_nodes=(0,)), at, NODE, OFF_THE_BUS)
    return _dead(made, at, NODE, "frozen" if draw.random() < 0.5 else "gone")


@scenario(
    "ecc_dbe", "an uncorrectable error, a row remap, the job dies", FAULT, (STALL, "memory_exhaustion"), "ecc"
)
def _dbe(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw, "Xid 48, An uncorrectable double bit error (DBE) has been detected", "Xid 63, Row Remapper: New row marked for remapping, reset gpu to activate.")  # fmt: skip
    counted = tuple(
        Feed(what, at, where=gpu, value=1.0)
        for what in ("ecc_dbe", "remapped_uncorrectable", "remap_pending")
    )
    return killed(replace(made, feeds=(*made.feeds, *counted)), at + float(draw.uniform(2, 20)), "FAILED")


@scenario("xid94", "a contained memory error: the process dies, the board lives", FAULT, (STALL,), "ecc")
def _contained(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw, "Xid 94, Contained memory error")
    counted = (Feed("ecc_dbe", at, where=gpu, value=1.0), Feed("remap_pending", at, where=gpu, value=1.0))
    return killed(replace(made, feeds=(*made.feeds, *counted)), at + 3, "FAILED")


@scenario(
    "xid31_once",
    "a page fault, once: as a rule the program's own",
    FAULT,
    ("memory_exhaustion",),
    "application",
)
def _once(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, _ = _broken(s, part, draw, "Xid 31, MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted")
    return replace(killed(made, at + 2, "FAILED"), weak=True)


@scenario(
    "xid31_repeated",
    "page faults again and again on one board",
    FAULT,
    ("memory_exhaustion", STALL),
    "repeated",
)
def _repeated(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw)
    gap = float(draw.uniform(40, 90))
    line = "Xid 31, MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted"
    events = tuple(Told(at + i * gap, "xid", gpu[0], line) for i in range(4))
    gauge = Feed("xid_last", at, where=gpu, value=31.0)
    return replace(made, told=events, feeds=(gauge,), evident_after=gap)


@scenario("xid74", "an NVLink fails and the job hangs", FAULT, ("interconnect_degraded", STALL), "nvlink")
def _nvlink(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw, "Xid 74, NVLink: fatal error detected on link 4")
    feeds = (
        Feed("nvlink_links", at, where=gpu, value=float(part.links - 1)),
        Feed("nvlink_replay", at, at + 30, gpu, 50.0),
    )
    gone = Cause("absent", 1.0, gpu, at + 1)
    return replace(made, feeds=(*made.feeds, *feeds), causes=(gone,), loss=1.0)


@scenario("sbe_rate", "corrected errors by the hundred", FAULT, (), "sbe", needs=("default",))
def _sbe(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw)
    feed = Feed("ecc_sbe", at, where=gpu, rise=float(draw.uniform(0.2, 5)))
    return replace(made, feeds=(feed,), loss=0.0, weak=True, evident_after=60)


@scenario("remap_pending", "a row remap waits for a reset", FAULT, (), "remap", needs=("default",))
def _pending(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw)
    feeds = (
        Feed("remap_pending", at, where=gpu, value=1.0),
        Feed("remapped_correctable", at, where=gpu, value=1.0),
    )
    return replace(made, feeds=feeds, loss=0.0)


@scenario("remap_failure", "a row cannot be remapped: the board is used up", FAULT, (), "remap")
def _failure(s: Scenario, part: Part, draw: Draw) -> Piece:
    made, at, gpu = _broken(s, part, draw, "Xid 64, Row Remapper: Failed to remap")
    return replace(made, feeds=(*made.feeds, Feed("remap_failure", at, where=gpu, value=1.0)), loss=0.0)


# --- what only sounds like it ----------------------------------------------------------------------


@scenario("xid_after_cancel", "43 and 45 after scancel", like=(FAULT,))
def _cancel(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    made = killed(train(s, part, draw), at, "CANCELLED")
    which = tuple(range(int(draw.integers(1, 6))))
    return told(made, at + 0.5, which, str(draw.choice(("Xid 43, Reset Channel Verif Error", "Xid 45, Preemptive channel removal"))))  # fmt: skip


@scenario("row_remap", "a row remap is recorded, alone", like=(FAULT,))
def _remap(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu, at = (any_gpu(draw, s.nodes),), begin(draw)
    made = told(train(s, part, draw), at, gpu, "Xid 63, Row Remapper: New row marked for remapping")
    return replace(made, feeds=(*made.feeds, Feed("remapped_correctable", at, where=gpu, value=1.0)))


@scenario("sticky_xid", "the gauge of an XID of last week", like=(FAULT,))
def _sticky(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpus = tuple(int(g) for g in draw.choice(s.nodes * SLOTS, 2, replace=False))
    code = float(draw.choice((79, 31, 48, 74)))
    return replace(train(s, part, draw), feeds=(Feed("xid_last", -1e6, where=gpus, value=code),))


@scenario("old_errors", "counters of errors that do not rise", like=(FAULT,))
def _old(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu = (any_gpu(draw, s.nodes),)
    feeds = (
        Feed("remapped_uncorrectable", 0.0, where=gpu, value=2.0),
        Feed("ecc_sbe", 0.0, where=gpu, value=900.0),
    )
    return replace(train(s, part, draw), feeds=feeds)


@scenario("counter_reset", "the driver was loaded anew", like=(FAULT, GAP), nodes=1)
def _reset(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    return Piece(
        s, part, 1, told=(Told(at, "driver", None, "driver 570.86.15 -> 580.95.05"),),
        feeds=(Feed("ecc_sbe", 0.0, at, value=40.0), Feed("node_gone", at, at + 25)),
    )  # fmt: skip


# --- feeds -----------------------------------------------------------------------------------------


@scenario("node_gap", "a node's exporters fall silent", GAP, (FAULT, STALL), "node")
def _gap(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    end = at + float(draw.uniform(240, 500))
    return replace(
        train(s, part, draw), root_nodes=(0,), start=at, evident_after=15, end=end, loss=0.0, feeds=(Feed("node_gone", at, end, NODE),)
    )  # fmt: skip


@scenario("scrape_gap", "nobody is scraped for minutes", GAP, (FAULT, STALL), "cluster", nodes=4)
def _scrape(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    end = at + float(draw.uniform(150, 400))
    return replace(
        train(s, part, draw, "", 4), root_nodes=(0, 1, 2, 3), start=at, evident_after=15, end=end, loss=0.0,
        feeds=(Feed("node_gone", at, end),),
    )  # fmt: skip


@scenario(
    "stuck_exporter", "an exporter repeats its page while its boards work on", GAP, (FAULT, STALL), "frozen"
)
def _stuck(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    end = at + float(draw.uniform(300, 600))
    return replace(
        train(s, part, draw), root_nodes=(0,), roots=NODE, start=at, evident_after=60, end=end, loss=0.0,
        feeds=(Feed("frozen", at, end, NODE, STUCK),),
    )  # fmt: skip


@scenario("short_gap", "an exporter is silent for some seconds", like=(GAP, FAULT))
def _short(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    return replace(
        train(s, part, draw), feeds=(Feed("node_gone", at, at + float(draw.uniform(5, 25)), NODE),)
    )


@scenario("constant_idle", "an idle board whose values never change", like=(FAULT, GAP), nodes=1)
def _constant(s: Scenario, part: Part, draw: Draw) -> Piece:
    return Piece(s, part, 1, feeds=(Feed("frozen", 60.0, value=CONSTANT),))
