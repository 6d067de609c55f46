"""Degraded links: errors, a lower rate or width, links that are down, a port that cannot send.

Everything is held against siblings of the same node and against what the link itself can do, never against a rate alone:
rails that a job does not use by design are idle, not lame, and a PCIe link rests at a lower generation while its board is
idle. Beside the link's own sign the evidence shows the traffic it carries, or the pace of the job that waits for it.

Loss: what the job on it lost of its own best pace, where that is known; else 0, the bandwidth is lost all the same.
"""

from __future__ import annotations

import msgspec
import numpy as np

from coldaisle.analyzers.finding import Candidate, Evidence, Scope, Severity, Verdict
from coldaisle.analyzers.progress import lost_by
from coldaisle.analyzers.window import Bools, Window, mean, present
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
COUNTED = ("port.link_downed", "port.link_recovery", "port.carrier_changes")
ACTIVE = 4
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
    out_of_sequence: float
    busy: float
    polls: int


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a port, or a GPU for its PCIe and NVLink."""
    return Verdict(
        (*_ports(window, rules).values(), *_pcie(window, rules).values(), *_nvlink(window, rules).values())
    )


# --- network ports ---------------------------------------------------------------------------------


def _ports(window: Window, rules: Thresholds) -> dict[int, Candidate]:
    if not window.layout.ports:
        return {}
    made: dict[int, Candidate] = {}
    node = window.groups.port_node
    for variant, values, limit, unit in (
        ("congested", _rate(window, rules, ("port.xmit_wait",)) / rules.ticks, rules.wait, "ratio"),
        (
            "errors",
            _rate(window, rules, ("port.out_of_sequence", "port.ack_timeouts"))
            / rules.out_of_sequence
            * rules.errors,
            rules.errors,
            "/s",
        ),
        ("errors", _rate(window, rules, ERRORS), rules.errors, "/s"),
    ):
        peers = _siblings(values, node)
        # A whole fabric that waits or errs is not told by siblings: then the limit alone, ten times as high.
        bad = (values >= limit) & (
            (values >= rules.above_peers * np.nan_to_num(peers)) | (values >= 10 * limit)
        )
        for port in np.flatnonzero(bad).tolist():
            normal = 0.0 if np.isnan(peers[port]) else float(peers[port])
            made[port] = _port(window, rules, port, variant, float(values[port]), normal, unit)
    rate, state = window.current("port.rate"), window.current("port.state")
    best = _best(rate, node)
    slow = (rate < 0.99 * best) & (np.isnan(state) | (state >= ACTIVE))
    for port in np.flatnonzero(slow).tolist():
        made[port] = _port(window, rules, port, "rate", float(rate[port]), float(best[port]), "B/s")
    for key in COUNTED:
        if window.has(key):
            for port in np.flatnonzero(_grew(window, key)).tolist():
                made.setdefault(port, _port(window, rules, port, "flap", 1.0, 0.0, "1"))
    return made


def _rate(window: Window, rules: Thresholds, keys: tuple[str, ...]) -> Floats:
    """[port] the sum of some rates over the window; 0 where nobody tells."""
    total = np.zeros(len(window.layout.ports), dtype=np.float32)
    for key in keys:
        if window.has(key):
            total += np.nan_to_num(mean(window.recent(key, rules.window_s, rules.polls).values))
    return total


def _siblings(values: Floats, group: np.ndarray) -> Floats:
    """[entity] the median of its group without itself; NaN: it has no siblings."""
    out = np.full(len(values), np.nan, dtype=np.float32)
    order = np.argsort(group, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else ():
        if len(members) >= 2:
            some = values[members]
            if np.ptp(some) == 0:
                out[members] = some[0]
                continue
            for at, member in enumerate(members.tolist()):
                out[member] = np.median(np.delete(some, at))
    return out


def _best(values: Floats, group: np.ndarray) -> Floats:
    """[entity] what most of its group have at least: a node may carry slower ports for other purposes."""
    out = np.full(len(values), np.nan, dtype=np.float32)
    order = np.argsort(group, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else ():
        known = values[members][~np.isnan(values[members])]
        if len(known) >= 3:
            usual = np.median(known)
            # Several slow ports together are of another kind (management, storage); few are degraded.
            if (known < 0.99 * usual).sum() <= max(len(known) // 4, 1):
                out[members] = usual
    return out


def _grew(window: Window, key: str) -> Bools:
    """[entity] whether a counter went up in the last quarter of an hour; a reset is none."""
    values = window.recent(key, 900.0).values
    rows = np.where(present(values), np.arange(len(values))[:, None], 0)
    np.maximum.accumulate(rows, axis=0, out=rows)
    filled = values[rows, np.arange(values.shape[1])[None, :]]
    grew: Bools = (np.diff(filled, axis=0) > 0).any(axis=0)
    return grew


def _port(
    window: Window, rules: Thresholds, port: int, variant: str, now: float, normal: float, unit: str
) -> Candidate:
    part = window.layout.ports[port]
    node = window.layout.nodes[part.node]
    slot = port - node.ports.start
    loss, job = _lost(window, part.node, slot)
    metric = {"rate": "port.rate", "congested": "port.xmit_wait", "flap": "port.link_downed"}.get(
        variant, "port.symbol_errors"
    )
    evidence = [
        Evidence(
            metric,
            part.key,
            now,
            unit,
            f"siblings {show(normal, unit) if unit == 'B/s' else f'{normal:.3g}'}",
        )
    ]
    carried = (
        float(mean(window.recent("port.tx", rules.window_s).values)[port])
        if window.has("port.tx")
        else float("nan")
    )
    evidence.append(Evidence("port.tx", part.key, carried, "B/s", "what it carries"))
    if job:
        evidence.append(Evidence("gpu.power", job, loss, "ratio", "of its job's pace lost"))
    severity = (
        Severity.CRITICAL
        if loss >= 0.3
        else Severity.WARNING
        if loss >= NOTICEABLE or variant == "rate"
        else Severity.WARNING
        if variant == "errors" and now >= 10 * rules.errors
        else Severity.INFO
    )
    return Candidate(
        NAME, variant, Scope(ports=(part.key,)), severity, _since(window, metric, port, now, normal), loss, 0.85, tuple(evidence),
        is_immediate=variant in ("rate", "flap"), words=_words(part.key, variant, now, normal, unit, loss, part.name),
    )  # fmt: skip


def _words(
    what: str, variant: str, now: float, normal: float, unit: str, loss: float, device: str = ""
) -> dict[str, str]:
    return {
        "what": what, "now": _shown(now, unit), "normal": _shown(normal, unit), "device": device.partition("/")[0],
        "pace": f"; its job has lost {loss:.0%} of its pace" if loss >= NOTICEABLE else "",
    }  # fmt: skip


def _shown(value: float, unit: str) -> str:
    if unit == "B/s":
        return f"{8 * value / 1e9:.0f} Gb/s"
    return f"{value:.0%}" if unit == "ratio" else f"{value:.3g}"


def _lost(window: Window, node: int, slot: int) -> tuple[float, str]:
    """What the job that uses a port, by its place in the node, lost of its pace; and its id."""
    gpus = [g for g in window.layout.nodes[node].gpus if window.layout.gpus[g].parent < 0]
    numbers = {int(window.gpu_job[g]) for g in gpus} - {-1}
    own = int(window.gpu_job[gpus[slot]]) if slot < len(gpus) else -1
    number = own if own >= 0 else next(iter(numbers)) if len(numbers) == 1 else -1
    if number < 0:
        return 0.0, ""
    lost = lost_by(window, int(next(iter(window.jobs[number].gpus), gpus[0])))
    return (0.0 if np.isnan(lost) or lost < NOTICEABLE else lost), window.jobs[number].id


def _since(window: Window, metric: str, entity: int, now: float, normal: float) -> float:
    """When it left what its siblings have, by samples."""
    if not window.has(metric) or metric == "port.link_downed":
        return window.at
    recent = window.recent(metric, 900.0)
    line = recent.values[:, entity]
    middle = (
        (now + normal) / 2
        if metric not in ("port.symbol_errors", "port.xmit_wait")
        else max(now, 1e-9) * 1e-3
    )
    good = ~np.isnan(line) & ((line > middle) if now < normal else (line < middle))
    last = np.flatnonzero(good)
    return (
        float(recent.times[last[-1] + 1])
        if len(last) and last[-1] < len(line) - 1
        else float(recent.times[0])
        if not len(last)
        else window.at
    )


# --- PCIe and NVLink -------------------------------------------------------------------------------


def _pcie(window: Window, rules: Thresholds) -> dict[int, Candidate]:
    made: dict[int, Candidate] = {}
    busy = mean(window.recent("gpu.util", rules.window_s, rules.polls).values) >= rules.busy
    board = window.groups.is_board
    for key, most, unit in (
        ("gpu.pcie_width", "gpu.pcie_width_max", " lanes"),
        ("gpu.pcie_gen", "gpu.pcie_gen_max", ""),
    ):
        if not (window.has(key) and window.has(most)):
            continue
        recent = window.recent(key, rules.window_s, rules.polls)
        highest = np.fmax.reduce(recent.values, axis=0)  # under load it goes up; what never does is degraded
        wanted = window.current(most)
        bad = (
            board
            & busy
            & (highest < wanted)
            & (present(recent.values).sum(axis=0) >= min(rules.polls, len(recent.values)))
        )
        # Where all boards of the node are alike it is how the node is built.
        node = window.groups.gpu_node
        bad &= ~(_siblings(highest, node) == highest)
        for gpu in np.flatnonzero(bad).tolist():
            words = (
                f"{'gen ' if not unit else ''}{highest[gpu]:.0f}{unit}",
                f"{'gen ' if not unit else ''}{wanted[gpu]:.0f}{unit}",
            )
            made[gpu] = _gpu(window, gpu, "pcie", key, float(highest[gpu]), float(wanted[gpu]), words)
    if window.has("gpu.pcie_replay"):
        rate = mean(window.recent("gpu.pcie_replay", 300.0).values)
        for gpu in np.flatnonzero(board & (rate >= rules.pcie_replays)).tolist():
            made.setdefault(
                gpu,
                _gpu(
                    window,
                    gpu,
                    "pcie",
                    "gpu.pcie_replay",
                    float(rate[gpu]),
                    0.0,
                    (f"{rate[gpu]:.2g} replays/s", "none"),
                ),
            )
    return made


def _nvlink(window: Window, rules: Thresholds) -> dict[int, Candidate]:
    made: dict[int, Candidate] = {}
    board = window.groups.is_board
    node = window.groups.gpu_node
    if window.has("gpu.nvlink_links"):
        links = window.current("gpu.nvlink_links")
        usual = _siblings(links, node)
        for gpu in np.flatnonzero(board & (links < usual)).tolist():
            made[gpu] = _gpu(
                window,
                gpu,
                "nvlink",
                "gpu.nvlink_links",
                float(links[gpu]),
                float(usual[gpu]),
                (f"{links[gpu]:.0f} links up", f"{usual[gpu]:.0f}"),
            )
    for key, limit in (
        ("gpu.nvlink_crc", rules.nvlink_crc),
        ("gpu.nvlink_replay", rules.replays),
        ("gpu.nvlink_recovery", rules.replays),
        ("gpu.nvlink_errors", rules.nvlink_crc),
    ):
        if window.has(key):
            rate = mean(window.recent(key, rules.window_s, rules.polls).values)
            for gpu in np.flatnonzero(board & (rate >= limit)).tolist():
                made.setdefault(
                    gpu,
                    _gpu(
                        window,
                        gpu,
                        "nvlink",
                        key,
                        float(rate[gpu]),
                        0.0,
                        (f"{rate[gpu]:.3g} errors/s", "none"),
                    ),
                )
    return made


def _gpu(
    window: Window, gpu: int, variant: str, metric: str, now: float, normal: float, words: tuple[str, str]
) -> Candidate:
    key = window.layout.gpus[gpu].key
    number = int(window.gpu_job[gpu])
    lost = lost_by(window, gpu)
    loss = 0.0 if np.isnan(lost) or lost < NOTICEABLE else lost
    evidence = [Evidence(metric, key, now, "1", f"siblings {normal:g}")]
    util = window.current("gpu.util")
    evidence.append(Evidence("gpu.util", key, float(util[gpu]), "ratio", "under load"))
    if number >= 0:
        evidence.append(
            Evidence("gpu.power", window.jobs[number].id, loss, "ratio", "of its job's pace lost")
        )
    return Candidate(
        NAME, variant, Scope(gpus=(key,)), Severity.CRITICAL if loss >= 0.3 else Severity.WARNING,
        _since(window, metric, gpu, now, normal), loss, 0.85, tuple(evidence), is_immediate=True,
        words={"what": key, "now": words[0], "normal": words[1], "pace": f"; its job has lost {loss:.0%} of its pace" if loss else ""},
    )  # fmt: skip
