"""An audit as one JSON object, ``coldaisle.audit/1``: canonical units, named in the keys or beside the figure; null: not known."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from coldaisle.analyzers.advice.advice import Advice, Counsel, Ground, Refused, Saving
from coldaisle.analyzers.advice.utilisation import Measured, Use, Utilisations
from coldaisle.analyzers.audit.audit import Audit, Method
from coldaisle.analyzers.audit.drift import Drift
from coldaisle.analyzers.audit.facts import Facts, Hours, Load, Recurring, Spread
from coldaisle.analyzers.finding import Scope
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.sources.errors import ConfigError

SCHEMA = "coldaisle.audit/1"
MOST_BYTES = 200_000_000


def as_object(audit: Audit, drifts: Sequence[Drift] | None = None) -> dict[str, Any]:
    """The whole of it; ``drifts``: None where no baseline was given."""
    usage, facts, counsel = audit.usage, audit.facts, audit.counsel
    made: dict[str, Any] = {
        "schema": SCHEMA,
        "made_at": instant(audit.made_at),
        "cluster": audit.cluster,
        "span": _span(audit),
        "pseudonyms": audit.is_pseudonymous,
        "gpus": len(usage.boards),
        "nodes": len(usage.hosts),
        "models": dict(Counter(board.part or "not known" for board in usage.boards)),
        "jobs": facts.jobs if usage.jobs_known else None,
        "gpu_hours": _gpu_hours(audit),
        "utilisations": _utilisations(counsel.utilisations),
        "jobs_by": _jobs_by(facts),
        "offered_load": None if facts.load is None else _load(facts.load),
        "distributions": [_spread(one) for one in facts.spreads],
        "hour_of_week": [{"metric": one.key, "values": numbers(one.values)} for one in facts.weeks],
        "waste": [one._asdict() for one in facts.waste],
        "advice": [_advice(one) for one in counsel.given],
        "refused": [_refused(one) for one in counsel.refused],
        "findings": [_recurring(one) for one in facts.recurring],
        "not_looked_at": list(facts.not_looked_at),
        "coverage": _coverage(facts),
        "method": _method(audit.method),
    }
    if drifts is not None:
        made["drift"] = [_drift(one) for one in drifts]
    return made


def written(made: Mapping[str, Any]) -> str:
    """As text; NaN and infinities never get there."""
    return json.dumps(made, indent=1, allow_nan=False, ensure_ascii=True) + "\n"


def read_baseline(path: Path) -> dict[str, Any]:
    """An earlier audit. Raises ConfigError for a file that is none."""
    try:
        with path.open("rb") as file:
            body = file.read(MOST_BYTES)
        made = json.loads(body)
    except OSError as error:
        raise ConfigError(
            f"--baseline {path}: {error.strerror}", "give the .json of an earlier audit"
        ) from None
    except (ValueError, RecursionError):
        made = None
    if not isinstance(made, dict) or made.get("schema") != SCHEMA:
        raise ConfigError(f"--baseline {path}: not an audit ({SCHEMA})", "give the .json of an earlier audit")
    return made


def instant(at: float) -> str | None:
    """``2026-03-01T03:12:00Z``"""
    if not math.isfinite(at):
        return None
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def number(value: float | None) -> float | None:
    """None for what is none."""
    return value if value is not None and math.isfinite(value) else None


def numbers(values: Iterable[float]) -> list[float | None]:
    """The same of several."""
    return [number(value) for value in values]


def quantity(one: Quantity | None) -> dict[str, Any] | None:
    """A figure with its interval."""
    if one is None or not all(map(math.isfinite, (one.value, one.low, one.high))):
        return None
    found: dict[str, Any] = {"value": one.value, "low": one.low, "high": one.high, "unit": one.unit}
    if one.formula:
        found["formula"] = one.formula
    return found


def _span(audit: Audit) -> dict[str, Any]:
    seconds = audit.usage.span_s
    return {
        "start": instant(audit.start), "end": instant(audit.end), "seconds": seconds, "days": seconds / 86400,
        "step_s": audit.usage.step,
    }  # fmt: skip


def _gpu_hours(audit: Audit) -> dict[str, Any]:
    return {
        "installed": audit.facts.installed_gpu_hours if audit.usage.boards else None,
        "allocated": quantity(audit.counsel.utilisations.cluster.gpu_hours),
        "reclaimable": quantity(audit.counsel.reclaimable),
        "reclaimable_why": _why_not(audit.counsel),
    }


def _why_not(counsel: Counsel) -> str | None:
    """Why it is not known what could be reclaimed; None where it is."""
    if counsel.reclaimable is not None:
        return None
    why = dict.fromkeys(refused.why for refused in counsel.refused if refused.rule == "idle_gpus")
    return "; ".join(why) or "it takes jobs with their GPUs, and what these did"


def _utilisations(uses: Utilisations) -> dict[str, Any]:
    return {
        "cluster": _use(uses.cluster),
        "racks": [_use(one) for one in uses.racks],
        "partitions": [_use(one) for one in uses.partitions],
        "users": [_use(one) for one in uses.users],
        "job_names": [_use(one) for one in uses.names],
    }


def _jobs_by(facts: Facts) -> dict[str, Any]:
    return {
        "state": [_hours(one) for one in facts.by_state],
        "user": [_hours(one) for one in facts.by_user],
        "account": [_hours(one) for one in facts.by_account],
        "partition": [_hours(one) for one in facts.by_partition],
    }


def _spread(one: Spread) -> dict[str, Any]:
    return {
        "metric": one.key, "edges": list(one.edges), "shares": list(one.shares),
        "percentiles": {f"p{q}": number(v) for q, v in one.percentiles}, "coverage": one.coverage,
    }  # fmt: skip


def _recurring(one: Recurring) -> dict[str, Any]:
    return {
        **one._asdict(),
        "low": number(one.low),
        "high": number(one.high),
        "where": list(one.where),
        "first": instant(one.first),
        "last": instant(one.last),
    }


def _coverage(facts: Facts) -> dict[str, Any]:
    return {
        "overall": number(facts.coverage),
        "by_day": [{"day": instant(at), "coverage": share} for at, share in facts.by_day],
        "by_metric": dict(facts.by_metric),
    }


def _method(method: Method) -> dict[str, Any]:
    return {
        "sources": list(method.sources), "queries": method.queries, "seconds": method.seconds, "scrape_s": method.scrape_s,
        "found": dict(method.found), "lacking": dict(method.lacking), "remarks": list(method.remarks), "interval": "80 %",
    }  # fmt: skip


def _drift(one: Drift) -> dict[str, Any]:
    change = {"value": one.change, "low": one.low, "high": one.high}
    return {"what": one.what, "unit": one.unit, "before": one.before, "now": one.now, "change": change}


def _measured(one: Measured) -> dict[str, Any]:
    found = quantity(one.ratio) or {"value": None, "low": None, "high": None, "unit": "ratio"}
    return {
        **found,
        "metric": one.metric,
        "samples": one.samples,
        "coverage": number(one.coverage),
        "why": one.why,
    }


def _use(one: Use) -> dict[str, Any]:
    return {
        "name": one.name, "gpus": one.boards, "gpu_hours": quantity(one.gpu_hours),
        "allocated": _measured(one.allocated), "busy": _measured(one.busy), "active": _measured(one.active),
        "achieved_flops": _measured(one.flops), "achieved_bandwidth": _measured(one.bandwidth),
    }  # fmt: skip


def _hours(one: Hours) -> dict[str, Any]:
    return {key: number(value) if isinstance(value, float) else value for key, value in one._asdict().items()}


def _load(one: Load) -> dict[str, Any]:
    knows_waits = not math.isnan(one.waiting_p95)
    return {
        "p50_gpus": one.p50, "p95_gpus": one.p95, "max_gpus": one.most, "running_p95_gpus": one.running_p95,
        "waiting_p95_gpus": number(one.waiting_p95), "installed_gpus": one.installed or None,
        "by_hour_of_week": numbers(one.by_hour),
        "by_day": [{"day": instant(at), "running": run, "waiting": wait if knows_waits else None} for at, run, wait in one.by_day],
        "knows_reasons": one.knows_reasons, "littles_law_ratio": number(one.little),
    }  # fmt: skip


def _scope(one: Scope) -> dict[str, list[str]]:
    return {
        "racks": list(one.racks), "nodes": list(one.nodes), "gpus": list(one.gpus),
        "jobs": [job.removeprefix("slurm:") for job in one.jobs],
    }  # fmt: skip


def _saving(one: Saving) -> dict[str, Any]:
    return {
        "gpu_hours": quantity(one.gpu_hours), "gpu_hours_per_week": quantity(one.gpu_hours_per_week),
        "power_w": quantity(one.power), "money_per_week": quantity(one.money_per_week),
    }  # fmt: skip


def _ground(one: Ground) -> dict[str, Any]:
    return {
        "metric": one.metric, "window_s": one.window_s, "samples": one.samples,
        "coverage": number(one.coverage), "examples": list(one.examples),
    }  # fmt: skip


def _advice(one: Advice) -> dict[str, Any]:
    return {
        "id": one.id, "rule": one.rule, "action": one.action, "scope": _scope(one.scope),
        "quantity": quantity(one.quantity), "saving": _saving(one.saving), "confidence": str(one.grade),
        "evidence": [_ground(ground) for ground in one.grounds], "because": one.because,
        "would_change": one.would_change, "counter_indication": one.but, **_more(one),
    }  # fmt: skip


_TOLD = frozenset(
    {
        "id",
        "rule",
        "action",
        "scope",
        "quantity",
        "saving",
        "grade",
        "grounds",
        "because",
        "would_change",
        "but",
    }
)


def _more(one: Advice) -> dict[str, Any]:
    """What some rules say beyond what all do."""
    return {field.name: _plain(getattr(one, field.name)) for field in fields(one) if field.name not in _TOLD}


def _plain(value: Any) -> Any:
    if isinstance(value, Quantity):
        return quantity(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, StrEnum):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _plain(one) for key, one in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int) or value is None else str(value)


def _refused(one: Refused) -> dict[str, Any]:
    return {"rule": one.rule, "scope": _scope(one.scope), "why": one.why}
