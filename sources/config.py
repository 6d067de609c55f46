"""The configuration: one TOML file, flags over it, every mistake with its file, line and remedy.

::

    name = "atlas"
    [[source]]
    kind = "ssh"                       # or local, exporters, prometheus, slurm, simulator
    hosts = "r[01-16]n[01-04]"
    interval = "2s"
    [racks]
    pattern = '(?P<rack>r\\d+)n\\d+'     # or file = "racks.csv", map = { r01 = "n[01-04]" }, from = "slurm"
    [[metric]]                         # of the site's own
    key = "job.step_time"
    names = ["train_step_seconds"]
    unit = "s"
    job = "slurm_job_id"
    [serving.slo."chat-70b"]
    ttft_p99 = "2s"
    [detectors.thermal_throttling]     # thresholds of the site's own
    duty = 0.2
    [advice.common]                    # of the advice rules too
    price_per_gpu_hour = 2.3
    [screen]
    theme = "dark"

Paths in the file are relative to the file. Secrets never stand in it: they come from a file, an
environment variable or a command.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from coldaisle.sources.entries import entry_problems, shipped_keys
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.nodesets import expand_all, expand_url
from coldaisle.sources.settings import (
    NO_OBJECTIVE,
    SLO_NAMES,
    ExporterSettings,
    Flags,
    HistorySettings,
    LocalSettings,
    MetricSettings,
    NodeSettings,
    PrometheusSettings,
    RackSettings,
    ScreenSettings,
    ServingSettings,
    SimulatorSettings,
    SloSettings,
    SlurmSettings,
    SourceSettings,
    SshSettings,
)
from coldaisle.sources.text import is_loopback, valid_host_name
from coldaisle.sources.units import parse, show

if TYPE_CHECKING:
    from coldaisle.sources.racks import RackRules

MAX_CONFIG_BYTES = 1_000_000

Raw: TypeAlias = dict[str, Any]
Place: TypeAlias = tuple[str | int, ...]
"""Where a setting stands, as in positions.Path: ``("source", 1, "hosts")``."""

_KINDS: Mapping[str, type[SourceSettings]] = {
    "local": LocalSettings,
    "ssh": SshSettings,
    "exporters": ExporterSettings,
    "prometheus": PrometheusSettings,
    "slurm": SlurmSettings,
    "simulator": SimulatorSettings,
}
_TABLES: Mapping[str, type[Struct]] = {
    "racks": RackSettings,
    "nodes": NodeSettings,
    "serving": ServingSettings,
    "screen": ScreenSettings,
    "history": HistorySettings,
}
_UNITS = {
    "interval": "s", "timeout": "s", "connect_timeout": "s", "bytes_per_second": "B/s", "memory": "B",
    "lookback": "s",
    **dict.fromkeys(SLO_NAMES, "s"), "errors": "ratio",
}  # fmt: skip
MAX_SIMULATED_NODES, MAX_SIMULATED_GPUS = 2048, 16_384
"""Beyond these the first picture takes many seconds, and the memory of a small machine."""
_HOST = re.compile(r"(?:[A-Za-z0-9_][^@\s:/]*@)?[^@\s/]+")
_PATHS = (
    "identity", "ssh_config", "known_hosts", "token_file", "password_file", "ca", "cert", "key", "vocabulary",
    "file", "topology",
)  # fmt: skip
_LISTS = ("hosts", "targets", "identity", "ssh_config", "known_hosts", "vocabulary")
_SECRETS = ("token", "password", "passphrase", "bearer", "secret", "api_key")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was configured, checked."""

    name: str = ""
    """The cluster's; empty: not given."""
    sources: tuple[SourceSettings, ...] = ()
    racks: RackSettings = field(default_factory=RackSettings)
    nodes: NodeSettings = field(default_factory=NodeSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)
    screen: ScreenSettings = field(default_factory=ScreenSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    metrics: tuple[MetricSettings, ...] = ()
    """The site's own."""
    detectors: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The site's thresholds, by detector, as written: what can be set is known where detectors are (analyzers)."""
    advice: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The same of the rules of advice, and ``common`` to all of them."""
    file: Path | None = field(default=None, compare=False)

    def rack_rules(self) -> RackRules:
        """``racks``, with its table read; ConfigError if that has changed for the worse since."""
        try:
            return _rules(self.racks)
        except _SettingError as error:
            raise ConfigError(error.problem, error.remedy, file=self.file) from None

    def with_sources(self, sources: Sequence[Raw]) -> Settings:
        """The same with these sources, as written, instead; ConfigError for the first mistake in them."""
        try:
            return _settings(_raw(self) | {"source": list(sources)}, self.file)
        except _SettingError as error:
            raise ConfigError(error.problem, error.remedy) from None

    def with_flags(self, flags: Flags) -> Settings:
        """The same with what flags say over it; ConfigError names the flag."""
        try:
            return _settings(_overlaid(_raw(self), flags), self.file)
        except _SettingError as error:
            setting = next((str(part) for part in reversed(error.path) if part in _FLAG_OF), "")
            problem = error.problem.removeprefix(f"{setting}: ")
            raise ConfigError(
                f"{_FLAG_OF.get(setting, 'flags')}: {problem}", _remedy_for_flags(error.remedy)
            ) from None


_FLAG_OF = {setting.name: f"--{setting.name.replace('_', '-')}" for setting in fields(Flags)} | {
    "hosts": "--ssh",
    "targets": "--exporter",
    "url": "--prometheus",
    "via": "--slurm",
    "pattern": "--rack-pattern",
    "file": "--racks-file",
    "bytes_per_second": "--bytes",
    "minutes": "--history",
}
_OVER_HTTP = (
    "interval", "timeout", "token_file", "token_env", "token_command", "insecure", "vocabulary",
)  # fmt: skip
_FLAGS_OF_KIND = {
    "local": ("interval",),
    "simulator": ("interval",),
    "ssh": ("interval", "user", "port", "jump", "identity", "ssh_config", "known_hosts", "connect_timeout"),
    "exporters": _OVER_HTTP,
    "prometheus": _OVER_HTTP,
    "slurm": (
        "timeout", "token_file", "token_env", "token_command", "insecure", "jump", "identity", "ssh_config",
        "known_hosts",
    ),
}  # fmt: skip
_FLAGS_OF_TABLE = {
    "racks": ("pattern", "file"),
    "screen": ("theme", "metric", "bytes_per_second", "ascii", "mouse", "bell"),
    "history": ("minutes", "memory"),
}
_IN_FLAGS = {
    ' or ["n1", "n2"]': "",
    "does not stand in this file": "does not stand on a command line",
    "token_file, token_env or token_command": "--token-file, --token-env or --token-command",
    "insecure = true": "--insecure",
    "token_file": "--token-file",
}
"""What a remedy says of a file -> what it says of flags."""


def _remedy_for_flags(remedy: str) -> str:
    for in_file, in_flags in _IN_FLAGS.items():
        remedy = remedy.replace(in_file, in_flags)
    return remedy


class _SettingError(Exception):
    """A mistake at a place in the raw settings; becomes a ConfigError where the file is known."""

    def __init__(self, path: Place, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.path = path
        self.problem = problem
        self.remedy = remedy


def default_path() -> Path:
    """``$XDG_CONFIG_HOME/coldaisle/config.toml``."""
    from platformdirs import user_config_path

    return user_config_path("coldaisle") / "config.toml"


def load(path: Path) -> Settings:
    """The settings of a file; ConfigError with file, line and remedy for the first mistake in it."""
    text = _read(path)
    try:
        return _settings(_toml(text, path), path)
    except _SettingError as error:
        from coldaisle.sources import positions

        line = positions.line_of(text, error.path)
        raise ConfigError(error.problem, error.remedy, file=path, line=line) from None


def load_default(path: Path | None = None) -> Settings:
    """The file given, else the default one if there is one, else no settings at all."""
    if path is not None:
        return load(path)
    return load(default_path()) if default_path().exists() else Settings()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        problem = f"cannot read the configuration: {error.strerror or error}"
        raise ConfigError(problem, "check the path and its permissions", file=path) from None
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError("not UTF-8 text", "save the file as UTF-8", file=path, line=line) from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError("larger than 1 MB: not a configuration", "give the TOML file itself", file=path)
    return text


def _toml(text: str, path: Path) -> Raw:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, line, column = _toml_problem(str(error), text)
        where = f" (column {column})" if column else ""
        remedy = 'text stands in quotes: name = "atlas"; tables in brackets: [screen], [[source]]'
        raise ConfigError(f"not TOML: {problem}{where}", remedy, file=path, line=line) from None
    except RecursionError:
        raise ConfigError("nested too deeply", "write it flat", file=path) from None


def _toml_problem(message: str, text: str) -> tuple[str, int, int | None]:
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if match is None:
        return message, 1, None
    last = max(text.rstrip().count("\n") + 1, 1)
    return match[1], int(match[2] or last), int(match[3]) if match[3] else None


def _settings(raw: Raw, file: Path | None) -> Settings:
    folder = file.parent.absolute() if file else Path.cwd()
    _known(raw, ("name", "source", "metric", "detectors", "advice", *_TABLES), (), "at the top of the file")
    sources = _sources(raw.get("source", []), folder)
    tables = {key: _table(kind, raw.get(key, {}), key, folder) for key, kind in _TABLES.items()}
    name = raw.get("name", "")
    if not isinstance(name, str) or len(name) > 64:
        raise _SettingError(("name",), "name must be a text of at most 64 characters", 'write name = "atlas"')
    racks = cast(RackSettings, tables["racks"])
    screen = cast(ScreenSettings, tables["screen"])
    metrics = _metrics(raw.get("metric", []))
    _check_metric(screen.metric, sources, metrics)
    _check_theme(screen.theme)
    nodes = cast(NodeSettings, tables["nodes"])
    _check_names(nodes)
    if racks != RackSettings():
        _rules(racks)
    _check_origin(racks.from_, sources)
    return Settings(
        name=name,
        sources=sources,
        racks=racks,
        nodes=nodes,
        serving=cast(ServingSettings, tables["serving"]),
        screen=screen,
        history=cast(HistorySettings, tables["history"]),
        metrics=metrics,
        detectors=_thresholds(raw.get("detectors", {})),
        advice=_thresholds(raw.get("advice", {}), "advice"),
        file=file,
    )


def _thresholds(raw: Any, table: str = "detectors") -> dict[str, dict[str, object]]:
    of, example = _THRESHOLDS[table]
    if not isinstance(raw, dict):
        raise _SettingError((table,), f"{table} must hold a table for each {of}", example)
    for name, given in raw.items():
        if not isinstance(given, dict):
            raise _SettingError((table, name), f"{name!r:.60}: a {of}'s thresholds are a table", example)
    return raw


_THRESHOLDS = {
    "detectors": ("detector", "write [detectors.thermal_throttling] and below it duty = 0.2"),
    "advice": ("rule", "write [advice.idle_gpus] and below it run_s = 3600.0"),
}
"""What such a table's tables are of, and an example."""


def _sources(raws: Any, folder: Path) -> tuple[SourceSettings, ...]:
    if not isinstance(raws, list):
        raise _SettingError(
            ("source",), "source must be written as [[source]]", "each source has its own [[source]]"
        )
    sources: list[SourceSettings] = []
    for number, raw in enumerate(raws):
        path: Place = ("source", number)
        source = _source(raw, path, folder)
        names = [earlier.name for earlier in sources]
        if source.name in names:
            if "name" in raw:
                problem = f"two sources are called {source.name!r}"
                raise _SettingError((*path, "name"), problem, "give each its own name")
            source = msgspec.structs.replace(source, name=f"{source.name}-{number + 1}")
        sources.append(source)
    return tuple(sources)


def _source(raw: Any, path: Place, folder: Path) -> SourceSettings:
    if not isinstance(raw, dict):
        raise _SettingError(path, "a source must be a table", "write it as [[source]] with kind = ...")
    kind = _kind(raw, path)
    settings = _KINDS[kind]
    _known(raw, ("kind", *settings.__struct_fields__), path, f"of a source of kind {kind}")
    source: SourceSettings = _convert(settings, _prepared(raw, path, folder), path)
    if isinstance(source, SshSettings):
        _check_hosts(source, path)
    elif isinstance(source, ExporterSettings):
        _check_targets(source, path)
        _check_token(source, path)
        _check_ca(source, path)
    elif isinstance(source, PrometheusSettings | SlurmSettings):
        for setting, problem, remedy in _mistakes(source):
            raise _SettingError((*path, setting), problem, remedy)
    elif isinstance(source, SimulatorSettings):
        _check_size(source, path)
    return source


def _metrics(raws: Any) -> tuple[MetricSettings, ...]:
    if not isinstance(raws, list):
        raise _SettingError(
            ("metric",), "metric must be written as [[metric]]", "each has its own [[metric]]"
        )
    metrics: list[MetricSettings] = []
    for number, raw in enumerate(raws):
        path: Place = ("metric", number)
        if not isinstance(raw, dict):
            raise _SettingError(path, "a metric must be a table", "write it as [[metric]] with key = ...")
        _known(raw, MetricSettings.__struct_fields__, path, "of a metric")
        if isinstance(raw.get("names"), str):
            raw = raw | {"names": [raw["names"]]}
        metric: MetricSettings = _convert(MetricSettings, raw, path)
        _check_own(metric, metrics, path)
        metrics.append(metric)
    return tuple(metrics)


def _check_own(metric: MetricSettings, earlier: Sequence[MetricSettings], path: Place) -> None:
    declared = {other.key: other.entry for other in earlier if other.unit}
    if metric.unit:
        problem = next(iter(entry_problems(metric.key, metric.entry)), "")
        if declared.get(metric.key, metric.entry) != metric.entry:
            problem = "declared before, in other words"
        remedy = "a metric of the site's own has a key that coldaisle does not ship, and a unit that it knows"
    else:
        known = (*shipped_keys(), *declared)
        problem = "" if metric.key in known else "the catalog has no such metric"
        remedy = _meant(metric.key, known, otherwise='declare it with unit = "..."')
    if problem:
        raise _SettingError((*path, "key"), f"{metric.key}: {problem}", remedy)
    kind = metric.key.partition(".")[0]
    if kind not in _OWN_KINDS:
        remedy = "write a vocabulary file for it (sources/README.md)"
        raise _SettingError((*path, "key"), f"{metric.key}: [[metric]] is not for a {kind}", remedy)
    if not getattr(metric, kind) and kind != "node":
        raise _SettingError(
            path, f"{metric.key}: whose it is is missing", f'add {kind} = "the label that names it"'
        )


_OWN_KINDS = ("gpu", "node", "rack", "job")


def _mistakes(source: PrometheusSettings | SlurmSettings) -> Iterable[tuple[str, str, str]]:
    """(setting, problem, remedy). Imported here: before the first paint only a site with such a source pays for it."""
    if isinstance(source, SlurmSettings):
        from coldaisle.sources.slurm import configuration as slurm

        return slurm.mistakes(source)
    from coldaisle.sources.prometheus import configuration as prometheus

    return prometheus.mistakes(source)


def _kind(raw: Raw, path: Place) -> str:
    kind = raw.get("kind")
    known = ", ".join(_KINDS)
    if kind is None:
        raise _SettingError(path, "a source without a kind", f"write kind = one of {known}")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise _SettingError(
            (*path, "kind"), f"no source has the kind {kind!r:.40}", _meant(str(kind), _KINDS)
        )
    return kind


def _table(kind: type[Struct], raw: Any, key: str, folder: Path) -> Struct:
    if not isinstance(raw, dict):
        raise _SettingError((key,), f"{key} must be a table", f"write it as [{key}]")
    _known(raw, kind.__struct_encode_fields__, (key,), f"in [{key}]")
    raw = _prepared(raw, (key,), folder)
    for field_name in ("map", "aliases"):
        if isinstance(raw.get(field_name), dict):
            raw[field_name] = {
                name: _listed(nodes, (key, field_name, name)) for name, nodes in raw[field_name].items()
            }
    if kind is ServingSettings:
        raw["slo"] = _objectives(raw.get("slo", {}), folder)
    table: Struct = _convert(kind, raw, (key,))
    return table


def _objectives(raw: Any, folder: Path) -> Raw:
    """The objectives of single services; each is checked by itself, so that a mistake has its line."""
    example = 'write [serving.slo."chat-70b"] and below it ttft_p99 = "2s"'
    if not isinstance(raw, dict):
        raise _SettingError(("serving", "slo"), "slo must hold a table for each service", example)
    found = {}
    for name, limits in raw.items():
        path: Place = ("serving", "slo", name)
        if not isinstance(limits, dict):
            raise _SettingError(path, f"{name!r:.60}: the objectives of a service are a table", example)
        _known(limits, SLO_NAMES, path, f"of the service {name!r:.60}")
        found[name] = _convert(SloSettings, _prepared(limits, path, folder), path)
    return found


def _known(raw: Raw, known: Iterable[str], path: Place, where: str) -> None:
    names = list(known)
    for key in raw:
        if key in names:
            continue
        remedy = _meant(key, names)
        if key.lower() in _SECRETS:
            kept = "password" if "password_file" in names and "pass" in key.lower() else "token"
            ways = f"{kept}_file, {kept}_env or {kept}_command"
            remedy = f"a secret does not stand in this file: use {ways}"
        raise _SettingError((*path, key), f"no setting {key!r:.60} {where}", remedy)


def _meant(word: str, known: Iterable[str], otherwise: str = "") -> str:
    import difflib

    names = list(known)
    close = difflib.get_close_matches(word.lower(), names, n=1)
    return f"did you mean {close[0]}?" if close else otherwise or f"known here: {', '.join(names)}"


def _prepared(raw: Raw, path: Place, folder: Path) -> Raw:
    """What was written as text (durations, sizes, node sets, paths) as msgspec takes it."""
    ready = {key: value for key, value in raw.items() if key != "kind"}
    for key, value in ready.items():
        if isinstance(value, str) and key in _UNITS and not (key in SLO_NAMES and value == NO_OBJECTIVE):
            ready[key] = _quantity(value, _UNITS[key], (*path, key))
        elif key in ("hosts", "targets"):
            ready[key] = _expanded(value, (*path, key))
        elif key in _PATHS:
            ready[key] = _paths(value, (*path, key), folder)
        elif raw.get("kind") == "prometheus":
            from coldaisle.sources.prometheus.configuration import prepared

            ready[key] = prepared(key, value)
    return ready


def _quantity(text: str, unit: str, path: Place) -> float:
    try:
        return parse(text, unit)
    except ValueError as error:
        problem, _, remedy = str(error).partition(": ")
        raise _SettingError(path, f"{path[-1]}: {problem}", remedy) from None


def _expanded(value: Any, path: Place) -> Any:
    """A node set, or a list of them, as names; anything else is left to the type check."""
    sets = [value] if isinstance(value, str) else value
    if not isinstance(sets, list) or not all(isinstance(part, str) for part in sets):
        return value
    remedy = 'write "r[01-16]n[01-04]" or ["n1", "n2"]'
    urls = [part for part in sets if "://" in part and "&" in part]
    # the brackets of [fe80::1]:9100 are no node set
    odd = [part for part in sets if re.match(r"(?:https?://)?\[[0-9a-fA-F]*:", part)]
    try:
        names = [*expand_all(part for part in sets if part not in odd and part not in urls), *odd]
        names += [name for part in urls for name in expand_url(part)]
    except ValueError as error:
        raise _SettingError(path, f"{path[-1]}: {error}", remedy) from None
    if not names:
        raise _SettingError(path, f"{path[-1]}: nothing is listed", remedy)
    return names


def _listed(value: Any, path: Place) -> list[str]:
    """The same inside a map, where the type check could not say which line is wrong."""
    names = _expanded(value, path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _SettingError(path, f"{path[-1]}: expected a list of names", 'write "n[1-4]" or ["n1", "n2"]')
    return names


def _paths(value: Any, path: Place, folder: Path) -> Any:
    several = path[-1] in _LISTS
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        return value
    found = [str(folder / Path(os.path.expanduser(item))) for item in items]
    for item, full in zip(items, found, strict=True):
        if not os.path.exists(full):
            raise _SettingError(
                path, f"{path[-1]}: no file {item!r}", f"check the path; it was looked for at {full}"
            )
    return found if several else found[0] if isinstance(value, str) else value


def _convert(kind: type[Any], raw: Raw, path: Place) -> Any:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        inner = _path(place.strip("`"))
        problem, remedy = _range_words(message, inner) or (
            _type_problem(message, inner),
            _type_remedy(message),
        )
        raise _SettingError((*path, *inner), problem, remedy) from None


def _path(text: str) -> Place:
    """``$.source[1].hosts`` -> ("source", 1, "hosts"); a place inside a map ends it."""
    parts = re.findall(r"\.([A-Za-z_0-9]+)|\[(\d+)\]|(\[\.\.\.\])", text)
    path: list[str | int] = []
    for name, index, unknown in parts:
        if unknown:
            break
        path.append(name or int(index))
    return tuple(path)


_WORDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false",
    "array": "a list", "object": "a table",
}  # fmt: skip


def _type_words(types: str) -> str:
    """``int | null`` -> ``a whole number``"""
    return " or ".join(_WORDS.get(name, name) for name in types.split(" | ") if name != "null")


def _range_words(message: str, path: Place) -> tuple[str, str] | None:
    """Problem and remedy of a number outside its range, in the setting's unit; None: another mistake."""
    bound = re.fullmatch(r"Expected `[^`]*` (>=|<=) (\S+)", message)
    if bound is None or not path:
        return None
    setting = str(path[-1])
    limit = float(bound[2])
    number = f"{limit:g} min" if setting == "minutes" else f"{limit:g}"
    shown = show(limit, _UNITS[setting]) if setting in _UNITS else number
    low = bound[1] == ">="
    return (
        f"{setting}: {'at least' if low else 'at most'} {shown}",
        f"give {shown} or {'more' if low else 'less'}",
    )


def _type_problem(message: str, path: Place) -> str:
    """msgspec's message in the words of a configuration file."""
    missing = re.fullmatch(r"Object missing required field `(\w+)`", message)
    if missing:
        return f"{missing[1]} is missing"
    message = re.sub(r"`([^`]*)`", lambda match: _type_words(match[1]), message)
    setting = next((part for part in reversed(path) if isinstance(part, str)), "")
    return f"{setting}: {message[:1].lower()}{message[1:]}"


_EXAMPLES = {
    "hosts": '"r[01-16]n[01-04]"', "targets": '["n[01-16]:9400"]', "url": '"http://prom:9090"',
}  # fmt: skip


def _type_remedy(message: str) -> str:
    missing = re.fullmatch(r"Object missing required field `(\w+)`", message)
    if missing:
        example = _EXAMPLES.get(missing[1], "...")
        return f"add {missing[1]} = {example}"
    return "text stands in quotes, numbers and true or false do not; lists stand in [ ]"


def bare_host(written: str) -> str:
    """The host of ``[user@]host[:port]``."""
    host = written.rpartition("@")[2]
    return (host.partition(":")[0] if host.count(":") == 1 else host.partition("]")[0]).removeprefix("[")


def _check_hosts(source: SshSettings, path: Place) -> None:
    for host in source.hosts:
        if not _HOST.fullmatch(host) or not valid_host_name(bare_host(host)):
            problem = f"hosts: {host!r:.80} is not a host name"
            raise _SettingError(
                (*path, "hosts"), problem, "write [user@]host[:port]: letters, digits, . - and _"
            )
    for key, value in (("user", source.user), ("jump", source.jump)):
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_\[][^\s;|&`$<>\\\"']*", value):
            raise _SettingError(
                (*path, key), f"{key}: {value!r:.80} cannot be used", 'write a name, as in "login1"'
            )


def _check_names(nodes: NodeSettings) -> None:
    """Node names and their other names are held to what hosts are held to."""
    named = [
        (("nodes", "aliases", node), name)
        for node, others in nodes.aliases.items()
        for name in (node, *others)
    ]
    named += [(("nodes", "rename", old), name) for old, new in nodes.rename.items() for name in (old, new)]
    for path, name in named:
        if not valid_host_name(name):
            problem = f"{path[1]}: {name!r:.80} is not a host name"
            raise _SettingError(path, problem, "write letters, digits, . - and _, or an address")


def _check_size(source: SimulatorSettings, path: Place) -> None:
    nodes = source.racks * source.nodes
    gpus = nodes * source.gpus
    if nodes > MAX_SIMULATED_NODES or gpus > MAX_SIMULATED_GPUS:
        limits = f"at most {MAX_SIMULATED_NODES:,} nodes and {MAX_SIMULATED_GPUS:,} GPUs can be simulated"
        product = f"{source.racks} racks x {source.nodes} nodes x {source.gpus} GPUs"
        raise _SettingError(
            (*path, "racks"),
            f"{product} are {nodes:,} nodes and {gpus:,} GPUs: {limits}",
            "give fewer racks, nodes or GPUs",
        )


def _check_targets(source: ExporterSettings, path: Place) -> None:
    for target in source.targets:
        try:
            url = urlsplit(target if "://" in target else f"http://{target}")
            host, port = url.hostname or "", url.port
        except ValueError:
            host, port, url = "", None, urlsplit("")
        if url.username or url.password:
            remedy = "a secret does not stand in this file: use token_file, token_env or token_command"
            raise _SettingError(
                (*path, "targets"), f"targets: the URL of {host} holds a user or password", remedy
            )
        if (
            url.scheme not in ("http", "https")
            or not valid_host_name(host)
            or ("://" not in target and port is None)
        ):
            remedy = 'write "host:9400" or "https://host:9400/metrics"'
            raise _SettingError(
                (*path, "targets"), f"targets: {target!r:.80} is not host:port or a URL", remedy
            )


def _check_token(source: ExporterSettings, path: Place) -> None:
    ways = [key for key in ("token_file", "token_env", "token_command") if getattr(source, key)]
    if len(ways) > 1:
        raise _SettingError(
            (*path, ways[1]), f"{ways[0]} and {ways[1]}: one token is enough", "keep one of them"
        )
    if not ways or source.insecure:
        return
    for target in source.targets:
        if not target.startswith("https://") and not _is_loopback(target):
            remedy = "write the target as https://..., or allow it with insecure = true"
            raise _SettingError(
                (*path, "targets"), f"targets: the token would travel to {target!r:.80} in the clear", remedy
            )


def _check_ca(source: ExporterSettings, path: Place) -> None:
    if source.ca and not any(target.startswith("https:") for target in source.targets):
        problem, remedy = "ca: without TLS no certificate is shown", "write the targets as https://..."
        raise _SettingError((*path, "ca"), problem, remedy)


def _is_loopback(target: str) -> bool:
    return is_loopback(urlsplit(target if "://" in target else f"http://{target}").hostname or "")


def _check_origin(origin: str | None, sources: Iterable[SourceSettings]) -> None:
    """Who says where nodes stand must be there to be asked."""
    if origin is None:
        return
    if origin != "slurm":
        raise _SettingError(
            ("racks", "from"), f"from: nobody is called {origin!r:.40}", 'write from = "slurm"'
        )
    if not any(isinstance(source, SlurmSettings) for source in sources):
        remedy = 'add a [[source]] with kind = "slurm"'
        raise _SettingError(("racks", "from"), "from: no source of kind slurm is configured", remedy)


def _check_metric(key: str | None, sources: Sequence[SourceSettings], own: Sequence[MetricSettings]) -> None:
    if key is None or any(isinstance(one, ExporterSettings) and one.vocabulary for one in sources):
        return  # a vocabulary of the site's own may declare it
    keys = [name for name in (*sorted(shipped_keys()), *(one.key for one in own)) if name.startswith("gpu.")]
    if key not in keys:
        remedy = _meant(key, keys, otherwise="as in gpu.sm_active, gpu.power, gpu.temp")
        raise _SettingError(("screen", "metric"), f"metric: no GPU metric {key!r:.60}", remedy)


def theme_names() -> list[str]:
    """The colours that are shipped."""
    from importlib.resources import files

    names = (item.name for item in files("coldaisle.themes").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def _check_theme(name: str | None) -> None:
    if name is None:
        return
    names = theme_names()
    if name not in names:
        raise _SettingError(("screen", "theme"), f"theme: no theme {name!r:.40}", _meant(name, names))


def _rules(racks: RackSettings) -> RackRules:
    # imported here: before the first paint only a site with rules pays for it
    from coldaisle.sources.racks import RackRules, compile_pattern, read_table, table_from

    table = table_from(racks.map, "configuration")
    if racks.file:
        table = read_table(Path(racks.file)) | table
    if racks.pattern is None:
        return RackRules(table)
    try:
        return RackRules(table, compile_pattern(racks.pattern))
    except ConfigError as error:
        raise _SettingError(("racks", "pattern"), error.problem, error.remedy) from None


def _raw(settings: Settings) -> Raw:
    """The settings as they could have been written."""
    parts = {
        "name": settings.name,
        "source": settings.sources,
        "metric": settings.metrics,
        "detectors": settings.detectors,
        "advice": settings.advice,
    } | {key: getattr(settings, key) for key in _TABLES}
    raw: Raw = msgspec.json.decode(msgspec.json.encode(parts))
    return raw


def _overlaid(raw: Raw, flags: Flags) -> Raw:
    """The raw settings with the flags laid over them."""
    given: Raw = {setting.name: getattr(flags, setting.name) for setting in fields(flags)}
    given = {key: value for key, value in given.items() if value not in (None, ())}
    given |= {key: _absolute(value) for key, value in given.items() if key in _PATHS}
    merged = dict(raw)
    if flags.name is not None:
        merged["name"] = flags.name
    sources = _flag_sources(flags) or raw.get("source", [])
    merged["source"] = [
        source | {key: given[key] for key in _FLAGS_OF_KIND[source["kind"]] if key in given}
        for source in sources
    ]
    for table, keys in _FLAGS_OF_TABLE.items():
        over = {key: given[key] for key in keys if key in given}
        if over:
            merged[table] = raw.get(table, {}) | over
    return merged


def _flag_sources(flags: Flags) -> list[Raw]:
    sources: list[Raw] = []
    if flags.local:
        sources.append({"kind": "local"})
    if flags.ssh:
        sources.append({"kind": "ssh", "hosts": list(flags.ssh)})
    if flags.exporter:
        sources.append({"kind": "exporters", "targets": list(flags.exporter)})
    sources += [{"kind": "prometheus", "url": url} for url in flags.prometheus]
    sources += [{"kind": "slurm", "via": via} for via in flags.slurm]
    return sources


def _absolute(value: str | tuple[str, ...]) -> Any:
    """A path given on the command line is relative to where one stands, not to the file."""
    if isinstance(value, str):
        return str(Path(os.path.expanduser(value)).absolute())
    return [_absolute(item) for item in value]
