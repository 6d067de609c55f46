"""With a scheduler alone nothing is measured, and nothing is called lost, silent or late for that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lab.slurm_records import AT as ASKED_AT
from lab.slurm_records import job, node, waiting
from lab.snapshots import AT, Faults, make_snapshot

from coldaisle.analyzers.snapshot import Coverage, Snapshot, SourceView
from coldaisle.sources.config import Settings
from coldaisle.sources.settings import SlurmSettings, SshSettings
from coldaisle.sources.slurm.records import Jobs, Nodes, Partitions
from coldaisle.sources.slurm.telling import Teller
from coldaisle.sources.source import Partition, Target, TargetState
from coldaisle.tui.dashboard import DEFAULT_INTERVAL_S, monitor_settings
from coldaisle.tui.doctor import as_object, report, verdict
from coldaisle.tui.examination import Examined
from coldaisle.tui.screens.nodes import _problem
from coldaisle.tui.screens.source_panes import name_pane
from coldaisle.tui.widgets.header import trust_line
from coldaisle.tui.widgets.lines import row_text, text_of

NAMES = ("r01n01", "r01n02", "r02n01", "r02n02")


@pytest.fixture
def alone() -> Snapshot:
    snapshot = make_snapshot(2, 2, 4, faults=Faults(never=NAMES))
    told = Target(AT, "slurmctld", TargetState.OK, what="Slurm 23.02.7, JSON by this machine")
    slurm = SourceView("slurm", "slurm", "ok", "", "", 60.0, None, None, (told,), 1, 0.03, ())
    nodes = tuple(
        replace(node, state="drain", reason="fan \x1b[31mbroken") if node.key == "r02n01" else node
        for node in snapshot.layout.nodes
    )
    return replace(
        snapshot, sources=(slurm,), coverage=Coverage(0, 4, 0, 16), layout=replace(snapshot.layout, nodes=nodes)
    )  # fmt: skip


@pytest.mark.parametrize("width", [80, 200])
def test_the_header_counts_what_there_is(alone: Snapshot, width: int) -> None:
    said = row_text(trust_line(alone, "", AT, width))
    assert "no telemetry  4 nodes  16 GPUs" in said
    assert "0/" not in said
    ssh = replace(alone.sources[0], kind="ssh", name="ssh")
    said = row_text(trust_line(replace(alone, sources=(*alone.sources, ssh)), "", AT, width))
    assert "0/4 nodes" in said
    assert not replace(alone, sources=()).is_jobs_only


def test_nodes_and_names_say_who_does_not_measure(alone: Snapshot) -> None:
    said = {node.key: _problem(alone, at).text for at, node in enumerate(alone.layout.nodes)}
    assert said["r01n01"] == "no telemetry"
    assert said["r02n01"].startswith("fan ")
    assert "\x1b" not in said["r02n01"]
    names = text_of(name_pane(alone, 80))
    assert "4 with 16 GPUs in Slurm; nobody measures anything" in names
    assert "never heard" not in names


def test_pictures_do_not_wait_for_slurm() -> None:
    slurm, ssh = SlurmSettings(), SshSettings(hosts=("n1",), interval=5.0)
    assert monitor_settings(Settings(sources=(slurm,))).interval == DEFAULT_INTERVAL_S
    assert monitor_settings(Settings(sources=(slurm, ssh))).interval == 5.0


def test_doctor_tells_what_a_scheduler_gives() -> None:
    teller = Teller()
    plain: dict[str, Any] = dict.fromkeys(Partition._fields) | {"accounts": (), "accounts_denied": ()}
    up = Partition(**(plain | {"name": "gpu", "state": "up"}))
    items = teller.take_nodes(Nodes([node("n1"), node("n2", state="down", reason="burnt")]), ASKED_AT)
    items += teller.take_jobs(Jobs([job(), waiting(gpus=8)]), ASKED_AT)
    items += teller.take_partitions(Partitions([up, up._replace(name="la\x07te", state="down")]), ASKED_AT)
    one = Examined("slurm", "slurm", 60.0)
    for item in (*items, Target(ASKED_AT, "slurmctld", TargetState.OK, what="Slurm 23.02.7")):
        one.take(item)
    text = "\n".join(report([one], verdict([one]), None))
    assert "expects: 2 nodes with 8 GPUs, 1 of them drained or down" in text
    assert "2 partitions: la" in text
    assert "te is down" in text
    assert "\x07" not in text
    assert "jobs: 1 running on 2 GPUs, 1 waiting for 8 GPUs, 0 for something else" in text
    assert "known, not measured: n[1-2]" in text
    assert as_object([one], 0)["sources"][0]["partitions"] == {"gpu": "up", "la\x07te": "down"}
