"""Real sshd servers on loopback addresses, each with its own key, environment and so its own GPUs.

::

    with SshLab(tmp_path, ["n01", "n02"], environment={"n01": stub.environment()}) as lab:
        source = SshSource(lab.settings("n01", "n02"))
        lab.kill("n01"); lab.restart("n01")

    with SshLab(tmp_path, names, share=16) as lab:     # 256 names on 16 servers, 16 addresses each

Everything is in ``folder``: keys, known_hosts, ``ssh_config`` (aliases: the names). ``lab.add`` writes
further aliases: of a relay that can freeze, a silent server, a port where nobody listens. The servers
run as whoever runs the tests, and end with the lab, also when the tests are killed: each asks the
kernel to be killed with its parent. Start a lab from a thread that lives as long as it does.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services import find, require

from coldaisle.sources.settings import SshSettings

MAX_ADDRESSES = 16
"""One sshd listens on at most so many."""
START_S = 15.0


@dataclass(slots=True)
class Server:
    """One sshd with the names that it answers for."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    before: str = ""
    """Shell commands that run before anything asked for, as a slow login shell's start-up file does."""

    @property
    def key(self) -> Path:
        return self.folder / "host_key"


@dataclass(slots=True)
class SshLab:
    """See the module. ``environment`` is by name; ``share`` is how many names one sshd serves."""

    folder: Path
    names: Sequence[str]
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    share: int = 1
    before: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    servers: dict[str, Server] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    _ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def config(self) -> Path:
        """The ssh_config file: ``ssh -F``."""
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def client_key(self) -> Path:
        return self.folder / "client_key"

    def __enter__(self) -> Self:
        require("sshd", "ssh-keygen", "setpriv")
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.port = self.port or free_port()
        make_key(self.client_key)
        (self.folder / "authorized_keys").write_text(public_key(self.client_key))
        self._lay_out()
        self._write_client_files()
        try:
            for server in set_of(self.servers):
                self._start(server)
            for server in set_of(self.servers):
                self._wait_for(server)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every server, session and relay."""
        self._ends.close()
        for server in set_of(self.servers):
            self._stop(server)

    def settings(self, *hosts: str, interval: float = 0.5, **changes: Any) -> SshSettings:
        """Settings of a source that sees these hosts (default: all) through the lab's ssh_config."""
        return SshSettings(
            hosts=hosts or tuple(self.names), interval=interval, ssh_config=(str(self.config),), **changes
        )

    def kill(self, name: str) -> None:
        """The host's sshd and its sessions, at once; with it all names that share the server."""
        self._stop(self.servers[name])

    def restart(self, name: str) -> None:
        """Start a killed sshd again, with the same key."""
        server = self.servers[name]
        self._start(server)
        self._wait_for(server)

    def change_key(self, name: str) -> None:
        """Kill the host and start it with another host key, as if it were reinstalled."""
        server = self.servers[name]
        self._stop(server)
        for file in (server.key, Path(f"{server.key}.pub")):
            file.unlink()
        make_key(server.key)
        self.restart(name)

    def refuse_all(self, name: str) -> None:
        """Start the host again so that it takes no key at all."""
        server = self.servers[name]
        self._stop(server)
        file = server.folder / "sshd_config"
        allowed = f"AuthorizedKeysFile {self.folder / 'authorized_keys'}"
        file.write_text(file.read_text().replace(allowed, "AuthorizedKeysFile none"))
        self.restart(name)

    def forget(self, name: str) -> None:
        """Take the host out of known_hosts."""
        wanted = f"[{self.addresses[name]}]:{self.port} "
        lines = self.known_hosts.read_text().splitlines(keepends=True)
        self.known_hosts.write_text("".join(line for line in lines if not line.startswith(wanted)))

    def connections(self, name: str) -> int:
        """Connections that the host's sshd serves now."""
        process = self.servers[name].process
        return len(children_of(process.pid)) if process is not None else 0

    def processes(self, name: str) -> list[int]:
        """Everything that runs under the host's sshd, without itself."""
        process = self.servers[name].process
        return descendants(process.pid) if process is not None else []

    def add(self, name: str, address: str, port: int | None = None, **options: str) -> None:
        """One more alias in ssh_config; further options as ssh_config has them (``ProxyJump="jump"``)."""
        lines = [f"Host {name}", f"  HostName {address}", f"  Port {port or self.port}"]
        lines += [f"  {option} {value}" for option, value in options.items()]
        self.config.write_text("\n".join(lines) + "\n" + self.config.read_text())

    def trust(self, name: str, address: str, port: int) -> None:
        """Let the host's key also be known by another address: a relay's."""
        key = public_key(self.servers[name].key)
        with self.known_hosts.open("a") as file:
            file.write(f"[{address}]:{port} {key}")

    def relay(self, name: str, alias: str) -> Relay:
        """A way to the host that can be frozen or cut, under a name of its own."""
        relay = self._ends.enter_context(Relay((self.addresses[name], self.port)))
        self.add(alias, *relay.address)
        self.trust(name, *relay.address)
        return relay

    def silent(self, alias: str) -> None:
        """A host that takes connections and says nothing."""
        self.add(alias, *self._ends.enter_context(SpeakingServer(lambda _: None)).address)

    def garbage(self, alias: str, text: bytes) -> None:
        """A host that says something else than SSH, without end."""
        self.add(alias, *self._ends.enter_context(SpeakingServer(lambda sock: _repeat(sock, text))).address)

    def refused(self, alias: str) -> None:
        """A host on whose port nobody listens."""
        self.add(alias, "127.0.10.254", free_port())

    def _lay_out(self) -> None:
        where = (f"127.0.{10 + number // 250}.{1 + number % 250}" for number in itertools.count())
        self.addresses = dict(zip(self.names, where, strict=False))
        for start in range(0, len(self.names), min(self.share, MAX_ADDRESSES)):
            names = tuple(self.names[start : start + min(self.share, MAX_ADDRESSES)])
            folder = self.folder / names[0]
            folder.mkdir(exist_ok=True)
            server = Server(names, tuple(self.addresses[name] for name in names), folder)
            server.before = self.before.get(names[0], "")
            make_key(server.key)
            self._write_server_config(server)
            self.servers |= dict.fromkeys(names, server)

    def _write_server_config(self, server: Server) -> None:
        lines = [
            f"Port {self.port}",
            *(f"ListenAddress {address}" for address in server.addresses),
            f"HostKey {server.key}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            *[
                "PidFile none",
                "StrictModes no",
                "UsePAM no",
                "UseDNS no",
                "PermitRootLogin yes",
                "LogLevel ERROR",
            ],
            *["PasswordAuthentication no", "KbdInteractiveAuthentication no", "PrintMotd no"],
            *["MaxStartups 400:30:800", "MaxSessions 400", "LoginGraceTime 60"],
        ]
        if server.before:
            script = server.folder / "login.sh"
            script.write_text(f'{server.before}\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n')
            lines.append(f"ForceCommand /bin/sh {script}")
        # A home without start-up files: those of whoever runs the tests may take any time, or lock each other out.
        home = server.folder / "home"
        home.mkdir(exist_ok=True)
        for name, address in zip(server.names, server.addresses, strict=True):
            given = {"HOME": str(home), **self.environment.get(name, {})}
            pairs = " ".join(f'"{key}={value}"' for key, value in given.items())
            lines += [f"Match LocalAddress {address}", f"  SetEnv {pairs}"]
        (server.folder / "sshd_config").write_text("\n".join(lines) + "\n")

    def _write_client_files(self) -> None:
        lines = []
        for name, address in self.addresses.items():
            lines += [f"Host {name}", f"  HostName {address}"]
        lines += [
            "Host *",
            f"  User {getpass.getuser()}",
            f"  Port {self.port}",
            f"  IdentityFile {self.client_key}",
            "  IdentitiesOnly yes",
            "  IdentityAgent none",
            f"  UserKnownHostsFile {self.known_hosts}",
            "  GlobalKnownHostsFile /dev/null",
        ]
        self.config.write_text("\n".join(lines) + "\n")
        keys = {name: public_key(server.key) for name, server in self.servers.items()}
        self.known_hosts.write_text(
            "".join(f"[{self.addresses[name]}]:{self.port} {key}" for name, key in keys.items())
        )

    def _start(self, server: Server) -> None:
        sshd = find("sshd")
        assert sshd is not None
        command = ["setpriv", "--pdeathsig", "KILL", *_own_hostname(server)]
        log = (server.folder / "log").open("ab")
        with log:
            server.process = subprocess.Popen(
                [*command, sshd, "-D", "-e", "-f", str(server.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _wait_for(self, server: Server) -> None:
        deadline = time.monotonic() + START_S
        for address in server.addresses:
            while not _listens(address, self.port):
                ended = server.process is None or server.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    raise AssertionError(f"sshd of {server.names[0]}: {(server.folder / 'log').read_text()}")
                time.sleep(0.02)

    def _stop(self, server: Server) -> None:
        process, server.process = server.process, None
        if process is None:
            return
        # stopped first, so that no session is born while the others are found
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGSTOP)
        for pid in descendants(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait(5.0)


def set_of(servers: Mapping[str, Server]) -> list[Server]:
    """Each server once."""
    return list({id(server): server for server in servers.values()}.values())


def _own_hostname(server: Server) -> list[str]:
    """Root can give a host a name of its own; for others all hosts call themselves what the machine does."""
    if os.geteuid() != 0 or len(server.names) > 1 or find("unshare") is None or not _can_unshare():
        return []
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', server.names[0]]


def _can_unshare() -> bool:
    return subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode == 0


def make_key(file: Path, passphrase: str = "") -> None:
    """An ed25519 key pair, unless it is there."""
    if not file.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "lab", "-f", str(file)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def public_key(file: Path) -> str:
    """The line in a key's .pub file."""
    return Path(f"{file}.pub").read_text()


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _listens(address: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1.0)
        return sock.connect_ex((address, port)) == 0


def children_of(pid: int) -> list[int]:
    """Direct children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []


def descendants(pid: int) -> list[int]:
    """Children, their children and so on."""
    found = children_of(pid)
    return found + [below for child in found for below in descendants(child)]


class SpeakingServer:
    """A TCP server on a free port; each connection is given to ``speak`` and held open until the end."""

    def __init__(self, speak: Callable[[socket.socket], None]) -> None:
        self._held: list[socket.socket] = []
        held = self._held

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                held.append(self.request)
                with contextlib.suppress(OSError):
                    speak(self.request)
                    while self.request.recv(65536):
                        pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Connection)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for sock in self._held:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class Relay(SpeakingServer):
    """Forwards TCP connections, until it is frozen: then it holds them and is silent, like a cut cable."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(self._forward)
        self._target = target
        self._flows = threading.Event()
        self._flows.set()
        self.count = 0
        """Connections so far."""

    def freeze(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._flows.clear()

    def thaw(self) -> None:
        """Everything passes again."""
        self._flows.set()

    def cut(self) -> None:
        """End all connections at once."""
        for sock in list(self._held):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _forward(self, near: socket.socket) -> None:
        self.count += 1
        with socket.create_connection(self._target) as far:
            back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
            back.start()
            self._pump(near, far)

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                self._flows.wait()
                other.sendall(data)
        for sock in (one, other):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *_: object) -> None:
        self._flows.set()
        super().__exit__(*_)


def _repeat(sock: socket.socket, text: bytes) -> None:
    while True:
        sock.sendall(text)


def names_of(count: int, prefix: str = "n") -> list[str]:
    """``n001``, ``n002``, ..."""
    return [f"{prefix}{number:03d}" for number in range(1, count + 1)]


def wait_until(what: str, test: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll until it holds; AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not test():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def ssh_agent(*keys: Path) -> Iterator[str]:
    """A running agent with these keys; gives its socket."""
    agent = require("ssh-agent", "ssh-add")
    folder = keys[0].parent
    sock = folder / "agent.sock"
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", agent, "-D", "-a", str(sock)], stdout=subprocess.DEVNULL
    )
    try:
        wait_until("the agent listens", sock.exists)
        for key in keys:
            subprocess.run(
                ["ssh-add", "-q", str(key)], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(sock)}
            )
        yield str(sock)
    finally:
        process.kill()
        process.wait(5.0)
