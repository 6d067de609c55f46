"""What can be configured, typed: one struct for each kind of source and each table of the file.

Values are canonical here: seconds, bytes, expanded node sets, absolute paths. :mod:`.config` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec.structs import replace

from coldaisle.sources.entries import Entry

Interval = Annotated[float, Meta(ge=0.2, le=3600)]
Timeout = Annotated[float, Meta(ge=0.1, le=600)]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]


class LocalSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="local"
):
    """This machine, through the probe."""

    name: Name = "local"
    interval: Interval = 2.0


class SshSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="ssh"):
    """Hosts through the probe, over SSH. None: as ssh_config says."""

    hosts: tuple[str, ...]
    name: Name = "ssh"
    interval: Interval = 2.0
    user: str | None = None
    port: PortNumber | None = None
    identity: tuple[str, ...] = ()
    """Private key files, absolute."""
    jump: str | None = None
    """``[user@]host[:port]``, several joined by commas, as ssh -J takes them."""
    ssh_config: tuple[str, ...] = ()
    """Instead of the user's and the system's, absolute."""
    known_hosts: tuple[str, ...] = ()
    """Instead of the user's and the system's, absolute."""
    connect_timeout: Timeout = 10.0


class ExporterSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="exporters"
):
    """Pages of metrics over HTTP."""

    targets: tuple[str, ...]
    """``host:port`` or ``http[s]://host[:port][/path]``, expanded."""
    name: Name = "exporters"
    interval: Interval = 5.0
    timeout: Timeout | None = None
    """Of a whole page; None: as the interval allows."""
    token_file: str | None = None
    token_env: str | None = None
    token_command: str | tuple[str, ...] | None = None
    insecure: bool = False
    """Whether the token may travel over plain http."""
    ca: str | None = None
    """The file of the authorities that are trusted, instead of the system's; absolute."""
    vocabulary: tuple[str, ...] = ()
    """The site's own vocabulary files, absolute."""


class FromEnvironment(Struct, frozen=True, forbid_unknown_fields=True):
    """A text that stands in an environment variable."""

    env: str


class Rewrite(Struct, frozen=True, forbid_unknown_fields=True):
    """How a server's name for a node becomes the node's name."""

    match: str
    """A regular expression for the whole name."""
    to: str
    """What it becomes; groups as ``\\1`` or ``\\g<name>``."""


class PrometheusSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="prometheus"
):
    """A Prometheus-compatible server; paths are absolute."""

    url: str
    """Its address, with a path prefix or without, or Grafana's, or that of one of its data sources."""
    name: Name = "prometheus"
    interval: Interval | None = None
    """None: as the server scrapes."""
    timeout: Timeout = 15.0
    """Of one query."""
    token_file: str | None = None
    token_env: str | None = None
    token_command: str | tuple[str, ...] | None = None
    user: str | None = None
    """Of basic authentication."""
    password_file: str | None = None
    password_env: str | None = None
    password_command: str | tuple[str, ...] | None = None
    ca: str | None = None
    """The file of the authorities that are trusted, instead of the system's."""
    cert: str | None = None
    key: str | None = None
    """The key of ``cert``; None: it stands in the same file."""
    headers: dict[str, str | FromEnvironment] = {}
    """Further headers of every request: a tenant's."""
    proxy: str | None = None
    """``http://host:port``; None: the environment's (HTTPS_PROXY, NO_PROXY ...)."""
    insecure: bool = False
    """Whether secrets may travel over plain http."""
    vocabulary: tuple[str, ...] = ()
    """The site's own vocabulary files, absolute."""
    match: tuple[str, ...] = ()
    """Label matchers that every selector gets: ``cluster="atlas"``."""
    rewrite: tuple[Rewrite, ...] = ()
    """Of node names; the first that matches counts."""
    lookback: Annotated[float, Meta(ge=1, le=3600)] | None = None
    """Seconds that the server goes on showing a series that ended; None: as it says, else five minutes."""

    @property
    def has_secrets(self) -> bool:
        """Whether anything is sent that others must not read."""
        named = any(isinstance(value, FromEnvironment) for value in self.headers.values())
        return bool(named or self.user or self.token_file or self.token_env or self.token_command)


class SlurmSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="slurm"
):
    """A Slurm cluster's jobs and nodes; paths are absolute."""

    via: str = "local"
    """``local`` (its commands, here), ``ssh:[user@]host[:port]`` (there), or slurmrestd's address: a URL, or the
    path of its socket."""
    name: Name = "slurm"
    interval: Annotated[float, Meta(ge=5, le=3600)] = 60.0
    """Between two looks at jobs and nodes; more while slurmctld is busy."""
    timeout: Timeout = 60.0
    """Of one question."""
    topology: str | None = None
    """A topology.conf or topology.yaml, where slurmctld is not asked for it, or does not say."""
    all_nodes: bool = False
    """Whether nodes without GPUs are shown, too, and their jobs."""
    user: str | None = None
    """Whose token it is; None: as the token says."""
    token_file: str | None = None
    token_env: str | None = None
    """None of these: SLURM_JWT."""
    token_command: str | tuple[str, ...] | None = None
    insecure: bool = False
    """Whether the token may travel over plain http."""
    ca: str | None = None
    """The file of the authorities that are trusted, instead of the system's."""
    identity: tuple[str, ...] = ()
    jump: str | None = None
    ssh_config: tuple[str, ...] = ()
    known_hosts: tuple[str, ...] = ()
    """These four are of ``ssh:``, as an ssh source has them."""

    def login(self) -> SshSettings:
        """How the login node of ``ssh:`` is reached; by ssh_config where nothing else is said."""
        return SshSettings(
            hosts=(self.via.removeprefix("ssh:"),),
            name=self.name,
            jump=self.jump,
            identity=self.identity,
            ssh_config=self.ssh_config,
            known_hosts=self.known_hosts,
        )


class MetricSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric of the site's own, or another name of one that is shipped: ``[[metric]]``."""

    key: str
    """``job.step_time``"""
    names: Annotated[tuple[str, ...], Meta(min_length=1)]
    """What pages call it; several: generations of one name."""
    unit: str = ""
    """Canonical; empty: the key is a shipped one."""
    range: tuple[float, float] | None = None
    help: str = ""
    type: Literal["gauge", "rate"] = "gauge"
    scale: float = 1.0
    offset: float = 0.0
    fold: Literal["one", "sum", "max", "min", "mean", "count"] = "one"
    parts: tuple[str, ...] = ()
    gpu: str = ""
    """The label with the GPU's UUID."""
    node: str = ""
    """The label that names the node; empty, or absent: the page's own."""
    rack: str = ""
    job: str = ""
    """The label with the Slurm job's id."""

    @property
    def entry(self) -> Entry:
        """What it declares."""
        return Entry(self.unit, self.range, self.help)


class SimulatorSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="simulator"
):
    """A cluster that does not exist."""

    name: Name = "simulator"
    interval: Interval = 2.0
    racks: Annotated[int, Meta(ge=1, le=1000)] = 16
    nodes: Annotated[int, Meta(ge=1, le=256)] = 4
    """Nodes a rack."""
    gpus: Annotated[int, Meta(ge=1, le=16)] = 8
    """GPUs a node."""
    seed: int = 1


SourceSettings: TypeAlias = (
    LocalSettings | SshSettings | ExporterSettings | PrometheusSettings | SlurmSettings | SimulatorSettings
)


class RackSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Where nodes stand, as the site says."""

    from_: str | None = None
    """``slurm``: as features, blocks or leaf switches have it."""
    pattern: str | None = None
    file: str | None = None
    map: dict[str, tuple[str, ...]] = {}
    """Rack -> its nodes, expanded."""


class NodeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names that the site knows to be one node."""

    aliases: dict[str, tuple[str, ...]] = {}
    """Node -> its other names."""
    rename: dict[str, str] = {}
    """Name -> the name to show."""

    def names(self) -> dict[str, str]:
        """Every other name -> the node it belongs to."""
        return {alias: node for node, others in self.aliases.items() for alias in others} | self.rename


class ScreenSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it looks. None: as the terminal allows."""

    theme: str | None = None
    metric: str | None = None
    """The catalog key that cells show first."""
    interval: Interval | None = None
    """Seconds between repaints; None: the fastest source's."""
    bytes_per_second: Annotated[float, Meta(ge=1000, le=1e9)] = 50_000.0
    ascii: bool | None = None
    mouse: bool = True
    bell: bool = True
    """Whether a new critical finding rings the terminal's bell."""


Latency: TypeAlias = Annotated[float, Meta(ge=1e-4, le=86400)] | Literal["none"]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=0.5)] | Literal["none"]
NO_OBJECTIVE = "none"
"""Written for one service where the others have an objective."""


class SloSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an inference service promises: limits that its worst replica must keep. None: as for all services."""

    ttft_p50: Latency | None = None
    ttft_p95: Latency | None = None
    ttft_p99: Latency | None = None
    itl_p50: Latency | None = None
    itl_p95: Latency | None = None
    itl_p99: Latency | None = None
    e2e_p50: Latency | None = None
    e2e_p95: Latency | None = None
    e2e_p99: Latency | None = None
    queue_p50: Latency | None = None
    queue_p99: Latency | None = None
    errors: Share | None = None
    """Requests that fail, of all that end."""

    def limits(self) -> dict[str, float]:
        """The limits that are set, by name, in seconds (``errors``: a ratio)."""
        given = {name: getattr(self, name) for name in SLO_NAMES}
        return {name: limit for name, limit in given.items() if isinstance(limit, float)}

    def over(self, defaults: SloSettings) -> SloSettings:
        """These, and the defaults for what is not said."""
        names = [name for name in SLO_NAMES if getattr(self, name) is None]
        return replace(self, **{name: getattr(defaults, name) for name in names})


SLO_NAMES = SloSettings.__struct_fields__


class ServingSettings(SloSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inference services: what all of them promise, and what single ones do."""

    slo: dict[str, SloSettings] = {}
    """By the name of a deployment or of a model."""

    def of(self, *names: str | None) -> dict[str, float]:
        """The limits of a service that goes by these names, the first that is known; see SloSettings.limits."""
        own = next((self.slo[name] for name in names if name is not None and name in self.slo), SloSettings())
        return own.over(self).limits()


DEMO_SERVING = ServingSettings(
    errors=0.01,
    slo={
        "chat-70b": SloSettings(ttft_p99=2.0, itl_p99=0.3),
        "code-32b": SloSettings(ttft_p99=1.5, itl_p99=0.3),
        "embed-8b": SloSettings(e2e_p95=2.0),
    },
)
"""What the services of the simulated cluster promise."""


class HistorySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much is remembered."""

    minutes: Annotated[float, Meta(ge=1, le=1440)] = 15.0
    """Of full resolution."""
    memory: Annotated[float, Meta(ge=2**24, le=2**40)] = 260e6
    """Bytes of full resolution, at most; beyond them it is shorter."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line says, as typed; None or empty: nothing."""

    ssh: tuple[str, ...] = ()
    exporter: tuple[str, ...] = ()
    prometheus: tuple[str, ...] = ()
    slurm: tuple[str, ...] = ()
    local: bool = False
    name: str | None = None
    interval: str | None = None
    user: str | None = None
    port: int | None = None
    jump: str | None = None
    identity: tuple[str, ...] = ()
    ssh_config: tuple[str, ...] = ()
    known_hosts: tuple[str, ...] = ()
    connect_timeout: str | None = None
    timeout: str | None = None
    token_file: str | None = None
    token_env: str | None = None
    token_command: str | None = None
    insecure: bool | None = None
    vocabulary: tuple[str, ...] = ()
    pattern: str | None = None
    file: str | None = None
    theme: str | None = None
    metric: str | None = None
    bytes_per_second: str | None = None
    ascii: bool | None = None
    mouse: bool | None = None
    bell: bool | None = None
    minutes: float | None = None
    memory: str | None = None
