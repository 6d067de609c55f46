"""Degraded links: errors, a lower rate or width, links that are down, a port that cannot send.

Everything is held against siblings of the same node and against what the link itself can do, never against a rate alone:
rails that a job does not use by design are idle, not lame, and a PCIe link rests at a lower generation while its board is
idle. Beside the link's own sign the evidence shows the traffic it carries, or the pace of the job that waits for it.

Loss: what the job on it lost of its own best pace, where that is known; else 0, the bandwidth is lost all the same.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.features import Line, aligned, shifted
from coldaisle.analyzers.finding import Candidate, Evidence, Scope, Severity, Verdict
from coldaisle.analyzers.links import ACTIVE, ALIKE, expected_rates, port_ceilings, port_groups, port_roles
from coldaisle.analyzers.progress import lost_by
from coldaisle.analyzers.snapshot import Times
from coldaisle.analyzers.teams import teams
from coldaisle.analyzers.window import Bools, Recent, Window, carried, mean, peer_median, present, quantile
from coldaisle.sources.parts import port_efficiency
from coldaisle.sources.source import Floats
from coldaisle.sources.units import show

LOOKBACK_S = 3600.0
NAME = "interconnect_degraded"
ERRORS = (
    "port.symbol_errors",
    "port.rcv_errors",
    "port.integrity_errors",
    "port.overrun_errors",
    "port.xmit_discards",
    "port.icrc_errors",
    "port.errors",
)
RETRIED = ("port.out_of_sequence", "port.sequence_errors", "port.ack_timeouts", "port.buffer_drops")
"""What RoCE sends again, or lost."""
COUNTED = ("port.carrier_changes", "port.link_recovery", "port.link_downed")
"""The one that says most comes last."""
CRITICAL = 0.3
MANY = 4
"""Ports of a team."""
NOTICEABLE = 0.05
"""Of a job's pace: less is no evidence."""


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    errors: float
    nvlink_crc: float
    replays: float
    pcie_replays: float
    wait: float
    ticks: float
    above_peers: float
    above_past: float
    own: float
    out_of_sequence: float
    busy: float
    for_all: float
    cnp: float
    polls: int
    at_work: int


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a port, or a GPU for its PCIe and NVLink."""
    return Verdict((*_ports(window, rules), *_boards(window, rules)))


# --- network ports ---------------------------------------------------------------------------------


class Sign(NamedTuple):
    """What shows that a port is not sound."""

    variant: str
    metric: str
    now: float
    normal: float
    """What its siblings have, or it had before."""
    unit: str
    since: float | None = None
    """None: by its samples."""
    beside: str = "its siblings"
    """Whose ``normal`` is."""


def _ports(window: Window, rules: Thresholds) -> tuple[Candidate, ...]:
    """One candidate a port, of the sign that says most."""
    if not window.layout.ports:
        return ()
    signs: dict[int, Sign] = {}
    for found in (_flaps(window), _errs(window, rules), _waits(window, rules), _slow(window), _down(window)):
        signs |= found
    shared = _shared(window, signs)
    made = [_port(window, rules, port, sign) for port, sign in sorted(signs.items()) if port not in shared]
    for ports in dict.fromkeys(shared.values()):
        worst = max(ports, key=lambda port: signs[port].now)
        keys = tuple(window.layout.ports[port].key for port in ports)
        made.append(replace(_port(window, rules, worst, signs[worst]), roots=Scope(ports=keys)))
    return tuple(made)


def _shared(window: Window, signs: dict[int, Sign]) -> dict[int, tuple[int, ...]]:
    """Congestion of many ports of one team is one congestion: the ports that share it, by each of them."""
    by_team: dict[int, list[int]] = {}
    for port, sign in signs.items():
        if sign.variant == "congested" and (gpu := _user(window, port)) >= 0:
            by_team.setdefault(int(teams(window).of[gpu]), []).append(port)
    return {port: tuple(ports) for ports in by_team.values() if len(ports) >= MANY for port in ports}


def _flaps(window: Window) -> dict[int, Sign]:
    """Ports whose counters of lost links went up in the last quarter of an hour."""
    found: dict[int, Sign] = {}
    for key in COUNTED:
        if window.has(key):
            grown, at = _grew(window, key)
            found |= {
                port: Sign("flap", key, float(grown[port]), 0.0, "1", float(at[port]))
                for port in np.flatnonzero(grown > 0).tolist()
            }
    return found


def _errs(window: Window, rules: Thresholds) -> dict[int, Sign]:
    """Ports that err, and far more than their siblings do."""
    found: dict[int, Sign] = {}
    for keys, limit in ((RETRIED, rules.out_of_sequence), (ERRORS, rules.errors)):
        rates = {
            key: mean(window.recent(key, rules.window_s, rules.polls).values)
            for key in keys
            if window.has(key)
        }
        if not rates:
            continue
        total = np.add.reduce(np.stack([np.nan_to_num(rate) for rate in rates.values()]), axis=0)
        normal = _normal(window, total)
        for port in np.flatnonzero(_stands_out(total, normal, limit, rules)).tolist():
            metric = max(rates, key=lambda key: np.nan_to_num(rates[key][port]))
            found[port] = Sign("errors", metric, float(total[port]), float(np.nan_to_num(normal[port])), "/s")
    return found


def _waits(window: Window, rules: Thresholds) -> dict[int, Sign]:
    """Ports that cannot send, and far less than their siblings can; or that are told to slow down all the time (RoCE)."""
    found: dict[int, Sign] = {}
    for key, limit in (("port.cnp_handled", rules.cnp), ("port.xmit_wait", rules.wait * rules.ticks)):
        if window.has(key):
            level = mean(window.recent(key, rules.window_s, rules.polls).values)
            if not (level >= limit).any():
                continue
            normal = _normal(window, level)
            usual = quantile(window.minutes(key).mean, 0.25)
            rises = (level >= limit) & (level >= rules.above_past * usual) & _carries_no_more(window, rules)
            waits = (_stands_out(level, normal, limit, rules) | rises) & ~_fills_itself(window, rules)
            for port in np.flatnonzero(waits).tolist():
                is_alone = level[port] >= rules.above_peers * normal[port]
                held, whose = (usual, "before") if rises[port] and not is_alone else (normal, "its siblings")
                known = float(np.nan_to_num(held[port]))
                found[port] = Sign("congested", key, float(level[port]), known, "/s", beside=whose)
    return found


def _carries_no_more(window: Window, rules: Thresholds) -> Bools:
    """[port] traffic is not above what it used to be in its quieter minutes: it waits more to send as much."""
    usual = quantile(window.minutes("port.tx").mean, 0.25)
    return np.asarray(_sent(window, rules) <= 1.1 * usual, dtype=np.bool_)


def _fills_itself(window: Window, rules: Thresholds) -> Bools:
    """[port] it sends so much that it waits for its own bytes; that is saturation."""
    share = _sent(window, rules) / port_ceilings(window.snapshot, window.current("port.rate"))
    return np.asarray(share >= rules.own, dtype=np.bool_)


def _sent(window: Window, rules: Thresholds) -> Floats:
    return mean(window.recent("port.tx", rules.window_s, rules.polls).values)


def _normal(window: Window, level: Floats) -> Floats:
    """[port] what its siblings on the node have; of a port alone, that of its name on nodes like its own."""
    beside = peer_median(level, port_groups(window.layout))
    return np.where(np.isnan(beside), peer_median(level, port_roles(window.layout)), beside)


def _stands_out(level: Floats, normal: Floats, limit: float, rules: Thresholds) -> Bools:
    """A whole fabric that waits or errs is not told by siblings: then the limit alone, ten times as high."""
    alone: Bools = (level >= limit) & (level >= rules.above_peers * normal)
    return alone | (level >= rules.for_all * limit)


def _slow(window: Window) -> dict[int, Sign]:
    """Ports that are up and run slower than they should by their siblings."""
    rate, state = window.current("port.rate"), window.current("port.state")
    expected = expected_rates(window.snapshot)
    slow = (rate < ALIKE * expected) & (np.isnan(state) | (state >= ACTIVE))
    return {
        port: Sign("rate", "port.rate", float(rate[port]), float(expected[port]), "B/s")
        for port in np.flatnonzero(slow).tolist()
    }


def _down(window: Window) -> dict[int, Sign]:
    """Ports that were up within the hour and are not now; ports that nobody plugged in are down by design."""
    state = window.current("port.state")
    down = np.flatnonzero(state < ACTIVE)
    if not len(down):
        return {}
    was_up = np.fmax.reduce(window.minutes("port.state").high, axis=0, initial=np.nan)
    lately = np.fmax.reduce(window.recent("port.state", 900.0).values, axis=0, initial=np.nan)
    return {
        port: Sign("down", "port.state", float(state[port]), float(ACTIVE), "1")
        for port in down.tolist()
        if np.fmax(was_up[port], lately[port]) >= ACTIVE
    }


def _grew(window: Window, key: str) -> tuple[Floats, Times]:
    """[entity] by how much a counter went up in the last quarter of an hour, and when first; a reset is no rise."""
    recent = window.recent(key, 900.0)
    values = recent.values
    moved = np.flatnonzero(np.fmax.reduce(values, axis=0) > np.fmin.reduce(values, axis=0))
    grown = np.zeros(values.shape[1], dtype=np.float32)
    at = np.full(values.shape[1], window.at)
    if len(moved):
        some = values[:, moved]
        steps = np.diff(carried(some), axis=0, prepend=np.float32(np.nan))
        rises = np.where(steps > 0, steps, np.float32(0))
        grown[moved], at[moved] = rises.sum(axis=0), recent.times[np.argmax(rises > 0, axis=0)]
    return grown, at


def _port(window: Window, rules: Thresholds, port: int, sign: Sign) -> Candidate:
    part = window.layout.ports[port]
    loss, job, is_known = _lost(window, port, sign)
    evidence = [Evidence(sign.metric, part.key, sign.now, sign.unit, _beside(sign))]
    if window.has("port.tx"):
        carried = float(mean(window.recent("port.tx", rules.window_s).values)[port])
        evidence.append(Evidence("port.tx", part.key, carried, "B/s", "what it carries"))
    if job:
        evidence.append(Evidence("gpu.power", job, loss, "ratio", "of its job's pace lost"))
    since, is_bound = (sign.since, False) if sign.since is not None else _since(window, sign, port)
    return Candidate(
        NAME, sign.variant, Scope(ports=(part.key,)), _severity(sign, loss, rules, is_known=is_known), since, loss, 0.85 if is_known else 0.7,
        tuple(evidence), since_bound=is_bound, is_immediate=sign.variant in ("rate", "flap"),
        words=_words(part.key, sign, loss, part.name),
    )  # fmt: skip


def _beside(sign: Sign) -> str:
    return f"{sign.beside.removeprefix('its ')} {show(sign.normal, sign.unit) if sign.unit == 'B/s' else f'{sign.normal:.3g}'}"


def _severity(sign: Sign, loss: float, rules: Thresholds, *, is_known: bool) -> Severity:
    """By what it costs; a link that is slow, down or sends much again costs something as soon as somebody needs it."""
    if loss >= CRITICAL and is_known:
        return Severity.CRITICAL
    is_plain = sign.variant in ("rate", "down") or (
        sign.variant == "flap" and sign.metric == "port.link_downed"
    )
    is_plain |= sign.variant == "errors" and sign.now >= rules.for_all * rules.errors
    return Severity.WARNING if loss >= NOTICEABLE or is_plain else Severity.INFO


def _words(what: str, sign: Sign, loss: float, device: str = "") -> dict[str, str]:
    return {
        "what": what, "now": _shown(sign.now, sign.unit), "normal": _shown(sign.normal, sign.unit), "device": device.partition("/")[0],
        "how": f"is told to slow down {sign.now:.0f} times a second" if sign.metric == "port.cnp_handled"
        else f"counts {show(sign.now, '1')} ticks a second in which it cannot send",
        "beside": f"{sign.beside} {show(sign.normal, '1')}" if sign.unit == "/s" else "",
        "pace": f"; its job has lost {loss:.0%} of its pace" if loss >= NOTICEABLE else "",
    }  # fmt: skip


def _shown(value: float, unit: str) -> str:
    if unit == "B/s":
        return f"{8 * value / 1e9:.0f} Gb/s"
    return f"{value:.3g}"


def _lost(window: Window, port: int, sign: Sign) -> tuple[float, str, bool]:
    """What the team that uses a port lost of its pace; its job's id; whether that is measured.

    By its past; without one, what a slower rail costs at most: all rails carry the same bytes, so that of the time that
    it is full, the share that its rate lacks would not have been needed.
    """
    gpu = _user(window, port)
    if gpu < 0:
        return 0.0, "", False
    number = int(window.gpu_job[gpu])
    job = window.jobs[number].id if number >= 0 else ""
    lost = lost_by(window, gpu)
    if not np.isnan(lost):
        return (lost if lost >= NOTICEABLE else 0.0), job, True
    if sign.variant != "rate" or not window.has("port.tx"):
        return 0.0, job, False
    carried = max(
        float(np.nan_to_num(mean(window.recent(f"port.{way}").values)[port])) for way in ("tx", "rx")
    )
    busy = min(float(carried / (sign.now * port_efficiency())), 1.0) if sign.now > 0 else 0.0
    lost = float(np.nan_to_num(busy * (1 - sign.now / sign.normal)))
    return (lost if lost >= NOTICEABLE else 0.0), job, False


def _user(window: Window, port: int) -> int:
    """The board that a port serves, by its place in the node; else any board of the only team there; -1: nobody knows."""
    node = window.layout.nodes[window.layout.ports[port].node]
    boards = [gpu for gpu in node.gpus if window.layout.gpus[gpu].parent < 0]
    team, slot = teams(window), port - node.ports.start
    if slot < len(boards) and team.of[boards[slot]] >= 0:
        return boards[slot]
    at_work = [gpu for gpu in boards if team.of[gpu] >= 0]
    return at_work[0] if len({int(team.of[gpu]) for gpu in at_work}) == 1 else -1


def _since(window: Window, sign: Sign, entity: int) -> tuple[float, bool]:
    """When it left what its siblings have, by samples of the last quarter of an hour; and whether it may have been earlier."""
    if not window.has(sign.metric):
        return window.at, False
    recent = window.recent(sign.metric, 900.0)
    line = recent.values[:, entity]
    known = ~np.isnan(line)
    if sign.unit == "/s":  # counted, and rare events leave samples without any: where the mean changed
        steady = Line(recent.times[known], line[known].astype(np.float64))
        return shifted(steady, 0.3 * float(np.nan_to_num(mean(line[-_newest(recent.step) :, None])[0])))
    middle = (sign.now + sign.normal) / 2
    good = known & ((line > middle) if sign.now < sign.normal else (line < middle))
    last = np.flatnonzero(good)
    if not len(last):
        return float(recent.times[0]), True
    return float(recent.times[min(last[-1] + 1, len(line) - 1)]), False


def _newest(step: float) -> int:
    """Samples of the last minute, four at least."""
    return max(round(60.0 / step), 4)


# --- PCIe and NVLink -------------------------------------------------------------------------------


def _boards(window: Window, rules: Thresholds) -> tuple[Candidate, ...]:
    """One candidate a board and kind of link, of the sign that says most."""
    if not window.layout.gpus:
        return ()
    pcie = _often(window, {"gpu.pcie_replay": rules.pcie_replays}, max(rules.window_s, 300.0), rules)
    pcie |= _narrow(window, rules)
    nvlink = _often(
        window,
        {
            "gpu.nvlink_errors": rules.nvlink_crc,
            "gpu.nvlink_crc": rules.nvlink_crc,
            "gpu.nvlink_replay": rules.replays,
            "gpu.nvlink_recovery": rules.replays,
        },
        rules.window_s,
        rules,
    )
    nvlink |= _inactive(window)
    return tuple(_board(window, gpu, sign) for found in (pcie, nvlink) for gpu, sign in sorted(found.items()))


def _often(window: Window, limits: dict[str, float], seconds: float, rules: Thresholds) -> dict[int, Sign]:
    """Boards whose counters of errors rise faster than their limits."""
    found: dict[int, Sign] = {}
    for key, limit in limits.items():
        if window.has(key):
            variant = "pcie" if key == "gpu.pcie_replay" else "nvlink"
            rate = mean(window.recent(key, seconds, rules.polls).values)
            found |= {
                gpu: Sign(variant, key, float(rate[gpu]), 0.0, "/s")
                for gpu in np.flatnonzero(window.groups.is_board & (rate >= limit)).tolist()
            }
    return found


def _narrow(window: Window, rules: Thresholds) -> dict[int, Sign]:
    """Boards at work whose PCIe link never reaches what it can, or what their siblings reach."""
    found: dict[int, Sign] = {}
    for key in ("gpu.pcie_gen", "gpu.pcie_width"):
        if not window.has(key):
            continue
        told = window.recent(key, rules.window_s)
        # The generation goes up under load; what never does is degraded. Lanes do not rest.
        counts = present(told.values) & window.groups.is_board
        if key == "gpu.pcie_gen":
            counts &= _at_work(window, rules, told)
        # Of rare polls the newest that count: the ranks that wait for such a board are told of soon after.
        newest = max(rules.at_work, math.ceil(rules.window_s / told.step))
        counts &= np.cumsum(counts[::-1], axis=0)[::-1] <= newest
        enough = counts.sum(axis=0) >= rules.at_work
        highest = np.fmax.reduce(np.where(counts, told.values, np.nan), axis=0, initial=np.nan)
        highest = np.where(enough, highest, np.nan).astype(np.float32)
        beside = peer_median(highest, window.groups.gpu_node)
        most = window.current(f"{key}_max")
        wanted = np.where(np.isnan(most), beside, most)
        # Where all boards of the node are alike it is how the node is built.
        for gpu in np.flatnonzero((highest < wanted) & ~(beside <= highest)).tolist():
            found[gpu] = Sign("pcie", key, float(highest[gpu]), float(wanted[gpu]), "1")
    return found


def _at_work(window: Window, rules: Thresholds, on: Recent) -> Bools:
    """[time, gpu] whether a board works: by a glimpse, or on average since the sample before."""
    works = np.zeros(on.values.shape, dtype=np.bool_)
    for key in ("gpu.util", "gpu.gr_active"):
        if window.has(key):
            works |= aligned(window.recent(key, rules.window_s), on.times, on.step) >= rules.busy
    return works


def _inactive(window: Window) -> dict[int, Sign]:
    """Boards with fewer NVLinks up than their siblings, or than within the last hour."""
    key = "gpu.nvlink_links"
    if not window.has(key):
        return {}
    links = window.current(key)
    beside = peer_median(links, window.groups.gpu_node)
    was = np.fmax.reduce(window.minutes(key).high, axis=0, initial=np.nan)
    usual = np.fmax(np.where(np.isnan(beside), peer_median(links, window.groups.gpu_model), beside), was)
    return {
        gpu: Sign("nvlink", key, float(links[gpu]), float(usual[gpu]), "1")
        for gpu in np.flatnonzero(window.groups.is_board & (links < usual)).tolist()
    }


_OF_BOARDS = {
    "gpu.pcie_gen": ("gen {:.0f}", "gen {:.0f}"),
    "gpu.pcie_width": ("{:.0f} lanes", "{:.0f} lanes"),
    "gpu.pcie_replay": ("{:.2g} replays/s", "none"),
    "gpu.nvlink_links": ("{:.0f} links up", "{:.0f}"),
}
"""How values and their normal ones are said."""


def _board(window: Window, gpu: int, sign: Sign) -> Candidate:
    key, number = window.layout.gpus[gpu].key, int(window.gpu_job[gpu])
    lost = lost_by(window, gpu)
    loss = 0.0 if np.isnan(lost) or lost < NOTICEABLE else lost
    evidence = [
        Evidence(sign.metric, key, sign.now, sign.unit, _beside(sign)),
        Evidence("gpu.util", key, float(window.current("gpu.util")[gpu]), "ratio", "at work"),
    ]
    if number >= 0:
        evidence.append(
            Evidence("gpu.power", window.jobs[number].id, loss, "ratio", "of its job's pace lost")
        )
    since, is_bound = _since(window, sign, gpu)
    now, normal = _OF_BOARDS.get(sign.metric, ("{:.3g} errors/s", "none"))
    words = {**_words(key, sign, loss), "now": now.format(sign.now), "normal": normal.format(sign.normal)}
    is_immediate = sign.metric != "gpu.nvlink_links"  # the XID that says why may come a poll later
    return Candidate(
        NAME, sign.variant, Scope(gpus=(key,)), Severity.CRITICAL if loss >= CRITICAL else Severity.WARNING, since, loss, 0.85,
        tuple(evidence), since_bound=is_bound, is_immediate=is_immediate, words=words,
    )  # fmt: skip
