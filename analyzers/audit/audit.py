"""An audit: a span of time with its usage, the counsel over it and the facts, and how all of it came to be known."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coldaisle.analyzers.advice.advice import Counsel
from coldaisle.analyzers.advice.counsel import advise
from coldaisle.analyzers.advice.rules import described
from coldaisle.analyzers.advice.settings import Settings
from coldaisle.analyzers.audit.facts import Facts, facts_of
from coldaisle.analyzers.audit.joining import Joined
from coldaisle.analyzers.audit.pseudonyms import Pseudonyms
from coldaisle.analyzers.usage import Usage
from coldaisle.sources.prometheus.aggregates import Gathered, Incident, Survey


@dataclass(frozen=True, slots=True)
class Method:
    """How it was looked."""

    sources: tuple[str, ...]
    """In words, without secrets."""
    queries: int = 0
    seconds: float = 0.0
    """That reading took."""
    scrape_s: float | None = None
    found: tuple[tuple[str, str], ...] = ()
    """(catalog key, the name that it was read from)"""
    lacking: tuple[tuple[str, str], ...] = ()
    """(catalog key, what would bring it)"""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """All that a report says."""

    cluster: str
    made_at: float
    usage: Usage
    counsel: Counsel
    facts: Facts
    method: Method
    is_pseudonymous: bool = False

    @property
    def start(self) -> float:
        return float(self.usage.starts[0]) if len(self.usage.starts) else self.made_at

    @property
    def end(self) -> float:
        return self.start + self.usage.span_s


def audited(
    joined: Joined,
    settings: Settings,
    *,
    cluster: str,
    made_at: float,
    sources: tuple[str, ...] = (),
    survey: Survey | None = None,
    gathered: Gathered | None = None,
    remarks: tuple[str, ...] = (),
    pseudonyms: Pseudonyms | None = None,
) -> Audit:
    """The audit of a usage."""
    usage = joined.usage
    incidents = tuple(gathered.incidents) if gathered else ()
    said = (*joined.remarks, *remarks)
    if gathered is not None:
        said += (*gathered.failures, *gathered.warnings)
    if pseudonyms is not None:
        settings = _renamed(settings, usage, pseudonyms)
        usage = pseudonyms.usage(usage)
        incidents = tuple(_nameless(one, pseudonyms) for one in incidents)
        cluster, sources = "cluster", tuple(source.partition(" ")[0] for source in sources)
        # failures and warnings are other people's sentences: names may stand in them
        said = (*joined.remarks, *remarks)
    return Audit(
        cluster,
        made_at,
        usage,
        advise(usage, settings),
        facts_of(usage, incidents, gathered.incidents_looked_at if gathered else ()),
        Method(
            sources,
            gathered.queries if gathered else 0,
            gathered.seconds if gathered else 0.0,
            gathered.scrape_s if gathered else None,
            tuple(survey.found.items()) if survey else (),
            tuple((one.key, one.remedy) for one in survey.lacking) if survey else (),
            said,
        ),
        pseudonyms is not None,
    )


def _renamed(settings: Settings, usage: Usage, pseudonyms: Pseudonyms) -> Settings:
    """Descriptions of jobs name jobs too."""
    own = described.renamed(settings.rules[described.NAME], usage, pseudonyms.word)
    return replace(settings, rules={**settings.rules, described.NAME: own})


def _nameless(one: Incident, pseudonyms: Pseudonyms) -> Incident:
    return one._replace(node=pseudonyms.word("node", one.node))
