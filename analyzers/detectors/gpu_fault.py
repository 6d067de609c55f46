"""GPU faults: XIDs by class, memory errors, boards that are lost, missing, or dead behind a frozen feed.

One event is enough (Candidate.is_immediate). An XID comes as an event, or as the sticky gauge of an exporter, which tells
something only when it *changes*: a value that stood there when the window began is of long ago. XIDs that follow from
something else (43 and 45 after a job was cancelled, 63 alone) say nothing. A board whose series end while the others of its
node go on is lost; power, temperature and clock that repeat to the last digit while it is "busy" are a corpse's: power
jitters in every living board. A board that was off the bus and answers again is not lost any more: what it reported before
is of another life. An XID that asks for a reset stands as long as it is looked back at, whether the board answers or not, and
within the hour for as long as the board itself goes on saying so (standing.py): nobody has reset it.

Loss: all of the job where the board is gone or must be reset: the others wait for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.features import activity, intensity
from coldaisle.analyzers.finding import Candidate, Evidence, Scope, Severity, Verdict
from coldaisle.analyzers.snapshot import Status
from coldaisle.analyzers.standing import standing
from coldaisle.analyzers.teams import teams
from coldaisle.analyzers.window import Bools, Window, carried, mean, present, share
from coldaisle.sources.cluster import Rows
from coldaisle.sources.source import Floats, Kind, Missing

LOOKBACK_S = 900.0
NAME = "gpu_fault"
_XID = re.compile(r"xid\s*(?:\(PCI:[^)]*\))?[\s:]*(\d{1,4})\b", re.IGNORECASE | re.ASCII)
"""As drivers and exporters write it: ``Xid (PCI:0000:1b:00.0): 79, ...``, ``Xid 79: ...``, ``XID 79``."""
OFF_THE_BUS = 79
MOST_POLLS = 12
"""Of silence, however many samples get lost."""
BACK_VALUES = 3
"""Different readings after a silence: a dead board behind an exporter that was restarted repeats one."""
MANY_GPUS = 0.9
"""Of a cluster's GPUs that fall silent at once: the monitoring failed, not the boards."""


class Classes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """XIDs by what they mean."""

    drain: list[int]
    lost: list[int]
    memory: list[int]
    link: list[int]
    application: list[int]
    ignored: list[int]


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    lookback_s: float
    frozen_polls: int
    frozen_s: float
    frozen_beside_waiting_s: float
    gone_polls: float
    gone_s: float
    gone_chance: float
    pauses: float
    repeats: int
    classes: Classes


class Xid(NamedTuple):
    """One report of one board."""

    at: float
    code: int
    detail: str


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a GPU (or a node, for boards that are missing)."""
    found: dict[int, Candidate] = {}
    for make in (_by_memory, _by_xid, _standing, _frozen, _gone):
        for gpu, candidate in make(window, rules).items():
            found[gpu] = _worse(found.get(gpu), candidate)
    return Verdict((*found.values(), *_missing(window)))


def _worse(known: Candidate | None, new: Candidate) -> Candidate:
    """The worse of two about one board, with the evidence of both."""
    if known is None:
        return new
    first, second = (new, known) if (new.severity, new.loss) >= (known.severity, known.loss) else (known, new)
    words = first.words
    if first.variant == second.variant and not words["xids"]:
        words = {**words, "xids": second.words["xids"]}
    return replace(
        first, evidence=(*first.evidence, *second.evidence), since=min(first.since, second.since), words=words
    )


# --- XIDs ------------------------------------------------------------------------------------------


def xids(window: Window, seconds: float) -> dict[int, list[Xid]]:
    """By GPU: what was reported lately, oldest first, from events and from changes of the sticky gauge."""
    return window.cached(("xids", seconds), lambda: _xids(window, seconds))


def _xids(window: Window, seconds: float) -> dict[int, list[Xid]]:
    found: dict[int, list[Xid]] = defaultdict(list)
    for event in window.events(seconds):
        gpu = window.layout.gpu_of.get(event.entity)
        if event.kind == "xid" and gpu is not None and (match := _XID.search(event.detail)):
            found[gpu].append(Xid(event.at, int(match[1]), event.detail))
    if window.has("gpu.xid_last"):
        for gpu, xid in _gauge_changes(window, seconds):
            if not any(known.code == xid.code for known in found.get(gpu, ())):
                found[gpu].append(xid)
    return {gpu: sorted(some) for gpu, some in found.items()}


def _gauge_changes(window: Window, seconds: float) -> list[tuple[int, Xid]]:
    recent = window.recent("gpu.xid_last", seconds)
    moved = _moved(recent.values)
    last = carried(recent.values[:, moved])
    changed = (last[1:] != last[:-1]) & present(last[:-1]) & (last[1:] > 0)
    made = []
    for row, column in np.argwhere(changed).tolist():
        code = int(last[row + 1, column])
        made.append((int(moved[column]), Xid(float(recent.times[row + 1]), code, f"XID {code}")))
    return made


def _moved(values: Floats) -> Rows:
    """The few whose samples are not all the same, cheaply."""
    return np.flatnonzero(np.fmax.reduce(values, axis=0) > np.fmin.reduce(values, axis=0))


def _by_xid(window: Window, rules: Thresholds) -> dict[int, Candidate]:
    made = {}
    for gpu, reports in xids(window, rules.lookback_s).items():
        lost = [x.at for x in reports if x.code in rules.classes.lost]
        if lost and _is_back(window, rules, gpu, lost[-1]):
            reports = [x for x in reports if x.code not in rules.classes.lost]
        candidate = _of_reports(window, rules, gpu, reports)
        if candidate is not None:
            made[gpu] = candidate
    return made


def _is_back(window: Window, rules: Thresholds, gpu: int, since: float) -> bool:
    """Whether a board that was lost answers again: its source says so, or it was silent since, and then told what moves."""
    key = window.layout.gpus[gpu].key
    if any(
        event.kind == "gpu_back" and event.entity == key and event.at > since
        for event in window.events(window.at - since)
    ):
        return True
    recent = window.recent("gpu.power", rules.lookback_s)
    told = recent.values[recent.times > since, gpu]
    heard = np.flatnonzero(present(told))
    silences = np.diff(heard, prepend=-1) - 1
    ended = np.flatnonzero(silences >= rules.gone_polls)
    return bool(len(ended)) and len(np.unique(told[heard[ended[-1] :]])) >= BACK_VALUES


def _of_reports(window: Window, rules: Thresholds, gpu: int, reports: list[Xid]) -> Candidate | None:
    classes = rules.classes
    serious = [x for x in reports if x.code in classes.drain]
    of_program = [x for x in reports if x.code in classes.application]
    known = [x for x in reports if x.code not in classes.ignored]
    if not known:
        return None
    unknown = [x for x in known if x not in serious and x not in of_program]
    told = serious or of_program or unknown
    first = told[0]
    codes = list(dict.fromkeys(x.code for x in told))
    if serious:
        variant = (
            "lost" if set(codes) & set(classes.lost)
            else "memory" if set(codes) & set(classes.memory)
            else "link" if set(codes) & set(classes.link)
            else "fault"
        )  # fmt: skip
        severity, loss = Severity.CRITICAL, 1.0
    elif len(of_program) >= rules.repeats and _repeats(of_program):
        variant, severity, loss = "fault", Severity.WARNING, 0.3
    elif set(codes) & set(classes.memory):
        variant, severity, loss = "memory", Severity.WARNING, 0.3
    elif told[-1].at < window.held_since[gpu]:
        return None  # of a program that is gone
    else:
        variant, severity, loss = "application", Severity.WARNING, 0.0
    return _made(window, gpu, variant, severity, loss, first.at, codes, first.detail.partition(": ")[2] or "see the kernel log",
                 tuple(Evidence("event.xid", window.layout.gpus[gpu].key, float(x.code), "1", "reported") for x in told[-3:]))  # fmt: skip


def _repeats(reports: list[Xid]) -> bool:
    """Whether they are apart in time: a storm within a minute is one report."""
    return reports[-1].at - reports[0].at > 60.0


def _standing(window: Window, rules: Thresholds) -> dict[int, Candidate]:
    """What asked for a reset longer ago than events are looked back at, and was not followed by one."""
    made: dict[int, Candidate] = {}
    for one in standing(window, "gpu.ecc_dbe"):
        before = "another number before" if np.isnan(one.before) else f"{one.before:.0f} before"
        evidence = (Evidence("gpu.ecc_dbe", window.layout.gpus[one.gpu].key, one.value, "1", before),)
        count = "" if np.isnan(one.before) else f"{one.value - one.before:.0f} "
        how = f"{count}uncorrectable errors {_ago(window, one.since)}, and no reset since"
        made[one.gpu] = _made(window, one.gpu, "memory", Severity.CRITICAL, 1.0, one.since, [], how, evidence)
    for one in standing(window, "gpu.xid_last"):
        code = int(one.value)
        is_back = code in rules.classes.lost and _is_back(window, rules, one.gpu, one.since)
        if code in rules.classes.drain and not is_back:
            report = Xid(one.since, code, f"XID {code}: {_ago(window, one.since)}, and no reset since")
            if (candidate := _of_reports(window, rules, one.gpu, [report])) is not None:
                made[one.gpu] = candidate
    waits = _team_waits(window) if made else np.zeros(0, dtype=np.float32)
    # Whose job goes on costs nothing now.
    return {
        gpu: replace(one, severity=Severity.WARNING, loss=0.0) if waits[gpu] < 0.5 else one
        for gpu, one in made.items()
        if one.since < window.at - rules.lookback_s
    }


def _ago(window: Window, at: float) -> str:
    return f"{(window.at - at) / 60:.0f} min ago"


# --- memory, remaps, what boards say of themselves --------------------------------------------------


def _grown(window: Window, key: str, seconds: float) -> dict[int, Candidate]:
    """Boards on which errors were counted; a counter that falls back was reset."""
    recent = window.recent(key, seconds)
    moved = _moved(recent.values)
    steps = np.nan_to_num(np.diff(carried(recent.values[:, moved]), axis=0))
    made = {}
    for column in np.flatnonzero((steps > 0).any(axis=0)).tolist():
        gpu, counted = int(moved[column]), np.maximum(steps[:, column], 0.0)
        count, at = float(counted.sum()), float(recent.times[int(np.argmax(counted > 0)) + 1])
        evidence = (Evidence(key, window.layout.gpus[gpu].key, count, "1", "> 0 new"),)
        how = f"{count:.0f} uncorrectable errors"
        made[gpu] = _made(window, gpu, "memory", Severity.CRITICAL, 1.0, at, [], how, evidence)
    return made


def _by_memory(window: Window, rules: Thresholds) -> dict[int, Candidate]:
    made: dict[int, Candidate] = {}
    for key in ("gpu.ecc_dbe", "gpu.remapped_uncorrectable"):
        if window.has(key):
            made |= _grown(window, key, rules.lookback_s)
    for key, variant, severity, how in (
        ("gpu.remap_failure", "memory", Severity.CRITICAL, "a row could not be remapped: replace the board"),
        ("gpu.remap_pending", "remap", Severity.INFO, "a row remap waits for a reset"),
        ("gpu.fabric_health", "link", Severity.CRITICAL, "the NVSwitch fabric calls it unhealthy"),
        ("gpu.recovery_action", "fault", Severity.WARNING, "the driver asks for a reset"),
    ):
        if window.has(key):
            now = window.current(key)
            bad = now == 2 if key == "gpu.fabric_health" else now >= 1
            for gpu in np.flatnonzero(bad).tolist():
                evidence = (Evidence(key, window.layout.gpus[gpu].key, float(now[gpu]), "state", "asserted"),)
                new = _made(window, gpu, variant, severity, 0.0, window.at, [], how, evidence)
                made[gpu] = _worse(made.get(gpu), new)
    return made


# --- gone, frozen, missing --------------------------------------------------------------------------


def _gone(window: Window, rules: Thresholds) -> dict[int, Candidate]:
    """Boards that fell silent while others of their node go on, or that their source calls lost."""
    seen = window.snapshot.gpu_seen
    age = window.at - seen
    boards = window.groups.is_board
    many, few = _polls_to_miss(window, rules, boards & (age <= MOST_POLLS * window.poll))
    limit = max((few - 0.5) * window.poll, rules.gone_s)
    silent: Bools = boards & (age > limit) & ~np.isnan(seen)
    fresh = boards & (age <= limit)
    nodes = len(window.layout.nodes)
    fresh_on = np.bincount(window.groups.gpu_node[fresh], minlength=nodes) > 0
    said = np.zeros(len(seen), dtype=np.bool_)
    for column in (window.latest("gpu.power"), window.latest("gpu.util"), window.latest("gpu.temp")):
        if column is not None:
            said |= column.reason == Missing.LOST
    said &= window.snapshot.gpu_status == Status.LOST
    if silent.sum() > MANY_GPUS * max(int(boards.sum()), 1):
        silent[:] = False
    # A job in lock-step cannot go on without one of its boards: where it does, only the samples are gone.
    waits = _team_waits(window)
    gone = (silent & fresh_on[window.groups.gpu_node] & ~(waits < 0.5)) | (said & boards)
    made = {}
    for gpu in np.flatnonzero(gone).tolist():
        # Others who waited before it fell silent wait for somebody else: that proves nothing of it.
        is_sign = waits[gpu] >= 0.5 and not _waited_before(window, gpu, float(seen[gpu]))
        least = few if is_sign else many
        if not said[gpu] and _missed(window, gpu, float(seen[gpu])) < least:
            continue
        how = (
            "its source calls it lost" if said[gpu] else "its series ended while the node's other GPUs go on"
        )
        at = float(seen[gpu]) if not np.isnan(seen[gpu]) else window.at
        evidence = (
            Evidence(
                "gpu.power",
                window.layout.gpus[gpu].key,
                float(age[gpu]),
                "s",
                f"no sample for > {limit:.0f} s",
            ),
        )
        lost = _made(window, gpu, "lost", Severity.CRITICAL, 1.0, at, [], how, evidence)
        job = _job_that_misses(window, gpu, at)
        made[gpu] = lost if job is None else replace(lost, roots=replace(lost.roots, jobs=(job,)))
    return made


def _job_that_misses(window: Window, gpu: int, since: float) -> str | None:
    """The job of a board that nobody names a job of: a label goes with the series that it stood beside. The boards of its node that
    told more are all of one job, which ran before and stands still since. None: the board's job is known, or not to be told."""
    if window.gpu_job[gpu] >= 0:
        return None
    groups = window.groups
    others = groups.is_board & (groups.gpu_node == groups.gpu_node[gpu])
    others &= window.snapshot.gpu_seen > since + window.poll
    jobs = np.unique(window.gpu_job[others])
    if len(jobs) != 1 or jobs[0] < 0:
        return None
    job = window.jobs[int(jobs[0])]
    return job.id if job.since <= since and _stands_still(window, others) else None


def _stands_still(window: Window, boards: Bools) -> bool:
    """Whether boards did nothing, or only waited, in the last samples that they told."""
    seen = activity(window, 900.0)
    have = seen.have[:, boards]
    last = np.flatnonzero(have.any(axis=1))[-4:]
    still = (seen.spin | seen.quiet)[:, boards]
    return bool(len(last)) and bool(still[last][have[last]].mean() >= 0.5)


def _missed(window: Window, gpu: int, since: float) -> int:
    """Polls since an instant at which other boards of its node told something: where all were silent, it missed nothing."""
    key = next((key for key in MOVING if window.has(key)), None)
    if key is None:
        return 0
    recent = window.recent(key, 300.0)
    others = [other for other in window.layout.nodes[window.layout.gpus[gpu].node].gpus if other != gpu]
    told = present(recent.values[:, others]).any(axis=1)
    return int((told & (recent.times > since + recent.step / 2)).sum())


def _polls_to_miss(window: Window, rules: Thresholds, heard: Bools) -> tuple[int, int]:
    """Polls in a row that a board must miss: so many that samples lost on the way, by chance, tell of none; and beside a team that
    waits, of which chance alone knows nothing."""
    key = next((key for key in MOVING if window.has(key)), None)
    have = present(window.recent(key, 300.0).values[:, heard]) if key else np.zeros((0, 0), dtype=np.bool_)
    have = have[have.any(axis=1)]
    lost = (have.size - have.sum() + 1) / (have.size + 1)
    if lost >= 1:
        return MOST_POLLS, MOST_POLLS
    many, few = (
        int(np.clip(np.ceil(np.log(chance) / np.log(lost)), rules.gone_polls, MOST_POLLS))
        for chance in (rules.gone_chance, rules.gone_chance / rules.pauses)
    )
    return many, few


def _team_waits(window: Window) -> Floats:
    """[gpu] share of the last samples in which the others of its job stood still: a job in lock-step cannot go on without one of
    its boards. NaN: it has no others."""
    team = teams(window)
    if not len(team):
        return np.full(len(window.layout.gpus), np.nan, dtype=np.float32)
    seen = activity(window, 30.0)
    waits = team.mean(share((seen.spin | seen.quiet)[-4:], seen.have[-4:])[None])[0]
    waits = np.where((team.size >= 2) & (team.job >= 0), waits, np.nan)
    found: Floats = np.where(team.of >= 0, waits[np.maximum(team.of, 0)], np.nan).astype(np.float32)
    return found


def _waited_before(window: Window, gpu: int, silent: float) -> bool:
    """Whether the others of a board's team stood still already in its last three samples, of which the newest was at ``silent``."""
    team, seen = teams(window), activity(window, 120.0)
    others = np.setdiff1d(team.members(int(team.of[gpu])), [gpu])
    last = (seen.times < silent + seen.step / 2) & (seen.times > silent - 2.5 * seen.step)
    have = seen.have[last][:, others]
    stood = (seen.spin | seen.quiet)[last][:, others] & have
    return bool(have.any() and stood.sum() >= STOOD * have.sum())


STOOD = 0.8
"""Of what is told of a team: it stands still (engineering choice)."""
MOVING = ("gpu.power", "gpu.temp", "gpu.sm_clock")
"""What moves in every board that works."""
TREMBLING = ("gpu.util", "gpu.mem_util", "gpu.mem_temp", "gpu.energy")
"""What moves besides, where it is exported: watts and degrees may stand for an hour of steady work, but not all of these (GWDG)."""
WORKS = 0.02
"""Utilisation above that of a board at rest."""
DRAWS = 0.15
"""Of its power range, likewise, where a feed stands still without one."""


def frozen(window: Window, least_s: float, least_polls: int) -> Bools:
    """[gpu] boards whose power, temperature and clock repeat to the last digit while they seem to work."""
    keys = [key for key in MOVING if window.has(key)]
    same = window.groups.is_board.copy()
    if "gpu.power" not in keys or len(keys) < 2:
        return np.zeros_like(same)
    polls = max(least_polls, int(np.ceil(least_s / max(window.step(key) for key in keys))))
    for key in keys:
        still, have = _repeats_itself(window, key, least_s, least_polls, polls)
        same &= still & (have >= max(least_polls, int(0.7 * polls)))
    level = mean(window.recent("gpu.util", least_s, least_polls).values)
    same &= np.where(np.isnan(level), mean(intensity(window, least_s).values) > DRAWS, level > WORKS)
    if same.any():
        for key in TREMBLING:
            if window.has(key):
                same &= _repeats_itself(window, key, least_s, least_polls, polls)[0]
    return same


def _repeats_itself(
    window: Window, key: str, least_s: float, least_polls: int, polls: int
) -> tuple[Bools, np.ndarray]:
    """[gpu] whether its last polls are one value (or none at all), and of how many samples."""
    values = window.recent(key, least_s, least_polls).values[-polls:]
    have = present(values)
    highest = np.max(np.where(have, values, -np.inf), axis=0)
    lowest = np.min(np.where(have, values, np.inf), axis=0)
    still: Bools = highest <= lowest
    return still, have.sum(axis=0)


def stuck_exporters(window: Window, mask: Bools) -> Bools:
    """[node] all boards that work repeat themselves: it is their exporter that repeats itself, unless they fell off the bus."""
    busy = window.groups.is_board & (window.current("gpu.util") > WORKS)
    nodes = len(window.layout.nodes)
    total, same = (np.bincount(window.groups.gpu_node[m], minlength=nodes) for m in (busy, mask))
    fell = np.bincount(window.groups.gpu_node[mask & _fell_off(window)], minlength=nodes)
    stuck: Bools = (total >= 2) & (same == total) & (fell == 0)
    return stuck


def _fell_off(window: Window) -> Bools:
    """[gpu] its last XID is 79, whenever that was: beside readings that stand still it tells the dead from the stuck."""
    fell: Bools = window.current("gpu.xid_last") == OFF_THE_BUS
    return fell


def frozen_since(window: Window, gpu: int) -> float:
    """When a board's power was another for the last time."""
    recent = window.recent("gpu.power", 900.0)
    last = carried(recent.values[:, [gpu]])[:, 0]
    moved = np.flatnonzero(last != last[-1])
    return float(recent.times[moved[-1] + 1]) if len(moved) else float(recent.times[0])


def goes_on(window: Window) -> Bools:
    """[gpu] its job does not wait for it, and it did not fall off the bus: it lives, whatever its feed says."""
    lives: Bools = (_team_waits(window) < 0.5) & ~_fell_off(window)
    return lives


def _frozen(window: Window, rules: Thresholds) -> dict[int, Candidate]:
    """Dead boards behind a feed that goes on. One whose job goes on, or all of whose node repeat themselves, is not dead."""
    mask = frozen(window, rules.frozen_beside_waiting_s, rules.frozen_polls)
    if not mask.any():
        return {}
    doubtful = np.isnan(_team_waits(window)) & ~_fell_off(window)
    if (mask & doubtful).any():
        mask &= ~doubtful | frozen(window, rules.frozen_s, rules.frozen_polls)
    dead = mask & ~stuck_exporters(window, mask)[window.groups.gpu_node] & ~goes_on(window)
    made = {}
    for gpu in np.flatnonzero(dead).tolist():
        at = frozen_since(window, gpu)
        key = window.layout.gpus[gpu].key
        evidence = (
            Evidence(
                "gpu.power",
                key,
                float(window.current("gpu.power")[gpu]),
                "W",
                f"the same for {window.at - at:.0f} s",
            ),
            Evidence("gpu.temp", key, float(window.current("gpu.temp")[gpu]), "C", "the same"),
        )
        how = f"{(window.at - at) / 60:.0f} min"
        made[gpu] = _made(window, gpu, "frozen", Severity.CRITICAL, 1.0, at, [], how, evidence)
    return made


def _missing(window: Window) -> tuple[Candidate, ...]:
    """Nodes with fewer boards than an inventory or the kernel knows."""
    made = []
    heard = window.heard(Kind.NODE)
    for number, node in enumerate(window.layout.nodes):
        boards = sum(window.layout.gpus[gpu].parent < 0 for gpu in node.gpus)
        expected = node.gpus_expected or 0
        if heard[number] and 0 < boards < expected and node.gpus_visible is None:
            made.append(
                Candidate(
                    NAME, "missing", Scope(nodes=(node.key,)), Severity.WARNING, window.at, 0.0, 0.8,
                    (Evidence("node.gpus", node.key, float(boards), "1", f"< {expected} expected"),),
                    since_bound=True, is_immediate=True, words={"how": f"{boards} of {expected}", "xids": ""},
                )
            )  # fmt: skip
    return tuple(made)


def _made(
    window: Window, gpu: int, variant: str, severity: Severity, loss: float, at: float, codes: list[int], how: str,
    evidence: tuple[Evidence, ...],
) -> Candidate:  # fmt: skip
    told = f" (XID {', '.join(map(str, codes))})" if codes else ""
    return Candidate(
        NAME, variant, Scope(gpus=(window.layout.gpus[gpu].key,)), severity, at, loss, 0.95, evidence,
        is_immediate=True, words={"xids": told, "how": how},
    )  # fmt: skip
