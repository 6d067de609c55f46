"""Tokens come from a file, the environment or a command; errors never hold them."""

import logging
import sys
from pathlib import Path

import pytest

from coldaisle.sources import tokens
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.settings import ExporterSettings, PrometheusSettings
from coldaisle.sources.tokens import password_of, token_of


def source(**given: str | tuple[str, ...]) -> ExporterSettings:
    return ExporterSettings(targets=("https://n1:9400",), **given)  # type: ignore[arg-type]


def test_no_token() -> None:
    assert token_of(source()) == ""


def test_from_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "token"
    path.write_text("hunter2\n")
    path.chmod(0o600)
    with caplog.at_level(logging.WARNING):
        assert token_of(source(token_file=str(path))) == "hunter2"
    assert caplog.records == []
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert token_of(source(token_file=str(path))) == "hunter2"
    assert "can be read by others" in caplog.text
    assert "hunter2" not in caplog.text


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCGM_TOKEN", "hunter2")
    assert token_of(source(token_env="DCGM_TOKEN")) == "hunter2"


def test_from_a_command() -> None:
    assert token_of(source(token_command=(sys.executable, "-c", "print('hunter2')"))) == "hunter2"
    assert token_of(source(token_command="echo hunter2")) == "hunter2"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"token_file": "/nonexistent"}, "No such file"),
        ({"token_env": "COLDAISLE_NOT_SET"}, "no token there"),
        ({"token_command": "/nonexistent"}, "cannot be run"),
        ({"token_command": "'"}, "cannot be run"),
        ({"token_command": "false"}, "status 1"),
        ({"token_command": "echo hunter2 hunter2"}, "that is no token"),
        ({"token_command": "printf 'hunter2\\nX:hunter2'"}, "that is no token"),
        ({"token_command": "head -c 99999 /dev/zero"}, "that is no token"),
    ],
)
def test_what_is_no_token_is_said_without_it(given: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        token_of(source(**given))
    assert caught.value.remedy
    if "hunter2" in str(given):
        assert "hunter2" not in str(caught.value)


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "COMMAND_S", 0.2)
    with pytest.raises(ConfigError, match="took longer"):
        token_of(source(token_command="sleep 60"))


def test_passwords_may_hold_spaces(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(" hünter 2 \n")
    file.chmod(0o600)
    assert password_of(PrometheusSettings(url="https://prom", password_file=str(file))) == " hünter 2 "
    assert password_of(PrometheusSettings(url="https://prom")) == ""
    for text in ("", "hunter2\nhunter2"):
        file.write_text(text)
        with pytest.raises(ConfigError, match="no password") as caught:
            password_of(PrometheusSettings(url="https://prom", password_file=str(file)))
        assert "hunter2" not in str(caught.value)
