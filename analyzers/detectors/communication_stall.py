"""Communication stalls: the GPUs of a team spin in a collective, send nothing, and somebody does not come.

A GPU that waits in NCCL looks busy: utilisation 100 %, hardly any power, no tensor work. Two signals: that most of a team
does so all the time, and that no bytes flow (else it is exchange, not waiting); where links are not measured, that nobody
else of the team computes. The ones that do *not* spin are the culprits: idle in the host, gone, or still computing.

Loss: all of the team's work while it lasts.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.features import Activity, activity, fabric, nvlink
from coldaisle.analyzers.finding import (
    Candidate,
    Evidence,
    Rejected,
    Scope,
    Severity,
    Undecided,
    Verdict,
)
from coldaisle.analyzers.saves import is_told, share_of_saves
from coldaisle.analyzers.teams import Teams, teams
from coldaisle.analyzers.window import Bools, Window, quantile, share
from coldaisle.sources.source import Floats
from coldaisle.sources.units import age as in_words

LOOKBACK_S = 900.0
NAME = "communication_stall"
UNTOLD = (
    "all wait for a rank that runs no kernel; cannot tell a rank that saves alone from one that does not come"
    " without node.disk_write, node.nfs_write or node.psi_io_some"
)
LINKS = ("gpu.nvlink_tx", "gpu.nvlink_bandwidth", "port.tx")


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    polls: int
    spins: float
    most: float
    culprits: float
    hung_s: float
    nvlink: float
    fabric: float
    least: int
    keep: float
    young_s: float
    saves: float
    untold_s: float
    alone_s: float
    held: float


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a team."""
    team = teams(window)
    if not len(team) or not window.has("gpu.power"):
        return Verdict()
    seen = _last(activity(window, rules.window_s), rules)
    spins = share(seen.spin, seen.have)
    enough = seen.have.sum(axis=0) >= 4
    waits = (spins >= rules.spins) & enough
    # Whose samples have ended may be the one that is waited for.
    waiting = team.mean(waits[None].astype(np.float32))[0]
    silent = _is_silent(window, rules, team)
    young = window.at - team.since < rules.young_s
    found = np.flatnonzero(
        (team.size >= rules.least) & (waiting >= rules.most * rules.keep) & silent & ~young
    )
    made = [
        _candidate(window, rules, team, int(number), waits, spins, seen, float(waiting[number]))
        for number in found
    ]
    return Verdict(
        tuple(one for one in made if isinstance(one, Candidate)),
        tuple(one for one in made if isinstance(one, Undecided)),
    )


def _last(seen: Activity, rules: Thresholds) -> Activity:
    """The last of the window, at rare polls a few samples: who waits in all of them has waited for minutes."""
    last = slice(-max(int(np.ceil(rules.window_s / seen.step)), rules.polls), None)
    return seen._replace(
        times=seen.times[last], busy=seen.busy[last], intensity=seen.intensity[last], quiet=seen.quiet[last],
        spin=seen.spin[last], have=seen.have[last],
    )  # fmt: skip


def _is_silent(window: Window, rules: Thresholds, team: Teams) -> Bools:
    """[team] nothing is sent, as far as links are measured."""
    over_links = team.mean(nvlink(window, rules.window_s, rules.polls)[None])[0]
    over_net = team.node_mean(fabric(window, rules.window_s, rules.polls)[None])[0]
    silent: Bools = ~(over_links > rules.nvlink) & ~(over_net > rules.fabric)
    return silent


def _candidate(
    window: Window,
    rules: Thresholds,
    team: Teams,
    number: int,
    waits: Bools,
    spins: Floats,
    seen: Activity,
    waiting: float,
) -> Candidate | Undecided | None:
    members = team.members(number)
    late = members[~waits[members]]
    begun, bound = _since(window, members[waits[members]])
    lasted = window.at - begun
    if len(late) > rules.culprits * len(members):
        return None
    if not len(late) and lasted < rules.hung_s:
        return None
    if len(late) and _saves(window, rules, late):
        return None
    scope = team.scope(window, number)
    if (
        len(late)
        and lasted < _patience(window, rules, team, number, late)
        and _may_save(window, rules, seen, late)
    ):
        return Undecided(NAME, scope, UNTOLD)
    spinning, keys = members[waits[members]], _keys(window, late)
    rejected = [Rejected("interconnect_saturation", "no bytes flow")]
    if keys:
        rejected.append(Rejected("straggler", "the others do not compute at all"))
    return Candidate(
        NAME,
        "culprit" if keys else "hung",
        Scope(gpus=keys, jobs=scope.jobs) if keys else scope,
        Severity.CRITICAL,
        begun,
        1.0,
        0.9 if keys else 0.8,
        _evidence(window, rules, int(spinning[0]), spins),
        since_bound=bound,
        is_open=waiting >= rules.most,
        victims=Scope(gpus=_keys(window, spinning), nodes=scope.nodes) if keys else Scope(),
        rejected=tuple(rejected),
        missing=() if any(window.has(key) for key in LINKS) else ("gpu.nvlink_tx: not exported",),
        words={
            "waiting": str(len(spinning)),
            "culprits": ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else ""),
            "what": _what(window, seen, late),
            "how_long": in_words(lasted),
        },
    )


def _keys(window: Window, gpus: NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(window.layout.gpus[gpu].key for gpu in gpus.tolist())


def _evidence(window: Window, rules: Thresholds, gpu: int, spins: Floats) -> tuple[Evidence, ...]:
    """Of one of those that wait."""
    key, watts = window.layout.gpus[gpu].key, float(window.current("gpu.power")[gpu])
    return (
        Evidence("gpu.util", key, float(spins[gpu]), "ratio", f"spins >= {rules.spins:g} of the time"),
        Evidence("gpu.power", key, watts, "W", "little above idle"),
    )


def _saves(window: Window, rules: Thresholds, late: NDArray[np.intp]) -> bool:
    """Whether those that are waited for write the job's state meanwhile: that is checkpoint_stall's."""
    seconds = max(rules.window_s, rules.polls * window.step("gpu.power"))
    return share_of_saves(window, np.unique(window.groups.gpu_node[late]), seconds) >= rules.saves


def _patience(window: Window, rules: Thresholds, team: Teams, number: int, late: NDArray[np.intp]) -> float:
    """Seconds that those that are waited for may take to save: it is the first rank of a node that writes for others."""
    node = window.groups.gpu_node
    members = np.sort(team.members(number))
    firsts = members[np.unique(node[members], return_index=True)[1]]
    return rules.alone_s if np.isin(late, firsts).all() else rules.untold_s


def _may_save(window: Window, rules: Thresholds, seen: Activity, late: NDArray[np.intp]) -> bool:
    """Whether those that are waited for may be saving alone for all that is known: idle, their memory held, and writes not told."""
    if is_told(window, np.unique(window.groups.gpu_node[late])):
        return False
    busy = share(seen.busy > 0.5, seen.have)[late]
    used = window.minutes("gpu.mem_used").mean[:, late]
    has_left = window.current("gpu.mem_used")[late] < rules.held * quantile(used, 0.75)
    return bool(np.any((busy < 0.5) & ~has_left))


def _what(window: Window, seen: Activity, late: NDArray[np.intp]) -> str:
    """What those that are waited for do."""
    if not len(late):
        return ""
    busy = share(seen.busy > 0.5, seen.have)[late]
    if np.isnan(busy).all():
        return "tells nothing"
    return "does not run a kernel" if float(np.nan_to_num(busy).mean()) < 0.5 else "computes"


def _since(window: Window, members: NDArray[np.intp]) -> tuple[float, bool]:
    """Since when those that wait have waited, without a sample of work; and whether the window begins so."""
    seen = activity(window, 900.0)
    spins = share(seen.spin[:, members].T, seen.have[:, members].T)  # [time]: how many of them
    worked = np.flatnonzero(spins < 0.7)
    if not len(worked):
        return float(seen.times[0]), True
    last = int(worked[-1])
    return float(seen.times[min(last + 1, len(seen.times) - 1)]), False
