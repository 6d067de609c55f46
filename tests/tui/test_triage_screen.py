"""The Triage screen, the findings on Racks, and ``--focus``: by keys, at odd sizes, with hostile texts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lab.diagnoses import HOSTILE, calm, hostile, night, warming, without
from lab.services import ServiceFeed, with_services
from lab.snapshots import AT, FakeFeed, make_snapshot
from textual.pilot import Pilot

from coldaisle.analyzers.finding import Confirm, Evidence, Finding, Scope, Severity, Undecided
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.tui import clipboard
from coldaisle.tui.acknowledged import Acknowledged
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.evidence import Rule, rule_of, rule_words
from coldaisle.tui.screens import triage_panes as panes
from coldaisle.tui.screens.job import JobScreen
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.screens.racks import RacksScreen
from coldaisle.tui.screens.service import ServiceScreen
from coldaisle.tui.screens.triage import FindingTable, TriageScreen, export
from coldaisle.tui.screens.triage_rows import Item
from coldaisle.tui.widgets.lines import Lines, row_width, text_of, wrap

SIZES = {"60x20": (60, 20), "80x24": (80, 24), "120x34": (120, 34), "200x50": (200, 50)}


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TMUX", raising=False)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def app_of(*snapshots: Snapshot, **options: object) -> ColdaisleApp:
    options = {"name": "atlas", "clock": lambda: AT, "no_colour": False, **options}
    return ColdaisleApp(FakeFeed(*(snapshots or (night(),))), **options)  # type: ignore[arg-type]


def lines(pilot: Pilot[None]) -> list[str]:
    return [strip.text.rstrip() for strip in pilot.app.screen._compositor.render_strips()]


def text(pilot: Pilot[None]) -> str:
    return "\n".join(lines(pilot))


def triage(pilot: Pilot[None]) -> TriageScreen:
    assert isinstance(pilot.app.screen, TriageScreen)
    return pilot.app.screen


def detail(pilot: Pilot[None]) -> str:
    return text_of(triage(pilot).query_one("#detail", Lines).rows)


def keys(pilot: Pilot[None]) -> tuple[str, ...]:
    return triage(pilot).query_one(FindingTable).keys


def cursor(pilot: Pilot[None]) -> str:
    return triage(pilot).query_one(FindingTable).key or ""


def item_of(one: Finding) -> Item:
    return Item(f"f:{one.id}", "NOW", "", one, 1)


class TestList:
    async def test_urgency_then_loss_then_alerts_and_what_cleared(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            assert keys(pilot)[0] == "f:gpu_fault:r11n02/3"
            assert keys(pilot)[-3:] == ("a:DiskFull st01", "a:NtpSkew r03n01", "f:checkpoint_stall:4711")
            assert "USEFUL 91% of 448 allocated  losing 42 GPU.h/h" in lines(pilot)[1]
            assert lines(pilot)[2].endswith("7 open  2 alerts not expl")

    async def test_wide_it_has_headings_that_the_cursor_skips(self) -> None:
        async with app_of().run_test(size=(120, 34)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            assert [key for key in keys(pilot) if key.startswith("h:")] == [
                "h:NOW", "h:today", "h:later", "h:alert", "h:clear",
            ]  # fmt: skip
            seen = [cursor(pilot)]
            for _ in range(12):
                await pilot.press("j")
                seen.append(cursor(pilot))
            assert not any(key.startswith("h:") for key in seen)
            assert seen[-1] == "f:checkpoint_stall:4711"
            for _ in range(14):
                await pilot.press("k")
            assert cursor(pilot) == "f:gpu_fault:r11n02/3"

    async def test_what_clears_stays_under_the_cursor(self) -> None:
        app = app_of()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("2", "j")
            await pilot.pause()
            assert isinstance(app.feed, FakeFeed)
            over = without(night(), "thermal_throttling:r07", AT + 5)
            app.feed.send(over)
            await pilot.pause()
            assert cursor(pilot) == "f:thermal_throttling:r07"
            assert keys(pilot).index("f:thermal_throttling:r07") == 1
            assert "CLEARED   at 03:12:46" in detail(pilot)
            later = replace(over, at=AT + 90, diagnosis=replace(over.diagnosis, at=AT + 90))
            app.feed.send(later)
            await pilot.pause()
            assert cursor(pilot) == "f:thermal_throttling:r07"
            assert keys(pilot).index("f:thermal_throttling:r07") > 7

    async def test_warming_up_is_said_by_detector(self) -> None:
        async with app_of(warming()).run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            assert "nothing found yet; warming up: heat 3/8 polls" in text(pilot)
            assert "warming up: straggler 40/120 s" in detail(pilot)

    async def test_nothing_wrong_is_said(self) -> None:
        async with app_of(calm()).run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            assert "nothing is wrong, as far as is known" in text(pilot)

    async def test_before_the_first_diagnosis_every_key_is_harmless(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            assert "the diagnosis has not begun" in text(pilot)
            for key in (
                "enter",
                "a",
                "z",
                "y",
                "p",
                "x",
                "j",
                "k",
                "J",
                "n",
                "space",
                "exclamation_mark",
                "home",
            ):
                await pilot.press(key)
                if not isinstance(pilot.app.screen, TriageScreen):
                    await pilot.press("2")

    async def test_what_cannot_be_told_is_listed(self) -> None:
        doubt = Undecided(
            "data_loader_starvation", Scope(jobs=("slurm:4802",)), "no host metrics for r11n[01-02]"
        )
        snapshot = calm()
        snapshot = replace(snapshot, diagnosis=replace(snapshot.diagnosis, undecided=(doubt, doubt)))
        async with app_of(snapshot).run_test(size=(120, 34)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            assert "CANNOT BE TOLD" in text(pilot)
            assert "no host metrics for r11n[01-02]" in detail(pilot)
            assert "4802" in detail(pilot)

    @pytest.mark.parametrize(
        ("typed", "left"),
        [("r07", 2), ("owner==facility", 2), ("cost>9", 2), ("nosuch", 0), ("finding==gpu_fault", 1)],
    )
    async def test_a_filter_asks_what_findings_touch(self, typed: str, left: int) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            await pilot.press("slash", *[{"=": "equals_sign", ">": "greater_than_sign", "_": "underscore"}.get(c, c) for c in typed], "enter")  # fmt: skip
            await pilot.pause()
            assert len([key for key in keys(pilot) if key.startswith("f:")]) == left
            assert "a:DiskFull st01" in keys(pilot), "alerts that nobody explains are never hidden"
            await pilot.press("escape")
            await pilot.pause()
            assert len([key for key in keys(pilot) if key.startswith("f:")]) == 8

    async def test_a_filter_that_is_none_is_told(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            triage(pilot).set_filter("cost>x")
            await pilot.pause()
            assert "filter:" in lines(pilot)[2]


class TestDetail:
    async def test_it_says_what_people_need_in_the_order_they_act(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            said = detail(pilot)
            heads = [line[:10].strip("─ ") for line in said.splitlines()]
            wanted = ["WHY NOW", "DO", "WHO", "WHERE", "CHANGED", "evidenc", "NOT", "MISSING", "confirm"]
            places = [heads.index(word) for word in wanted]
            assert places == sorted(places)
            assert "2 drain r11n02" in said
            assert "job owner" in said
            assert "explains 2 alerts: XidError r11n02" in " ".join(said.split())
            assert "b root@r11n02  dmesg -T" in said
            assert "c drained r11n02  nvidia-smi -q -i 3" in said

    async def test_charts_compare_the_root_with_its_peers(self) -> None:
        app = app_of()
        async with app.run_test(size=(120, 34)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            assert isinstance(app.feed, FakeFeed)
            asked = {query.keys for query in app.feed.queries}
            assert ("gpu.power", "gpu.sm_active") in asked
            assert ("port.tx",) in asked
            said = detail(pilot)
            assert "15 peers" in said
            assert "│" in said

    async def test_the_instant_it_began_is_on_one_column(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            strips = [line for line in detail(pilot).splitlines() if "│" in line]
            assert len(strips) >= 4
            assert len({line.index("│") for line in strips}) == 1

    async def test_a_finding_that_is_older_than_the_charts_has_no_mark(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2", "j", "j", "j")
            await pilot.pause()
            assert "data loader starves" in detail(pilot)
            assert "│" not in detail(pilot)

    async def test_an_event_alone_still_gets_charts(self) -> None:
        snapshot = night()
        first, *rest = snapshot.diagnosis.findings
        bare = replace(first, evidence=first.evidence[:1])
        snapshot = replace(snapshot, diagnosis=replace(snapshot.diagnosis, findings=(bare, *rest)))
        assert {trace.metric for trace in panes.traces(snapshot, bare)} == {"gpu.power", "gpu.sm_active"}

    async def test_the_detail_scrolls(self) -> None:
        async with app_of().run_test(size=(60, 20)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            before = text(pilot)
            await pilot.press("space")
            await pilot.pause()
            assert text(pilot) != before
            await pilot.press("j")
            await pilot.pause()
            assert triage(pilot).query_one("#detail", Lines).scroll_y == 0

    @pytest.mark.parametrize("size", SIZES)
    async def test_every_row_fits_and_is_inert(self, size: str) -> None:
        async with app_of(hostile()).run_test(size=SIZES[size]) as pilot:
            await pilot.press("2")
            await pilot.pause()
            for _ in range(10):
                rows = triage(pilot).query_one("#detail", Lines).rows
                room = triage(pilot).query_one("#detail", Lines).room.width
                assert all(row_width(row) <= room for row in rows)
                assert all(run.text.isprintable() for row in rows for run in row)
                assert all(line.isprintable() for line in lines(pilot))
                await pilot.press("j")
                await pilot.pause()

    async def test_it_works_without_utf8_and_colour(self) -> None:
        app = app_of(no_colour=True, ascii_only=True)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            assert text(pilot).isascii()
            assert "|" in detail(pilot)


class TestRules:
    def rule(self, text: str, metric: str = "gpu.temp", unit: str = "C") -> Rule | None:
        return rule_of(Evidence(metric, "r07n01/0", 86.0, unit, text))

    @pytest.mark.parametrize(
        ("text", "level"),
        [(">= 83", 83.0), ("peers 61", 61.0), ("< 700 W", 700.0), (">= 0.05 for 60% of the time", 0.05), ("83", 83.0)],
    )  # fmt: skip
    def test_a_level_is_drawn(self, text: str, level: float) -> None:
        rule = self.rule(text)
        assert rule is not None
        assert rule.value == level

    @pytest.mark.parametrize(
        "text",
        ["near its limit", ">= 90% of the limit", "<= 0.97 of its reference", "1 h before 27", "", "class: bus", ">= 1e999", "> " + "9" * 400],
    )  # fmt: skip
    def test_a_story_is_not(self, text: str) -> None:
        assert self.rule(text) is None

    def test_a_rule_in_another_unit_is_not(self) -> None:
        assert self.rule(">= 0.1", "gpu.throttle", "ratio") is None

    def test_it_is_read_in_the_unit_that_people_read(self) -> None:
        assert rule_words(Evidence("gpu.thermal_violation", "x", 0.3, "ratio", ">= 0.02")) == ">= 2.0 %"


class TestKeys:
    async def test_y_copies_one_command_after_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        copied: list[str] = []
        app = app_of()
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            for _ in range(4):
                await pilot.press("y")
                await pilot.pause()
            assert copied == [
                "scontrol show job -d 4790", "dmesg -T", "nvidia-smi -q -i 3", "scontrol show job -d 4790",
            ]  # fmt: skip
            assert "copied by OSC 52" in lines(pilot)[-1]

    def test_nothing_unsafe_is_offered(self) -> None:
        bad = [("echo", HOSTILE), ("echo", "a\nb"), ("echo", "é"), ("x" * 5000,), ()]
        one = replace(
            night().diagnosis.findings[0],
            confirm=tuple(Confirm(argv, "login", "user") for argv in (*bad, ("ls", "; rm -rf /"))),
        )
        assert [command.text for command in panes.confirm_lines(one)] == ["ls '; rm -rf /'"]
        assert not clipboard.is_safe("a\nb")
        assert not clipboard.is_safe("")

    async def test_a_acknowledges_and_the_cursor_goes_along(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2", "j", "a")
            await pilot.pause()
            assert cursor(pilot) == "f:thermal_throttling:r07"
            assert keys(pilot).index(cursor(pilot)) == 6
            assert "ASIDE     acknowledged by" in detail(pilot)
            assert Acknowledged(clock=lambda: AT).of(night().diagnosis.findings[1]) is not None
            await pilot.press("a")
            await pilot.pause()
            assert keys(pilot).index(cursor(pilot)) == 1

    async def test_what_is_acknowledged_counts_apart_on_every_screen(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            assert "3 NOW 3 today" in lines(pilot)[1]
            await pilot.press("2", "a", "1")
            await pilot.pause()
            assert "2 NOW 3 today 1 ack" in lines(pilot)[1]
            await pilot.press("exclamation_mark")
            assert "2 of 7" in lines(pilot)[-1]

    async def test_z_snoozes(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2", "z")
            await pilot.pause()
            assert "snoozed until 04:12" in lines(pilot)[-1]
            assert "(till 04:12)" in text(pilot)

    async def test_an_alert_cannot_be_set_aside(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2", "end", "k", "a")
            await pilot.pause()
            assert cursor(pilot).startswith("a:")
            assert "only findings" in lines(pilot)[-1]
            assert "no finding explains it" in detail(pilot)

    async def test_in_the_past_nothing_is_set_aside(self) -> None:
        async with app_of(replace(night(), live=False)).run_test(size=(80, 24)) as pilot:
            await pilot.press("2", "a")
            await pilot.pause()
            assert "in the past" in lines(pilot)[-1]

    async def test_x_writes_markdown_and_says_where(self, tmp_path: Path) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2", "x", "x")
            await pilot.pause()
            found = sorted(tmp_path.glob("*.md"))
            assert [path.name for path in found] == [
                "20260301-031241-gpu_fault-r11n02-3-2.md", "20260301-031241-gpu_fault-r11n02-3.md",
            ]  # fmt: skip
            assert found[0].stat().st_mode & 0o777 == 0o600
            assert "written to" in lines(pilot)[-1]
            said = found[0].read_text()
            assert said.startswith("# GPU lost (XID 79)\n")
            assert "```sh\ndmesg -T\n```" in said

    def test_what_is_exported_has_no_markup_of_others(self) -> None:
        snapshot = hostile()
        one = snapshot.diagnosis.findings[0]
        bad = replace(one, title="# <script>alert(1)</script> [x](http://evil) `a`", cause="| a |\n# b")
        said = panes.markdown(snapshot, bad)
        assert "<script>" not in said
        assert "[x](" not in said
        assert "\n# b" not in said
        assert "\x1b" not in said

    def test_a_folder_that_cannot_be_written_is_not_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if os.geteuid() == 0:
            gone = tmp_path / "gone"
            gone.mkdir()
            monkeypatch.chdir(gone)
            monkeypatch.setattr("coldaisle.tui.screens.triage.Path.cwd", lambda: Path("/proc/1/none"))
        else:
            locked = tmp_path / "locked"
            locked.mkdir(mode=0o500)
            monkeypatch.chdir(locked)
        path = export("text", "gpu_fault:../../etc/passwd", AT)
        assert path.parent.name == "findings"
        assert path.read_text() == "text"

    def test_what_is_printed_is_plain(self) -> None:
        snapshot = hostile()
        for one in snapshot.diagnosis.findings:
            said = panes.printed(snapshot, item_of(one), 80)
            assert all(line.isprintable() for line in said.splitlines())
            assert all(len(line) <= 80 for line in said.splitlines())
        assert "gpu" in panes.printed(snapshot, item_of(snapshot.diagnosis.findings[1]), 80).lower()

    async def test_enter_shows_it_on_racks_and_f_comes_back(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2", "j", "enter")
            await pilot.pause()
            assert isinstance(pilot.app.screen, RacksScreen)
            assert pilot.app.screen.cursor == "r07n01/0"
            await pilot.press("f")
            await pilot.pause()
            assert cursor(pilot) == "f:thermal_throttling:r07"

    @pytest.mark.parametrize(("key", "screen"), [("J", JobScreen), ("n", NodeScreen)])
    async def test_its_job_and_its_node(self, key: str, screen: type) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2", key)
            await pilot.pause()
            assert isinstance(pilot.app.screen, screen)

    async def test_its_events(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            assert triage(pilot).under_cursor() == "r11n02/3"
            await pilot.press("e")
            await pilot.pause()
            assert "of r11n02/3" in text(pilot)


class TestRacks:
    async def test_letters_marks_and_the_worst_first(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            said = text(pilot)
            assert "r07!" in said
            assert "r03*" in said
            assert "TTTTT" in said
            assert "wwwXwwww" in said
            assert " 1 NOW   GPU lost (XID 79)" in said
            assert "+4 more" in said
            assert "CHANGED 03:09" in said
            assert "T thermal" in said

    async def test_the_next_worst_and_enter_opens_it(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("exclamation_mark")
            await pilot.pause()
            assert isinstance(pilot.app.screen, RacksScreen)
            assert pilot.app.screen.cursor == "r11n02/3"
            assert "1 of 7, worst first: GPU lost" in lines(pilot)[-1]
            assert "X GPU fault" in text(pilot)
            await pilot.press("exclamation_mark")
            assert pilot.app.screen.cursor == "r07n01/0"
            await pilot.press("enter")
            await pilot.pause()
            assert cursor(pilot) == "f:thermal_throttling:r07"

    async def test_moving_on_forgets_the_finding(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("exclamation_mark", "l", "enter")
            await pilot.pause()
            assert isinstance(pilot.app.screen, NodeScreen)

    async def test_who_waits_is_told(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("exclamation_mark", "l")
            await pilot.pause()
            assert "suffers from GPU fault r11n02/3" in text(pilot)

    async def test_a_click_on_a_finding_opens_it(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            line = next(at for at, said in enumerate(lines(pilot)) if "thermal throttling, 28" in said)
            await pilot.click(offset=(20, line))
            await pilot.pause()
            assert cursor(pilot) == "f:thermal_throttling:r07"

    async def test_wide_they_stand_beside_the_map(self) -> None:
        async with app_of().run_test(size=(120, 34)) as pilot:
            await pilot.pause()
            said = text(pilot)
            assert "NOW ──" in said
            assert "TODAY ──" in said
            assert "PAGES 6 firing, 4 explained; NOT:" in said
            line = next(at for at, row in enumerate(lines(pilot)) if "idle allocation, 8" in row)
            await pilot.click(offset=(100, line))
            await pilot.pause()
            assert cursor(pilot) == "f:idle_allocation:r13n02"

    async def test_a_gpu_without_a_finding_says_so(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("f")
            await pilot.pause()
            assert "no finding concerns" in lines(pilot)[-1]

    @pytest.mark.parametrize("size", SIZES)
    async def test_hostile_findings_are_inert(self, size: str) -> None:
        async with app_of(hostile()).run_test(size=SIZES[size]) as pilot:
            await pilot.pause()
            assert all(line.isprintable() for line in lines(pilot))
            await pilot.press("exclamation_mark", "exclamation_mark", "exclamation_mark")
            await pilot.pause()
            assert all(line.isprintable() for line in lines(pilot))


class TestRows:
    async def test_nodes_and_jobs_mark_their_worst(self) -> None:
        async with app_of().run_test(size=(120, 34)) as pilot:
            await pilot.pause()
            await pilot.press("4")
            await pilot.pause()
            said = {line.split()[0]: line for line in lines(pilot) if line.startswith("r0")}
            assert "T heat" in said["r07n01"]
            assert "L link" in said["r03n01"]
            await pilot.press("3")
            await pilot.pause()
            assert "X fault" in text(pilot)


class TestFocus:
    @pytest.mark.parametrize(
        ("name", "screen"),
        [
            ("r07n01", NodeScreen), ("r07n01.atlas.example", NodeScreen), ("r07n01/3", NodeScreen),
            ("4703", JobScreen), ("slurm:4703", JobScreen), ("thermal_throttling:r07", TriageScreen),
            ("checkpoint_stall:4711", TriageScreen),
        ],
    )  # fmt: skip
    async def test_it_opens_what_is_named(self, name: str, screen: type) -> None:
        async with app_of(focus=name).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert isinstance(pilot.app.screen, screen)
            if isinstance(pilot.app.screen, TriageScreen):
                assert cursor(pilot) == f"f:{name}"

    @pytest.mark.parametrize("name", ["chat-70b", "r01n01:8000"])
    async def test_a_service_or_its_replica(self, name: str) -> None:
        from lab.services import NIGHT

        feed = ServiceFeed(with_services(make_snapshot(), NIGHT))
        app = ColdaisleApp(feed, name="atlas", clock=lambda: AT, no_colour=False, focus=name)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert isinstance(pilot.app.screen, ServiceScreen)
            assert bool(pilot.app.screen.server) is (name != "chat-70b")

    async def test_what_is_not_there_yet_is_waited_for(self) -> None:
        app = app_of(warming(), focus="thermal_throttling:r07")
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert "thermal_throttling:r07 is not there yet: detectors are warming up" in lines(pilot)[-1]
            assert isinstance(app.feed, FakeFeed)
            app.feed.send(night())
            await pilot.pause()
            assert cursor(pilot) == "f:thermal_throttling:r07"

    async def test_a_key_ends_the_wait(self) -> None:
        app = app_of(warming(), focus="thermal_throttling:r07")
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("l")
            assert isinstance(app.feed, FakeFeed)
            app.feed.send(night())
            await pilot.pause()
            assert isinstance(app.screen, RacksScreen)

    async def test_what_never_comes_is_told(self) -> None:
        now = [AT]
        app = app_of(night(), focus="r99n99", clock=lambda: now[0])
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert "r99n99 is not there yet" in lines(pilot)[-1]
            now[0] += 300
            assert isinstance(app.feed, FakeFeed)
            app.feed.send(replace(night(), at=AT + 300))
            await pilot.pause()
            assert "nothing known has that name" in lines(pilot)[-1]


class TestBell:
    async def rung(self, app: ColdaisleApp, *snapshots: Snapshot) -> int:
        rings = []
        app.bell = lambda: rings.append(1)  # type: ignore[method-assign]
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert isinstance(app.feed, FakeFeed)
            for snapshot in snapshots:
                app.feed.send(snapshot)
                await pilot.pause()
        return len(rings)

    def new(self, snapshot: Snapshot) -> Snapshot:
        """The same with one more critical, which began a moment ago."""
        first, *rest = snapshot.diagnosis.findings
        fresh = replace(first, id="gpu_fault:r01n01/0", since=AT + 1, severity=Severity.CRITICAL)
        return replace(snapshot, diagnosis=replace(snapshot.diagnosis, findings=(first, fresh, *rest)))

    async def test_what_is_new_rings_once(self) -> None:
        assert await self.rung(app_of(), self.new(night()), night(), self.new(night())) == 1

    async def test_what_was_there_does_not(self) -> None:
        assert await self.rung(app_of(), night()) == 0

    async def test_it_can_be_switched_off(self) -> None:
        assert await self.rung(app_of(bell=False), self.new(night())) == 0

    async def test_the_past_does_not_ring(self) -> None:
        assert await self.rung(app_of(), replace(self.new(night()), live=False)) == 0


PICTURES = {
    "racks": ("exclamation_mark", "l", "wait:200"),
    "triage": ("2", "wait:300"),
    "heat": ("2", "j", "wait:300"),
}


@pytest.mark.parametrize("size", ["80x24", "120x34", "200x50"])
@pytest.mark.parametrize("screen", PICTURES)
def test_picture(snap_compare: object, screen: str, size: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(), terminal_size=SIZES[size], press=PICTURES[screen])


@pytest.mark.parametrize("screen", PICTURES)
def test_picture_without_colour_or_utf8(snap_compare: object, screen: str) -> None:
    assert callable(snap_compare)
    app = app_of(no_colour=True, ascii_only=True)
    assert snap_compare(app, terminal_size=(80, 24), press=PICTURES[screen])


@pytest.mark.parametrize("theme", ["light", "colourblind"])
def test_picture_of_theme(snap_compare: object, theme: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(theme_name=theme), terminal_size=(120, 34), press=("wait:200",))


def test_picture_at_the_smallest(snap_compare: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(), terminal_size=(60, 20), press=("2", "wait:300"))


def test_picture_while_warming_up(snap_compare: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(warming()), terminal_size=(80, 24), press=("2", "wait:300"))


def test_picture_of_nodes_with_findings(snap_compare: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(), terminal_size=(120, 34), press=("4", "wait:200"))


class TestOddTexts:
    def test_wide_signs_are_wrapped_by_cells(self) -> None:
        for width in (12, 13, 40, 80):
            rows = wrap("節点" * 40 + " and " + "e\u0301" * 40 + " 😀" * 30, width)
            assert all(row_width(row) <= width for row in rows)
        assert text_of(wrap("節点 r07", 20)) == "節点 r07"

    @pytest.mark.parametrize("blank", ["", "   ", "\x1b[2J"])
    async def test_a_blank_text_does_not_stop_the_screen(self, blank: str) -> None:
        one = replace(night().diagnosis.findings[0], title=blank, cause=blank, owner=blank, changed=(blank,))
        snapshot = replace(night(), diagnosis=replace(night().diagnosis, findings=(one,)))
        async with app_of(snapshot).run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await pilot.pause()
            assert "WHERE" in detail(pilot)


class TestFromRacks:
    async def test_y_copies_the_name_under_the_cursor(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("l", "y")
            await pilot.pause()
            assert pilot.app.clipboard == "r01n01/1"
            assert "r01n01/1 copied by OSC 52" in lines(pilot)[-1]

    async def test_p_prints_where_there_is_a_screen_to_print_to(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("p")
            await pilot.pause()
            assert "no screen to print to" in lines(pilot)[-1]
