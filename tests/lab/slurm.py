"""A real Slurm on loopback: munged, slurmctld, a slurmd a node, slurmdbd on a MariaDB, slurmrestd with JWT.

::

    with SlurmLab() as slurm:                        # 10 s; one for all tests: the fixture ``slurm``
        job = slurm.submit("--gres=gpu:h100:8", "-N2")
        slurm.until_state(job, "RUNNING")
        slurm.run("scontrol", "show", "job", "-d", job)
        slurm.environment                            # SLURM_CONF ...: what a user's shell has
        slurm.token("root"), slurm.rest_url
        slurm.stop_controller(); slurm.start_controller()

Everything runs in a PID namespace of its own, whose first process asks the kernel to be killed with its
parent: whatever happens to the tests, nothing is left. Start a lab from a thread that lives as long
as it does. Needs root: a Slurm that anybody may start could run anybody's jobs.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.sshd import free_port
from services import find, missing, require

START_S = 60.0
ASK_S = 30.0
"""The longest that any command may take: sacctmgr without its munge socket never returns."""
PROGRAMS = (
    "slurmctld", "slurmd", "slurmdbd", "slurmrestd", "scontrol", "squeue", "munged", "mariadbd", "mariadb-install-db",
    "unshare", "setpriv",
)  # fmt: skip

NODES = """
NodeName=n[001-004] Gres=gpu:h100:8 Feature=h100,rack-1
NodeName=m001 Gres=gpu:h100:2,gpu:h200:4 Feature=h200,rack-2
NodeName=s001 Gres=gpu:l40:2,shard:16 Feature=l40,rack-2
NodeName=c001 Feature=cpu,rack-2
"""
GRES = """
NodeName=n[001-004] Name=gpu Type=h100 File={dev}/nvidia[0-7]
NodeName=m001 Name=gpu Type=h100 File={dev}/nvidia[0-1]
NodeName=m001 Name=gpu Type=h200 File={dev}/nvidia[2-5]
NodeName=s001 Name=gpu Type=l40 File={dev}/nvidia[0-1]
NodeName=s001 Name=shard Count=16 File={dev}/nvidia[0-1]
"""
TOPOLOGY = """
SwitchName=leaf1 Nodes=n[001-002]
SwitchName=leaf2 Nodes=n[003-004]
SwitchName=leaf3 Nodes=m001,s001,c001
SwitchName=spine Switches=leaf[1-3]
"""


@dataclass(slots=True)
class SlurmLab:
    """See the module. It has the nodes of NODES, in the partitions ``gpu`` (all) and ``late`` (for jobs that wait)."""

    folder: Path = field(default_factory=Path)
    names: tuple[str, ...] = ("n001", "n002", "n003", "n004", "m001", "s001", "c001")
    ports: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a user's shell has, so that the commands find this Slurm."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['slurmrestd']}"

    @property
    def rest_socket(self) -> Path:
        """Where another slurmrestd listens, for whoever may open it and has a token."""
        return self.folder / "rest" / "sock"

    # --- what tests do ----------------------------------------------------------------------------

    def run(
        self, *command: str, check: bool = True, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """A command of a user; AssertionError where it fails, TimeoutExpired after ASK_S."""
        given = {**os.environ, "LC_ALL": "C", **self.environment, **(environment or {})}
        done = subprocess.run(
            command,
            env=given,
            cwd=self.folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=ASK_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}"
        return done

    def text(self, *command: str) -> str:
        """What a command says."""
        return self.run(*command).stdout.decode(errors="replace")

    def submit(self, *options: str | bytes, sleep: float = 86400.0) -> str:
        """A batch job that sleeps; its id."""
        command = [b"sbatch", b"--parsable", b"--output=/dev/null", b"--mem=100"]
        command += [option if isinstance(option, bytes) else option.encode() for option in options]
        given = {**os.environ, **self.environment}
        done = subprocess.run(
            [*command, b"--wrap", f"exec sleep {sleep:g}".encode()],
            env=given,
            cwd="/",
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=ASK_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode().strip().split(";")[0]

    def state(self, job: str) -> str:
        """Of a job, as squeue has it; empty: it knows none such."""
        said = self.run("squeue", "-h", "-o", "%T", "-j", job, "-t", "all", check=False).stdout.decode()
        return said.split("\n")[0].strip()

    def until_state(self, job: str, state: str, seconds: float = 30.0) -> None:
        """Wait until a job is in a state; AssertionError after ``seconds``."""
        self.until(lambda: self.state(job) == state, f"{job} {state}", seconds)

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        """Wait for anything; AssertionError after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.logs()}")
            time.sleep(0.1)

    def clear(self) -> None:
        """No job, no drained node: as at the start."""
        if not self.is_controller_up():
            self.start_controller()
        self.run("scancel", "--state=PENDING", "--user=root", check=False)
        self.run("scancel", "--signal=KILL", "--full", "--user=root", check=False)
        self.run("scancel", "--user=root", check=False)
        self.until(lambda: not self.text("squeue", "-h").strip(), "an empty queue")
        self.until(self._are_idle, "idle nodes", 60.0)

    def token(self, user: str = "root", lifespan: int = 3600) -> str:
        """A JWT for slurmrestd."""
        said = self.text("scontrol", "token", f"username={user}", f"lifespan={lifespan}")
        return said.strip().removeprefix("SLURM_JWT=")

    def stop_controller(self) -> None:
        """slurmctld ends, and answers nobody."""
        self._tell(f"kill $(cat {self.folder}/slurmctld.pid)")
        self.until(lambda: not self.is_controller_up(), "slurmctld down")

    def start_controller(self) -> None:
        """slurmctld again, with all that it knew."""
        self._tell(f"{require('slurmctld')} -D -f {self.folder}/slurm.conf >>{self.folder}/out 2>&1 &")
        self.until(self.is_controller_up, "slurmctld up")

    def is_controller_up(self) -> bool:
        """Whether slurmctld answers."""
        return b"is UP" in self.run("scontrol", "ping", check=False).stdout

    def logs(self) -> str:
        """The ends of everybody's."""
        texts = []
        for log in [*sorted(self.folder.glob("*.log")), self.folder / "out"]:
            with contextlib.suppress(OSError):
                texts.append(
                    f"== {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])
                )
        return "\n".join(texts)

    # --- how it lives -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        require(*PROGRAMS)
        if os.geteuid() != 0:
            missing("a Slurm of the tests' own needs root")
        if subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False).returncode:
            missing("no PID namespace can be made here")
        # not pytest's folder: slurmrestd reads it as nobody, and a socket's path is short
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-lab-"))
        try:
            self._lay_out()
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10.0)
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc",
                 "sh", "-c", 'while read -r line; do eval "$line"; done; exec sleep 86400'],
                stdin=subprocess.PIPE, stdout=out, stderr=out, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        folder = self.folder
        conf = f"{folder}/slurm.conf"
        self._tell(
            f"{require('munged')} --foreground --force --socket {folder}/munge.sock --key-file {folder}/munge.key"
            f" --pid-file {folder}/munged.pid --log-file {folder}/munged.log --seed-file {folder}/munge.seed &"
        )
        self._tell(
            f"{require('mariadbd')} --no-defaults --user=root --datadir={folder}/db --socket={folder}/db.sock"
            f" --bind-address=127.0.0.1 --skip-networking --pid-file={folder}/db.pid --innodb-buffer-pool-size=32M"
            f" --innodb-log-file-size=8M --innodb-lock-wait-timeout=900 >{folder}/mariadb.log 2>&1 &"
        )
        self.until((folder / "munge.sock").exists, "munged", START_S)
        self.until((folder / "db.sock").exists, "mariadbd", START_S)
        self._tell(
            f"MYSQL_UNIX_PORT={folder}/db.sock SLURM_CONF={conf} {require('slurmdbd')} -D >>{folder}/out 2>&1 &"
        )
        self.until(self._has_accounting, "slurmdbd", START_S)
        self.start_controller()
        for name in self.names:
            self._tell(f"{require('slurmd')} -D -f {conf} -N {name} >>{folder}/out 2>&1 &")
        self._start_rest()
        self.until(self._are_idle, "idle nodes", START_S)

    def _start_rest(self) -> None:
        """By TCP and by a socket, as nobody: it refuses to run as root."""
        rest = require("slurmrestd")
        conf, out = self.folder / "slurm.conf", self.folder / "out"
        self._tell(
            "setpriv --reuid=nobody --regid=nogroup --clear-groups env SLURM_JWT=daemon"
            f" {rest} -f {conf} -a rest_auth/jwt 127.0.0.1:{self.ports['slurmrestd']} >>{out} 2>&1 &"
        )
        self._tell(
            "setpriv --reuid=nobody --regid=nogroup --clear-groups env SLURM_JWT=daemon"
            f" {rest} -f {conf} -a rest_auth/jwt unix:{self.rest_socket} >>{out} 2>&1 &"
        )
        self.until(self.rest_socket.exists, "slurmrestd", START_S)

    def _tell(self, line: str) -> None:
        """A line for the shell that is the first process of the namespace."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _has_accounting(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                ["timeout", "3", "sacctmgr", "-n", "-i", "show", "cluster"],
                env={**os.environ, **self.environment}, capture_output=True, stdin=subprocess.DEVNULL, check=False,
                timeout=ASK_S,
            )  # fmt: skip
            return done.returncode == 0
        return False

    def _are_idle(self) -> bool:
        said = self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False).stdout.decode().split("\n")
        states = dict(line.split() for line in said if line)
        for name in [name for name, state in states.items() if "drain" in state or "down" in state]:
            self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        return set(states) == set(self.names) and set(states.values()) == {"idle"}

    def _lay_out(self) -> None:
        folder = self.folder
        folder.chmod(0o755)
        for name in ("munge.key", "jwt.key"):
            (folder / name).write_bytes(os.urandom(128 if name == "munge.key" else 32))
            (folder / name).chmod(0o600)
        for name in ("state", "spool", "dev", "db"):
            (folder / name).mkdir()
        (folder / "rest").mkdir(mode=0o755)
        shutil.chown(folder / "rest", "nobody")
        for number in range(8):
            self._make_device(folder / "dev" / f"nvidia{number}")
        self.ports = {name: free_port() for name in ("slurmctld", "slurmdbd", "slurmrestd", *self.names)}
        (folder / "slurm.conf").write_text(self._slurm_conf())
        (folder / "gres.conf").write_text("AutoDetect=off\n" + GRES.format(dev=folder / "dev"))
        (folder / "topology.conf").write_text(TOPOLOGY)
        (folder / "slurmdbd.conf").write_text(
            f"AuthType=auth/munge\nAuthInfo=socket={folder}/munge.sock\nDbdHost=localhost\nDbdAddr=127.0.0.1\n"
            f"DbdPort={self.ports['slurmdbd']}\nSlurmUser=root\nLogFile={folder}/slurmdbd.log\n"
            f"PidFile={folder}/slurmdbd.pid\nStorageType=accounting_storage/mysql\nStorageHost=localhost\n"
            "StorageUser=root\nStorageLoc=slurm_acct\nCommunicationParameters=NoInAddrAny\n"
            f"AuthAltTypes=auth/jwt\nAuthAltParameters=jwt_key={folder}/jwt.key\n"
        )
        (folder / "slurmdbd.conf").chmod(0o600)
        self._make_database()

    def _make_database(self) -> None:
        done = subprocess.run(
            [require("mariadb-install-db"), "--no-defaults", "--user=root", f"--datadir={self.folder / 'db'}",
             "--auth-root-authentication-method=socket", "--skip-test-db"],
            capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=START_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def _make_device(self, path: Path) -> None:
        try:
            os.mknod(path, 0o20666, os.makedev(1, 3))
        except PermissionError:
            path.touch()

    def _slurm_conf(self) -> str:
        folder, ports = self.folder, self.ports
        names = [name for line in NODES.split("\n") for name in re.findall(r"NodeName=(\S+)", line)]
        defaults = (
            "NodeName=DEFAULT CPUs=64 RealMemory=500000 Sockets=2 CoresPerSocket=32 ThreadsPerCore=1"
            " State=UNKNOWN"
        )
        lines = []
        for line in NODES.strip().split("\n"):
            written, rest = line.removeprefix("NodeName=").split(" ", 1)
            lines += [
                f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={ports[name]} {rest}"
                for name in self.names
                if _is_among(name, written)
            ]
        return f"""
ClusterName=lab
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports["slurmctld"]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={folder}/jwt.key
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_min_interval=100000,batch_sched_delay=0,sched_interval=2
TopologyPlugin=topology/tree
GresTypes=gpu,shard
DefMemPerGPU=1000
KillWait=2
MinJobAge=300
PriorityType=priority/multifactor
PriorityWeightAge=1000
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports["slurmdbd"]}
AccountingStoragePass={folder}/munge.sock
AccountingStorageTRES=gres/gpu,gres/gpu:h100
JobAcctGatherType=jobacct_gather/none
{defaults}
{chr(10).join(lines)}
PartitionName=gpu Nodes={",".join(names)} Default=YES MaxTime=INFINITE DefaultTime=2-00:00:00 State=UP
PartitionName=late Nodes=n[001-002] MaxTime=1-00:00:00 State=UP
"""


def _is_among(name: str, written: str) -> bool:
    """``n002`` in ``n[001-004]``."""
    match = re.fullmatch(r"(\w+?)\[(\d+)-(\d+)\]", written)
    if match is None:
        return name == written
    return name.startswith(match[1]) and int(match[2]) <= int(name[len(match[1]) :] or 0) <= int(match[3])


def is_installed() -> bool:
    """Whether all of it is there."""
    return os.geteuid() == 0 and all(find(name) for name in PROGRAMS)


def nobody() -> str:
    """The name of a user without rights."""
    return pwd.getpwuid(65534).pw_name


def gpus_by_scontrol(said: str) -> dict[str, dict[str, list[int]]]:
    """Job → node → numbers of its GPUs, as ``scontrol show job -d`` has them; read by the simplest means."""
    held: dict[str, dict[str, list[int]]] = {}
    for block in re.split(r"\n\n+", said):
        job = re.search(r"JobId=(\d+)", block)
        for nodes, gres in re.findall(r"\bNodes=(\S+) CPU_IDs=\S* Mem=\S* GRES=(\S*)", block):
            numbers = [
                number
                for text in re.findall(r"gpu:[^,]*?\(IDX:([\d,-]+)\)", gres)
                for number in _numbers(text)
            ]
            if numbers and job:
                for node in _names(nodes):
                    held.setdefault(job[1], {})[node] = sorted(numbers)
    return held


def _numbers(text: str) -> Sequence[int]:
    ranges = (part.split("-") for part in text.split(","))
    return [number for one in ranges for number in range(int(one[0]), int(one[-1]) + 1)]


def _names(text: str) -> Sequence[str]:
    match = re.fullmatch(r"(\w+?)\[([\d,-]+)\]", text)
    return [f"{match[1]}{number:03d}" for number in _numbers(match[2])] if match else text.split(",")
