"""Settings are written so that they read the same."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources.config import Settings, load
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.settings import LocalSettings, NodeSettings, SourceSettings
from coldaisle.sources.writing import render, save

GOOD = Path(__file__).parents[1] / "fixtures" / "config" / "good.toml"


def in_order(source: SourceSettings) -> SourceSettings:
    """The same source with its names sorted: node sets are folded in their own order."""
    names = {key: tuple(sorted(getattr(source, key))) for key in ("hosts", "targets") if hasattr(source, key)}
    return msgspec.structs.replace(source, **names)


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    settings = load(GOOD)
    save(settings, tmp_path / "new" / "config.toml")
    again = load(tmp_path / "new" / "config.toml")
    assert list(map(in_order, again.sources)) == list(map(in_order, settings.sources))
    assert (again.name, again.racks, again.screen, again.history) == (
        settings.name, settings.racks, settings.screen, settings.history,
    )  # fmt: skip
    assert again.nodes.names() == settings.nodes.names()
    assert again.rack_rules() == settings.rack_rules()


def test_defaults_are_left_out() -> None:
    assert render(Settings(sources=(LocalSettings(),))).splitlines()[1:] == [
        "",
        "[[source]]",
        'kind = "local"',
    ]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_name_survives(name: str) -> None:
    import tomllib

    settings = Settings(name=name, nodes=NodeSettings(rename={name: name}))
    assert tomllib.loads(render(settings)) == {"name": name, "nodes": {"rename": {name: name}}}


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('name = "old"\n')
    with pytest.raises(ConfigError, match="a configuration already"):
        save(Settings(name="new"), path)
    assert path.read_text() == 'name = "old"\n'
    assert save(Settings(name="new"), path, force=True) == tmp_path / "config.toml.1"
    assert save(Settings(name="newer"), path, force=True) == tmp_path / "config.toml.2"
    assert (tmp_path / "config.toml.1").read_text() == 'name = "old"\n'
    assert load(path).name == "newer"


def test_a_write_that_fails_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_text('name = "old"\n')

    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        save(Settings(name="new"), path, force=True)
    assert path.read_text() == 'name = "old"\n'
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.toml", "config.toml.1"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        save(Settings(), tmp_path / "file" / "config.toml")
