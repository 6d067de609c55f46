"""Logging in to hosts: ssh_config, known_hosts, keys, jump hosts and their limits; errors explained.

Host keys are always verified, whatever ssh_config says; agents are asked and never forwarded. Nothing
here prompts unless it was given somebody to ask (:func:`collect_secrets`, before the screen opens).
"""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import shlex
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import asyncssh

from coldaisle.sources.errors import (
    AccessDenied,
    ConfigError,
    Garbled,
    HostKeyChanged,
    HostKeyUnknown,
    SourceError,
    TimedOut,
    Unreachable,
    Unusable,
)
from coldaisle.sources.known_hosts import (
    SYSTEM_FILES,
    USER_FILES,
    KnownHosts,
    lookup_name,
    read_known_hosts,
)
from coldaisle.sources.settings import SshSettings
from coldaisle.sources.text import plain, valid_host_name

MAX_LOGINS = 16
MAX_LOGINS_VIA = 4
"""Logins at once through one jump host."""
MAX_JUMPS = 8
SILENT_S = 2.0
"""A server that has not said its version by then gives its place among the logins to the next."""
CHEAP_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""Moved to the front: asyncssh's ChaCha20 sets up three ciphers in Python for each packet, GCM one."""
CONFIGS = ("~/.ssh/config", "/etc/ssh/ssh_config")
DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
ATTEMPTS = 3
FIRST_HOSTS = 4
"""Of so many hosts one is asked before the screen opens."""
"""Times that a passphrase or password is asked for."""

REFUSAL = re.compile(
    r"[^\n]*(?:pam_slurm|no active jobs on this node|access denied|permission denied"
    r"|account (?:has )?expired|not allowed)[^\n]*",
    re.IGNORECASE,
)
"""What a server says that lets nobody, or not us, in; in a banner before it hangs up, or instead of a shell."""

TOO_MANY = "Too many authentication failures"
"""What sshd says when it hangs up after MaxAuthTries."""

SAYING_NO = (
    asyncssh.DISC_HOST_NOT_ALLOWED_TO_CONNECT,
    asyncssh.DISC_BY_APPLICATION,
    asyncssh.DISC_AUTH_CANCELLED_BY_USER,
    asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
    asyncssh.DISC_ILLEGAL_USER_NAME,
)
"""Ends of a login under way that are meant for us; a lost line or a busy server is tried again soon."""

Ask = Callable[[str], Awaitable[str | None]]
"""A question to the person at the terminal, answered unseen; None: no answer."""


class Destination(NamedTuple):
    """A host as somebody wrote it; None: as ssh_config says."""

    host: str
    user: str | None = None
    port: int | None = None


def destination(text: str) -> Destination:
    """``[user@]host[:port]``; ConfigError for what must not reach a resolver or a shell."""
    user, at, rest = text.rpartition("@")
    host, colon, port = rest.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or (":" in host and not _bracketed(host)):
        host, port = rest, ""
    host = host.removeprefix("[").removesuffix("]")
    if not valid_host_name(host):
        raise ConfigError(f"{plain(text)} is not a host name", "write [user@]host[:port]")
    if at and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@\\+-]*\$?", user, re.ASCII):
        raise ConfigError(f"{plain(user)} is not a user name", "write [user@]host[:port]")
    if port and not 0 < int(port) < 65536:
        raise ConfigError(f"{port} is not a port", "write [user@]host[:port]")
    return Destination(host, user or None, int(port) if port else None)


def _bracketed(host: str) -> bool:
    return host.startswith("[") and host.endswith("]")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited; seconds."""

    connect: float = 10.0
    """For the connection and the server's first word."""
    login: float = 30.0
    """For the rest of the login."""
    start: float = 30.0
    """For the probe's first line: login shells can be slow."""
    silence: float = 60.0
    """A probe that says nothing for so long (and 5 intervals) is started anew."""
    first_pause: float = 1.0
    longest_pause: float = 60.0
    denied: float = 600.0
    """Before a host that refused us is asked again."""
    scout: float = 1.0
    """The first host's head start; then the next is tried too."""
    gentle: float = 5.0
    """Between two hosts after the first refusal of our keys; doubled with each further one."""
    steady: float = 30.0
    """A probe that spoke for so long makes the pauses short again."""


@dataclass(slots=True)
class Secrets:
    """What a person typed, in memory only."""

    keys: dict[str, asyncssh.SSHKey] = field(default_factory=dict)
    """Opened private keys, by file."""
    passwords: dict[str, str] = field(default_factory=dict)
    """By the role of who asks (``hosts``, or a jump host's name) and the prompt."""

    def __repr__(self) -> str:
        return f"Secrets({len(self.keys)} keys, {len(self.passwords)} passwords)"


class Route(NamedTuple):
    """How ssh_config says a destination is reached."""

    options: asyncssh.SSHClientConnectionOptions
    name: str
    """What its key is looked up by."""
    port: int
    user: str
    known_hosts: tuple[Path, ...]
    identities: tuple[str, ...]
    only_identities: bool
    agent: str
    """The agent's socket; empty: none."""
    jumps: tuple[str, ...]
    command: str
    """``ssh`` with what of this route ssh_config does not say; for a remedy."""


def read_route(to: Destination, settings: SshSettings, *, hop: bool = False) -> Route:
    """Resolve a destination by ssh_config. Blocking: it reads files, and runs what ``Match exec`` says.

    User, port and jump host of the settings are for the hosts, not for the jump hosts on the way.
    """
    try:
        options = _options(to, settings, hop)
    except (ValueError, OSError) as error:
        raise Unusable(
            to.host, f"ssh_config: {error}", "correct the file, or name another with --ssh-config"
        ) from None
    config = options.config
    jump = config.get("ProxyJump") if hop or settings.jump is None else settings.jump
    own = () if hop else settings.identity
    alias = config.get("HostKeyAlias")
    return Route(
        options=options,
        name=str(alias or options.host),
        port=options.port,
        user=options.username,
        known_hosts=_known_hosts_files(config, settings),
        identities=(*own, *_strings(config.get("IdentityFile"))),
        only_identities=bool(config.get("IdentitiesOnly")),
        agent=_agent(config.get("IdentityAgent", ())),
        jumps=tuple(part.strip() for part in str(jump).split(",")) if jump and jump != "none" else (),
        command=_command(to, settings, hop),
    )


def _command(to: Destination, settings: SshSettings, hop: bool) -> str:
    """How a person reaches the same host; what they have in ssh_config needs no repeating."""
    user = to.user if hop else to.user or settings.user
    port = to.port if hop else to.port or settings.port
    jump = None if hop else settings.jump
    words = ["ssh"]
    words += ["-F", settings.ssh_config[0]] if settings.ssh_config else []
    words += ["-o", f"UserKnownHostsFile={settings.known_hosts[0]}"] if settings.known_hosts else []
    words += ["-p", str(port)] if port else []
    words += ["-J", str(jump)] if jump else []
    words.append(f"{user}@{to.host}" if user else to.host)
    return plain(shlex.join(words), 400)


def _options(to: Destination, settings: SshSettings, hop: bool) -> asyncssh.SSHClientConnectionOptions:
    paths = [Path(path).expanduser() for path in settings.ssh_config or CONFIGS]
    readable = [str(path) for path in paths if os.access(path, os.R_OK)]
    user = to.user if hop else to.user or settings.user
    port = to.port if hop else to.port or settings.port

    def read(final: bool) -> asyncssh.SSHClientConnectionOptions:
        return asyncssh.SSHClientConnectionOptions(
            config=readable or None,
            final=final,
            host=to.host,
            port=port if port is not None else (),
            username=user if user is not None else (),
            client_keys=None,
            known_hosts=b"",
            agent_forwarding=False,
            x11_forwarding=False,
            gss_delegate_creds=False,
        )

    options = read(final=False)
    return read(final=True) if options.config.has_match_final() else options


def _known_hosts_files(config: object, settings: SshSettings) -> tuple[Path, ...]:
    get = config.get  # type: ignore[attr-defined]
    user = settings.known_hosts or _strings(get("UserKnownHostsFile")) or USER_FILES
    system = () if settings.known_hosts else _strings(get("GlobalKnownHostsFile")) or SYSTEM_FILES
    return tuple(_expanded(name) for name in (*user, *system) if name.lower() != "none")


def _expanded(name: str) -> Path:
    tokens = {"%%": "%", "%d": os.path.expanduser("~"), "%u": getpass.getuser()}
    return Path(re.sub(r"%[%du]", lambda match: tokens[match[0]], name)).expanduser()


def _strings(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(cast(Sequence[str], value))


def _agent(configured: object) -> str:
    if configured == () or configured == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK", "")
    return str(Path(str(configured)).expanduser()) if configured else ""


class Identity(NamedTuple):
    """A private key file."""

    file: str
    key: asyncssh.SSHKey | None
    """None: it is encrypted and nobody has opened it yet."""
    certificate: str | None


def read_identities(route: Route, secrets: Secrets) -> list[Identity]:
    """The route's private keys, encrypted ones included; files that are not there or no keys are left out."""
    files = route.identities or DEFAULT_KEYS
    found = (_identity(Path(file).expanduser(), secrets) for file in dict.fromkeys(files))
    return [identity for identity in found if identity is not None]


def _identity(file: Path, secrets: Secrets) -> Identity | None:
    certificate = Path(f"{file}-cert.pub")
    named = str(certificate) if certificate.is_file() else None
    if str(file) in secrets.keys:
        return Identity(str(file), secrets.keys[str(file)], named)
    try:
        return Identity(str(file), asyncssh.read_private_key(file), named)
    except asyncssh.KeyEncryptionError:
        return Identity(str(file), None, named)
    except asyncssh.KeyImportError as error:
        return Identity(str(file), None, named) if "assphrase" in str(error) else None
    except OSError:
        return None


def _public_blobs(route: Route) -> list[bytes]:
    """What the agent may offer under IdentitiesOnly."""
    blobs = []
    for file in route.identities:
        path = Path(file).expanduser()
        for candidate in (Path(f"{path}.pub"), path):
            with suppress(OSError, asyncssh.KeyImportError):
                blobs.append(asyncssh.read_public_key(candidate).public_data)
                break
    return blobs or [b"none"]


class Client(asyncssh.SSHClient):
    """Our side of one login: what the server showed of itself, and the answers to its questions."""

    def __init__(self, role: str, secrets: Secrets, ask: Ask | None = None) -> None:
        self.connection: asyncssh.SSHClientConnection | None = None
        self.key: asyncssh.SSHKey | None = None
        """The host key that was not trusted."""
        self.banner = ""
        self.asked = False
        """Whether the server wanted a password or an answer that nobody has given."""
        self._role = role
        self._secrets = secrets
        self._ask = ask
        self._tried: dict[str, int] = {}
        self._offers = 0

    @property
    def greeted(self) -> bool:
        """Whether the server has said its version."""
        return self.connection is not None and bool(self.connection.get_extra_info("server_version"))

    @property
    def authenticates(self) -> bool:
        """Whether the line is encrypted, the host's key good and the login itself under way."""
        return self.connection is not None and bool(self.connection.get_extra_info("send_cipher"))

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Keep it: an unfinished login has no other name."""
        self.connection = conn

    def auth_banner_received(self, msg: str, lang: str) -> None:
        """Keep what is said before a refusal."""
        self.banner = (self.banner + msg)[-4096:]

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Asked only for a key that is not trusted: keep it for the message, and refuse it."""
        self.key = key
        return False

    async def password_auth_requested(self) -> str | None:
        """The password a person gave, once."""
        return await self._answer("password")

    def kbdint_auth_requested(self) -> str | None:
        """Any method will do, once a login; None without an answer to give.

        asyncssh comes back to this method after each refusal: without an end it would use up MaxAuthTries.
        """
        self._offers += 1
        if self._ask is not None:
            return "" if self._offers <= ATTEMPTS else None
        self.asked = True
        has_answers = any(name.startswith(f"{self._role} ") for name in self._secrets.passwords)
        return "" if has_answers and self._offers == 1 else None

    async def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """Answers a person gave; to one hidden question the password fits too."""
        answers = [await self._answer(plain(prompt, 200)) for prompt, _ in prompts]
        known = [answer for answer in answers if answer is not None]
        return known if len(known) == len(answers) else None

    async def _answer(self, prompt: str) -> str | None:
        name = f"{self._role} {prompt}"
        tries = self._tried[name] = self._tried.get(name, 0) + 1
        if self._ask is None:
            self.asked = True
            return self._secrets.passwords.get(name) if tries == 1 else None
        if tries > ATTEMPTS:
            return None
        answer = await self._ask(f"{self._role}: {prompt}: ")
        if answer is not None:
            self._secrets.passwords[name] = answer
        return answer


class Turn:
    """A place among the logins; given back once, early for a server that stays silent."""

    def __init__(self, limits: Sequence[asyncio.Semaphore]) -> None:
        self._limits = limits
        self._held = 0

    async def take(self) -> None:
        """Wait for it."""
        for limit in self._limits:
            await limit.acquire()
            self._held += 1

    def release(self) -> None:
        """Give it back."""
        for limit in self._limits[: self._held]:
            limit.release()
        self._held = 0


@dataclass(slots=True)
class _Jump:
    """The one connection to a jump host, or why there is none."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_LOGINS_VIA))
    connection: asyncssh.SSHClientConnection | None = None
    error: SourceError | None = None
    retry_at: float = 0.0
    failures: int = 0


class Logins:
    """All connections of one source: limits, shared jump hosts, and errors a person can act on."""

    def __init__(
        self,
        settings: SshSettings,
        patience: Patience,
        secrets: Secrets | None = None,
        ask: Ask | None = None,
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._secrets = secrets or Secrets()
        self._ask = ask
        self._limit = asyncio.Semaphore(MAX_LOGINS)
        self._jumps: dict[tuple[Destination, ...], _Jump] = {}
        self.route: Route | None = None
        """Of the last login; says which keys could be opened."""

    @asynccontextmanager
    async def connection(
        self, to: Destination, keepalive: float = 5.0
    ) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """A connection to a host, closed at the end; SourceError says why there is none."""
        route = self.route = await asyncio.to_thread(read_route, to, self._settings)
        jump = await self._jump(route.jumps, keepalive)
        tunnel = jump.connection if jump else None
        connection = await self._login(to, route, tunnel, jump, keepalive, "hosts")
        try:
            yield connection
        finally:
            await _close(connection)

    def command(self, to: Destination) -> str:
        """How a person reaches the host: ``ssh``, with what ssh_config does not say; for a remedy."""
        return _command(to, self._settings, hop=False)

    async def close(self) -> None:
        """End the connections to the jump hosts, the outermost last."""
        for _, jump in sorted(self._jumps.items(), key=lambda item: -len(item[0])):
            if jump.connection is not None:
                await _close(jump.connection)
        self._jumps.clear()

    async def _jump(self, hops: Sequence[str], keepalive: float) -> _Jump | None:
        """The shared connection through a chain of jump hosts, made by whoever needs it first."""
        if not hops:
            return None
        chain = tuple(destination(hop) for hop in hops)
        if len(chain) == 1:
            own = await asyncio.to_thread(read_route, chain[0], self._settings, hop=True)
            chain = (*(destination(hop) for hop in own.jumps), chain[0])
        before: _Jump | None = None
        for length in range(1, len(chain) + 1):
            if length > MAX_JUMPS:
                raise Unusable(
                    chain[-1].host, f"more than {MAX_JUMPS} jump hosts", "see ProxyJump in ssh_config"
                )
            before = await self._hop(chain[:length], before, keepalive)
        return before

    async def _hop(self, chain: tuple[Destination, ...], before: _Jump | None, keepalive: float) -> _Jump:
        jump = self._jumps.setdefault(chain, _Jump())
        async with jump.lock:
            if jump.connection is not None and not jump.connection.is_closed():
                return jump
            if jump.error is not None and time.monotonic() < jump.retry_at:
                raise jump.error
            try:
                await self._open_jump(jump, chain[-1], before, keepalive)
            except SourceError as error:
                self._remember(jump, chain[-1], error)
                raise jump.error or error from error
            jump.error, jump.failures = None, 0
        return jump

    async def _open_jump(self, jump: _Jump, to: Destination, before: _Jump | None, keepalive: float) -> None:
        route = await asyncio.to_thread(read_route, to, self._settings, hop=True)
        tunnel = before.connection if before else None
        jump.connection = await self._login(to, route, tunnel, before, keepalive, to.host)

    def _remember(self, jump: _Jump, to: Destination, error: SourceError) -> None:
        """Nobody else hammers a jump host that has just failed."""
        jump.failures += 1
        pause = min(self._patience.first_pause * 2**jump.failures, self._patience.longest_pause)
        pause = self._patience.denied if isinstance(error, AccessDenied) else pause
        jump.retry_at = time.monotonic() + pause
        problem = f"the jump host {to.host} on the way: {error.problem}"
        jump.error = type(error)(to.host, problem, error.remedy)

    async def _login(
        self,
        to: Destination,
        route: Route,
        tunnel: asyncssh.SSHClientConnection | None,
        jump: _Jump | None,
        keepalive: float,
        role: str,
    ) -> asyncssh.SSHClientConnection:
        client = Client(role, self._secrets, self._ask)
        known = await asyncio.to_thread(read_known_hosts, route.known_hosts)
        turn = Turn([jump.limit, self._limit] if jump else [self._limit])
        try:
            await turn.take()
            return await self._open(to, route, tunnel, known, client, turn, keepalive)
        except (asyncssh.Error, OSError, TimeoutError, ValueError) as error:
            raise explain(to, route, known, client, error) from error
        finally:
            turn.release()

    async def _open(
        self,
        to: Destination,
        route: Route,
        tunnel: asyncssh.SSHClientConnection | None,
        known: KnownHosts,
        client: Client,
        turn: Turn,
        keepalive: float,
    ) -> asyncssh.SSHClientConnection:
        arguments = await asyncio.to_thread(self._arguments, route, known)
        login_s = self._patience.connect + (300.0 if self._ask else self._patience.login)
        task = asyncio.ensure_future(
            asyncssh.connect(
                to.host,
                config=None,
                options=route.options,
                tunnel=tunnel,
                client_factory=lambda: client,
                login_timeout=login_s,
                keepalive_interval=keepalive,
                keepalive_count_max=2,
                **arguments,
            )
        )
        return await self._finish(task, client, turn, login_s)

    def _arguments(self, route: Route, known: KnownHosts) -> dict[str, object]:
        """Keys and agent of a login. Blocking: opening keys takes time."""
        keys: list[object] = []
        for identity in read_identities(route, self._secrets):
            if identity.key is not None:
                keys += [(identity.key, identity.certificate)] if identity.certificate else []
                keys.append(identity.key)
        arguments: dict[str, object] = {
            "known_hosts": known,
            "client_keys": keys,
            "agent_path": route.agent or None,
            "agent_forwarding": False,
            "x11_forwarding": False,
        }
        if not route.options.config.get("HostKeyAlgorithms"):
            arguments["server_host_key_algs"] = known.algorithms(route.name, route.port)
        if not route.options.config.get("Ciphers"):
            arguments["encryption_algs"] = CHEAP_CIPHERS
        if route.only_identities:
            arguments["agent_identities"] = _public_blobs(route)
        return arguments

    async def _finish(
        self,
        task: asyncio.Future[asyncssh.SSHClientConnection],
        client: Client,
        turn: Turn,
        login_s: float,
    ) -> asyncssh.SSHClientConnection:
        """The finished login; a server without a word is given up early, and hinders no other meanwhile."""
        try:
            silent_s = min(SILENT_S, self._patience.connect)
            await asyncio.wait({task}, timeout=silent_s)
            if not client.greeted and not task.done():
                turn.release()
                await asyncio.wait({task}, timeout=self._patience.connect - silent_s)
            if not client.greeted and not task.done():
                raise TimeoutError
            async with asyncio.timeout(login_s):
                return await asyncio.shield(task)
        except BaseException:
            await _abandon(task)
            raise


async def _abandon(task: asyncio.Future[asyncssh.SSHClientConnection]) -> None:
    """End a login nobody waits for any more, also one that succeeds at this moment."""
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(result, asyncssh.SSHClientConnection):
        result.abort()


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    """Say good-bye, and hang up whatever comes of it."""
    connection.close()
    try:
        async with asyncio.timeout(1.0):
            await connection.wait_closed()
    except (TimeoutError, OSError, asyncssh.Error):
        connection.abort()


def explain(
    to: Destination, route: Route, known: KnownHosts, client: Client, error: Exception
) -> SourceError:
    """Any failure of a login as one of ours, with what to do."""
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return _host_key_error(to, route, known, client, str(error))
        case TimeoutError():
            return _timed_out(to.host, client)
        case OSError():
            return _no_connection(to.host, route, error)
        case asyncssh.DisconnectError():
            return _disconnected(to, route, client, error)
        case asyncssh.ChannelOpenError():
            return Unreachable(to.host, f"the jump host cannot reach it: {plain(str(error), 200)}")
    return Unusable(to.host, f"the login failed: {plain(str(error), 200)}")


def _no_connection(host: str, route: Route, error: OSError) -> SourceError:
    if isinstance(error, socket.gaierror):
        remedy = "check the spelling, DNS, or Hostname in ssh_config"
        return Unreachable(host, "its name is not known", remedy)
    if isinstance(error, ConnectionRefusedError):
        problem = f"nothing listens on port {route.port}"
        return Unreachable(host, problem, "start sshd there, or check the port")
    return Unreachable(host, f"no connection: {error.strerror or error}")


def _disconnected(
    to: Destination, route: Route, client: Client, error: asyncssh.DisconnectError
) -> SourceError:
    host = to.host
    match error:
        case asyncssh.KeyExchangeFailed():
            return Unusable(host, f"no algorithm in common: {plain(str(error), 200)}", "update its sshd")
        case asyncssh.PermissionDenied():
            return _denied(to, route, client)
        case asyncssh.ConnectionLost() if "imeout" in str(error):
            return _timed_out(host, client)
        case asyncssh.ProtocolError() if client.authenticates or TOO_MANY in str(error):
            return _cut_off(to, route, client, error)
        case asyncssh.ProtocolError() | asyncssh.ProtocolNotSupported():
            return Garbled(host, f"what answers on port {route.port} is no SSH server", "check the port")
    if client.authenticates and error.code in SAYING_NO:
        return _cut_off(to, route, client, error)
    return _hung_up(host, client, error)


def _timed_out(host: str, client: Client) -> SourceError:
    if client.greeted:
        return TimedOut(host, "it said hello and never finished the login")
    if client.connection is not None:
        return TimedOut(
            host, "it takes the connection and stays silent", "see whether the node or its sshd hangs"
        )
    return TimedOut(
        host, "no answer to the connection", "see whether the node is up, and firewalls on the way"
    )


def _hung_up(host: str, client: Client, error: asyncssh.DisconnectError) -> SourceError:
    """pam_slurm_adopt and its like speak in a banner and hang up."""
    refusal = REFUSAL.search(client.banner)
    if refusal:
        return AccessDenied(host, plain(refusal[0].strip(), 200))
    last = client.banner.strip().splitlines()[-1:]
    said = f"; it said: {plain(last[0], 200)}" if last else ""
    return Unreachable(host, f"it hung up during the login: {plain(error.reason, 200)}{said}")


def _denied(to: Destination, route: Route, client: Client) -> SourceError:
    refusal = REFUSAL.search(client.banner)
    if refusal:
        return AccessDenied(to.host, plain(refusal[0].strip(), 200))
    problem = f"it accepts no key of user {plain(route.user, 64)}"
    if client.asked:
        problem += ", and wants a password or an answer"
    return AccessDenied(to.host, problem, _key_remedy(route))


def _key_remedy(route: Route) -> str:
    return f"run: {route.command} - if that asks for a passphrase, run ssh-add first; else install your key there"


def _cut_off(to: Destination, route: Route, client: Client, error: asyncssh.DisconnectError) -> SourceError:
    """The server said its name, showed its key and then ended the login in so many words."""
    refusal = REFUSAL.search(client.banner)
    if refusal:
        return AccessDenied(to.host, plain(refusal[0].strip(), 200))
    if TOO_MANY in str(error):
        problem = f"it accepts none of the keys offered for user {plain(route.user, 64)}, and wants no more"
        remedy = f"{_key_remedy(route)}; with many keys in the agent: IdentityFile and IdentitiesOnly in ssh_config"
        return AccessDenied(to.host, problem, remedy)
    problem = f"it ended the login of user {plain(route.user, 64)}: {plain(error.reason, 200)}"
    return AccessDenied(to.host, problem, f"run: {route.command} - and see what it says")


def _host_key_error(
    to: Destination, route: Route, known: KnownHosts, client: Client, said: str
) -> SourceError:
    lines = known.lines_of(route.name, route.port)
    shown = client.key.get_fingerprint() if client.key is not None else "not shown"
    name = lookup_name(route.name, route.port)
    if not lines:
        remedy = f"run: {route.command} once and check the fingerprint {shown}"
        return HostKeyUnknown(to.host, f"the host key of {name} is in no known_hosts file", remedy)
    kind = client.key.get_algorithm() if client.key is not None else ""
    line = next((line for line in lines if line.key_type == kind), lines[0])
    differs = "differs from" if line.key_type == kind else f"is no {plain(line.key_type, 40)} key as"
    if "revoked" in said:
        line = next((line for line in lines if line.marker == "@revoked"), line)
        return HostKeyChanged(to.host, f"its host key is revoked in {line.file}:{line.number}")
    problem = f"its host key ({shown}) {differs} the one in {line.file}:{line.number}"
    remedy = (
        f"if it was reinstalled, run: ssh-keygen -f {line.file} -R '{name}', then {route.command} once; "
        "if not, somebody else answers there"
    )
    return HostKeyChanged(to.host, problem, remedy)


async def collect_secrets(settings: SshSettings, ask: Ask, patience: Patience | None = None) -> Secrets:
    """Log in to the first host that answers, asking what must be asked; for before the screen opens.

    First without questions; then pass phrases of encrypted keys; then whatever the server asks for.
    What does not help is not kept. Never raises for a host that fails: the stream will say it.
    """
    secrets, patience = Secrets(), patience or Patience(connect=settings.connect_timeout)
    to = await _refusing(settings, patience)
    if to is None:
        return secrets
    if await _open_keys(to, settings, secrets, ask) and not isinstance(
        await _try(to, settings, patience, secrets, None), AccessDenied
    ):
        return secrets
    if await _try(to, settings, patience, secrets, ask) is not None:
        secrets.passwords.clear()
    return secrets


async def _refusing(settings: SshSettings, patience: Patience) -> Destination | None:
    """The first of a few hosts that answers, if it refuses us; None: it lets us in as we are, or none answers.

    Beside a host that is silent the next is tried: a hung one must not keep the screen from opening.
    """
    tries: dict[asyncio.Task[SourceError | None], Destination] = {}
    waiting = [destination(name) for name in settings.hosts[:FIRST_HOSTS]]
    try:
        while waiting or tries:
            if waiting:
                to = waiting.pop(0)
                tries[asyncio.create_task(_try(to, settings, patience, Secrets(), None))] = to
            limit = patience.scout if waiting else None
            done, _ = await asyncio.wait(tries, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                to, error = tries.pop(task), task.result()
                if error is None or isinstance(error, AccessDenied):
                    return to if error else None
        return None
    finally:
        for task in tries:
            task.cancel()
        await asyncio.gather(*tries, return_exceptions=True)


async def _try(
    to: Destination, settings: SshSettings, patience: Patience, secrets: Secrets, ask: Ask | None
) -> SourceError | None:
    logins = Logins(settings, patience, secrets, ask)
    try:
        async with logins.connection(to):
            return None
    except SourceError as error:
        return error
    finally:
        await logins.close()


async def _open_keys(to: Destination, settings: SshSettings, secrets: Secrets, ask: Ask) -> bool:
    """Ask for the pass phrases of a host's encrypted keys and of its jump hosts'; whether one was opened."""
    opened = False
    route = await asyncio.to_thread(read_route, to, settings)
    hops = [await asyncio.to_thread(read_route, destination(hop), settings, hop=True) for hop in route.jumps]
    for each in (route, *hops):
        for identity in await asyncio.to_thread(read_identities, each, secrets):
            if identity.key is None and await _open_key(identity.file, secrets, ask):
                opened = True
    return opened


async def _open_key(file: str, secrets: Secrets, ask: Ask) -> bool:
    for _ in range(ATTEMPTS):
        phrase = await ask(f"pass phrase for {file}: ")
        if not phrase:
            return False
        with suppress(asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError):
            secrets.keys[file] = await asyncio.to_thread(asyncssh.read_private_key, file, phrase)
            return True
    return False
