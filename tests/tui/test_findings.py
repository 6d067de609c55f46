"""Findings in words, and the places that they keep on the screen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lab.diagnoses import hostile, night, warming, without
from lab.services import make_services
from lab.snapshots import AT, make_snapshot

from coldaisle.analyzers.detectors import DETECTORS
from coldaisle.analyzers.finding import Diagnosis, Loss, Scope, Severity, Urgency
from coldaisle.analyzers.snapshot import EventView, Snapshot
from coldaisle.tui import findings as told
from coldaisle.tui.alarm import Alarm
from coldaisle.tui.cells import LETTERS, MARKS, cell_codes, letter, letter_of, metric_of, urgent
from coldaisle.tui.findings import Standing
from coldaisle.tui.widgets.header import fleet_line
from coldaisle.tui.widgets.lines import row_text, row_width

SM = metric_of("gpu.sm_active")


@pytest.fixture(scope="module")
def dark() -> Snapshot:
    return night()


def ids(standing: Standing) -> list[str]:
    return [row.finding.id.partition(":")[0] for row in standing.rows]


class TestStanding:
    def test_it_begins_as_they_weigh(self, dark: Snapshot) -> None:
        standing = Standing()
        standing.take(dark.diagnosis)
        assert [row.finding.id for row in standing.rows] == [one.id for one in dark.diagnosis.findings]
        assert [row.number for row in standing.rows] == [1, 2, 3, 4, 5, 6, 7]

    def test_rows_keep_their_place_while_losses_change(self, dark: Snapshot) -> None:
        standing = Standing()
        before = [row.finding.id for row in standing.take(dark.diagnosis)]
        losses = reversed([1.0, 3.0, 9.0, 20.0, 4.0, 5.0, 6.0])
        moved = tuple(
            replace(one, loss=Loss(0.5, loss))
            for one, loss in zip(dark.diagnosis.findings, losses, strict=True)
        )
        rows = standing.take(replace(dark.diagnosis, at=AT + 5, findings=tuple(reversed(moved))))
        assert [row.finding.id for row in rows] == before

    def test_what_clears_stays_a_while_and_then_leaves(self, dark: Snapshot) -> None:
        standing = Standing()
        standing.take(dark.diagnosis)
        over = without(dark, "thermal_throttling:r07", AT + 10)
        rows = standing.take(over.diagnosis)
        assert rows[1].is_cleared
        assert [row.number for row in rows] == [1, 0, 2, 3, 4, 5, 6]
        later = replace(over.diagnosis, at=AT + 10 + told.CLEARED_STAYS_S + 1)
        assert "thermal_throttling" not in [row.finding.detector for row in standing.take(later)]

    def test_a_new_one_comes_where_it_weighs(self, dark: Snapshot) -> None:
        standing = Standing()
        first = dark.diagnosis.findings[0]
        standing.take(dark.diagnosis)
        new = replace(first, id="gpu_fault:r01n01/0", loss=Loss(0.5, 7.0))
        rows = standing.take(replace(dark.diagnosis, at=AT + 5, findings=(*dark.diagnosis.findings, new)))
        assert rows[1].finding.id == new.id

    def test_one_that_is_regrouped_keeps_its_place(self, dark: Snapshot) -> None:
        standing = Standing()
        standing.take(dark.diagnosis)
        some = list(dark.diagnosis.findings)
        some[1] = replace(some[1], id="thermal_throttling:cluster", supersedes=("thermal_throttling:r07",))
        rows = standing.take(replace(dark.diagnosis, at=AT + 5, findings=tuple(some)))
        assert rows[1].finding.id == "thermal_throttling:cluster"

    def test_one_that_becomes_urgent_moves(self, dark: Snapshot) -> None:
        standing = Standing()
        standing.take(dark.diagnosis)
        some = [
            replace(one, urgency=Urgency.NOW) if one.detector == "power_capping" else one
            for one in dark.diagnosis.findings
        ]
        rows = standing.take(replace(dark.diagnosis, at=AT + 5, findings=tuple(some)))
        assert rows[3].finding.detector == "power_capping"

    def test_another_time_is_another_order(self, dark: Snapshot) -> None:
        standing = Standing()
        standing.take(dark.diagnosis)
        past = replace(dark.diagnosis, at=AT - 7200, findings=dark.diagnosis.findings[::-1])
        assert standing.take(past, live=False)[0].finding.id.startswith("gpu_fault")


class TestWords:
    def test_where_and_whose(self, dark: Snapshot) -> None:
        said = [
            f"{told.where_words(dark, one)} / {told.whose_words(dark, one)}"
            for one in dark.diagnosis.findings
        ]
        assert said[0] == "r11n02/3 / +15 wait"
        assert said[1].startswith("r07 / job 47")
        assert said[3].startswith("job 47")
        assert said[6] == "r14 / "

    def test_replicas_of_a_service(self) -> None:
        snapshot = make_services()
        servers = [server.key for server in snapshot.layout.servers if server.service == "chat-70b"]
        one = replace(night().diagnosis.findings[2], scope=Scope(servers=tuple(servers[:1])))
        assert told.whose_words(snapshot, one) == "1/7 repl"

    @pytest.mark.parametrize(
        ("value", "shown"),
        [(0.0, "0.0"), (9.96, "10.0"), (120.4, "120"), (float("nan"), "-"), (250_000.0, "250k")],
    )
    def test_losses_fit(self, value: float, shown: str) -> None:
        assert told.loss_words(value) == shown

    def test_every_text_is_inert(self) -> None:
        snapshot = hostile()
        standing = Standing()
        rows = standing.take(snapshot.diagnosis)
        lines = told.worst_first(snapshot, rows, 80, 10, "-")
        lines += told.side_lines(snapshot, rows, 40, 30, "-")
        for row, _ in lines:
            assert row_text(row).isprintable()
            assert row_width(row) <= 80

    def test_warming_is_said_by_detector(self) -> None:
        assert told.warming_words(warming().diagnosis)[0] == "heat 3/8 polls"
        assert "heat 3/8 polls" in row_text(told.nothing_found(warming().diagnosis))
        assert "not begun" in row_text(told.nothing_found(Diagnosis(0.0)))

    @pytest.mark.parametrize("lines", range(1, 12))
    @pytest.mark.parametrize("width", [40, 60, 80, 200])
    def test_the_list_keeps_to_its_room(self, dark: Snapshot, width: int, lines: int) -> None:
        rows = Standing().take(dark.diagnosis)
        for changed in (True, False):
            made = told.worst_first(dark, rows, width, lines, "-", changed=changed)
            assert len(made) <= lines
            assert all(row_width(row) <= width for row, _ in made)
        assert len(told.side_lines(dark, rows, 40, lines, "-")) <= max(lines, 6)


class TestHeader:
    def line(self, snapshot: Snapshot, width: int) -> str:
        from coldaisle.tui.cells import tally

        return row_text(fleet_line(snapshot, tally(snapshot, SM), SM, width))

    def test_it_answers_whether_the_fleet_is_good(self, dark: Snapshot) -> None:
        assert self.line(dark, 80) == (
            "USEFUL 91% of 448 allocated  losing 42 GPU.h/h  3 NOW 3 today  pages 4/6 expl"
        )
        assert ": 16 fault, 9.6 loader, 8.0 idle, 5.8 heat" in self.line(dark, 140)

    def test_while_warming_it_promises_nothing(self) -> None:
        assert self.line(warming(), 80).startswith(
            "USEFUL at most 100% of 448 allocated  warming up: heat 3/8 polls +2"
        )

    def test_without_a_diagnosis_it_counts(self) -> None:
        assert self.line(make_snapshot(), 80).startswith("448 allocated")

    def test_nearly_all_is_not_all(self, dark: Snapshot) -> None:
        useful = dark.diagnosis.usefulness
        assert useful is not None
        nearly = replace(dark, diagnosis=replace(dark.diagnosis, usefulness=replace(useful, useful=0.9996)))
        assert "USEFUL 99%" in self.line(nearly, 80)


class TestLetters:
    def test_every_detector_has_one_of_its_own(self) -> None:
        letters = [letter_of(name) for name in DETECTORS]
        assert len(set(letters)) == len(DETECTORS)
        assert set(letters) <= {mark.letter for mark in MARKS}
        assert set(LETTERS) == set(DETECTORS)

    def test_they_replace_digits(self, dark: Snapshot) -> None:
        codes = cell_codes(dark, SM)
        at = dark.layout.gpu_of
        shown = {key: letter(int(codes[at[key]])) for key in ("r07n01/0", "r07n01/5", "r11n02/3", "r11n02/4", "r14n01/0", "r13n02/0")}  # fmt: skip
        assert shown == {
            "r07n01/0": "T", "r07n01/5": shown["r07n01/5"], "r11n02/3": "X", "r11n02/4": "w",
            "r14n01/0": shown["r14n01/0"], "r13n02/0": "i",
        }  # fmt: skip
        assert shown["r07n01/5"].isdigit()
        assert shown["r14n01/0"].isdigit(), "what costs nothing leaves the digit"

    def test_racks_are_marked_by_urgency(self, dark: Snapshot) -> None:
        marks = urgent(dark)
        at = dark.layout.gpu_of
        assert [int(marks[at[key]]) for key in ("r07n01/0", "r03n01/0", "r14n01/0", "r01n01/0")] == [
            2,
            1,
            0,
            0,
        ]


class TestAlarm:
    def fresh(self, alarm: Alarm, diagnosis: Diagnosis, *, aside: bool = False) -> list[str]:
        return [one.id for one in alarm.fresh(diagnosis, lambda _: aside)]

    def test_what_was_there_at_the_start_is_no_news(self, dark: Snapshot) -> None:
        assert self.fresh(Alarm(AT - 5), dark.diagnosis) == []

    def test_a_new_one_rings_once(self, dark: Snapshot) -> None:
        alarm = Alarm(AT - 3600)
        assert self.fresh(alarm, replace(dark.diagnosis, at=AT - 3000, findings=())) == []
        assert self.fresh(alarm, dark.diagnosis) == ["gpu_fault:r11n02/3"]
        assert self.fresh(alarm, replace(dark.diagnosis, findings=())) == []
        assert self.fresh(alarm, dark.diagnosis) == [], "not again for the same id"

    def test_one_that_becomes_critical_rings(self, dark: Snapshot) -> None:
        alarm = Alarm(AT - 3600)
        self.fresh(alarm, dark.diagnosis)
        worse = tuple(replace(one, severity=Severity.CRITICAL) for one in dark.diagnosis.findings[:2])
        assert self.fresh(alarm, replace(dark.diagnosis, findings=worse)) == ["thermal_throttling:r07"]

    def test_what_somebody_has_in_hand_does_not(self, dark: Snapshot) -> None:
        assert self.fresh(Alarm(AT - 3600), dark.diagnosis, aside=True) == []


class TestInHand:
    def test_what_somebody_has_in_hand_is_counted_apart(self, dark: Snapshot) -> None:
        first, second, *_ = (one.id for one in dark.diagnosis.findings)
        assert row_text(told.counts(dark.diagnosis.findings, {first, second})) == "1 NOW 3 today 2 ack"

    def test_on_racks_it_stands_last_and_dim(self, dark: Snapshot) -> None:
        first, *others = Standing().take(dark.diagnosis)
        rows = [*others, first._replace(is_aside=True)]
        line = next(row for row, key in told.worst_first(dark, rows, 80, 12, "-") if key == first.finding.id)
        assert row_text(line).startswith(" 1 ack   GPU lost")
        assert {run.token for run in line} == {"dim"}
        side = [row_text(row) for row, _ in told.side_lines(dark, rows, 40, 40, "-")]
        assert side.index(next(line for line in side if line.startswith("ACKNOWLEDGED"))) > side.index(
            next(line for line in side if line.startswith("LATER"))
        )


class TestWhatLedToIt:
    def test_an_event_names_the_finding_that_began_next_to_it(self, dark: Snapshot) -> None:
        numbers = told.led_to(Standing().take(dark.diagnosis))
        lost = dark.diagnosis.findings[0]
        assert numbers(EventView(lost.since - 30, "r11n02/3", "xid", "79")) == 1
        assert numbers(EventView(lost.since - 30, "r11n02/mlx5_0/1", "link_down", "")) == 1
        assert numbers(EventView(lost.since - 30, "r01n01", "boot", "")) == 0
        assert numbers(EventView(lost.since + 100, "r11n02/3", "xid", "79")) == 0
        assert numbers(EventView(lost.since - 30, "r11n02/3", "alert", "XidError")) == 0
