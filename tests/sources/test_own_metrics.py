"""A site's own metrics: declared in a vocabulary or in the configuration, checked, measured, and shown as others are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.vocabulary import cells

from coldaisle.sources.catalog import catalog, declare, forget_declared, own_metrics
from coldaisle.sources.config import Settings, load
from coldaisle.sources.configured import sources_from
from coldaisle.sources.entries import Entry, entry_problems, kinds, shipped_keys
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.settings import MetricSettings
from coldaisle.sources.source import JobRef, Kind, NodeRef, RackRef
from coldaisle.sources.vocabularies import load_vocabulary, parse_vocabulary, vocabularies_for
from coldaisle.sources.writing import render

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def only_shipped() -> Iterator[None]:
    yield
    forget_declared()


def example(file: str, after: str) -> str:
    """The first TOML block of a manual behind a heading."""
    text = (ROOT / file).read_text(encoding="utf-8").partition(after)[2]
    return text.partition("```toml\n")[2].partition("```")[0]


PAGE = b"""\
train_step_seconds{slurm_job_id="4711",rank="0"} 0.81
train_step_seconds{slurm_job_id="4711",rank="1"} 0.93
train_step_seconds{slurm_job_id="4712",rank="0"} 2e9
train_loss{slurm_job_id="4711"} 2.25
cdu_supply_celsius{host="n03"} 31.5
cdu_supply_celsius 30
cdu_leak{rack="r07"} 0
"""


def test_the_manuals_whole_file_runs(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(example("sources/README.md", "### Metrics of a site's own"), encoding="utf-8")
    words = vocabularies_for([str(file)], [])
    assert cells(PAGE, "cdu1", vocabularies=words) == {
        (JobRef("slurm:4711"), "job.step_time"): 0.93,
        (JobRef("slurm:4711"), "job.loss"): 2.25,
        (NodeRef("n03"), "node.chilled_water"): 31.5,
        (NodeRef("cdu1"), "node.chilled_water"): 30,
        (RackRef("r07"), "rack.leak"): 0,
    }
    (water,) = own_metrics(Kind.NODE)
    assert (water.label, water.unit, water.low, water.high) == ("chilled water", "C", 0, 80)
    assert water.help == "water that goes to the node's cold plates"


def test_the_readmes_metric_runs(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    text = example("README.md", "## Configuration")
    start = text.index("[[metric]]")
    file.write_text(text[start : text.index("[racks]", start)], encoding="utf-8")
    settings = load(file)
    words = vocabularies_for([], settings.metrics)
    assert cells(PAGE, vocabularies=words)[JobRef("slurm:4711"), "job.step_time"] == pytest.approx(0.81)
    assert catalog()["job.step_time"].unit == "s"
    file.write_text(render(settings), encoding="utf-8")
    assert load(file).metrics == settings.metrics, "doctor --write keeps it"


def test_every_kind_in_the_configuration() -> None:
    own = [
        MetricSettings(key="gpu.mfu", names=("mfu",), unit="ratio", gpu="uuid"),
        MetricSettings(key="node.leak", names=("leak",), unit="state"),
        MetricSettings(key="node.doors", names=("doors",), unit="1", node="host"),
        MetricSettings(key="rack.power", names=("pdu_kw",), scale=1000.0, rack="rack"),
        MetricSettings(key="job.tokens", names=("tokens_total",), unit="tokens/s", type="rate", job="job"),
    ]
    before = (
        b'mfu{uuid="GPU-1"} 0.4\nleak 0\ndoors{host="n7"} 2\npdu_kw{rack="r1"} 36\ntokens_total{job="9"} 0\n'
    )
    after = before.replace(b'"9"} 0', b'"9"} 5000')
    found = cells(after, "n1", before=before, vocabularies=vocabularies_for([], own))
    assert {(type(entity).__name__, key): value for (entity, key), value in found.items()} == {
        ("GpuRef", "gpu.mfu"): 0.4,
        ("NodeRef", "node.leak"): 0,
        ("NodeRef", "node.doors"): 2,
        ("RackRef", "rack.power"): 36000,
        ("JobRef", "job.tokens"): 500,
    }
    assert found[NodeRef("n7"), "node.doors"] == 2
    assert [one.key for kind in Kind for one in own_metrics(kind)] == [
        "gpu.mfu", "node.leak", "node.doors", "job.tokens",
    ]  # fmt: skip


CATALOG = "name = 'x'\nprobe = ['x']\nmetric = [{key = 'job.a', names = ['x']}]\nlabels.job = ['id']\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (CATALOG, 3, "the catalog has no such metric: misspelt, or declare it"),
        (CATALOG + "[catalog.'job.a']\nunit = 'parsec'", 5, "no such unit 'parsec'; one of ratio"),
        (CATALOG + "[catalog.'job.a']\nunit = 's'\nrange = [5, 1]", 5, "range is [lowest, highest]"),
        (CATALOG + "[catalog.'job.a']\nunit = 's'\nrange = [0, inf]", 5, "two numbers"),
        (
            CATALOG + "[catalog.'job.a']\nunit = 's'\n[catalog.'gpu.power']\nunit = 'W'",
            7,
            "cannot be declared again",
        ),
        (
            CATALOG + "[catalog.'job.a']\nunit = 's'\n[catalog.'tpu.b']\nunit = 's'",
            7,
            "no such entity; one of disk",
        ),
        (CATALOG + "[catalog.'job.a']\nunit = 's'\n[catalog.'job.B c']\nunit = 's'", 7, "small letters"),
        (CATALOG + "[catalog.'job.a']\nunit = 's'\nunti = 's'", None, "unknown field `unti`"),
        (
            CATALOG.replace("labels.job = ['id']", "[catalog.'job.a']\nunit = 's'"),
            3,
            "the label that names the job",
        ),
        (
            "name = 'x'\nprobe = ['x']\nmetric = [{key = 'rack.power', names = ['x']}]",
            3,
            "it needs an entity, such as {rack}",
        ),
    ],
)
def test_mistakes_in_a_vocabulary(tmp_path: Path, text: str, line: int | None, says: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_vocabulary(file)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{file}:{line}: " if line else str(file))
    assert "job.a" not in catalog(), "what is wrong is not declared"


METRIC = "[[metric]]\nkey = 'job.a'\nnames = ['x']\nunit = 's'\njob = 'id'\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (METRIC.replace("'s'", "'parsec'"), 2, "no such unit 'parsec'"),
        (METRIC.replace("job.a", "gpu.power"), 2, "cannot be declared again"),
        (METRIC.replace("unit = 's'\n", ""), 2, "the catalog has no such metric"),
        (METRIC.replace("job = 'id'\n", ""), 1, "whose it is is missing"),
        (METRIC.replace("job.a", "port.a"), 2, "[[metric]] is not for a port"),
        (METRIC.replace("names = ['x']", "names = []"), 3, "names"),
        (METRIC.replace("unit", "unti"), 4, "no setting 'unti' of a metric"),
        (METRIC + METRIC.replace("'s'", "'W'"), 7, "declared before, in other words"),
        ("metric = 3", 1, "must be written as [[metric]]"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path: Path, text: str, line: int, says: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert caught.value.remedy


def test_declared_twice_alike_is_once_and_otherwise_is_told(tmp_path: Path) -> None:
    declare({"job.a": Entry("s")})
    known = catalog()
    declare({"job.a": Entry("s")})
    assert catalog() is known
    with pytest.raises(ConfigError, match="two declarations that differ"):
        declare({"job.a": Entry("W"), "job.b": Entry("s")})
    assert "job.b" not in catalog()
    file = tmp_path / "own.toml"
    file.write_text(CATALOG + "[catalog.'job.a']\nunit = 'W'", encoding="utf-8")
    with pytest.raises(ConfigError, match=str(file)):
        vocabularies_for([str(file)], [])


def test_a_metric_for_the_cells_may_be_the_sites_own(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    own = "[[metric]]\nkey = 'gpu.mfu'\nnames = ['mfu']\nunit = 'ratio'\ngpu = 'uuid'\n"
    file.write_text(own + "[screen]\nmetric = 'gpu.mfu'\n", encoding="utf-8")
    assert load(file).screen.metric == "gpu.mfu"
    file.write_text(own + "[screen]\nmetric = 'gpu.mfo'\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.remedy == "did you mean gpu.mfu?"


def test_sources_are_given_the_sites_own() -> None:
    own = MetricSettings(key="job.a", names=("x",), unit="s", job="id")
    raw = [{"kind": "exporters", "targets": ["127.0.0.1:1"], "name": name} for name in ("one", "two")]
    settings = Settings(metrics=(own,)).with_sources(raw)
    assert settings.metrics == (own,)
    assert len(sources_from(settings, time.time)) == 2
    assert "job.a" in catalog()


def test_what_may_be_declared_is_what_the_catalog_has() -> None:
    assert set(kinds()) == set(Kind)
    assert shipped_keys() == set(catalog())
    assert not list(entry_problems("serve.queue_wait", Entry("s")))
    assert parse_vocabulary(CATALOG + "[catalog.'job.a']\nunit = 'ratio'", Path("x")).catalog[
        "job.a"
    ].bounds == (0, 1)
