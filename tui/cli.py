"""The commands. What they need is imported when they run: ``--help`` and the first paint stay fast."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeGuard, TypeVar

import click
from click.shell_completion import CompletionItem

from coldaisle.sources import __version__
from coldaisle.sources.errors import ColdaisleError, ConfigError, FilterError

if TYPE_CHECKING:
    from coldaisle.sources.config import Settings
    from coldaisle.sources.instants import Instant
    from coldaisle.sources.settings import Flags, SourceSettings
    from coldaisle.sources.ssh_login import Secrets

OK, FAILED, INTERRUPTED, BROKEN_PIPE = 0, 3, 130, 141
"""Exit statuses, as monitoring plug-ins have them: 3 is bad usage, or a crash; else 128 + the signal."""

Command = TypeVar("Command", bound=Callable[..., Any])
log = logging.getLogger(__name__)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; the exit status. Nobody sees a traceback: the log has it."""
    complain = partial(_complain, ascii_only="--ascii" in arguments)
    try:
        status = main.main(list(arguments), prog_name="coldaisle", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else OK
    except click.exceptions.Exit as left:
        return left.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "coldaisle"
        return complain(error.format_message(), f"{where} --help lists what there is")
    except click.ClickException as error:
        return complain(error.format_message())
    except FilterError as error:
        return complain(f"--where: {error}", error.remedy, _marked(error))
    except ColdaisleError as error:
        return complain(str(error), error.remedy)
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except SystemExit as left:  # click's, when it completes words (0), or for a broken pipe (1)
        return BROKEN_PIPE if left.code == 1 else OK
    except Exception as error:  # supervision: the last line before a traceback on somebody's terminal
        if _is_of_stdout(error):
            _forget_stdout()
            return complain(f"standard output: {os.strerror(error.errno or 0)}", "write to another place")
        _start_log()
        log.exception("crashed")
        return complain(f"a mistake of ours: {type(error).__name__}", _where_the_log_is())


def _is_of_stdout(error: Exception) -> TypeGuard[OSError]:
    """Whether it is what a full disk or a broken device says of a write; those of named files are errors of our own."""
    full = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.filename is None and error.errno in full


def _complain(
    problem: str, remedy: str = "", between: Sequence[str] = (), *, ascii_only: bool = False
) -> int:
    from coldaisle.sources.text import plain

    # in the C locale Python writes UTF-8 all the same: the locale itself says what is read there
    ascii_only = ascii_only or not _is_utf8(sys.stderr)
    for line in filter(str.strip, [f"coldaisle: {problem}", *(f"  {one}" for one in (*between, remedy))]):
        click.echo(plain(line, ascii_only=ascii_only), err=True)
    return FAILED


def _marked(error: FilterError) -> Sequence[str]:
    """What was typed, and under it where the mistake is."""
    from coldaisle.analyzers.filter import caret

    return caret(error, error.text, 100)


def _is_utf8(stream: TextIO) -> bool:
    from coldaisle.tui.capabilities import writes_utf8

    return writes_utf8(os.environ, stream)


def _forget_stdout() -> None:
    """Whoever read our output has left: nothing more is written, not at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _start_log() -> None:
    from coldaisle.sources.log import start_log

    start_log()


def _where_the_log_is() -> str:
    from coldaisle.sources.log import default_log_path

    return f"the details are in {default_log_path()}"


def _complete_theme(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    from coldaisle.sources.config import theme_names

    return [CompletionItem(name) for name in theme_names() if name.startswith(begun)]


def _complete_metric(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    from coldaisle.tui.cells import METRICS

    return [CompletionItem(one.key, help=one.label) for one in METRICS if one.key.startswith(begun)]


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in their order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_FILE = click.Path(path_type=Path, dir_okay=False)
_source_options = _options(
    click.option("--config", type=_FILE, help="The configuration file, instead of the default one."),
    click.option(
        "--ssh", multiple=True, metavar="NODESET", help="Hosts over SSH: r[01-16]n[01-04]. Repeatable."
    ),
    click.option(
        "--exporter", multiple=True, metavar="TARGET", help="host:port or URL, node sets too. Repeatable."
    ),
    click.option(
        "--prometheus", multiple=True, metavar="URL", help="A Prometheus-compatible server. Repeatable."
    ),
    click.option(
        "--slurm",
        multiple=True,
        metavar="VIA",
        help="Jobs: local, ssh:login1, or slurmrestd's URL or socket.",
    ),
    click.option("--local", is_flag=True, help="This machine."),
    click.option("--interval", metavar="TIME", help="Between two samples: 2s, 500ms."),
    click.option("--user", metavar="NAME", help="The SSH user."),
    click.option("--port", type=click.IntRange(1, 65535), help="The SSH port."),
    click.option("-J", "--jump", metavar="HOST", help="The jump host, as ssh -J takes it."),
    click.option("-i", "--identity", multiple=True, metavar="FILE", help="A private key. Repeatable."),
    click.option(
        "--ssh-config", multiple=True, metavar="FILE", help="Instead of the user's and the system's."
    ),
    click.option(
        "--known-hosts", multiple=True, metavar="FILE", help="Instead of the user's and the system's."
    ),
    click.option("--connect-timeout", metavar="TIME", help="For an SSH login: 10s."),
    click.option("--timeout", metavar="TIME", help="For an exporter's page, or a query: 5s."),
    click.option("--token-file", metavar="FILE", help="Holds the bearer token for exporters, Prometheus."),
    click.option("--token-env", metavar="NAME", help="The environment variable that holds it."),
    click.option("--token-command", metavar="COMMAND", help="Prints it; run without a shell."),
    click.option("--insecure", is_flag=True, default=None, help="Let the token travel over plain http."),
    click.option("--vocabulary", multiple=True, metavar="FILE", help="What your own exporters' names mean."),
    click.option("--yes", is_flag=True, help="Do not ask before logging in to many hosts."),
)
_screen_options = _options(
    click.option("--name", metavar="NAME", help="The cluster's name."),
    click.option(
        "--at", metavar="WHEN", help="Begin at a past instant: 03:12, '2h ago', 2026-03-01T03:12:00Z."
    ),
    click.option(
        "--focus",
        metavar="NAME",
        default="",
        help="Open a host, GPU, job, server, service or finding, by name.",
    ),
    click.option("--theme", metavar="NAME", shell_complete=_complete_theme, help="Colours: dark, light, ..."),
    click.option(
        "--metric",
        metavar="KEY",
        shell_complete=_complete_metric,
        help="What cells show first: gpu.temp, ...",
    ),
    click.option(
        "--rack-pattern", "pattern", metavar="REGEX", help=r"Rack in the node's name: '(?P<rack>r\d+)n\d+'."
    ),
    click.option("--racks-file", "file", metavar="CSV", help="Lines of host,rack; node sets too."),
    click.option("--ascii/--no-ascii", default=None, help="Only ASCII; default: as the locale says."),
    click.option("--mouse/--no-mouse", default=None, help="Leave the mouse to the terminal with --no-mouse."),
    click.option(
        "--bell/--no-bell", default=None, help="Ring for a new critical finding, once; default: yes."
    ),
    click.option("--bytes", "bytes_per_second", metavar="RATE", help="To the terminal, at most: 50kB/s."),
    click.option("--history", "minutes", type=float, metavar="MINUTES", help="Of full resolution."),
    click.option("--memory", metavar="SIZE", help="For full resolution, at most: 260MB."),
)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="With nothing configured and nothing given, coldaisle looks at this machine. `coldaisle demo` needs nothing.",
)
@click.version_option(__version__, message="coldaisle %(version)s")
@_source_options
@_screen_options
@click.pass_context
def main(context: click.Context, /, **given: Any) -> int | None:
    """Every GPU of a cluster at a glance, live, in a terminal; over SSH, from exporters or Prometheus."""
    context.obj = given
    if context.invoked_subcommand is not None:
        return None
    at, focus = _instant(given["at"]), _focus(given["focus"])
    return _dashboard(_configured(given), confirmed=given["yes"], at=at, focus=focus)


@main.command(short_help="A simulated cluster; needs nothing.")
@click.option("--racks", type=click.IntRange(1, 1000), default=16, show_default=True)
@click.option("--nodes", type=click.IntRange(1, 256), default=4, show_default=True, help="Nodes a rack.")
@click.option("--gpus", type=click.IntRange(1, 16), default=8, show_default=True, help="GPUs a node.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same cluster.")
@click.option("--interval", metavar="TIME", default="2s", show_default=True)
@_screen_options
def demo(racks: int, nodes: int, gpus: int, seed: int, interval: str, **given: Any) -> int:
    """A simulated cluster with faults that come and go; needs nothing.

    It has at most 2,048 nodes and 16,384 GPUs.
    """
    from coldaisle.sources.config import Settings
    from coldaisle.sources.settings import DEMO_SERVING

    before = click.get_current_context().obj or {}
    at = _instant(given["at"] or before.get("at"))
    focus = _focus(given["focus"] or before.get("focus", ""))
    simulator = {"kind": "simulator", "racks": racks, "nodes": nodes, "gpus": gpus, "seed": seed}
    given["name"] = given["name"] or "demo"
    settings = (
        Settings(serving=DEMO_SERVING)
        .with_sources([simulator])
        .with_flags(_flags({**given, "interval": interval}))
    )
    return _dashboard(settings, at=at, focus=focus)


@main.command()
@_source_options
@click.option("--name", metavar="NAME", help="The cluster's name, for --write.")
@click.option(
    "--for", "seconds", metavar="TIME", default="15s", show_default=True, help="The longest it may take."
)
@click.option("--write", is_flag=True, help="Save what answered as the configuration.")
@click.option(
    "--force", is_flag=True, help="Replace a configuration with --write; the old one is kept beside it."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.pass_context
def doctor(
    context: click.Context, /, seconds: str, write: bool, force: bool, as_json: bool, **given: Any
) -> int:
    """Try every source; say what is missing and how to get it.

    Exit status: 0 all there, 1 something is missing or could not be seen in the time, 2 a source does
    not answer, 3 bad usage.
    """
    _start_log()
    settings = _configured(_inherited(context, given))
    secrets = _asked_first(settings, confirmed=given["yes"])
    from coldaisle.tui.doctor import examine_and_print

    target = (given["config"] or _default_path()) if write else None
    return examine_and_print(
        settings, _seconds(seconds), secrets, as_json=as_json, write_to=target, force=force
    )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option(
    "--for", "seconds", metavar="TIME", help="Gather so long; default: until there is enough evidence."
)
@click.option("--at", metavar="WHEN", help="At a past instant: 03:12, '2h ago', 2026-03-01T03:12:00Z.")
@click.option(
    "--window",
    metavar="TIME",
    default="15m",
    show_default=True,
    help="With --at: what is looked at before it.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["warning", "critical", "never"]),
    default="warning",
    show_default=True,
    help="From which severity on the exit status is not 0.",
)
@click.option("--only", metavar="DETECTORS", default="", help="Only these: thermal_throttling,gpu_fault.")
@click.option("--where", metavar="FILTER", default="", help="Only findings that touch what matches.")
@click.option("--demo", is_flag=True, help="The simulated cluster.")
@click.option("--ascii/--no-ascii", default=None, help="Only ASCII; default: as the locale says.")
@_source_options
@click.pass_context
def check(
    context: click.Context,
    /,
    as_json: bool,
    seconds: str | None,
    at: str | None,
    window: str,
    fail_on: str,
    only: str,
    where: str,
    demo: bool,
    ascii: bool | None,
    **given: Any,
) -> int:
    """One diagnosis: what holds the cluster back, since when, what it costs and what to do about it.

    \b
    coldaisle check --demo
    coldaisle check --json --fail-on critical
    coldaisle check --at 03:12 --window 15m --prometheus http://prom:9090
    coldaisle check --where 'user==alice' --only idle_allocation,data_loader_starvation

    Live it gathers until there is enough evidence: eight samples and at least a minute. A source that remembers
    (Prometheus) has that at once. In the past it looks at every sample of the window, as the dashboard did then.
    Exit status: 0 nothing above info, 1 a warning, 2 something critical, 3 it could not be told (no source
    answered, too little is heard, bad usage).
    """
    _start_log()
    instant = _instant(at or (context.obj or {}).get("at"))
    from coldaisle.tui.check import check_and_print, request_of

    patience = None if seconds is None else _seconds(seconds)
    if instant is not None and patience is not None:
        raise click.UsageError("--for gathers live: --at needs --window alone")
    try:
        request = request_of(
            None if instant is None else instant.at,
            _seconds(window, "--window"),
            patience,
            only,
            where,
            fail_on,
        )
    except FilterError as error:
        error.text = where
        raise
    settings = _of_demo(given) if demo else _configured(_inherited(context, given))
    secrets = _asked_first(settings, confirmed=given["yes"])
    is_ascii = not _is_utf8(sys.stdout) if ascii is None else ascii
    if not as_json and not is_ascii:
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    return check_and_print(settings, request, secrets, as_json=as_json, ascii_only=is_ascii)


@main.command()
@click.option(
    "--last", metavar="TIME", default="7d", show_default=True, help="How far to look back: 28d, 12h."
)
@click.option("--until", metavar="WHEN", help="Look back from then: '2026-03-01 00:00'; default: now.")
@click.option(
    "--step", metavar="TIME", help="Of a bin; default: 5m, longer where the cluster or the span is large."
)
@click.option(
    "--plan",
    is_flag=True,
    help="First print what there is and what it will cost; without -o nothing more is asked.",
)
@click.option("--sacct", type=_FILE, help="Slurm's accounting, as the command below prints it.")
@click.option(
    "--for", "seconds", metavar="TIME", help="Gather live for so long: capacity and gross waste alone."
)
@click.option(
    "-o",
    "--output",
    "outputs",
    type=_FILE,
    multiple=True,
    help="A report: .html, .md, .json or .csv. Repeatable.",
)
@click.option(
    "--pseudonyms", is_flag=True, help="Replace names of users, accounts, jobs, nodes, racks, partitions."
)
@click.option("--baseline", type=_FILE, help="The .json of an earlier audit: say what has drifted since.")
@click.option("--name", metavar="NAME", help="The cluster's name.")
@click.option("--demo", is_flag=True, help="The simulated cluster, with --for.")
@click.option("--ascii/--no-ascii", default=None, help="Only ASCII; default: as the locale says.")
@_source_options
@click.pass_context
def audit(
    context: click.Context,
    /,
    last: str,
    until: str | None,
    step: str | None,
    plan: bool,
    sacct: Path | None,
    seconds: str | None,
    outputs: Sequence[Path],
    pseudonyms: bool,
    baseline: Path | None,
    demo: bool,
    ascii: bool | None,
    **given: Any,
) -> int:
    """Utilisation over days, with sizing advice: from Prometheus, Slurm's accounting, or both.

    \b
    coldaisle audit --plan --prometheus http://prom:9090
    coldaisle audit --last 28d --prometheus http://prom:9090 --slurm local -o report.html -o report.json
    coldaisle audit --last 28d --sacct sacct.txt --pseudonyms -o report.csv
    coldaisle audit --for 10m --ssh 'r[01-16]n[01-04]'

    The file for --sacct, where Slurm's commands are not at hand (SLURM_TIME_FORMAT=%s gives times in seconds):

    \b
    SLURM_TIME_FORMAT=%s sacct --allusers --duplicates --parsable2 --starttime=now-28days --endtime=now --format=JobIDRaw,JobID,User,Account,Partition,State,Submit,Eligible,Start,End,TimelimitRaw,NNodes,NodeList,AllocTRES,ReqTRES,TotalCPU,TRESUsageInTot,JobName > sacct.txt

    A summary is printed, progress goes to stderr. Exit status: 0, also where advice is refused; 3 bad usage, or
    nothing could be read.
    """
    _start_log()
    before = (context.obj or {}).get("name")
    instant = _instant(until)
    from coldaisle.tui.audit import audit_and_print, request_of

    request = request_of(
        _seconds(last, "--last"),
        None if instant is None else instant.at,
        None if step is None else _seconds(step, "--step"),
        plan=plan,
        sacct=sacct,
        gather_s=None if seconds is None else _seconds(seconds),
        outputs=outputs,
        pseudonyms=pseudonyms,
        baseline=baseline,
    )
    given["name"] = given["name"] or before
    settings = (
        _of_demo(given)
        if demo
        else _for_audit(_inherited(context, given), needs_source=sacct is None and not plan)
    )
    secrets = _asked_first(settings, confirmed=given["yes"])
    is_ascii = not _is_utf8(sys.stdout) if ascii is None else ascii
    if not is_ascii:
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    return audit_and_print(settings, request, secrets, ascii_only=is_ascii)


@main.command("list")
@click.argument(
    "what", type=click.Choice(["gpus", "nodes", "jobs", "servers", "partitions", "events", "findings"])
)
@click.option("--where", metavar="FILTER", default="", help="Only what matches: 'util<5 & power>300'.")
@click.option("--columns", metavar="A,B,C", default="", help="Which columns; --columns help lists them.")
@click.option("--sort", metavar="COLUMN", default="", help="In this order; -COLUMN: the highest first.")
@click.option("--csv", "form", flag_value="csv", help="CSV instead of aligned text.")
@click.option("--json", "form", flag_value="json", help="One JSON object instead of text.")
@click.option(
    "--for",
    "seconds",
    metavar="TIME",
    help="Gather so long; default: till every source has answered, 15s at most.",
)
@click.option("--at", metavar="WHEN", help="As it was then: 03:12, '2h ago', 2026-03-01T03:12:00Z.")
@click.option("--demo", is_flag=True, help="The simulated cluster.")
@click.option("--ascii/--no-ascii", default=None, help="Only ASCII; default: as the locale says.")
@_source_options
@click.pass_context
def list_(
    context: click.Context,
    /,
    what: str,
    where: str,
    columns: str,
    sort: str,
    form: str | None,
    seconds: str | None,
    at: str | None,
    demo: bool,
    ascii: bool | None,
    **given: Any,
) -> int:
    """GPUs, nodes, jobs, inference servers, partitions, events or findings as rows, for pipes and screen readers.

    \b
    coldaisle list gpus --where 'util<5 & power>300'
    coldaisle list nodes --where 'state==drain | status!=ok' --csv
    coldaisle list jobs --where 'user==alice & left<30m' --columns job,left,node --sort left
    coldaisle list jobs --at 'yesterday 03:12' --json

    What is missing or stale is a dash, null in JSON, nothing in CSV; these two have canonical units (--columns
    help). Of what a row has several of (the GPUs of a node) texts stand together, numbers are their mean.
    Exit status: 0, also without rows; 3 bad usage, or no source answered.
    """
    _start_log()
    if columns.strip() == "help":
        click.echo("\n".join(_column_help(what)))
        return OK
    patience = None if seconds is None else _seconds(seconds)
    instant = _instant(at or (context.obj or {}).get("at"))
    if instant is not None and what == "findings":
        raise click.UsageError("findings of then: coldaisle check --at WHEN")
    request = _request(what, where, columns, sort, patience)
    settings = _of_demo(given) if demo else _configured(_inherited(context, given))
    secrets = _asked_first(settings, confirmed=given["yes"])
    is_ascii = not _is_utf8(sys.stdout) if ascii is None else ascii
    if form != "json" and not is_ascii:
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    if what == "findings":
        from coldaisle.tui.finding_list import print_findings

        return print_findings(settings, request, secrets, form=form or "text", ascii_only=is_ascii)
    from coldaisle.tui.listing import print_listing

    if instant is not None and instant.note:
        click.echo(f"coldaisle: {instant.note}", err=True)
    return print_listing(
        settings,
        request,
        patience,
        secrets,
        at=instant.at if instant else None,
        form=form or "text",
        ascii_only=is_ascii,
    )


class _Elsewhere(click.Group):
    """A group whose commands stand in a file of their own, which is read when one of them is asked for."""

    def list_commands(self, _: click.Context) -> list[str]:
        from coldaisle.tui.size import COMMANDS

        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        from coldaisle.tui.size import COMMANDS

        return COMMANDS.get(name)


@main.group(cls=_Elsewhere, short_help="The calculator: how many of which GPU a model needs.")
def size() -> None:
    """How many of which GPU: a model to train, fine-tune or serve in, parts and numbers out.

    \b
    coldaisle size train --model llama-3.1-405b --tokens 15T --deadline 90d
    coldaisle size finetune --model llama-3.3-70b --tokens 500M --part h100_sxm
    coldaisle size serve --model llama-3.3-70b --users 200 --itl 50ms --json

    Nothing is asked of any cluster. Every figure has an interval that it lies in four times of five; --explain gives
    its formula and source. Exit status: 0 it can be done, 2 with none of the parts, 3 bad usage.
    """


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(coldaisle completion bash)"        in ~/.bashrc
    zsh:   eval "$(coldaisle completion zsh)"         in ~/.zshrc
    fish:  coldaisle completion fish | source         in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(main, {}, "coldaisle", "_COLDAISLE_COMPLETE").source())


def _inherited(context: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """``coldaisle --ssh n1 doctor`` means ``coldaisle doctor --ssh n1``."""
    before: dict[str, Any] = context.obj or {}
    return {key: value or before.get(key) for key, value in given.items()}


def _configured(given: dict[str, Any]) -> Settings:
    """The file, the flags over it, and what this machine sees by itself where neither names a source."""
    from coldaisle.sources.config import load_default

    settings = load_default(given["config"])
    flags = _flags(given)
    if not (
        settings.sources or flags.ssh or flags.exporter or flags.prometheus or flags.slurm or flags.local
    ):
        settings = settings.with_sources(_detected())
    return settings.with_flags(flags)


def _for_audit(given: dict[str, Any], *, needs_source: bool) -> Settings:
    """As configured; a file of accounting is a source enough."""
    from coldaisle.sources.config import load_default

    if not needs_source:
        return load_default(given["config"]).with_flags(_flags(given))
    try:
        return _configured(given)
    except ConfigError:
        raise
    except ColdaisleError as error:
        remedy = (
            "name what remembers: --prometheus URL, --slurm local or --sacct FILE; --demo --for 10s shows one"
        )
        raise ColdaisleError(error.problem.replace("nothing to show", "nothing to audit"), remedy) from None


def _flags(given: dict[str, Any]) -> Flags:
    from dataclasses import fields

    from coldaisle.sources.settings import Flags

    known = {setting.name for setting in fields(Flags)}
    return Flags(**{key: value for key, value in given.items() if key in known and value is not None})


def _detected() -> Sequence[dict[str, Any]]:
    from coldaisle.sources.detection import detect

    found = detect()
    if not found.sources:
        looked = "; ".join(found.notes)
        raise ColdaisleError(
            f"nothing to show: no configuration, and this machine has nothing to see ({looked})",
            "coldaisle demo shows a simulated cluster; --ssh 'n[1-4]' or --exporter 'n[1-4]:9400' a real one",
        )
    return found.sources


def _default_path() -> Path:
    from coldaisle.sources.config import default_path

    return default_path()


def _seconds(text: str, option: str = "--for") -> float:
    from coldaisle.sources.units import parse

    try:
        return max(parse(text, "s"), 0.5)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _column_help(what: str) -> Iterable[str]:
    from coldaisle.tui import finding_list, listing

    return finding_list.column_help() if what == "findings" else listing.column_help(what)


def _request(what: str, where: str, columns: str, sort: str, seconds: float | None) -> Any:
    """What a list asks for, of its kind."""
    from coldaisle.tui import finding_list, listing

    try:
        if what == "findings":
            return finding_list.request_of(where, columns, sort, seconds)
        return listing.request_of(what, where, columns, sort)
    except FilterError as error:
        error.text = where
        raise


def _of_demo(given: dict[str, Any]) -> Settings:
    from coldaisle.sources.config import Settings

    if any(given[name] for name in ("ssh", "exporter", "prometheus", "local", "config")):
        raise click.UsageError("--demo is a cluster of its own: no other source beside it")
    return Settings().with_sources([{"kind": "simulator"}]).with_flags(_flags({"name": "demo"}))


def _instant(text: str | None) -> Instant | None:
    """What --at says; it is checked before anything is asked or started."""
    if text is None:
        return None
    import time

    from coldaisle.sources.instants import parse_instant

    try:
        return parse_instant(text, time.time())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--at") from None


def _focus(name: str) -> str:
    """What --focus names; whether it is there is only known when sources have told."""
    name = name.strip()
    if not name.isprintable() or len(name) > 200:
        raise click.BadParameter("a name has at most 200 printable characters", param_hint="--focus")
    return name


def _dashboard(
    settings: Settings, *, confirmed: bool = False, at: Instant | None = None, focus: str = ""
) -> int:
    _needs_terminal(os.environ.get("TERM", ""), (sys.stdin, sys.stdout))
    _start_log()
    secrets = _asked_first(settings, confirmed=confirmed)
    from coldaisle.tui.dashboard import run_dashboard

    return run_dashboard(settings, secrets, at, focus)


def _asked_first(settings: Settings, *, confirmed: bool) -> dict[str, Secrets]:
    if not any(map(_logs_in, settings.sources)):
        return {}
    from coldaisle.tui.preflight import ask_first

    return ask_first(settings, confirmed=confirmed)


def _logs_in(source: SourceSettings) -> bool:
    return source.__struct_config__.tag == "ssh" or getattr(source, "via", "").startswith("ssh:")


def _needs_terminal(term: str, streams: Iterable[Any]) -> None:
    if not all(stream is not None and stream.isatty() for stream in streams):
        raise ColdaisleError("the dashboard needs a terminal", "coldaisle doctor prints plain text")
    if term in ("", "dumb", "unknown"):
        problem = f"the terminal says it is {term or 'nothing'} (TERM): it cannot show a dashboard"
        raise ColdaisleError(problem, "set TERM, or use coldaisle doctor: it prints plain text")
