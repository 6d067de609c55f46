"""Bins of a real Prometheus: gaps, resets, boards that move, other generations of names, blanks, jobs by labels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from lab.prometheus import openmetrics, prometheus, victoria_metrics

from coldaisle.sources.prometheus.aggregates import Aggregates, Gathered, Span, Survey, covered
from coldaisle.sources.prometheus.api import Api
from coldaisle.sources.settings import PrometheusSettings
from coldaisle.sources.vocabularies import shipped

START = 1_767_225_600.0
SPAN = Span(START, 300.0, 288)
"""A day."""
EVERY = 60.0
TIMES = START + EVERY * np.arange(1, 1441)

Told = Mapping[str, Iterable[tuple[float, object]]]


def board(slot: int, node: str = "n01", uuid: int | None = None, more: str = "") -> str:
    named = f'instance="{node}:9400",job="dcgm",Hostname="{node}",gpu="{slot}",UUID="GPU-{slot if uuid is None else uuid:04d}",modelName="NVIDIA H100 80GB HBM3"'
    return f"{named},{more}" if more else named


def steady(value: float, times: Iterable[float] = TIMES) -> list[tuple[float, object]]:
    return [(float(at), value) for at in times]


def gathered(url: str, span: Span = SPAN) -> tuple[Survey, Gathered]:
    async def ask() -> tuple[Survey, Gathered]:
        api = Api(PrometheusSettings(url=url))
        try:
            aggregates = Aggregates(api, vocabularies=shipped())
            return await aggregates.survey(span), await aggregates.read(span)
        finally:
            await api.aclose()

    return asyncio.run(ask())


def of(folder: Path, *history: str) -> tuple[Survey, Gathered]:
    with prometheus(folder, history=history) as server:
        return gathered(server.url)


def test_means_and_maxima_of_a_bin_are_the_servers(tmp_path: Path) -> None:
    wave = [(float(at), 50 + 40 * math.sin(at / 200)) for at in TIMES]
    memory = [(float(at), 1000 if n % 5 else 5000) for n, at in enumerate(TIMES)]
    survey, told = of(
        tmp_path,
        openmetrics("DCGM_FI_DEV_GPU_UTIL", {board(0): wave, board(1): steady(0)}),
        openmetrics("DCGM_FI_DEV_FB_USED", {board(0): memory}),
    )
    assert survey.scrape_s == EVERY
    assert (survey.boards, survey.has_jobs) == (2, False)
    assert [one.slot for one in told.boards] == ["0", "1"]
    by_bin = np.array([value for _, value in wave]).reshape(288, 5).mean(axis=1) / 100
    assert told.means["gpu.util"][:, 0] == pytest.approx(by_bin, abs=1e-4)
    assert told.means["gpu.mem_used"][:, 0] == pytest.approx(1800 * 2**20)
    assert told.peaks["gpu.mem_used"][:, 0] == pytest.approx(5000 * 2**20)
    assert np.isnan(told.means["gpu.mem_used"][:, 1]).all(), "what is missing is not 0"
    assert told.coverage == pytest.approx(1.0)


def test_six_tenths_of_the_samples_lost(tmp_path: Path) -> None:
    chance = np.random.default_rng(7)
    there = TIMES[chance.random(len(TIMES)) > 0.6]
    _, told = of(tmp_path, openmetrics("DCGM_FI_DEV_GPU_UTIL", {board(0): steady(80, there)}))
    assert told.coverage.mean() == pytest.approx(0.4, abs=0.05)
    known = told.means["gpu.util"][~np.isnan(told.means["gpu.util"])]
    assert known == pytest.approx(0.8)
    assert 0.02 < np.isnan(told.means["gpu.util"]).mean() < 0.2, "bins that nobody told of stay empty"


def test_a_counter_that_is_reset_daily_is_a_rate_all_the_same(tmp_path: Path) -> None:
    # 250 ms of every second, and back to 0 each 3 hours
    ns = [(float(at), (at - START) % 10_800 * 0.25e9) for at in TIMES]
    _, told = of(
        tmp_path,
        openmetrics("DCGM_FI_DEV_GPU_UTIL", {board(0): steady(90)}),
        openmetrics("DCGM_FI_DEV_THERMAL_VIOLATION", {board(0): ns}),
    )
    rates = told.means["gpu.thermal_violation"][:, 0]
    assert np.nanmedian(rates) == pytest.approx(0.25, rel=1e-3)
    assert np.nanmax(rates) < 0.3
    assert np.nanmin(rates) > 0.15


def test_a_board_that_changes_hosts_is_one_board(tmp_path: Path) -> None:
    half = len(TIMES) // 2
    series = {
        board(0, "n01", 7): steady(50, TIMES[:half]),
        board(3, "n02", 7): steady(70, TIMES[half:]),
        board(1, "n01", 8): steady(10),
    }
    _, told = of(tmp_path, openmetrics("DCGM_FI_DEV_GPU_UTIL", series))
    assert [(one.node, one.slot, one.uuids) for one in told.boards] == [
        ("n01", "1", ("GPU-0008",)),
        ("n02", "3", ("GPU-0007",)),
    ]
    moved = told.means["gpu.util"][:, 1]
    assert moved[:140] == pytest.approx(0.5)
    assert moved[150:] == pytest.approx(0.7)


def test_a_board_that_is_replaced_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    half = len(TIMES) // 2
    series = {board(0, uuid=1): steady(50, TIMES[:half]), board(0, uuid=2): steady(70, TIMES[half:])}
    _, told = of(tmp_path, openmetrics("DCGM_FI_DEV_GPU_UTIL", series))
    assert [(one.slot, one.uuids) for one in told.boards] == [("0", ("GPU-0001", "GPU-0002"))]
    assert not np.isnan(told.means["gpu.util"]).any()


def test_boards_that_swap_places_stay_two(tmp_path: Path) -> None:
    half = len(TIMES) // 2
    series = {
        board(0, "n01", 1): steady(10, TIMES[:half]), board(0, "n02", 1): steady(10, TIMES[half:]),
        board(0, "n02", 2): steady(20, TIMES[:half]), board(0, "n01", 2): steady(20, TIMES[half:]),
    }  # fmt: skip
    _, told = of(tmp_path, openmetrics("DCGM_FI_DEV_GPU_UTIL", series))
    assert len(told.boards) == 2
    assert not np.isnan(told.means["gpu.util"]).any()


def test_names_of_dcgm_4_6_and_blanks(tmp_path: Path) -> None:
    blank = [(float(at), 9223372036854775794 if n % 100 == 0 else 400) for n, at in enumerate(TIMES)]
    survey, told = of(
        tmp_path,
        openmetrics("DCGM_FI_DEV_GPU_UTIL_RATIO", {board(0).replace("Hostname", "hostname"): steady(30)}),
        openmetrics("DCGM_FI_DEV_BOARD_POWER_WATTS", {board(0).replace("Hostname", "hostname"): blank}),
    )
    assert survey.found["gpu.power"] == "DCGM_FI_DEV_BOARD_POWER_WATTS"
    power = told.means["gpu.power"]
    assert power[~np.isnan(power)] == pytest.approx(400.0), "a bin with a blank in it has no mean"
    assert 0.01 < np.isnan(power).mean() < 0.1


def test_jobs_by_labels_to_the_sample(tmp_path: Path) -> None:
    # idle, then job 7 on both boards for 3 hours, then job 8 on one of them to the end
    six, nine = START + 6 * 3600, START + 9 * 3600
    free, seven, eight = TIMES[six > TIMES], TIMES[(six <= TIMES) & (nine > TIMES)], TIMES[nine <= TIMES]
    series: dict[str, list[tuple[float, object]]] = {}
    for slot in (0, 1):
        series[board(slot)] = steady(0, free if slot == 0 else np.concatenate([free, eight]))
        series[board(slot, more='hpc_job="7"')] = steady(95, seven)
    series[board(0, more='hpc_job="8"')] = steady(40, eight)
    survey, told = of(tmp_path, openmetrics("DCGM_FI_DEV_GPU_UTIL", series))
    assert survey.has_jobs
    assert len(told.boards) == 2
    held = {(one.job, one.board): one for one in told.held}
    assert set(held) == {("slurm:7", 0), ("slurm:7", 1), ("slurm:8", 0)}
    for slot in (0, 1):
        assert held["slurm:7", slot].start == pytest.approx(six, abs=EVERY)
        assert held["slurm:7", slot].end == pytest.approx(nine, abs=EVERY)
    assert held["slurm:8", 0].is_open
    assert not held["slurm:7", 0].is_open
    assert told.means["gpu.util"][80, 0] == pytest.approx(0.95)


def test_instances_of_a_cut_board_are_one_board(tmp_path: Path) -> None:
    parts = {board(0, more=f'GPU_I_ID="{n}",GPU_I_PROFILE="3g.40gb"'): steady(0.2 * n) for n in (1, 2)}
    memory = {board(0, more=f'GPU_I_ID="{n}",GPU_I_PROFILE="3g.40gb"'): steady(1000) for n in (1, 2)}
    _, told = of(
        tmp_path,
        openmetrics("DCGM_FI_PROF_GR_ENGINE_ACTIVE", parts),
        openmetrics("DCGM_FI_DEV_FB_USED", memory),
    )
    assert len(told.boards) == 1
    assert told.means["gpu.gr_active"] == pytest.approx(0.3)
    assert told.means["gpu.mem_used"] == pytest.approx(2000 * 2**20)


def test_faults_and_alerts_are_counted_by_day(tmp_path: Path) -> None:
    codes = [(float(at), 0 if at < START + 3600 else 79) for at in TIMES]
    alert = 'alertname="GpuHot",alertstate="firing",severity="warning"'
    _, told = of(
        tmp_path,
        openmetrics("DCGM_FI_DEV_GPU_UTIL", {board(0): steady(50)}),
        openmetrics("DCGM_FI_DEV_XID_ERRORS", {board(0): codes}),
        openmetrics("ALERTS", {alert: steady(1, TIMES[:120])}),
    )
    found = {(one.kind, one.name): one for one in told.incidents}
    assert (found["xid", "79"].node, found["xid", "79"].slot) == ("n01", "0")
    assert found["alert", "GpuHot"].amount == pytest.approx(2.0, abs=0.2)
    assert told.incidents_looked_at == ("ALERTS", "DCGM_FI_DEV_XID_ERRORS")


def test_hosts_by_node_exporter(tmp_path: Path) -> None:
    node = 'instance="n01:9100",job="node"'
    modes = {
        f'{node},cpu="{cpu}",mode="{mode}"': [(float(at), (at - START) * share) for at in TIMES]
        for cpu in (0, 1)
        for mode, share in (("idle", 0.7), ("user", 0.2), ("iowait", 0.1))
    }
    _, told = of(
        tmp_path,
        openmetrics("DCGM_FI_DEV_GPU_UTIL", {board(0): steady(50)}),
        openmetrics("node_cpu_seconds_total", modes, "counter"),
        openmetrics("node_memory_MemTotal_bytes", {node: steady(1e12)}),
    )
    assert told.hosts == ["n01"]
    assert np.nanmean(told.means["node.cpu_util"]) == pytest.approx(0.2, abs=0.02)
    assert np.nanmean(told.means["node.cpu_iowait"]) == pytest.approx(0.1, abs=0.01)
    assert told.constants["node.cpus"].tolist() == [2.0]
    assert told.constants["node.mem_total"].tolist() == pytest.approx([1e12])


def test_victoria_metrics_gives_the_same(tmp_path: Path) -> None:
    history = openmetrics("DCGM_FI_DEV_GPU_UTIL", {board(0): steady(50), board(1): steady(20)})
    with victoria_metrics(tmp_path, history=history) as server:
        _, told = gathered(server.url)
    assert np.nanmean(told.means["gpu.util"], axis=0) == pytest.approx([0.5, 0.2], abs=1e-4)
    assert told.coverage.mean() == pytest.approx(1.0, abs=0.01)


def test_a_server_without_gpus_has_nothing(tmp_path: Path) -> None:
    survey, told = of(tmp_path, openmetrics("somebody_elses", {'instance="x:1"': steady(1)}))
    assert math.isnan(survey.reach)
    assert survey.found == {}
    assert told.boards == []


def test_bins_that_hold_no_whole_number_of_samples_miss_none() -> None:
    counts = np.array([[2.0], [3.0], [1.0], [0.0]], np.float32)
    assert covered(counts, 2.5)[:, 0].tolist() == pytest.approx([1.0, 1.0, 0.4, 0.0])
    assert covered(counts, 0.5)[:, 0].tolist() == [1.0, 1.0, 1.0, 0.0]
