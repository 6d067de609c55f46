"""Hosts over real sshd servers: what works, and every way in which it does not."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from lab.listening import listening
from lab.scripted_probe import boot
from lab.sshd import SshLab, make_key, names_of, public_key, ssh_agent, wait_until
from services import require

from coldaisle.sources.bootstrap import ProbeOptions
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.manners import backlog_after, needs_confirmation
from coldaisle.sources.settings import SshSettings
from coldaisle.sources.source import GpuRef, Kind, Missing, TargetState
from coldaisle.sources.ssh import Patience, Secrets, SshSource, collect_secrets
from coldaisle.sources.ssh_login import Destination, destination, read_route

QUICK = Patience(
    connect=4.0,
    login=6.0,
    start=8.0,
    silence=4.0,
    first_pause=0.2,
    longest_pause=1.0,
    denied=600.0,
    scout=0.5,
)
"""Short, because the servers are near; the limits themselves are what is tested."""


@pytest.fixture(autouse=True)
def quiet_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No agent and no ssh_config but the lab's."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[SshLab]:
    """Two hosts whose GPU power is in a file each."""
    names = ["n01", "n02"]
    environment = {name: {"COLDAISLE_LAB_POWER": str(tmp_path / f"{name}.power")} for name in names}
    with SshLab(tmp_path / "lab", names, environment=environment) as lab:
        yield lab


def source_of(lab: SshLab, *hosts: str, patience: Patience = QUICK, **changes: Any) -> SshSource:
    return SshSource(lab.settings(*hosts, **changes), patience=patience, boot=boot())


async def test_hosts_show_what_they_are_and_read(lab: SshLab) -> None:
    async with listening(source_of(lab)) as heard:
        for name in lab.names:
            await heard.until_state(name, TargetState.OK)
        await heard.until("both are in a tick", lambda: all(heard.value(n, "gpu.power") for n in lab.names))
        batch = next(batch for batch in reversed(heard.batches) if batch.kind is Kind.GPU)
        assert [entity[0] for entity in batch.entities] == ["n01", "n01", "n02", "n02"]
        assert isinstance(batch.entities[0], GpuRef)
        target = heard.targets["n01"]
        assert target.what == "probe 3.11 nvml 580.95"
        assert target.latency_s is not None
        assert target.latency_s < 5
        assert heard.nodes["n01"].gpus_visible == 2
        assert abs(heard.nodes["n01"].clock_offset_s or 0.0) < 5


async def test_a_value_changed_on_a_host_shows_within_two_ticks(lab: SshLab, tmp_path: Path) -> None:
    async with listening(source_of(lab)) as heard:
        await heard.until("a first reading", lambda: heard.value("n01", "gpu.power") == 300.0)
        (tmp_path / "n01.power").write_text("555")
        began = time.monotonic()
        await heard.until("the new value", lambda: heard.value("n01", "gpu.power") == 555.0, 5.0)
        assert time.monotonic() - began < 3 * 0.5
        assert heard.value("n02", "gpu.power") in (300.0, None)


async def test_the_remote_process_ends_with_the_stream(lab: SshLab) -> None:
    async with listening(source_of(lab)) as heard:
        await heard.until("both answer", lambda: all(heard.samples(name) for name in lab.names))
        assert all(lab.processes(name) for name in lab.names)
    await asyncio.to_thread(
        wait_until, "nothing runs there", lambda: not any(lab.processes(name) for name in lab.names)
    )


async def test_a_killed_host_goes_stale_then_lost_and_comes_back_by_itself(lab: SshLab) -> None:
    async with listening(source_of(lab)) as heard:
        await heard.until("both answer", lambda: all(heard.samples(name) for name in lab.names))
        lab.kill("n01")
        target = await heard.until_state("n01", TargetState.FAILING)
        assert target.detail
        await heard.until(
            "its cells are unreachable", lambda: heard.reason("n01", "gpu.power") is Missing.UNREACHABLE
        )
        assert heard.state("n02") is TargetState.OK
        lab.restart("n01")
        await heard.until_state("n01", TargetState.OK)
        await heard.until("it reads again", lambda: heard.value("n01", "gpu.power") == 300.0)
        assert heard.reason("n01", "gpu.power") is Missing.PRESENT


async def test_a_probe_that_dies_is_started_again(lab: SshLab) -> None:
    async with listening(source_of(lab, "n01")) as heard:
        await heard.until("it answers", lambda: heard.samples("n01") > 0)
        for pid in lab.processes("n01"):
            if b"scripted_probe" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, 9)
        target = await heard.until_state("n01", TargetState.FAILING)
        assert "remote process" in target.detail
        await heard.until_state("n01", TargetState.OK)


async def test_a_host_that_vanishes_without_a_word_is_noticed_and_found_again(lab: SshLab) -> None:
    relay = lab.relay("n01", "far")
    async with listening(source_of(lab, "far", "n02")) as heard:
        await heard.until("both answer", lambda: bool(heard.samples("far") and heard.samples("n02")))
        relay.freeze()
        began = time.monotonic()
        await heard.until_state("far", TargetState.STALE, 5.0)
        target = await heard.until_state("far", TargetState.FAILING, 10.0)
        assert "without a word" in target.detail
        assert time.monotonic() - began < 8.0  # keepalive is never more often than once a second
        before = heard.samples("n02")
        await heard.until("the other goes on", lambda: heard.samples("n02") > before + 2)
        relay.thaw()
        await heard.until_state("far", TargetState.OK)


async def test_a_connection_cut_in_mid_stream_is_made_again(lab: SshLab) -> None:
    relay = lab.relay("n01", "far")
    async with listening(source_of(lab, "far")) as heard:
        await heard.until("it answers", lambda: heard.samples("far") > 0)
        relay.cut()
        await heard.until_state("far", TargetState.FAILING)
        await heard.until_state("far", TargetState.OK)
        assert relay.count == 2


async def test_an_unknown_key_is_refused_with_its_fingerprint(lab: SshLab) -> None:
    lab.forget("n01")
    async with listening(source_of(lab)) as heard:
        target = await heard.until_state("n01", TargetState.FAILING)
        await heard.until_state("n02", TargetState.OK)
    fingerprint = asyncssh.read_public_key(f"{lab.servers['n01'].key}.pub").get_fingerprint()
    assert "in no known_hosts file" in target.detail
    assert f"ssh -F {lab.config} n01 once" in target.remedy
    assert fingerprint in target.remedy
    await asyncio.to_thread(wait_until, "it is closed", lambda: lab.connections("n01") == 0)


async def test_a_changed_key_is_refused_with_the_line_it_differs_from(lab: SshLab) -> None:
    lab.change_key("n01")
    async with listening(source_of(lab)) as heard:
        target = await heard.until_state("n01", TargetState.FAILING)
    assert f"differs from the one in {lab.known_hosts}:1" in target.detail
    assert f"ssh-keygen -f {lab.known_hosts} -R '[{lab.addresses['n01']}]:{lab.port}'" in target.remedy


async def test_a_host_key_of_another_type_is_a_changed_one(lab: SshLab, tmp_path: Path) -> None:
    other = tmp_path / "rsa"
    asyncssh.generate_private_key("ssh-rsa", key_size=2048).write_public_key(other)
    lab.forget("n01")
    with lab.known_hosts.open("a") as file:
        file.write(f"[{lab.addresses['n01']}]:{lab.port} {other.read_text()}")
    async with listening(source_of(lab)) as heard:
        target = await heard.until_state("n01", TargetState.FAILING)
    assert "is no ssh-rsa key as the one in" in target.detail
    assert f"{lab.known_hosts}:2" in target.detail


async def test_a_revoked_key_is_refused(lab: SshLab) -> None:
    with lab.known_hosts.open("a") as file:
        file.write(f"@revoked * {public_key(lab.servers['n01'].key)}")
    async with listening(source_of(lab)) as heard:
        target = await heard.until_state("n01", TargetState.FAILING)
        await heard.until_state("n02", TargetState.OK)
    assert f"revoked in {lab.known_hosts}:3" in target.detail


@pytest.mark.parametrize("setting", ["StrictHostKeyChecking no", "UserKnownHostsFile none"])
async def test_no_setting_turns_verification_off(lab: SshLab, setting: str) -> None:
    lab.forget("n01")
    lab.config.write_text(f"Host *\n  {setting}\n" + lab.config.read_text())
    async with listening(source_of(lab, "n01")) as heard:
        target = await heard.until_state("n01", TargetState.FAILING)
    assert "in no known_hosts file" in target.detail


async def test_a_key_learnt_meanwhile_is_taken(lab: SshLab) -> None:
    known = lab.known_hosts.read_text()
    lab.forget("n01")
    async with listening(source_of(lab, "n01")) as heard:
        await heard.until_state("n01", TargetState.FAILING)
        lab.known_hosts.write_text(f"broken line\n[::1 ssh-rsa nonsense\n{known}")
        await heard.until_state("n01", TargetState.OK)


async def test_refused_silent_and_garbage_hosts_say_so_and_delay_nobody(tmp_path: Path) -> None:
    with SshLab(tmp_path / "lab", names_of(12)) as lab:
        lab.refused("refused")
        lab.silent("silent1")
        lab.silent("silent2")
        lab.garbage("garbage", b"HTTP/1.1 400 Bad Request\r\n" * 50)
        bad = ["silent1", "silent2", "refused", "garbage"]
        began = time.monotonic()
        async with listening(source_of(lab, *bad, *lab.names)) as heard:
            await heard.until("all 12 read", lambda: all(map(heard.samples, lab.names)), 15.0)
            took = time.monotonic() - began
            for name in bad:
                await heard.until_state(name, TargetState.FAILING)
            assert "nothing listens on port" in heard.targets["refused"].detail
            assert "stays silent" in heard.targets["silent1"].detail
            assert "no SSH server" in heard.targets["garbage"].detail
            assert took < QUICK.connect + 8.0
            silent = [t.at for t in heard.history if t.name == "silent1" and t.state is TargetState.FAILING]
            first = next(b.at for b in heard.batches if all(heard.samples(n) for n in lab.names))
            assert first < silent[0] + 8.0


async def test_an_unknown_name_is_said(lab: SshLab) -> None:
    lab.add("nowhere", "nowhere.invalid")
    async with listening(source_of(lab, "nowhere")) as heard:
        target = await heard.until_state("nowhere", TargetState.FAILING)
    assert "name is not known" in target.detail


async def test_refused_keys_are_a_state_and_the_rest_is_not_hammered(lab: SshLab) -> None:
    (lab.folder / "authorized_keys").write_text("")
    async with listening(source_of(lab)) as heard:
        first = await heard.until_state("n01", TargetState.DENIED)
        second = await heard.until_state("n02", TargetState.DENIED)
        assert "accepts no key of user" in first.detail
        assert first.remedy.startswith(f"run: ssh -F {lab.config} n01 ")
        assert second.detail == "not tried yet: n01 refused us"
        await asyncio.sleep(1.0)
        assert len([t for t in heard.history if t.state is TargetState.DENIED]) == 2
        assert lab.connections("n02") == 0


def serve_otherwise(lab: SshLab, name: str, *changes: str) -> None:
    """Start the host again with these lines before its own; sshd takes the first it reads."""
    lab.kill(name)
    file = lab.servers[name].folder / "sshd_config"
    file.write_text("\n".join(changes) + "\n" + file.read_text())
    lab.restart(name)


async def test_a_server_that_would_ask_questions_refuses_once(lab: SshLab) -> None:
    (lab.folder / "authorized_keys").write_text("")
    serve_otherwise(lab, "n01", "KbdInteractiveAuthentication yes", "LogLevel VERBOSE")
    async with listening(source_of(lab, "n01")) as heard:
        target = await heard.until_state("n01", TargetState.DENIED)
    assert "accepts no key of user" in target.detail
    assert "wants a password or an answer" in target.detail
    log = (lab.servers["n01"].folder / "log").read_text()
    assert "Failed keyboard-interactive" not in log
    assert "Too many authentication failures" not in log


async def test_too_many_keys_are_a_refusal(lab: SshLab) -> None:
    for number in range(3):
        make_key(lab.folder / f"other{number}")
    others = "\n".join(f"  IdentityFile {lab.folder / f'other{number}'}" for number in range(3))
    lab.config.write_text(f"Host n01\n{others}\n" + lab.config.read_text())
    serve_otherwise(lab, "n01", "MaxAuthTries 2")
    async with listening(source_of(lab, "n01")) as heard:
        target = await heard.until_state("n01", TargetState.DENIED)
    assert "none of the keys offered" in target.detail
    assert "IdentitiesOnly" in target.remedy


def test_a_remedy_has_what_ssh_config_does_not_say(lab: SshLab) -> None:
    settings = lab.settings("n01", port=2222, jump="gate", known_hosts=("/etc/lab hosts",))
    route = read_route(Destination("n01", user="alice"), settings)
    options = f"-F {lab.config} -o 'UserKnownHostsFile=/etc/lab hosts' -p 2222 -J gate"
    assert route.command == f"ssh {options} alice@n01"
    assert read_route(Destination("gate"), settings, hop=True).command.endswith("hosts' gate")
    assert read_route(Destination("n01"), SshSettings(hosts=("n01",))).command == "ssh n01"


async def test_one_host_that_refuses_our_keys_does_not_keep_us_from_the_others(lab: SshLab) -> None:
    lab.refuse_all("n01")
    patience = Patience(denied=600.0, scout=5.0, gentle=0.3)
    async with listening(source_of(lab, patience=patience)) as heard:
        await heard.until_state("n01", TargetState.DENIED)
        await heard.until_state("n02", TargetState.OK)
        assert heard.state("n01") is TargetState.DENIED
    denied = [t for t in heard.history if t.name == "n01" and t.state is TargetState.DENIED]
    assert len(denied) == 1, "it is asked once in ten minutes"


async def test_the_pauses_between_hosts_that_all_refuse_us_grow(tmp_path: Path) -> None:
    with SshLab(tmp_path / "lab", names_of(5)) as lab:
        (lab.folder / "authorized_keys").write_text("")
        patience = Patience(denied=600.0, scout=5.0, gentle=0.4)
        async with listening(source_of(lab, patience=patience)) as heard:
            await heard.until(
                "each has been asked",
                lambda: sum("accepts no key" in target.detail for target in heard.targets.values()) == 5,
            )
    asked = [t.at for t in heard.history if "accepts no key" in t.detail]
    gaps = [later - one for one, later in itertools.pairwise(asked)]
    assert all(gap >= 0.9 * pause for gap, pause in zip(gaps, (0.4, 0.8, 1.6, 3.2), strict=True)), gaps


async def test_the_configured_connect_timeout_counts(lab: SshLab) -> None:
    lab.silent("silent")
    began = time.monotonic()
    source = SshSource(lab.settings("silent", connect_timeout=0.5), boot=boot())
    async with listening(source) as heard:
        target = await heard.until_state("silent", TargetState.FAILING, 9.0)
    assert "stays silent" in target.detail
    assert time.monotonic() - began < Patience().connect


@pytest.mark.parametrize("status", [0, 1])
async def test_a_probe_that_ends_is_no_host_without_python(lab: SshLab, status: int) -> None:
    def end(options: ProbeOptions) -> tuple[str, bytes]:
        return f"echo this account is for file transfer only; exit {status}", b""

    async with listening(SshSource(lab.settings("n01"), patience=QUICK, boot=end)) as heard:
        target = await heard.until_state("n01", TargetState.FAILING)
    assert target.detail == (
        f"the remote process ended with status {status}: this account is for file transfer only"
    )
    assert "install" not in target.remedy
    assert target.remedy == f"run: ssh -F {lab.config} n01 python3 --version, and see what it says"


async def test_the_first_probe_reads_a_quarter_of_an_hour_of_kernel_log_the_next_what_it_missed(
    lab: SshLab,
) -> None:
    asked: list[float] = []
    start = boot()

    def watched(options: ProbeOptions) -> tuple[str, bytes]:
        asked.append(options.backlog)
        return start(options)

    async with listening(SshSource(lab.settings("n01"), patience=QUICK, boot=watched)) as heard:
        await heard.until("it answers", lambda: heard.samples("n01") > 0)
        for pid in lab.processes("n01"):
            if b"scripted_probe" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, 9)
        await heard.until("it is asked again", lambda: len(asked) == 2)
    assert asked == [900.0, 60.0]
    assert [backlog_after(seconds) for seconds in (0.0, 61.0, 1e9)] == [0.0, 600.0, 3600.0]


async def test_after_the_pause_a_welcome_frees_the_others(lab: SshLab) -> None:
    keys = lab.folder / "authorized_keys"
    allowed = keys.read_text()
    keys.write_text("")
    patience = Patience(denied=2.0, first_pause=0.2)
    async with listening(source_of(lab, patience=patience)) as heard:
        await heard.until_state("n02", TargetState.DENIED)
        keys.write_text(allowed)
        await heard.until_state("n01", TargetState.OK)
        await heard.until_state("n02", TargetState.OK)


class SlurmOnly(asyncssh.SSHServer):
    """A node as pam_slurm_adopt leaves it: the key is good, a banner says no, and it hangs up."""

    said = "Access denied by pam_slurm_adopt: you have no active jobs on this node\n"
    count = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        SlurmOnly.count += 1
        self._conn = conn

    def begin_auth(self, username: str) -> bool:
        self._conn.send_auth_banner(self.said)
        asyncio.get_running_loop().call_later(0.1, self._conn.abort)
        return True


async def test_a_node_without_our_job_is_denied_and_the_next_is_tried(lab: SshLab) -> None:
    SlurmOnly.count = 0
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=SlurmOnly, server_host_keys=[str(lab.servers["n01"].key)]
    )
    async with server:
        port = server.get_port()
        lab.add("slurm", "127.0.0.1", port)
        lab.trust("n01", "127.0.0.1", port)
        async with listening(source_of(lab, "slurm", "n01")) as heard:
            target = await heard.until_state("slurm", TargetState.DENIED)
            await heard.until_state("n01", TargetState.OK)
            await asyncio.sleep(1.0)
        assert target.detail == SlurmOnly.said.strip()
        assert SlurmOnly.count == 1


async def test_one_connection_to_a_jump_host_carries_all(tmp_path: Path) -> None:
    names = ["jump", *names_of(6)]
    with SshLab(tmp_path / "lab", names) as lab:
        far = [f"far{name}" for name in names[1:]]
        for name in names[1:]:
            lab.add(f"far{name}", lab.addresses[name], ProxyJump="jump")
        async with listening(source_of(lab, *far)) as heard:
            await heard.until("all read", lambda: all(map(heard.samples, far)))
            assert lab.connections("jump") == 1
            lab.kill("jump")
            for name in far:
                await heard.until_state(name, TargetState.FAILING)
            await heard.until(
                "the jump host is named", lambda: any("jump host" in t.detail for t in heard.targets.values())
            )
            lab.restart("jump")
            for name in far:
                await heard.until_state(name, TargetState.OK, 30.0)
            assert lab.connections("jump") == 1
        await asyncio.to_thread(wait_until, "it is closed", lambda: lab.connections("jump") == 0)


async def test_a_jump_host_of_the_settings_is_used(lab: SshLab) -> None:
    async with listening(source_of(lab, "n02", jump="n01")) as heard:
        await heard.until("it reads", lambda: heard.samples("n02") > 0)
        assert lab.connections("n01") == 1


@pytest.mark.parametrize(
    "before",
    [
        "sleep 3",
        "echo 'Welcome to the machine'; printf 'no newline here'",
        "head -c 300000 /dev/urandom",
        "echo to stderr >&2",
    ],
    ids=["slow", "banner", "binary", "stderr"],
)
async def test_odd_login_shells_are_borne(tmp_path: Path, before: str) -> None:
    with SshLab(tmp_path / "lab", ["odd", "n01"], before={"odd": before}) as lab:
        async with listening(source_of(lab, "n01", "odd")) as heard:
            await heard.until("it reads", lambda: heard.samples("odd") > 1)
            await heard.until("so does the other", lambda: heard.samples("n01") > 1)


async def test_a_login_shell_that_never_comes_back_says_what_it_printed(tmp_path: Path) -> None:
    with SshLab(tmp_path / "lab", ["odd"], before={"odd": "echo loading conda; exec sleep 60"}) as lab:
        async with listening(source_of(lab, patience=Patience(start=1.5))) as heard:
            target = await heard.until_state("odd", TargetState.FAILING)
    assert "has not started the probe within" in target.detail
    assert "loading conda" in target.detail


async def test_a_login_shell_that_prints_without_end_is_cut(tmp_path: Path) -> None:
    with SshLab(tmp_path / "lab", ["odd"], before={"odd": "exec yes"}) as lab:
        async with listening(source_of(lab)) as heard:
            target = await heard.until_state("odd", TargetState.FAILING)
    assert "prints without end" in target.detail


async def test_an_encrypted_key_is_opened_by_the_pass_phrase_asked_before(lab: SshLab) -> None:
    locked = lab.folder / "locked"
    make_key(locked, "open sesame")
    (lab.folder / "authorized_keys").write_text(public_key(locked))
    lab.config.write_text(lab.config.read_text().replace(str(lab.client_key), str(locked)))
    asked: list[str] = []

    async def ask(prompt: str) -> str | None:
        asked.append(prompt)
        return ["wrong", "open sesame"][len(asked) - 1]

    settings = lab.settings()
    secrets = await collect_secrets(settings, ask, QUICK)
    assert len(asked) == 2
    assert str(locked) in asked[0]
    assert "sesame" not in repr(secrets)
    async with listening(SshSource(settings, secrets=secrets, patience=QUICK, boot=boot())) as heard:
        for name in lab.names:
            await heard.until_state(name, TargetState.OK)


async def test_nothing_is_asked_where_nothing_needs_it(lab: SshLab) -> None:
    async def ask(prompt: str) -> str | None:
        raise AssertionError(prompt)

    secrets = await collect_secrets(lab.settings(), ask, QUICK)
    assert not secrets.keys
    assert not secrets.passwords


async def test_a_silent_first_host_does_not_keep_the_screen_from_opening(lab: SshLab) -> None:
    lab.silent("mute")

    async def ask(prompt: str) -> str | None:
        raise AssertionError(prompt)

    async with asyncio.timeout(30):
        await collect_secrets(lab.settings("mute", "n01"), ask, replace(QUICK, connect=300.0))


class PasswordServer(asyncssh.SSHServer):
    """Takes one password, by password or keyboard-interactive."""

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> tuple[str, str, str, list[tuple[str, bool]]]:
        return "", "", "", [("Token:", False)]

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        return list(responses) == ["hunter2"]


async def test_a_password_asked_before_answers_for_all_hosts(lab: SshLab) -> None:
    async def serve(process: asyncssh.SSHServerProcess[str]) -> None:
        command, _ = boot()(ProbeOptions(interval=0.5))
        assert process.command == command
        process.exit(3)

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=PasswordServer,
        server_host_keys=[str(lab.servers["n01"].key)],
        process_factory=serve,
    )
    async with server:
        port = server.get_port()
        for alias in ("pw1", "pw2"):
            lab.add(alias, "127.0.0.1", port)
        lab.trust("n01", "127.0.0.1", port)
        asked: list[str] = []

        async def ask(prompt: str) -> str | None:
            asked.append(prompt)
            return "hunter2"

        settings = lab.settings("pw1", "pw2")
        secrets = await collect_secrets(settings, ask, QUICK)
        assert asked == ["hosts: Token:: "]
        async with listening(SshSource(settings, secrets=secrets, patience=QUICK, boot=boot())) as heard:
            for name in ("pw1", "pw2"):
                target = await heard.until_state(name, TargetState.FAILING)
                assert "status 3" in target.detail
        async with listening(SshSource(settings, secrets=Secrets(), patience=QUICK, boot=boot())) as heard:
            target = await heard.until_state("pw1", TargetState.DENIED)
            assert "wants a password" in target.detail


async def test_an_agent_is_asked_and_never_forwarded(lab: SshLab, monkeypatch: pytest.MonkeyPatch) -> None:
    require("ssh-agent", "ssh-add")
    key = lab.folder / "in_agent"
    make_key(key)
    (lab.folder / "authorized_keys").write_text(public_key(key))
    with ssh_agent(key) as sock:
        monkeypatch.setenv("SSH_AUTH_SOCK", sock)
        text = lab.config.read_text().replace("IdentityAgent none", "ForwardAgent yes")
        lab.config.write_text(text.replace(str(lab.client_key), str(key)))
        key.unlink()
        async with listening(source_of(lab, "n01")) as heard:
            await heard.until("it reads", lambda: heard.samples("n01") > 0)
            environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in lab.processes("n01")]
            assert not any(b"SSH_AUTH_SOCK" in text for text in environments)


def test_names_that_must_not_reach_a_shell_are_refused() -> None:
    for name in ("-oProxyCommand=x", "a b", "a;b", "a\nb", "\x1b]52;c;x\x07", "", "u@-x", "-u@x", "x:99999"):
        with pytest.raises(ConfigError):
            destination(name)
    assert destination("ada@n01:2222") == Destination("n01", "ada", 2222)
    assert destination("n01") == Destination("n01")
    assert destination("::1") == Destination("::1")
    assert destination("[::1]:22") == Destination("::1", None, 22)
    with pytest.raises(ConfigError):
        SshSource(SshSettings(hosts=("n01", "-oProxyCommand=touch x")))


def test_many_hosts_want_a_confirmation() -> None:
    assert not needs_confirmation(names_of(64))
    assert needs_confirmation(names_of(65))


class TestConfig:
    """What ssh_config says is heeded."""

    @pytest.fixture
    def route(self, tmp_path: Path) -> Callable[..., object]:
        def read(text: str, host: str = "n01", **changes: str) -> object:
            file = tmp_path / "config"
            file.write_text(text)
            settings = SshSettings(hosts=(host,), ssh_config=(str(file),), **changes)  # type: ignore[arg-type]
            return read_route(destination(host), settings)

        return read

    def test_aliases_patterns_and_match(self, route: Callable[..., object]) -> None:
        got = route(
            "Host n*\n HostName %h.cluster\n User ada\n Port 2200\n ProxyJump gate,inner\n"
            "Match host *.cluster\n IdentityFile ~/.ssh/cluster\n HostKeyAlias pool\n"
        )
        assert got.options.host == "n01.cluster"  # type: ignore[attr-defined]
        assert got[1:4] == ("pool", 2200, "ada")  # type: ignore[index]
        assert got.jumps == ("gate", "inner")  # type: ignore[attr-defined]
        assert [Path(name).name for name in got.identities] == ["cluster"]  # type: ignore[attr-defined]

    def test_settings_come_first(self, route: Callable[..., object]) -> None:
        got = route("Host *\n User ada\n ProxyJump gate\n", user="bob", jump="none")
        assert got.user == "bob"  # type: ignore[attr-defined]
        assert got.jumps == ()  # type: ignore[attr-defined]

    def test_known_hosts_files(self, route: Callable[..., object], tmp_path: Path) -> None:
        got = route("Host *\n UserKnownHostsFile ~/one %d/two\n")
        assert got.known_hosts[:2] == (tmp_path / "one", tmp_path / "two")  # type: ignore[attr-defined]
        assert got.known_hosts[2] == Path("/etc/ssh/ssh_known_hosts")  # type: ignore[attr-defined]

    def test_match_final(self, route: Callable[..., object]) -> None:
        got = route("Match final host n01\n Port 2201\n")
        assert got.port == 2201  # type: ignore[attr-defined]


async def test_a_mistake_in_ssh_config_is_said(lab: SshLab) -> None:
    lab.config.write_text("Host *\n  Port twentytwo\n")
    async with listening(source_of(lab, "n01")) as heard:
        target = await heard.until_state("n01", TargetState.FAILING)
    assert "ssh_config line 2" in target.detail
