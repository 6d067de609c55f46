"""From settings to sources."""

import time
from pathlib import Path

import pytest

from coldaisle.sources.config import Settings, load
from coldaisle.sources.configured import source_from, sources_from
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.settings import ExporterSettings, LocalSettings, SimulatorSettings, SshSettings

GOOD = Path(__file__).parents[1] / "fixtures" / "config" / "good.toml"


def test_every_kind_becomes_its_source() -> None:
    sources = sources_from(load(GOOD), time.time)
    assert [(source.name, source.kind, source.interval) for source in sources] == [
        ("ssh", "ssh", 2.0),
        ("exporters", "exporters", 10.0),
        ("local", "local", 2.0),
        ("simulator", "simulator", 2.0),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        LocalSettings(name="x", interval=7.0),
        SshSettings(name="x", interval=7.0, hosts=("n1",)),
        ExporterSettings(name="x", interval=7.0, targets=("n1:9400",)),
        SimulatorSettings(name="x", interval=7.0, racks=1),
    ],
)
def test_names_and_intervals_are_kept(
    settings: LocalSettings | SshSettings | ExporterSettings | SimulatorSettings,
) -> None:
    source = source_from(settings, time.time)
    assert (source.name, source.interval) == ("x", 7.0)


def test_no_sources() -> None:
    assert sources_from(Settings(), time.time) == []


def test_a_vocabulary_of_the_site_is_read(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("nonsense = 1\n")
    settings = Settings().with_sources(
        [{"kind": "exporters", "targets": ["n1:9400"], "vocabulary": [str(file)]}]
    )
    with pytest.raises(ConfigError) as caught:
        sources_from(settings, time.time)
    assert caught.value.file == file


def test_authorities_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"ca .*ca\.pem: not a certificate"):
        source_from(ExporterSettings(targets=("https://n1:9400",), ca=str(file)), time.time)


def test_a_token_never_travels_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    with pytest.raises(ConfigError) as caught:
        source_from(ExporterSettings(targets=("n1:9400",), token_env="TOKEN"), time.time)
    assert "hunter2" not in str(caught.value)
