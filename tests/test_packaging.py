"""The wheel and the sdist that people get, tried in an environment that holds nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from lab.terminal import Pty, clean_environment

ROOT = Path(__file__).parent.parent
CODE = ("tui", "sources", "analyzers", "themes")


def tracked(*folders: str) -> set[str]:
    """The files of these folders that belong to the project."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of the project's files")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel made from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=110,
    )
    return folder


@pytest.fixture(scope="module")
def empty(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and what it declares to need."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    (wheel,) = built.glob("*.whl")
    subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--constraint", ROOT / "constraints.txt", wheel],
        check=True,
        capture_output=True,
        timeout=300,
        env=outside(),
    )  # fmt: skip
    return folder / "bin"


def outside(**changes: str) -> dict[str, str]:
    """An environment without a trace of the development environment."""
    environ = clean_environment(**changes)
    environ.pop("VIRTUAL_ENV", None)
    environ.setdefault("PYTHONPATH", "")
    return environ


def test_the_wheel_holds_one_package_whole(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"coldaisle"}
    assert {f"coldaisle/{name}" for name in tracked(*CODE)} <= names
    assert not [name for name in names if "/tests/" in name or "__pycache__" in name]


def test_the_sdist_holds_what_the_wheel_is_made_from(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked(*CODE, "tests", "README.md", "LICENSE", "pyproject.toml") <= names
    assert not [name for name in names if name.startswith((".venv", ".git/", "dist"))]


@pytest.mark.timeout(400)
def test_it_runs_where_nothing_else_is_installed(empty: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign" / "sources"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("raise ImportError('this is somebody else’s package')\n")
    environ = outside(PYTHONPATH=str(foreign.parent))

    def run(*argv: str | os.PathLike[str]) -> str:
        done = subprocess.run(
            argv, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    from coldaisle.sources import __version__

    assert __version__ in run(empty / "coldaisle", "--version")
    assert "demo" in run(empty / "coldaisle", "--help")
    every_module = (
        "import importlib, pkgutil, coldaisle\n"
        "for m in pkgutil.walk_packages(coldaisle.__path__, 'coldaisle.'): importlib.import_module(m.name)\n"
        "print(coldaisle.__path__)"
    )
    assert str(empty.parent) in run(empty / "python", "-W", "error", "-c", every_module)


@pytest.mark.timeout(400)
def test_its_demo_shows_racks(empty: Path) -> None:
    with Pty([str(empty / "coldaisle"), "demo"], environ=outside()) as terminal:
        terminal.wait_for("LIVE")
        terminal.wait_for("r16")
        terminal.send("q")
        assert terminal.process.wait(10) == 0
