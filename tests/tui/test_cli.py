"""The command line: what is asked, what is answered, and the exit status of each."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coldaisle.sources import __version__, detection
from coldaisle.sources.config import Settings
from coldaisle.sources.detection import Detected
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.instants import Instant
from coldaisle.sources.settings import ExporterSettings, LocalSettings, SimulatorSettings, SshSettings
from coldaisle.tui import cli

GOOD = Path(__file__).parents[1] / "fixtures" / "config" / "good.toml"


class Shown:
    """Stands where the dashboard would: keeps what it was to show."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.at: Instant | None = None
        self.focus = ""

    def __call__(
        self, settings: Settings, secrets: Mapping[str, Any], at: Instant | None = None, focus: str = ""
    ) -> int:
        self.settings, self.at, self.focus = settings, at, focus
        return 0


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shown:
    """A terminal to show something on, an empty home, and no dashboard."""
    dashboard = Shown()
    monkeypatch.setattr("coldaisle.tui.dashboard.run_dashboard", dashboard)
    monkeypatch.setattr(cli, "_needs_terminal", lambda *_: None)
    monkeypatch.setattr(cli, "_start_log", lambda: None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return dashboard


def sees(monkeypatch: pytest.MonkeyPatch, *sources: dict[str, Any]) -> None:
    monkeypatch.setattr(detection, "detect", lambda: Detected(sources, ("NVIDIA driver: none found",)))


def command(*arguments: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    """The real program, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from coldaisle.tui.start import main; main()", *arguments],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, **more,
    )  # fmt: skip


def test_the_version() -> None:
    assert command("--version").stdout == f"coldaisle {__version__}\n"


def test_help_names_the_commands() -> None:
    done = command("--help")
    assert done.returncode == 0
    assert all(
        word in done.stdout for word in ("demo", "doctor", "list", "completion", "--ssh", "--exporter")
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nonsense"], "No such command"),
        (["--nonsense"], "No such option"),
        (["demo", "--racks", "many"], "not a valid integer"),
        (["demo", "--racks", "0"], "not in the range"),
        (["--ssh", "n[1-3"], "--ssh: a bracket is missing"),
        (["--ssh", "-oProxyCommand=x"], "not a host name"),
        (["--exporter", "n1"], "not host:port"),
        (["--config", "/nonexistent.toml"], "cannot read the configuration"),
        (["doctor", "--local", "--for", "soon"], "is not a duration"),
        (["--local", "--theme", "pink"], "no theme 'pink'"),
        (["demo", "--theme", "pink"], "no theme 'pink'"),
        (
            ["demo", "--racks", "1000"],
            "1000 racks x 4 nodes x 8 GPUs are 4,000 nodes and 32,000 GPUs: at most 2,048",
        ),
        (["demo", "--interval", "1ms"], "--interval: at least 200 ms"),
        (["--local", "--history", "-5"], "--history: at least 1"),
        (["completion", "tcsh"], "is not one of"),
    ],
)
def test_bad_usage_is_3_with_a_remedy_and_no_traceback(arguments: list[str], problem: str) -> None:
    done = command(*arguments)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("coldaisle: ")
    assert problem in done.stderr
    assert "\n  " in done.stderr
    assert "Traceback" not in done.stderr


def test_foreign_text_in_a_mistake_is_inert() -> None:
    done = command("--ssh", "n\x1b[31m\u202e1")
    assert done.returncode == 3
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr


@pytest.mark.parametrize(("arguments", "locale"), [((), "C"), (("--ascii",), "C.UTF-8")])
def test_only_ascii_where_that_is_asked(arguments: tuple[str, ...], locale: str, tmp_path: Path) -> None:
    environ = {**os.environ, "LC_ALL": locale, "XDG_STATE_HOME": str(tmp_path)}
    done = command(*arguments, "--theme", "d\xe4mmer", "--local", env=environ)
    assert "no theme 'dammer'" in done.stderr
    assert done.stderr.isascii()
    file = tmp_path / "c.toml"
    file.write_text('[[source]]\nkind = "simulator"\nname = "h\xf6he"\nracks = 1\n', encoding="utf-8")
    done = command(*arguments, "doctor", "--config", str(file), "--for", "2s", env=environ)
    assert "hohe (simulator)" in done.stdout
    assert (done.stdout + done.stderr).isascii()


def test_a_theme_in_the_file_is_checked_by_doctor_too(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[screen]\ntheme = "drak"\n[[source]]\nkind = "local"\n')
    done = command("doctor", "--config", str(tmp_path / "c.toml"))
    assert done.returncode == 3
    assert "c.toml:2: theme: no theme 'drak'\n  did you mean dark?" in done.stderr


def test_nothing_to_see_says_so_and_names_demo(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sees(monkeypatch)
    assert cli.run([]) == 3
    err = capsys.readouterr().err
    assert "nothing to show" in err
    assert "NVIDIA driver: none found" in err
    assert "coldaisle demo" in err
    assert shown.settings is None


def test_what_this_machine_sees_is_shown(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    sees(monkeypatch, {"kind": "local"})
    assert cli.run(["--interval", "5s"]) == 0
    assert shown.settings is not None
    assert shown.settings.sources == (LocalSettings(interval=5.0),)


def test_the_file_beats_what_is_seen(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    sees(monkeypatch, {"kind": "local"})
    assert cli.run(["--config", str(GOOD)]) == 0
    assert shown.settings is not None
    assert shown.settings.name == "atlas"


def test_flags_beat_the_file(shown: Shown) -> None:
    arguments = [
        "--config",
        str(GOOD),
        "--ssh",
        "n[1-2]",
        "--ssh",
        "n9",
        "--exporter",
        "n[1-2]:9400",
        "-J",
        "gate2",
        "--no-mouse",
    ]
    assert (
        cli.run(
            [
                *arguments,
                "--metric",
                "gpu.temp",
                "--bytes",
                "20kB/s",
                "--ascii",
                "--history",
                "30",
                "--racks-file",
                str(GOOD.parent / "racks.csv"),
            ]
        )
        == 0
    )
    assert shown.settings is not None
    assert shown.settings.sources == (
        SshSettings(hosts=("n1", "n2", "n9"), jump="gate2"),
        ExporterSettings(targets=("n1:9400", "n2:9400")),
    )
    screen = shown.settings.screen
    assert (screen.metric, screen.bytes_per_second, screen.ascii, screen.mouse) == (
        "gpu.temp",
        20e3,
        True,
        False,
    )
    assert shown.settings.history.minutes == 30.0


def test_the_default_file_is_read(shown: Shown, tmp_path: Path) -> None:
    path = tmp_path / "config" / "coldaisle" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('name = "mine"\n[[source]]\nkind = "local"\n')
    assert cli.run([]) == 0
    assert shown.settings is not None
    assert shown.settings.name == "mine"


def test_demo(shown: Shown) -> None:
    assert cli.run(["demo"]) == 0
    assert shown.settings is not None
    assert shown.settings.sources == (SimulatorSettings(),)
    assert (
        cli.run(
            [
                "demo",
                "--racks",
                "2",
                "--nodes",
                "3",
                "--gpus",
                "4",
                "--seed",
                "5",
                "--interval",
                "500ms",
                "--theme",
                "light",
            ]
        )
        == 0
    )
    assert shown.settings.sources == (SimulatorSettings(racks=2, nodes=3, gpus=4, seed=5, interval=0.5),)
    assert shown.settings.screen.theme == "light"


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--at", "-2h"],
        ["demo", "--at=2h ago"],
        ["--at", "2h ago", "demo"],
        ["--local", "--at", "-2h"],
    ],
)
def test_it_can_begin_at_a_past_instant(shown: Shown, arguments: list[str]) -> None:
    assert cli.run(arguments) == 0
    assert shown.at is not None
    assert time.time() - shown.at.at == pytest.approx(7200, abs=60)


@pytest.mark.parametrize(
    ("when", "words"), [("soon", "is no instant: write 03:12"), ("2999-01-01 00:00", "still to come")]
)
def test_what_is_no_past_instant_is_bad_usage(
    shown: Shown, capsys: pytest.CaptureFixture[str], when: str, words: str
) -> None:
    assert cli.run(["demo", "--at", when]) == 3
    assert words in capsys.readouterr().err
    assert shown.settings is None


def test_many_hosts_need_leave(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--ssh", "n[1-65]"]) == 3  # nobody to ask
    assert "65 hosts" in capsys.readouterr().err
    assert shown.settings is None
    assert cli.run(["--ssh", "n[1-65]", "--yes"]) == 0
    assert shown.settings is not None


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 130)])
def test_leave_is_asked_on_a_terminal(
    answer: str, status: int, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Terminal:
        def isatty(self) -> bool:
            return True

    def prompt(question: str) -> str:
        asked.append(question)
        return answer

    async def no_secrets(_: SshSettings) -> None:
        return None

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("click.termui.visible_prompt_func", prompt)
    monkeypatch.setattr("coldaisle.tui.preflight._secrets", no_secrets)
    assert cli.run(["--ssh", "n[1-65]"]) == status
    assert len(asked) == 1
    assert (shown.settings is not None) == (status == 0)


def test_doctor_takes_the_flags_of_the_dashboard(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[[source]]\nkind = "simulator"\nracks = 1\ninterval = 0.2\n')
    done = command("--config", str(tmp_path / "c.toml"), "doctor", "--json", "--for", "10s")
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["schema"] == "coldaisle.doctor/1"


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
def test_a_terminal_that_cannot(term: str) -> None:
    leader, follower = pty.openpty()
    environ = {**os.environ, "TERM": term}
    code = "from coldaisle.tui.start import main; main()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, "demo"],
            stdin=follower, stdout=follower, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env=environ,
        )  # fmt: skip
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == 3
    assert "cannot show a dashboard" in done.stderr
    assert "coldaisle doctor" in done.stderr


def test_without_a_terminal_doctor_is_named() -> None:
    done = command("demo")
    assert done.returncode == 3
    assert "needs a terminal" in done.stderr
    assert "coldaisle doctor" in done.stderr


def test_a_reader_who_leaves_is_no_error(tmp_path: Path) -> None:
    code = "from coldaisle.tui.start import main; main()"
    script = f'"{sys.executable}" -c "{code}" --help | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 141)
    assert done.stderr == ""


def test_a_crash_is_3_and_its_traceback_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from coldaisle.sources.log import stop_log

    def crash(_: Any) -> None:
        raise ZeroDivisionError("password=hunter2")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(cli, "_configured", crash)
    try:
        assert cli.run([]) == 3
    finally:
        stop_log()
    err = capsys.readouterr().err
    assert "a mistake of ours: ZeroDivisionError" in err
    assert str(tmp_path) in err
    assert "Traceback" not in err
    text = (tmp_path / "coldaisle" / "coldaisle.log").read_text()
    assert "Traceback" in text
    assert "hunter2" not in text + err


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_configured", interrupt)
    assert cli.run([]) == 130


def test_a_config_error_has_its_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise ConfigError("wrong", "do this", file=Path("c.toml"), line=3)

    monkeypatch.setattr(cli, "_configured", fail)
    assert cli.run([]) == 3
    assert capsys.readouterr().err == "coldaisle: c.toml:3: wrong\n  do this\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = command("completion", shell)
    assert done.returncode == 0
    assert "_COLDAISLE_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("coldaisle de", "demo"),
        ("coldaisle --theme li", "light"),
        ("coldaisle --metric gpu.sm_a", "gpu.sm_active"),
        ("coldaisle doctor --wr", "--write"),
    ],
)
def test_completion_completes(words: str, found: str) -> None:
    environ = {
        **os.environ,
        "_COLDAISLE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = command(env=environ)
    assert found in done.stdout


@pytest.mark.parametrize("arguments", [["--focus", "r07n01", "demo"], ["demo", "--focus", "r07n01"]])
def test_it_can_begin_at_what_a_page_names(shown: Shown, arguments: list[str]) -> None:
    assert cli.run([*arguments]) == 0
    assert shown.focus == "r07n01"


def test_a_name_with_a_control_character_is_refused(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["demo", "--focus", "evil\x1b[2J"]) == 3
    assert "printable" in capsys.readouterr().err
    assert shown.settings is None


def test_the_bell_can_be_switched_off(shown: Shown) -> None:
    assert cli.run(["demo", "--no-bell"]) == 0
    assert shown.settings is not None
    assert shown.settings.screen.bell is False


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_full_standard_output_is_no_mistake_of_ours() -> None:
    code = "from coldaisle.tui.start import main; main()"
    script = f'"{sys.executable}" -c "{code}" --help > /dev/full'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("coldaisle: standard output: No space left on device")
