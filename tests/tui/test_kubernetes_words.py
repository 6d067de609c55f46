"""A Kubernetes workload on the screen: its namespace, owner and kind, and never a free GPU that a pod may hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from lab.snapshots import AT as NOW
from lab.snapshots import FakeFeed, make_snapshot

from coldaisle.analyzers.fields import Entity
from coldaisle.analyzers.selection import Selection
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.cluster import Job
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.cells import FREE, cell_codes, default_metric, tally
from coldaisle.tui.reading import job_words, jobs_on
from coldaisle.tui.screens.node_panes import title
from coldaisle.tui.tiles import groups_of
from coldaisle.tui.widgets.cursor import cursor_lines

AT = 1_700_000_000.0


def job(id_: str, *gpus: int, nodes: tuple[str, ...] = ()) -> Job:
    name = id_.rpartition("/")[2]
    return Job(id_, name, "", AT, nodes, gpus, account=id_.removeprefix("k8s:").partition("/")[0])


def held(*jobs: Job, unnamed: tuple[int, ...] = ()) -> Snapshot:
    """Two nodes of four GPUs, held by these jobs alone."""
    snapshot = make_snapshot(1, 2, 4)
    gpu_job = np.full(len(snapshot.layout.gpus), -1, dtype=np.int32)
    for number, one in enumerate(jobs):
        gpu_job[list(one.gpus)] = number
    flags = np.isin(np.arange(len(gpu_job)), unnamed)
    return replace(snapshot, jobs=jobs, gpu_job=gpu_job, jobs_known=True, gpu_unnamed=flags)


def line(snapshot: Snapshot, gpu: int, width: int = 80) -> str:
    rows = cursor_lines(snapshot, gpu, default_metric(snapshot), snapshot.at, width)
    return "".join(run.text for run in rows[0])


def test_the_cursor_line_says_whose_it_is() -> None:
    snapshot = held(job("k8s:team-a/PyTorchJob/llama", 0, 1))
    assert "job team-a/llama (PyTorchJob)  2 GPUs" in line(snapshot, 0)
    assert "no job" in line(snapshot, 2)


def test_foreign_text_in_a_jobs_id_is_inert() -> None:
    text = line(held(job("k8s:a/Pod/\x1b]52;c;x\x07[red]", 0)), 0)
    assert "\x1b" not in text
    assert "(Pod)" in text


def test_the_words_of_a_job() -> None:
    assert job_words(job("k8s:team-a/Deployment/chat")) == "team-a/chat (Deployment)"
    assert job_words(Job("slurm:4711", "train", "alice", AT, (), ())) == "4711 alice train"
    assert job_words(Job("slurm:4711", "4711", "", AT, (), ())) == "4711 4711"


def test_a_job_without_known_gpus_is_on_its_nodes() -> None:
    nodes = [node.key for node in make_snapshot(1, 2, 4).layout.nodes]
    snapshot = held(
        job("k8s:a/Deployment/chat", 0), job("k8s:a/Job/sweep", nodes=(nodes[0],)), unnamed=(1, 2, 3)
    )
    assert [one.name for one in jobs_on(snapshot, snapshot.layout.nodes[0])] == ["chat", "sweep"]
    assert jobs_on(snapshot, snapshot.layout.nodes[1]) == []
    assert "job a/chat (Deployment) +1 more" in "".join(run.text for run in title(snapshot, 0, 120))
    assert Selection("sweep", Entity.NODE).mask(snapshot).tolist() == [True, False]


def test_a_gpu_that_a_pod_may_hold_is_not_called_free() -> None:
    free, unsure = held(job("k8s:a/Job/x", 0)), held(job("k8s:a/Job/x", 0), unnamed=(1, 2, 3))
    metric = default_metric(free)
    assert (tally(free, metric).free, tally(unsure, metric).free) == (7, 4)
    assert (cell_codes(unsure, metric)[1:4] != FREE).all()
    assert "pods here hold GPUs, not known which" in line(unsure, 1)
    assert [group.name for group in groups_of(unsure, "job")] == ["a/x", "no job", "not known"]


def test_tiles_of_two_kinds_of_one_name_stay_apart() -> None:
    snapshot = held(job("k8s:a/Job/x", 0), job("k8s:a/Deployment/x", 1), job("k8s:a/Job/y", 2))
    assert [group.name for group in groups_of(snapshot, "job")] == [
        "a/x (Deployment)",
        "a/x (Job)",
        "a/y",
        "no job",
    ]


def test_picture_of_workloads(snap_compare: object) -> None:
    """Racks of labels, a training job over two nodes, a Deployment, and GPUs of which a pod holds two."""
    assert callable(snap_compare)
    snapshot = held(
        job("k8s:team-a/PyTorchJob/llama", 0, 1, 2, 3),
        job("k8s:team-b/Deployment/chat", 4, 5),
        unnamed=(6, 7),
    )
    layout = snapshot.layout
    racks = tuple(replace(rack, place="label topology.kubernetes.io/rack") for rack in layout.racks)
    shown = replace(snapshot, layout=replace(layout, racks=racks))
    app = ColdaisleApp(FakeFeed(shown), name="atlas", clock=lambda: NOW, no_colour=False)
    assert snap_compare(app, terminal_size=(120, 34), press=["g", "g"])
