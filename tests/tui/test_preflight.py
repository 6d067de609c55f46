"""What is asked before the screen opens, and for how long the screen waits for it."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lab.sshd import SshLab, make_key, public_key
from lab.terminal import Pty, clean_environment

from coldaisle.sources import ssh
from coldaisle.sources.config import Settings
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.settings import LocalSettings, SshSettings
from coldaisle.sources.ssh import Ask, Secrets
from coldaisle.tui import preflight
from coldaisle.tui.preflight import ask_first


class Terminal:
    def isatty(self) -> bool:
        return True


def settings(hosts: int = 1) -> Settings:
    return Settings(
        sources=(LocalSettings(), SshSettings(hosts=tuple(f"n{number}" for number in range(hosts))))
    )


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())


def test_without_hosts_nothing_is_asked() -> None:
    assert ask_first(Settings(sources=(LocalSettings(),)), confirmed=False) == {}


def test_without_a_terminal_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "collect_secrets", None)
    assert ask_first(settings(), confirmed=False) == {}
    with pytest.raises(ConfigError, match="65 hosts"):
        ask_first(settings(65), confirmed=False)
    assert ask_first(settings(65), confirmed=True) == {}


def test_a_phrase_is_asked_for_unseen(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []

    def getpass(prompt: str) -> str:
        prompts.append(prompt)
        return "hunter2"

    async def collect(source: SshSettings, ask: Ask) -> Secrets:
        answer = await ask("n0 says\x1b[31m: password: ")
        return Secrets(passwords={source.hosts[0]: answer or ""})

    monkeypatch.setattr("getpass.getpass", getpass)
    monkeypatch.setattr(ssh, "collect_secrets", collect)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    secrets = ask_first(settings(), confirmed=False)
    assert secrets["ssh"].passwords == {"n0": "hunter2"}
    assert prompts == ["n0 says\ufffd: password: "]
    assert "hunter2" not in repr(secrets)
    monkeypatch.setenv("LC_ALL", "C")
    ask_first(settings(), confirmed=False)
    assert prompts[1] == "n0 says?: password: "


def test_hosts_that_hang_do_not_hold_up_the_screen(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    async def collect(*_: Any) -> Secrets:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)
        return Secrets()

    monkeypatch.setattr(preflight, "PATIENCE_S", 0.1)
    monkeypatch.setattr(ssh, "collect_secrets", collect)
    begun = time.monotonic()
    assert ask_first(settings(), confirmed=False)["ssh"].passwords == {}
    assert time.monotonic() - begun < 5
    assert ended == [True]


def test_a_person_who_was_asked_has_time(terminal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def getpass(_: str) -> str:
        time.sleep(0.3)  # a person types slower than the screen waits
        return "x"

    async def collect(source: SshSettings, ask: Ask) -> Secrets:
        await ask("password:")
        await asyncio.sleep(0.2)
        return Secrets(passwords={"n0": "x"})

    monkeypatch.setattr("getpass.getpass", getpass)
    monkeypatch.setattr(preflight, "PATIENCE_S", 0.1)
    monkeypatch.setattr(ssh, "collect_secrets", collect)
    assert ask_first(settings(), confirmed=False)["ssh"].passwords == {"n0": "x"}


def test_the_phrase_of_a_real_key_is_asked_for_and_used(tmp_path: Path) -> None:
    with SshLab(tmp_path / "lab", ["n01"]) as lab:
        locked = tmp_path / "locked"
        make_key(locked, "open sesame")
        (lab.folder / "authorized_keys").write_text(public_key(locked))
        lab.config.write_text(lab.config.read_text().replace(str(lab.client_key), str(locked)))
        program = [sys.executable, "-c", "from coldaisle.tui.start import main; main()"]
        command = [*program, "doctor", "--ssh", "n01", "--ssh-config", str(lab.config), "--for", "20s"]
        environ = {**clean_environment(), "XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}
        with Pty(command, size=(160, 50), environ=environ) as terminal:
            terminal.wait_for("pass phrase for .*locked:")
            terminal.send("open sesame\r")
            terminal.wait_for("verdict:", 60)
            text = terminal.text()
    assert "sesame" not in text
    assert "denied" not in text
    assert "accepts no key" not in text
