"""The Node screen: what its panes say, and that it asks only for what is in sight."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from lab.snapshots import AT, FakeFeed, Faults, make_answer, make_snapshot, with_values
from textual.pilot import Pilot

from coldaisle.analyzers.snapshot import EventView, SeriesAnswer, SeriesQuery, Snapshot
from coldaisle.sources.source import GpuRef, Gres, Missing, Partition, Process
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.reading import read, throttle_words
from coldaisle.tui.screens import gpu_panes, link_panes
from coldaisle.tui.screens import node_panes as panes
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.screens.series import SPANS, bins
from coldaisle.tui.widgets.chart import ASCII
from coldaisle.tui.widgets.footer import shown_keys
from coldaisle.tui.widgets.lines import Lines, row_width, text_of

SM, TENSOR, POWER, TEMP, HBM = gpu_panes.GPU_METRICS[:5]
HOSTILE = "evil\x1b[31m\x1b]52;c;aGk=\x07[red]x[/red]\u202egnp\x9b2J\r\n"


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return make_snapshot()


def answer(snapshot: Snapshot, keys: tuple[str, ...], entities: tuple[str, ...]) -> SeriesAnswer:
    return make_answer(SeriesQuery(keys, entities, snapshot.at - 900, snapshot.at, 60))


def gpu_text(
    snapshot: Snapshot, node: str, metric: gpu_panes.Metric, width: int, height: int, **kwargs: object
) -> str:
    index = snapshot.layout.node_of[node]
    keys = tuple(snapshot.layout.gpus[gpu].key for gpu in snapshot.layout.nodes[index].gpus)
    view = gpu_panes.View(width, height, **kwargs)  # type: ignore[arg-type]
    block = gpu_panes.gpu_pane(snapshot, index, answer(snapshot, (metric.key,), keys), metric, view, 0)
    assert all(row_width(row) <= width for row in block.rows)
    return text_of(block.rows)


def index_of(snapshot: Snapshot, node: str) -> int:
    return snapshot.layout.node_of[node]


# what the GPU pane holds


@pytest.mark.parametrize(("width", "height"), [(80, 18), (60, 14), (118, 28), (198, 44), (20, 3)])
def test_eight_gpus_are_in_sight_at_every_size(night: Snapshot, width: int, height: int) -> None:
    lines = gpu_text(night, "r07n02", SM, width, height).splitlines()
    named = {word for line in lines for word in line.split() if word in set("01234567")}
    assert named == set("01234567")
    assert len(lines) <= max(height, 8 + 2)


def test_strips_at_eighty_columns_and_charts_when_wide(night: Snapshot) -> None:
    small = gpu_text(night, "r07n02", POWER, 80, 18)
    assert len(small.splitlines()) == 8 * 2 + 1 + 1
    assert "700 W│" not in small
    wide = gpu_text(night, "r07n02", POWER, 118, 28)
    assert wide.count("700 W│") == 8
    assert "┄" in wide


def test_a_lost_gpu_is_dashes_and_says_so(night: Snapshot) -> None:
    line = next(line for line in gpu_text(night, "r11n02", SM, 80, 18).splitlines() if line.startswith("3"))
    assert "lost" in line
    assert " 0 %" not in line


def test_throttling_is_in_words(night: Snapshot) -> None:
    assert "SW thermal" in gpu_text(night, "r07n02", SM, 80, 18)


def test_a_metric_that_is_not_there_says_why(night: Snapshot) -> None:
    index = index_of(night, "r07n02")
    block = gpu_panes.gpu_pane(night, index, make_nothing(night, index, HBM), HBM, gpu_panes.View(80, 18), 0)
    assert "not supported by this part or driver" in text_of(block.rows)


def make_nothing(snapshot: Snapshot, index: int, metric: gpu_panes.Metric) -> SeriesAnswer:
    keys = tuple(snapshot.layout.gpus[gpu].key for gpu in snapshot.layout.nodes[index].gpus)
    full = answer(snapshot, (metric.key,), keys)
    full.values[metric.key][:] = math.nan
    return full


def test_ascii_where_the_locale_has_no_more(night: Snapshot) -> None:
    assert gpu_text(night, "r07n02", POWER, 118, 28, ink=ASCII).isascii()
    assert gpu_text(night, "r07n02", TEMP, 80, 18, ink=ASCII).isascii()


def test_digits_over_time(night: Snapshot) -> None:
    index = index_of(night, "r07n02")
    keys = tuple(night.layout.gpus[gpu].key for gpu in night.layout.nodes[index].gpus)
    found = gpu_panes.gpu_pane(
        night, index, answer(night, (SM.key,), keys), SM, gpu_panes.View(80, 18), 2, strips=True
    )
    first = text_of(found.rows).splitlines()[0]
    assert "-" in first  # the empty bin
    assert sum(char.isdigit() for char in first) > 20
    assert found.cursor == range(2, 3)


def test_a_stale_node_shows_its_last_values_with_their_age(night: Snapshot) -> None:
    reading = read(night, "gpu.power", night.layout.nodes[index_of(night, "r14n03")].gpus[0])
    assert not reading.missing
    assert reading.origin(night.at) == "stale: 43 s old (ssh)"
    assert reading.token == "stale"


def test_a_mig_instance_reads_power_from_its_board() -> None:
    snapshot = make_snapshot(1, 1, 2, mig=("r01n01/0",))
    child = snapshot.layout.gpu_of["r01n01/0:gi1"]
    assert read(snapshot, "gpu.power", child).value == read(snapshot, "gpu.power", 0).value
    assert read(snapshot, "gpu.power", child).value > 0
    assert "0:gi1" in text_of(gpu_panes.gpu_pane(snapshot, 0, None, SM, gpu_panes.View(80, 18), 0).rows)


def test_the_power_limit_and_the_slowdown_temperature_are_marked(night: Snapshot) -> None:
    gpus = list(night.layout.nodes[0].gpus)
    scale, marks = gpu_panes.chart_scale(night, "gpu.power", gpus, [[300.0]])
    assert scale.high > 700
    assert [mark.value for mark in marks] == [700.0]
    scale, marks = gpu_panes.chart_scale(night, "gpu.temp", gpus, [[60.0]])
    assert scale == (20.0, 100.0)
    assert [mark.value for mark in marks] == [87.0]
    assert gpu_panes.chart_paint(night, "gpu.temp", gpus, scale)(88.0) == "bad"


def test_ratios_are_always_from_nothing_to_all(night: Snapshot) -> None:
    assert gpu_panes.chart_scale(night, "gpu.sm_active", [0], [[0.1]])[0] == (0.0, 1.0)


def test_clock_event_bits_worst_first() -> None:
    assert [words for words, _ in throttle_words(0x4 | 0x40)] == ["HW thermal", "power cap"]
    assert throttle_words(0) == ()
    assert throttle_words(math.nan) == ()


# the other panes


def test_every_value_of_a_gpu_with_source_or_reason(night: Snapshot) -> None:
    rows = text_of(gpu_panes.values_pane(night, night.layout.gpu_of["r07n01/0"], gpu_panes.View(100, 20)))
    assert "ssh, 1 s ago" in rows
    assert "not supported by this part or driver" in rows
    assert "No source delivers:" in rows
    assert "SW thermal" in rows


def test_host_pane_has_cpu_memory_pressure_disks_and_nfs(night: Snapshot) -> None:
    keys = tuple(metric.key for metric in panes.HOST_METRICS)
    rows = panes.host_pane(night, 0, answer(night, keys, ("r01n01",)), gpu_panes.View(80, 18))
    said = text_of(rows)
    for word in ("CPU", "iowait", "memory", "PSI io full", "disks read", "NFS", "inlet", "nvme0n1"):
        assert word in said
    assert all(row_width(row) <= 80 for row in rows)


def test_a_host_without_a_probe_says_so(night: Snapshot) -> None:
    bare = replace(
        night, columns={key: column for key, column in night.columns.items() if key.startswith("gpu.")}
    )
    said = text_of(panes.host_pane(bare, 0, None, gpu_panes.View(80, 18)))
    assert "no source delivers node.cpu_util" in said
    assert " 0 %" not in said


def test_links_show_state_rate_share_and_errors(night: Snapshot) -> None:
    ports = night.layout.nodes[0].ports
    keys = tuple(night.layout.ports[port].key for port in ports)
    found = answer(night, ("port.tx", "port.rx"), keys)
    said = text_of(link_panes.links_pane(night, 0, found, gpu_panes.View(118, 28)))
    assert "400 Gb/s" in said
    assert "Eth" in said
    assert "no error is counted" in said
    column = night.columns["port.symbol_errors"]
    broken = replace(column, values=column.values.copy())
    broken.values[ports[0]] = 12.0
    sick = replace(night, columns={**night.columns, "port.symbol_errors": broken})
    assert "mlx5_0/1: symbol errors 12.0 /s" in text_of(
        link_panes.links_pane(sick, 0, found, gpu_panes.View(118, 28))
    )


def test_a_port_that_is_down_is_not_called_up(night: Snapshot) -> None:
    column = night.columns["port.state"]
    down = replace(column, values=column.values.copy())
    down.values[night.layout.nodes[0].ports[0]] = 1.0
    sick = replace(night, columns={**night.columns, "port.state": down})
    first = text_of(link_panes.links_pane(sick, 0, None, gpu_panes.View(80, 18))).splitlines()[3]
    assert "down" in first.split()


def test_processes_with_their_gpu_and_user(night: Snapshot) -> None:
    rows = text_of(panes.process_pane(night, 0, gpu_panes.View(80, 18))).splitlines()
    assert len(rows) == 9
    assert rows[1].split()[:3] == ["0", "31000", night.processes["r01n01"][0].user]


def test_no_list_of_processes_is_not_no_process(night: Snapshot) -> None:
    assert "it takes the probe" in text_of(
        panes.process_pane(night, index_of(night, "r11n02"), gpu_panes.View(80, 18))
    )
    none = replace(night, processes={"r11n02": ()})
    assert "no process is on" in text_of(
        panes.process_pane(none, index_of(night, "r11n02"), gpu_panes.View(80, 18))
    )


def test_a_process_joins_by_uuid_before_its_index(night: Snapshot) -> None:
    node = night.layout.nodes[0]
    ref = GpuRef("r01n01", uuid=night.layout.gpus[node.gpus[5]].uuid, index=0)
    assert panes.process_gpu(night, node, Process(ref, 1, None, None, None, None)) == "5"
    unknown = GpuRef("r01n01", uuid="GPU-elsewhere")
    assert panes.process_gpu(night, node, Process(unknown, 1, None, None, None, None)) is None


def test_events_of_the_node_its_gpus_and_its_rack(night: Snapshot) -> None:
    assert "XID 79" in text_of(panes.event_pane(night, index_of(night, "r11n02"), gpu_panes.View(100, 18)))
    assert "thermal slowdown" in text_of(
        panes.event_pane(night, index_of(night, "r07n01"), gpu_panes.View(100, 18))
    )
    assert "no event" in text_of(panes.event_pane(night, index_of(night, "r05n01"), gpu_panes.View(100, 18)))


def test_facts_tell_how_the_place_is_known(night: Snapshot) -> None:
    said = text_of(panes.fact_pane(night, 0, gpu_panes.View(100, 18)))
    assert "known from: pattern" in said
    assert "580.95.05" in said
    assert "8 of 8" in said


def test_facts_tell_what_the_scheduler_says(night: Snapshot) -> None:
    node = replace(
        night.layout.nodes[0], state="drain", flags=("idle", "drain"), reason="fan \x1b[31mbroken", reason_by="root",
        reason_at=night.at - 7200, gres=(Gres("gpu", "h100", 8), Gres("tmp", "", 5)), gpus_used=3, cpus_used=12,
        memory_used_bytes=2**30, partitions=("gpu", "late"), features=("rack-1", "h100"), switches=("leaf1", "spine"),
    )  # fmt: skip
    late = Partition("late", "down", False, 86400.0, None, None, 2, 128, 16, None, (), (), 1)
    layout = replace(night.layout, nodes=(node, *night.layout.nodes[1:]))
    said = text_of(
        panes.fact_pane(replace(night, layout=layout, partitions=(late,)), 0, gpu_panes.View(100, 40))
    )
    assert "\x1b" not in said
    for words in (
        "drain  (idle, drain)", "broken, root, 2h00 ago", "8 gpu h100, 5 tmp", "3 GPUs, 12 CPUs, 1.00 GiB of memory",
        "gpu, late (down, limit 1 d)", "rack-1, h100", "leaf1 < spine",
    ):  # fmt: skip
        assert words in said


def test_no_fact_is_cut(night: Snapshot) -> None:
    trouble = "its host key (SHA256:abc) differs from the one in /home/someone/.ssh/known_hosts:1"
    nodes = (replace(night.layout.nodes[0], problem=trouble), *night.layout.nodes[1:])
    rows = panes.fact_pane(
        replace(night, layout=replace(night.layout, nodes=nodes)), 0, gpu_panes.View(60, 18)
    )
    assert all(row_width(row) <= 60 for row in rows)
    said = " ".join(text_of(rows).split())
    assert trouble in said
    board = night.layout.gpus[night.layout.nodes[0].gpus[0]]
    assert f"{board.uuid} {board.pci}" in said


def test_a_job_sees_only_its_gpus(night: Snapshot) -> None:
    nodes = (replace(night.layout.nodes[0], gpus_visible=2), *night.layout.nodes[1:])
    masked = replace(night, layout=replace(night.layout, nodes=nodes))
    assert "2 of 8 GPUs visible to you" in text_of([panes.title(masked, 0, 120)])
    assert "2 of 8 visible to you" in text_of(panes.fact_pane(masked, 0, gpu_panes.View(100, 18)))


def test_foreign_text_is_inert_everywhere(night: Snapshot) -> None:
    process = Process(GpuRef("r01n01", uuid="GPU-00000000"), 7, HOSTILE, HOSTILE, 1 << 30, 0.5)
    event = EventView(night.at, "r01n01", HOSTILE, HOSTILE)
    node = replace(
        night.layout.nodes[0],
        state=HOSTILE,
        problem=HOSTILE,
        kernel=HOSTILE,
        aliases=(HOSTILE,),
        hostname=HOSTILE,
    )
    gpu = replace(night.layout.gpus[0], model=HOSTILE, serial=HOSTILE)
    layout = replace(night.layout, nodes=(node, *night.layout.nodes[1:]), gpus=(gpu, *night.layout.gpus[1:]))
    evil = replace(night, layout=layout, processes={"r01n01": (process,)}, events=(event,))
    view = gpu_panes.View(120, 30)
    rows = [panes.title(evil, 0, 120), *panes.process_pane(evil, 0, view), *panes.event_pane(evil, 0, view)]
    rows += [*panes.fact_pane(evil, 0, view), *gpu_panes.values_pane(evil, 0, view)]
    rows += gpu_panes.gpu_pane(evil, 0, None, SM, view, 0).rows
    for row in rows:
        for run in row:
            assert run.text.isprintable() or run.text == "", run
            assert "\u202e" not in run.text
    assert "[red]x[/red]" in text_of(rows)


# what is asked


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("period", [0.0, 2.0, 5.0, 30.0])
def test_bins_hold_a_sample_each_and_end_on_round_instants(span: float, period: float) -> None:
    found = bins(1772331161.3, span, 60, period)
    width = (found.end - found.start) / found.points
    assert width >= 1.5 * period
    assert found.points * width >= span
    assert found.end == pytest.approx(round(found.end / width) * width)
    assert found.end <= 1772331161.3 + width
    assert width >= 60 or span <= 900


def test_bins_do_not_move_within_a_bin() -> None:
    first, second = bins(1772331150.0, 900.0, 60, 2.0), bins(1772331151.0, 900.0, 60, 2.0)
    assert first == second


def test_a_missing_value_is_never_zero() -> None:
    snapshot = make_snapshot(1, 1, 2, faults=Faults(absent={"gpu.power": Missing.NOT_EXPORTED}))
    reading = read(snapshot, "gpu.power", 0)
    assert reading.text() == "-"
    assert reading.origin(snapshot.at) == "not exported"
    assert with_values(snapshot, "gpu.power", {"r01n01/0": 300.0}) is not snapshot


# on the screen


def screen_text(screen: NodeScreen) -> str:
    lines = (widget.render_line(y).text for widget in screen.query(Lines) for y in range(widget.size.height))
    return "\n".join(line.rstrip() for line in lines)


@asynccontextmanager
async def opened(
    snapshot: Snapshot, node: str, gpu: int = 0, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[Pilot[None], NodeScreen, FakeFeed]]:
    feed = FakeFeed(snapshot)
    app = ColdaisleApp(feed, clock=lambda: AT)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        screen = NodeScreen(node, gpu)
        await app.push_screen(screen)
        await pilot.pause()
        yield pilot, screen, feed


@pytest.mark.parametrize("size", [(80, 24), (120, 34), (200, 50), (60, 20)])
async def test_eight_charts_on_the_screen(night: Snapshot, size: tuple[int, int]) -> None:
    async with opened(night, "r07n02", size=size) as (pilot, screen, feed):
        await pilot.pause()
        said = screen_text(screen)
        assert {word for word in said.split() if word in set("01234567")} == set("01234567")
        assert any(char in said for char in "▂▃▄▅▆▇")
        assert feed.queries[-1].keys == ("gpu.sm_active",)
        assert len(feed.queries[-1].entities) == 8


async def test_m_changes_the_metric_and_plus_the_range(night: Snapshot) -> None:
    async with opened(night, "r07n02") as (pilot, screen, feed):
        await pilot.press("m", "m")
        await pilot.pause()
        assert feed.queries[-1].keys == ("gpu.power",)
        before = feed.queries[-1]
        await pilot.press("plus")
        await pilot.pause()
        after = feed.queries[-1]
        assert after.end - after.start >= 3600 > before.end - before.start
        assert "1h" in screen_text(screen)
        await pilot.press("minus", "minus", "minus")
        assert "5m" in screen_text(screen)


async def test_the_screen_opens_on_the_gpu_it_was_asked_for() -> None:
    snapshot = make_snapshot(1, 1, 4, mig=("r01n01/0",))
    async with opened(snapshot, "r01n01", 4) as (pilot, screen, _):
        assert "> r01n01/2" in screen_text(screen)
        await pilot.press("k")
        assert "> r01n01/1" in screen_text(screen)


async def test_every_pane_and_back(night: Snapshot) -> None:
    async with opened(night, "r01n01") as (pilot, screen, feed):
        words = ("0", "ssh, 1 s ago", "iowait", "mlx5_0/1", "train.py", "up again", "known from")
        for word in words:
            await pilot.pause()
            assert word in screen_text(screen), word
            await pilot.press("tab")
        assert {query.keys[0] for query in feed.queries} == {"gpu.sm_active", "node.cpu_util", "port.tx"}
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_a_hidden_screen_asks_nothing(night: Snapshot) -> None:
    async with opened(night, "r07n02") as (pilot, screen, feed):
        await pilot.app.push_screen(NodeScreen("r01n01"))
        await pilot.pause()
        feed.queries.clear()
        feed.send(replace(night, at=night.at + 2))
        await pilot.pause()
        assert {query.entities[0] for query in feed.queries} == {"r01n01/0"}
        await pilot.press("escape")
        await pilot.pause()
        assert feed.queries[-1].entities[0] == "r07n02/0"
        assert screen.snapshot is not None
        assert screen.snapshot.at == night.at + 2


class SlowFeed(FakeFeed):
    """Answers when it is told to."""

    def __init__(self, *snapshots: Snapshot) -> None:
        super().__init__(*snapshots)
        self.waiting: list[tuple[SeriesQuery, Future[SeriesAnswer]]] = []

    def query(self, q: SeriesQuery) -> Future[SeriesAnswer]:
        self.queries.append(q)
        future: Future[SeriesAnswer] = Future()
        self.waiting.append((q, future))
        return future

    def answer(self) -> None:
        query, future = self.waiting.pop(0)
        future.set_result(make_answer(query))


async def test_one_question_at_a_time_and_the_old_nodes_answer_is_dropped(night: Snapshot) -> None:
    feed = SlowFeed(night)
    app = ColdaisleApp(feed, clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        screen = NodeScreen("r07n01")
        await app.push_screen(screen)
        for _ in range(5):
            feed.send(night)
            await pilot.pause()
        assert len(feed.waiting) == 1
        await pilot.press("l")  # to r07n02
        await pilot.pause()
        assert len(feed.waiting) == 1
        feed.answer()
        await pilot.pause()
        await pilot.pause()
        assert not any(char in screen_text(screen) for char in "▂▃▄▅▆▇")
        assert feed.queries[-1].entities[0] == "r07n02/0"
        feed.answer()
        await pilot.pause()
        await pilot.pause()
        assert any(char in screen_text(screen) for char in "▂▃▄▅▆▇")


async def test_a_question_that_fails_leaves_the_screen(night: Snapshot) -> None:
    feed = SlowFeed(night)
    app = ColdaisleApp(feed, clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        screen = NodeScreen("r07n01")
        await app.push_screen(screen)
        await pilot.pause()
        feed.waiting.pop()[1].set_exception(RuntimeError("the monitor is gone"))
        await pilot.pause()
        feed.send(night)
        await pilot.pause()
        assert app.screen is screen
        assert len(feed.waiting) == 1  # asked again


async def test_a_node_that_goes_away(night: Snapshot) -> None:
    async with opened(night, "r07n02") as (pilot, screen, feed):
        feed.send(make_snapshot(1, 1, 8))
        await pilot.pause()
        assert "r07n02 is not known any more" in screen_text(screen)
        await pilot.press("tab", "m", "j", "l", "v")
        assert pilot.app.screen is screen


async def test_a_late_join_renames_the_node(night: Snapshot) -> None:
    async with opened(night, "r01n01") as (pilot, screen, feed):
        renamed = replace(night.layout.nodes[0], key="atlas1", aliases=("r01n01",))
        node_of = {"atlas1": 0, **{key: at for key, at in night.layout.node_of.items() if at}}
        layout = replace(night.layout, nodes=(renamed, *night.layout.nodes[1:]), node_of=node_of)
        feed.send(replace(night, layout=layout))
        await pilot.pause()
        assert screen.node == "atlas1"
        assert screen_text(screen).startswith("atlas1")


async def test_a_tiny_terminal_in_every_pane(night: Snapshot) -> None:
    async with opened(night, "r07n02") as (pilot, screen, _):
        for _pane in range(7):
            for size in ((20, 5), (1, 1), (80, 24)):
                await pilot.resize_terminal(*size)
                await pilot.pause()
                await pilot.press("j", "pagedown", "end", "home")
            await pilot.press("tab", "v")
        assert pilot.app.screen is screen


async def test_no_node_no_gpu() -> None:
    async with opened(make_snapshot(1, 1, 0), "r01n01") as (pilot, screen, _):
        assert "no GPU is known" in screen_text(screen)
        await pilot.press("tab", "tab", "tab", "tab", "shift+tab", "j", "enter")
        assert pilot.app.screen is screen


async def test_only_keys_that_do_something_are_offered(night: Snapshot) -> None:
    async with opened(night, "r07n02", size=(120, 34)) as (pilot, screen, _):
        offered = {key.does for key in shown_keys(screen)}
        assert {"Metric", "Longer", "Charts/digits"} <= offered
        for _ in range(5):
            await pilot.press("tab")
        await pilot.pause()
        assert not {"Metric", "Longer", "Charts/digits", "Values of the GPU"} & {
            key.does for key in shown_keys(screen)
        }
