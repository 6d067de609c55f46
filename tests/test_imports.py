"""What loads when: the screen never below it, nothing heavy before the first paint."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("pandas", "numpy", "asyncssh", "httpx", "pynvml", "ClusterShell", "cryptography")
ROOT = Path(__file__).parents[1]


def modules(package: str) -> list[str]:
    """Every module of a package, by its dotted name."""
    folder = ROOT / package
    names = (path.relative_to(ROOT).with_suffix("").parts for path in sorted(folder.rglob("*.py")))
    return ["coldaisle." + ".".join(part for part in parts if part != "__init__") for parts in names]


def loaded_after(code: str) -> set[str]:
    """The top-level modules, and ours in full, that are loaded after ``code`` in a process of its own."""
    tail = "\nimport sys\nprint(*sys.modules, file=sys.__stdout__)"
    done = subprocess.run(
        [sys.executable, "-c", code + tail], capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    names = done.stdout.splitlines()[-1].split()
    return {name if name.startswith("coldaisle.") else name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", ["sources", "analyzers"])
def test_nothing_below_the_screen_imports_it(package: str) -> None:
    # the probe runs on other machines: it is text to send, not a module to import
    names = [name for name in modules(package) if not name.endswith(".probe")]
    assert names
    loaded = loaded_after("\n".join(f"import {name}" for name in names))
    assert "textual" not in loaded  # rich may be: httpx brings it in for a command of its own
    assert not {name for name in loaded if name.startswith("coldaisle.tui")}


def test_sources_do_not_import_analyzers() -> None:
    names = [name for name in modules("sources") if not name.endswith(".probe")]
    loaded = loaded_after("\n".join(f"import {name}" for name in names))
    assert not {name for name in loaded if name.startswith("coldaisle.analyzers")}


@pytest.mark.parametrize(
    "name", ["config", "settings", "errors", "text", "units", "racks", "nodesets", "detection", "log"]
)
def test_what_comes_first_is_light(name: str) -> None:
    assert not loaded_after(f"import coldaisle.sources.{name}") & set(HEAVY)


def test_doctor_works_without_the_screen() -> None:
    loaded = loaded_after("import coldaisle.tui.doctor")
    assert not loaded & {"textual", "rich", "pandas"}


RUN = """
import contextlib, io, sys
sys.argv = ["coldaisle", *{arguments!r}]
from coldaisle.tui.start import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
"""


def test_the_version_is_answered_before_click() -> None:
    loaded = loaded_after(RUN.format(arguments=["--version"]))
    assert not loaded & {*HEAVY, "textual", "rich", "click", "msgspec", "logging", "dataclasses"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["demo", "--help"],
        ["doctor", "--help"],
        ["list", "--help"],
        ["completion", "zsh"],
        ["--nonsense"],
    ],
)
def test_help_is_light(arguments: list[str]) -> None:
    loaded = loaded_after(RUN.format(arguments=arguments))
    assert not loaded & {*HEAVY, "textual", "rich", "asyncio"}


FIRST_PAINT = """
import asyncio
import sys
from coldaisle.sources.config import Settings
from coldaisle.tui import cli  # as the command does
from coldaisle.tui.dashboard import make_app

HEAVY = {heavy!r}

settings = Settings().with_sources([{{"kind": "simulator", "racks": 1}}])
app = make_app(settings)
painted = []

def look():
    painted.append(sorted(set(HEAVY) & set(sys.modules)))
    app.exit()

async def main():
    app._start_feed = look  # what follows the first paint
    async with app.run_test(size=(120, 34)) as pilot:
        await pilot.pause()

asyncio.run(main())
assert painted == [[]], painted
"""


def test_nothing_heavy_loads_before_the_first_paint() -> None:
    loaded_after(FIRST_PAINT.format(heavy=HEAVY))
