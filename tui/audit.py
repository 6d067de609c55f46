"""``coldaisle audit``: utilisation over days, from what the sources remember, as reports and a summary."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.analyzers.advice.counsel import settings as advice_settings
from coldaisle.analyzers.audit.audit import audited
from coldaisle.analyzers.audit.drift import drifts
from coldaisle.analyzers.audit.joining import Joined, joined
from coldaisle.analyzers.audit.pseudonyms import Pseudonyms, key_from
from coldaisle.analyzers.report import document, text
from coldaisle.sources.configured import NO_SECRETS, sources_from
from coldaisle.sources.errors import ColdaisleError, SourceError, Unusable
from coldaisle.sources.prometheus.aggregates import Aggregates, Gathered, Span, Survey
from coldaisle.sources.settings import PrometheusSettings, SlurmSettings
from coldaisle.sources.slurm.sacct import Accounted, Accounting, command, of_slurm, read_file
from coldaisle.sources.text import plain
from coldaisle.sources.units import age, show
from coldaisle.tui.examination import Abandoning
from coldaisle.tui.progress import Progress

if TYPE_CHECKING:
    from coldaisle.sources.config import Settings
    from coldaisle.sources.slurm.records import SlurmNode
    from coldaisle.sources.ssh_login import Secrets

STEPS = (60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0)
"""Seconds of a bin that are chosen from."""
USUAL_STEP = 300.0
FINE_SPAN_S = 6 * 3600.0
"""Up to which bins of a minute are small enough to be worth it."""
MOST_CELLS = 3_000_000
"""Bins of single GPUs, a metric: 256 GPUs over 40 days in five minutes; beyond, bins grow."""
SHORTEST_S, LONGEST_S = 600.0, 800 * 86400.0
LEAST_LOST = 0.02
"""Of a span, that lies before the first sample: less may be a look between two samples, and is kept."""
ENDINGS = (".html", ".md", ".json", ".csv")
QUERY_S = 60.0
"""A question about a slice of a month may take so long; a longer timeout of the source's own stands."""


class Request(NamedTuple):
    """What is asked for, checked."""

    last_s: float
    until: float | None = None
    """None: now."""
    step: float | None = None
    plan: bool = False
    sacct: Path | None = None
    gather_s: float | None = None
    """Live, for so long, instead of looking back."""
    outputs: tuple[Path, ...] = ()
    pseudonyms: bool = False
    baseline: Path | None = None


def request_of(
    last_s: float,
    until: float | None,
    step: float | None,
    *,
    plan: bool,
    sacct: Path | None,
    gather_s: float | None,
    outputs: Sequence[Path],
    pseudonyms: bool,
    baseline: Path | None,
) -> Request:
    """The request; ColdaisleError says what is wrong with it, before anybody is asked anything."""
    if not SHORTEST_S <= last_s <= LONGEST_S:
        raise ColdaisleError("--last: between 10m and 800d", "write --last 28d")
    if step is not None and not (15.0 <= step <= last_s / 2):
        raise ColdaisleError("--step: at least 15s, and at most half of --last", "write --step 5m")
    for path in outputs:
        if path.suffix.lower() not in ENDINGS:
            raise ColdaisleError(
                f"-o {path}: what form is that?", f"name a file that ends in {', '.join(ENDINGS)}"
            )
        if not path.absolute().parent.is_dir():
            raise ColdaisleError(f"-o {path}: there is no such folder", "make it first, or name another")
        if path.suffix.lower() == ".html" and find_spec("jinja2") is None:
            remedy = "pip install 'coldaisle[report]', or write .md, .json or .csv"
            raise ColdaisleError("an HTML report needs Jinja2, which is not installed", remedy)
    if baseline is not None:
        document.read_baseline(baseline)
    return Request(last_s, until, step, plan, sacct, gather_s, tuple(outputs), pseudonyms, baseline)


def audit_and_print(
    settings: Settings,
    request: Request,
    secrets: Mapping[str, Secrets] = NO_SECRETS,
    *,
    ascii_only: bool = False,
) -> int:
    """The whole command; its exit status. Raises ColdaisleError."""
    rules = advice_settings(settings.advice)
    pseudonyms = Pseudonyms(key_from(_key_path())) if request.pseudonyms else None
    accounting = read_file(request.sacct) if request.sacct is not None else None

    def say(line: str) -> None:
        sys.stdout.write(plain(line, ascii_only=ascii_only) + "\n")
        sys.stdout.flush()

    progress = Progress()
    try:
        found = asyncio.run(_gathered(settings, request, accounting, secrets, progress, say))
    finally:
        progress.end()
    if found is None:
        return 0
    made_by = found.about
    audit = audited(
        found.joined,
        rules,
        cluster=settings.name or "the cluster",
        made_at=time.time(),
        sources=found.sources,
        survey=made_by.survey if made_by else None,
        gathered=made_by.gathered if made_by else None,
        remarks=found.remarks,
        pseudonyms=pseudonyms,
    )
    made = document.as_object(audit)
    if request.baseline is not None:
        made = document.as_object(audit, drifts(document.read_baseline(request.baseline), made))
    # files first: who reads the summary may stop reading
    written, failed = _reports(request.outputs, made)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else text.WIDTH
    for line in text.summary(made, min(width, text.WIDTH)):
        say(line)
    for path in written:
        sys.stderr.write(f"coldaisle: wrote {plain(str(path), ascii_only=True)}\n")
    if failed is not None:
        raise failed
    return 0


def _reports(paths: Sequence[Path], made: Mapping[str, object]) -> tuple[list[Path], ColdaisleError | None]:
    """(written, the first failure): a month is read for minutes, and one file that fails costs none of the others."""
    written: list[Path] = []
    failed: ColdaisleError | None = None
    for path in paths:
        try:
            _write(path, _form(path, made))
            written.append(path)
        except ColdaisleError as error:
            failed = failed or error
    return written, failed


def _form(path: Path, made: Mapping[str, object]) -> str:
    match path.suffix.lower():
        case ".json":
            return document.written(made)
        case ".csv":
            from coldaisle.analyzers.report.table import as_csv

            return as_csv(made)
        case ".md":
            from coldaisle.analyzers.report.markdown import as_markdown

            return as_markdown(made)
    from coldaisle.analyzers.report.page import as_html

    return as_html(made)


def _write(path: Path, body: str) -> None:
    """All of it or nothing: a reader never sees half a report."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(body)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ColdaisleError(f"-o {path}: {error.strerror}", "name another file") from None


def _key_path() -> Path:
    from coldaisle.sources.log import default_log_path

    return default_log_path().with_name("pseudonyms.key")


# --- finding out ----------------------------------------------------------------------------------------------------


class _Read(NamedTuple):
    survey: Survey
    gathered: Gathered


class _Found(NamedTuple):
    joined: Joined
    sources: tuple[str, ...]
    remarks: tuple[str, ...]
    about: _Read | None = None


async def _gathered(
    settings: Settings,
    request: Request,
    accounting: Accounting | None,
    secrets: Mapping[str, Secrets],
    progress: Progress,
    say: Callable[[str], None],
) -> _Found | None:
    """The usage, or None where only a plan was asked for."""
    asyncio.get_running_loop().set_default_executor(Abandoning())
    servers = [one for one in settings.sources if isinstance(one, PrometheusSettings)]
    slurms = [one for one in settings.sources if isinstance(one, SlurmSettings)]
    if request.gather_s is not None or not (servers or slurms or accounting):
        if request.plan and not request.outputs:
            for line in _plan_live(request):
                say(line)
            return None
        return await _live(settings, request, secrets, progress)
    if len(servers) > 1:
        names = ", ".join(one.name for one in servers)
        raise ColdaisleError(
            f"one audit asks one Prometheus: there are {names}", "name one with --prometheus URL"
        )
    return await _past(settings, request, accounting, servers, slurms, secrets, progress, say)


async def _past(
    settings: Settings,
    request: Request,
    accounting: Accounting | None,
    servers: Sequence[PrometheusSettings],
    slurms: Sequence[SlurmSettings],
    secrets: Mapping[str, Secrets],
    progress: Progress,
    say: Callable[[str], None],
) -> _Found | None:
    remarks: list[str] = []
    sources: list[str] = []
    reader = _reader(settings, servers[0]) if servers else None
    try:
        survey: Survey | None = None
        if reader is not None:
            progress.say(f"asking {reader.target} what there is")
            span = _span(request, await reader.now(), USUAL_STEP)
            survey = await reader.survey(span)
            span = _chosen(request, span, survey)
            sources.append(f"{survey.flavour.name} {survey.target}")
        else:
            span = _span_of_jobs(request, _newest(accounting))
        if request.plan:
            progress.end()
            for line in _plan(request, span, survey, accounting, slurms):
                say(line)
            if not request.outputs:
                return None
        if survey is not None and math.isnan(survey.reach):
            _nothing(survey, accounting, slurms)
            remarks.append("the Prometheus server has no GPU metric within the span")
        gathered = await _read(reader, survey, span, progress) if reader and survey else None
    finally:
        if reader is not None:
            await reader.aclose()
    jobs, nodes = await _jobs(
        accounting, request, slurms, span, secrets, progress, remarks, sources, alone=not servers
    )
    made = joined(span, gathered, jobs, nodes=nodes, rules=settings.rack_rules(), source=", ".join(sources))
    about = _Read(survey, gathered) if survey is not None and gathered is not None else None
    return _Found(made, tuple(sources), tuple(remarks), about)


def _newest(accounting: Accounting | None) -> float:
    """A file may be of last month: its newest instant ends the span."""
    now = time.time()
    told = [
        at
        for job in (accounting.jobs if accounting else ())
        for at in (job.end, job.start, job.submitted)
        if at
    ]
    return min(max(told), now) if told else now


def _reader(settings: Settings, server: PrometheusSettings) -> _Reader:
    from coldaisle.sources.prometheus.api import Api
    from coldaisle.sources.vocabularies import vocabularies_for

    import msgspec  # isort: skip

    patient = msgspec.structs.replace(server, timeout=max(server.timeout, QUERY_S))
    api = Api(patient)
    return _Reader(
        api,
        Aggregates(
            api,
            match=server.match,
            rewrite=server.rewrite,
            vocabularies=vocabularies_for(server.vocabulary, settings.metrics),
        ),
    )


class _Reader:
    """A server's aggregates, and the connection that they use."""

    def __init__(self, api: object, aggregates: Aggregates) -> None:
        self._api = api
        self._aggregates = aggregates
        self.target = aggregates.target
        self.now, self.survey, self.read = aggregates.now, aggregates.survey, aggregates.read

    async def aclose(self) -> None:
        """End the connections."""
        await self._api.aclose()  # type: ignore[attr-defined]


def _span(request: Request, now: float, step: float) -> Span:
    """Whole bins up to the instant that is asked for: servers that align instants move none of them."""
    step = request.step or step
    end = (request.until if request.until is not None else now) // step * step
    bins = max(round(request.last_s / step), 2)
    return Span(end - bins * step, step, bins)


def _span_of_jobs(request: Request, now: float) -> Span:
    """Up to the second: accounting has no bins that a server would align."""
    end = request.until if request.until is not None else now
    step = request.step or min(3600.0, request.last_s / 24)
    bins = max(round(request.last_s / step), 2)
    return Span(end - bins * step, step, bins)


def _chosen(request: Request, span: Span, survey: Survey) -> Span:
    """Bins as fine as the size of the cluster and the pace of the samples allow."""
    step = request.step or step_for(request.last_s, survey.boards, survey.scrape_s)
    end = span.end if request.until is None else request.until
    chosen = _span(request._replace(step=step, until=end), end, step)
    # nothing before it: bins that nobody could fill are no gaps
    lost = math.floor((survey.reach - survey.look_s - chosen.start) / step) if survey.boards else 0
    if LEAST_LOST * chosen.bins < lost < chosen.bins - 1:
        return Span(chosen.start + lost * step, step, chosen.bins - lost)
    return chosen


def step_for(seconds: float, boards: int, scrape_s: float) -> float:
    """The bin of a span of so many GPUs."""
    finest = 60.0 if seconds <= FINE_SPAN_S else USUAL_STEP
    for step in STEPS:
        if step >= max(finest, scrape_s) and seconds / step * max(boards, 1) <= MOST_CELLS:
            return step
    return STEPS[-1]


def _nothing(survey: Survey, accounting: Accounting | None, slurms: Sequence[SlurmSettings]) -> None:
    if accounting is None and not slurms:
        raise Unusable(
            survey.target,
            "has no metric of a GPU within the span",
            "does it scrape dcgm-exporter? --last looks further back; --plan says what there is",
        )


async def _read(reader: _Reader, survey: Survey, span: Span, progress: Progress) -> Gathered:
    began = time.monotonic()
    expected = survey.cost(span).seconds

    def tell(done: int, of: int) -> None:
        spent = time.monotonic() - began
        left = spent / done * (of - done) if done else expected
        progress.say(
            f"reading {survey.target}: {done * 100 // max(of, 1)} %, about {age(max(left, 1.0))} left"
        )

    return await reader.read(span, tell)


async def _jobs(
    accounting: Accounting | None,
    request: Request,
    slurms: Sequence[SlurmSettings],
    span: Span,
    secrets: Mapping[str, Secrets],
    progress: Progress,
    remarks: list[str],
    sources: list[str],
    *,
    alone: bool,
) -> tuple[list[Accounted] | None, Sequence[SlurmNode]]:
    """What accounting has of the span, and the nodes as Slurm has them now."""
    if accounting is not None:
        sources.append(f"accounting {request.sacct.name if request.sacct else ''}".rstrip())
        remarks += _about(accounting)
        jobs = _within(accounting.jobs, span)
        if accounting.jobs and not jobs:
            problem = (
                f"none of the {len(accounting.jobs):,} jobs of the accounting ran or waited within the span"
            )
            if alone:
                raise ColdaisleError(problem, "--last and --until choose another")
            remarks.append(problem)
        return jobs, ()
    if not slurms:
        return None, ()
    from coldaisle.sources.slurm.commands import Commands
    from coldaisle.sources.slurm.source import door_to

    slurm = slurms[0]
    progress.say(f"asking Slurm ({slurm.via}) for its accounting")
    door = door_to(slurm, secrets.get(slurm.name))
    try:
        nodes = (await door.nodes()).nodes
        if isinstance(door, Commands):
            told = await door.accounting(span.start, span.end)
            remarks += _about(told)
            jobs = told.jobs
        else:
            jobs = [of_slurm(job) for job in await door.past(span.start, span.end)]
        sources.append(f"Slurm {door.target}")
        return _within(jobs, span), nodes
    except SourceError as error:
        if alone:
            raise
        # an error's words may name machines
        why = "" if request.pseudonyms else f": {error.problem}"
        remarks.append(f"Slurm's accounting was not read{why}")
        return None, ()
    finally:
        await door.aclose()


def _about(accounting: Accounting) -> Iterator[str]:
    if accounting.left_out:
        yield f"{accounting.left_out} lines of accounting could not be read and were left out"
    if accounting.is_cut:
        yield f"accounting has more than {len(accounting.jobs)} jobs: the rest was left out"


def _within(jobs: Sequence[Accounted], span: Span) -> list[Accounted]:
    """Those that ran or waited within the span, as they were at its end."""

    def concerns(job: Accounted) -> bool:
        began = job.submitted if job.submitted is not None else job.start
        return (began is None or began < span.end) and (job.end is None or job.end > span.start)

    def then(job: Accounted) -> Accounted:
        if job.end is not None and job.end > span.end:
            job = job._replace(end=None, state="RUNNING")
        if job.start is not None and job.start >= span.end:
            job = job._replace(start=None, end=None, state="PENDING")
        return job

    return [then(job) for job in jobs if concerns(job)]


async def _live(
    settings: Settings, request: Request, secrets: Mapping[str, Secrets], progress: Progress
) -> _Found:
    """What sources that remember nothing show while one looks: capacity, and gross waste."""
    from coldaisle.analyzers.advice.live import usage_of_history
    from coldaisle.analyzers.monitor import Monitor
    from coldaisle.sources.collector import SteadyClock
    from coldaisle.tui.dashboard import monitor_settings

    if not settings.sources:
        raise ColdaisleError("nothing to audit", "name --prometheus URL, --sacct FILE or --slurm local")
    seconds = request.gather_s
    if seconds is None:
        raise ColdaisleError(
            "no source here remembers days: an audit of days needs Prometheus or Slurm's accounting",
            "name --prometheus URL or --sacct FILE; --for 10m gathers live, for capacity and gross waste",
        )
    sources = sources_from(settings, time.time, secrets)
    monitor = Monitor(sources, monitor_settings(settings), SteadyClock())
    watching = asyncio.create_task(monitor.run(lambda _: None))
    until = time.monotonic() + seconds
    try:
        while (left := until - time.monotonic()) > 0:
            if watching.done():
                watching.result()
            progress.say(f"gathering, {age(left)} left")
            await asyncio.sleep(min(left, 1.0))
        snapshot = monitor.snapshot()
        usage = usage_of_history(monitor.view, snapshot)
    finally:
        watching.cancel()
        await asyncio.wait({watching}, timeout=1.0)
    if not usage.boards and not usage.stays:
        failing = "; ".join(f"{one.name}: {one.why}" for one in snapshot.sources if one.why)
        raise ColdaisleError(
            f"no source showed a GPU or a job within {age(seconds)}" + (f" ({failing})" if failing else ""),
            "coldaisle doctor says why",
        )
    names = tuple(f"{source.kind} {source.name}" for source in sources)
    remark = f"gathered live for {age(seconds)}: capacity and gross waste alone can be told from that"
    return _Found(Joined(usage, ()), names, (remark,))


# --- the plan -------------------------------------------------------------------------------------------------------


def _plan_live(request: Request) -> Iterator[str]:
    seconds = request.gather_s
    yield "No source here remembers: nothing of the past can be asked for."
    yield f"Live: {'--for 10m' if seconds is None else age(seconds)} would show capacity and gross waste, and size nothing."
    yield "For days: --prometheus URL, or Slurm's accounting in a file, made with"
    yield f"  {command(_since(request))}"


def _since(request: Request) -> str:
    days = max(1, math.ceil(request.last_s / 86400))
    return f"now-{days}days"


def _plan(
    request: Request,
    span: Span,
    survey: Survey | None,
    accounting: Accounting | None,
    slurms: Sequence[SlurmSettings],
) -> Iterator[str]:
    """What there is, and what it costs to ask for it."""
    yield f"Span: {document.instant(span.start)} to {document.instant(span.end)}, {span.bins} bins of {age(span.step)}"
    if survey is not None:
        yield from _plan_prometheus(span, survey, request)
    else:
        yield "Prometheus: none. What GPUs did stays unknown; --prometheus URL brings it."
    if accounting is not None:
        gpus = sum(bool(job.gpus) for job in accounting.jobs)
        yield f"Accounting: {len(accounting.jobs):,} jobs in the file, {gpus:,} of them with GPUs"
        yield from _about(accounting)
    elif slurms:
        yield f"Accounting: sacct by {slurms[0].via}, one question to slurmdbd; nodes, one to slurmctld"
    else:
        yield "Accounting: none. It brings users, waits and final states: --slurm local, or --sacct FILE made with"
        yield f"  {command(_since(request))}"


def _plan_prometheus(span: Span, survey: Survey, request: Request) -> Iterator[str]:
    yield f"Prometheus: {survey.flavour.name} {survey.flavour.version} at {survey.target}"
    if math.isnan(survey.reach):
        yield "  no metric of a GPU within four spans"
    else:
        yield f"  reaches back to {document.instant(survey.reach)} at least, newest {document.instant(survey.newest)}"
        covered = "-" if math.isnan(survey.coverage) else f"{survey.coverage:.0%}"
        yield f"  {survey.boards} GPUs, about {covered} of the time there, samples every {survey.scrape_s:g} s"
    yield f"  jobs by labels: {'yes' if survey.has_jobs else 'no (hpc_job, pod); without them which GPUs a job had is known of whole nodes alone'}"
    for key, name in survey.found.items():
        yield f"  found    {key:<22} {name}"
    for key, remedy in survey.lacking:
        yield f"  missing  {key:<22} {remedy or 'nothing that is known here would bring it'}"
    cost = survey.cost(span)
    yield (
        f"  asks about {cost.queries:,} queries, four at a time; the server reads about {cost.samples_read / 1e6:,.1f} M samples "
        f"and answers {show(cost.answer_bytes, 'B')}"
    )
    yield f"  takes about {age(max(cost.seconds, 1.0))}"
    for warning in survey.warnings:
        yield f"  says: {warning}"
