"""The Sizing screen and the advice on Racks: by keys, at odd sizes, with hostile texts."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from lab.counsels import advised, hostile_advice
from lab.diagnoses import night
from lab.rest import until
from lab.services import NIGHT, PROMISES, ServiceFeed, with_services
from lab.snapshots import AT, FakeFeed, make_snapshot
from textual.pilot import Pilot

from coldaisle.analyzers.advice.advice import Counsel
from coldaisle.analyzers.advice.instant import utilisations_now
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.tui import calculator
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.screens.racks import RacksScreen
from coldaisle.tui.screens.sizing import AdviceTable, SizingScreen
from coldaisle.tui.size import COMMANDS
from coldaisle.tui.widgets.lines import Lines, text_of

SIZES = {"60x20": (60, 20), "80x24": (80, 24), "120x34": (120, 34), "200x50": (200, 50)}
ODD = ((40, 10), (41, 11), (60, 14), (79, 19), (80, 24), (121, 29), (200, 50))


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TMUX", raising=False)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def app_of(snapshot: Snapshot | None = None, **options: object) -> ColdaisleApp:
    options = {"name": "atlas", "clock": lambda: AT, "no_colour": False, **options}
    return ColdaisleApp(FakeFeed(snapshot or advised()), **options)  # type: ignore[arg-type]


def serving_app(**options: object) -> ColdaisleApp:
    snapshot = with_services(make_snapshot(), NIGHT)
    options = {"name": "atlas", "clock": lambda: AT, "no_colour": False, "serving": PROMISES, **options}
    return ColdaisleApp(ServiceFeed(snapshot), **options)  # type: ignore[arg-type]


def lines(pilot: Pilot[None]) -> list[str]:
    return [strip.text.rstrip() for strip in pilot.app.screen._compositor.render_strips()]


def text(pilot: Pilot[None]) -> str:
    return "\n".join(lines(pilot))


def advice_line(pilot: Pilot[None]) -> str:
    return next((line for line in lines(pilot) if line.startswith("ADVICE  ")), "")


def sizing(pilot: Pilot[None]) -> SizingScreen:
    assert isinstance(pilot.app.screen, SizingScreen)
    return pilot.app.screen


def detail(pilot: Pilot[None]) -> str:
    return text_of(sizing(pilot).query_one("#detail", Lines).rows)


def keys(pilot: Pilot[None]) -> tuple[str, ...]:
    return sizing(pilot).query_one(AdviceTable).keys


async def opened(pilot: Pilot[None]) -> None:
    """The Sizing screen, with the utilisations of now."""
    await pilot.press("6")
    await until(pilot, "the utilisations of now", lambda: sizing(pilot)._seen.now is not None)
    await pilot.pause()


async def to_calculator(pilot: Pilot[None]) -> None:
    """The calculator with its first answer."""
    await opened(pilot)
    await pilot.press("tab")
    await calculated(pilot)


async def chosen(pilot: Pilot[None]) -> None:
    """The first advice, on Racks."""
    await pilot.press("a")
    await pilot.pause()


async def calculated(pilot: Pilot[None]) -> None:
    await until(
        pilot,
        "an answer",
        lambda: (
            (found := sizing(pilot).answer) is not None
            and found.form is sizing(pilot).form
            and (found.sheet is not None or found.problem)
        ),
    )
    await pilot.pause()


class TestRacks:
    @pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
    async def test_one_line_at_every_size(self, size: tuple[int, int]) -> None:
        async with app_of().run_test(size=size) as pilot:
            await pilot.pause()
            assert advice_line(pilot).startswith("ADVICE  reclaim 8 idle GPUs of job 4655 (rsun)")

    async def test_it_stands_between_the_findings_and_the_cursor(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            shown = lines(pilot)
            at = shown.index(advice_line(pilot))
            assert any("worst first" in line for line in shown[:at])
            assert shown[at + 1].startswith("> r01n01/0")

    async def test_it_yields_at_tiny_sizes(self) -> None:
        async with app_of().run_test(size=(40, 10)) as pilot:
            await pilot.pause()
            assert not advice_line(pilot)

    @pytest.mark.parametrize(
        ("counsel", "words"),
        [
            (Counsel(), "nobody has looked yet"),
            (Counsel(at=AT, span_s=720.0), "after 30 min of history: 12 min so far"),
            (
                Counsel(at=AT, span_s=3600.0),
                "nothing to reclaim or to change, as far as 60 min of history tell",
            ),
        ],
    )
    async def test_without_advice_it_says_why(self, counsel: Counsel, words: str) -> None:
        async with app_of(replace(night(), counsel=counsel)).run_test(size=(100, 24)) as pilot:
            await pilot.pause()
            assert words in advice_line(pilot)

    async def test_in_the_past_there_is_none(self) -> None:
        past = replace(advised(), live=False, counsel=Counsel())
        async with app_of(past).run_test(size=(120, 24)) as pilot:
            await pilot.pause()
            assert "none for a past instant" in advice_line(pilot)

    async def test_wide_it_is_told_for_the_rack_and_for_the_cluster(self) -> None:
        async with app_of().run_test(size=(120, 34)) as pilot:
            await pilot.pause()
            assert "ADVICE for r01" in text(pilot)
            assert "nothing to do here" in text(pilot)
            assert "ADVICE for atlas (28 d, cover 94 %)" in text(pilot)
            racks = pilot.app.screen
            assert isinstance(racks, RacksScreen)
            racks.point_at("r13n02/0")
            await pilot.pause()
            assert "ADVICE for r13" in text(pilot)
            assert "nothing to do here" not in text(pilot)

    async def test_choosing_lights_its_gpus_and_enter_opens_it(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("a")
            await pilot.pause()
            racks = pilot.app.screen
            assert isinstance(racks, RacksScreen)
            assert racks.cursor == "r13n02/0"
            lit = racks._lit(advised())
            assert lit is not None
            assert int(lit.sum()) == 8
            assert "advice: 8 GPUs (Esc ends)" in text(pilot)
            assert advice_line(pilot).startswith("ADVICE  1/3 reclaim 8 idle")
            await pilot.press("enter")
            await pilot.pause()
            assert sizing(pilot).query_one(AdviceTable).key == "a:idle_gpus:slurm:4655"

    async def test_again_goes_on_and_esc_ends_it(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("a", "a", "a")
            await pilot.pause()
            assert "advice: 32 GPUs" in text(pilot)  # all of r07
            await pilot.press("escape")
            await pilot.pause()
            assert "Esc ends" not in text(pilot)
            await pilot.press("a", "r")
            await pilot.pause()
            assert "Esc ends" not in text(pilot)

    async def test_the_cursor_that_moved_opens_its_node_again(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.press("a", "j", "enter")
            await pilot.pause()
            assert type(pilot.app.screen).__name__ == "NodeScreen"

    async def test_advice_that_is_over_is_lit_no_more(self) -> None:
        app = app_of()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("a")
            await pilot.pause()
            assert isinstance(app.feed, FakeFeed)
            app.feed.send(replace(advised(), counsel=Counsel(at=AT, span_s=3600.0)))
            await pilot.pause()
            assert "that is advised no more" in text(pilot)
            assert "Esc ends" not in text(pilot)

    async def test_without_advice_the_key_says_why(self) -> None:
        async with app_of(night()).run_test(size=(80, 24)) as pilot:
            await pilot.press("a")
            await pilot.pause()
            assert "advice: nobody has looked yet" in text(pilot)


class TestUtilisations:
    async def test_now_and_over_the_window_each_with_what_it_is_of(self) -> None:
        async with app_of().run_test(size=(120, 34)) as pilot:
            await opened(pilot)
            shown = text(pilot)
            assert "last 28 d" in shown
            assert "93 % [91, 95]   with a kernel, of allocated (gpu.util, 94 % there)" in shown
            now = utilisations_now(advised()).cluster
            assert now.busy.ratio is not None
            assert f"busy{now.busy.ratio.value * 100:>17.0f} %" in shown
            assert "9,300 [7,800, 10,200] GPU.h of 300,000 held (3.1 %)" in shown

    async def test_what_is_not_known_is_a_dash_with_its_reason(self) -> None:
        snapshot = advised()
        columns = {key: column for key, column in snapshot.columns.items() if key != "gpu.tensor_active"}
        async with app_of(replace(snapshot, columns=columns)).run_test(size=(120, 34)) as pilot:
            await opened(pilot)
            row = next(line for line in lines(pilot) if line.startswith("achieved FLOP/s"))
            assert row.split()[2:4] == ["-", "-"]
            assert "tensor_active" in row

    async def test_without_a_scheduler_nothing_is_said_of_what_is_short(self) -> None:
        snapshot = replace(make_snapshot(jobs_known=False), counsel=Counsel())
        async with app_of(snapshot).run_test(size=(120, 34)) as pilot:
            await opened(pilot)
            assert "no scheduler is read" in text(pilot)


class TestAdvice:
    async def test_most_saved_first_then_what_was_refused(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            assert [key.partition(":")[2].partition(":")[0] for key in keys(pilot)] == [
                "idle_gpus", "cores", "power", "scaling",
            ]  # fmt: skip
            for part in (
                "DO ",
                "HOW MANY",
                "SAVES",
                "BECAUSE",
                "GROUNDS",
                "CHANGE IF",
                "BUT",
                "WHERE",
                "MADE BY",
            ):
                assert part in detail(pilot), part
            assert "gpu.util over 28 d, 64,512 samples, cover 94 %: 4655, 4711" in " ".join(
                detail(pilot).split()
            )
            await pilot.press("end")
            await pilot.pause()
            assert "NOT SIZED scaling" in detail(pilot)
            assert "only 3 of the 5 jobs that it takes" in detail(pilot)

    async def test_s_sorts(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("s", "s")
            await pilot.pause()
            assert [key.split(":")[1] for key in keys(pilot)] == ["cores", "idle_gpus", "power", "scaling"]

    @pytest.mark.parametrize(
        ("typed", "kept"),
        [
            ("r13", ["idle_gpus"]),
            ("rack==r07", ["power"]),
            ("advice==cores", ["cores"]),
            ("grade==B", ["idle_gpus"]),
            ("saved>1000", ["idle_gpus"]),
            ("cores", ["cores"]),
            ("r05", ["scaling"]),
        ],
    )
    async def test_the_filter_finds_by_scope_and_by_what_is_said(self, typed: str, kept: list[str]) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            sizing(pilot).set_filter(typed)
            await pilot.pause()
            assert [key.split(":")[1] for key in keys(pilot)] == kept

    async def test_the_filter_is_typed_and_dropped_from_either_pane(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("tab", "slash")
            await pilot.pause()
            await pilot.press(*"r07", "enter")
            await pilot.pause()
            assert sizing(pilot).pane == "Advice"
            assert [key.split(":")[1] for key in keys(pilot)] == ["power"]
            assert "filter: r07 (Esc drops it)" in text(pilot)
            await pilot.press("escape")
            await pilot.pause()
            assert len(keys(pilot)) == 4

    async def test_enter_lights_it_on_racks(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("enter")
            await pilot.pause()
            assert isinstance(pilot.app.screen, RacksScreen)
            assert "advice: 8 GPUs (Esc ends)" in text(pilot)

    async def test_esc_goes_back(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("escape")
            await pilot.pause()
            assert isinstance(pilot.app.screen, RacksScreen)

    async def test_export_writes_all_of_it(self, tmp_path: Path) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("x")
            await pilot.pause()
            written = next(tmp_path.glob("*advice.md")).read_text()
            assert "# Sizing advice for atlas" in written
            assert "## 2. give job 4802 14 cores a GPU, not 6" in written
            assert "only 3 of the 5 jobs that it takes" in written

    async def test_copy_is_one_line_that_does_nothing_by_itself(self) -> None:
        async with app_of(hostile_advice()).run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("y")
            await pilot.pause()
            copied = pilot.app.clipboard
            assert copied.startswith("reclaim evil")
            assert copied.isascii()
            assert copied.isprintable()

    async def test_copy_on_the_calculator_is_the_command_that_gives_the_answer(self) -> None:
        async with serving_app().run_test(size=(100, 24)) as pilot:
            await opened(pilot)
            await pilot.press("tab")
            await calculated(pilot)
            await pilot.press("y")
            await pilot.pause()
            assert pilot.app.clipboard == calculator.command_of(sizing(pilot).form)
            assert pilot.app.clipboard.startswith("coldaisle size serve --model ")


class TestHostile:
    @pytest.mark.parametrize("size", ODD)
    async def test_texts_are_inert_at_every_size(self, size: tuple[int, int], tmp_path: Path) -> None:
        async with app_of(hostile_advice()).run_test(size=size) as pilot:
            await pilot.press("a")
            await pilot.pause()
            assert "\x1b" not in text(pilot)
            await opened(pilot)
            await pilot.press("end", "home", "x")
            await pilot.pause()
            for shown in (text(pilot), *(file.read_text() for file in tmp_path.glob("*.md"))):
                assert "\x1b" not in shown
                assert "\u202e" not in shown
            assert all(len(line) <= size[0] for line in lines(pilot))


class TestCalculator:
    async def test_it_is_filled_in_with_what_is_measured(self) -> None:
        async with serving_app().run_test(size=(120, 34)) as pilot:
            await opened(pilot)
            await pilot.press("tab")
            await calculated(pilot)
            form = sizing(pilot).form
            assert form.origins["rate"] == "measured now"
            assert float(form.texts["rate"]) > 0
            assert "BINDS" in detail(pilot)

    async def test_a_field_is_typed_and_the_answer_follows(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("tab")
            await calculated(pilot)
            before = detail(pilot)
            await pilot.press(*"jjjj", "enter")
            await pilot.pause()
            await pilot.press(*"400", "enter")
            await calculated(pilot)
            assert sizing(pilot).form.texts["rate"] == "400"
            assert sizing(pilot).form.origins["rate"] == "typed"
            assert detail(pilot) != before

    async def test_a_choice_is_turned(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("tab", "j", "j", "l")
            await calculated(pilot)
            assert sizing(pilot).form.texts["part"] != calculator.DEFAULTS["part"]
            await pilot.press("h")
            await calculated(pilot)
            assert sizing(pilot).form.texts["part"] == calculator.DEFAULTS["part"]

    async def test_what_is_no_value_is_not_taken(self) -> None:
        async with app_of().run_test(size=(100, 24)) as pilot:
            await opened(pilot)
            await pilot.press("tab", *"jjjj", "enter")
            await pilot.pause()
            await pilot.press(*"lots", "enter")
            await pilot.pause()
            assert "is not a rate" in text(pilot)
            await pilot.press("escape")
            await pilot.pause()
            assert sizing(pilot).form.texts["rate"] == calculator.ANY

    async def test_esc_in_the_line_leaves_the_field_and_the_screen(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("tab", "enter")
            await pilot.pause()
            await pilot.press("escape")
            await pilot.pause()
            assert sizing(pilot).pane == "Calculator"

    async def test_its_answer_is_exported(self, tmp_path: Path) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("tab")
            await calculated(pilot)
            await pilot.press("x")
            await pilot.pause()
            assert "Llama" in next(tmp_path.glob("*sizing.md")).read_text()

    async def test_training_has_fields_of_its_own(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("tab", "l")
            await calculated(pilot)
            assert "within" in text(pilot)
            assert "requests/s" not in text_of(sizing(pilot).query_one("#form", Lines).rows)
            await pilot.press("end", "enter")
            await pilot.pause()
            await pilot.press(*"256", "enter")
            await calculated(pilot)
            assert sizing(pilot).answer is not None
            assert "256 H100" in detail(pilot)


class TestAnswers:
    @pytest.mark.parametrize(
        ("key", "text"),
        [
            ("model", "no-such-model"),
            ("part", "no-such-part"),
            ("isl", "0"),
            ("osl", "-5"),
            ("rate", "x"),
            ("dtype", "fp3"),
        ],
    )
    def test_nonsense_is_a_problem_in_words(self, key: str, text: str) -> None:
        found = calculator.answer(calculator.Form().put(key, text))
        assert found.sheet is None
        assert found.problem

    @pytest.mark.parametrize("what", ["serve", "train", "finetune"])
    def test_each_kind_has_an_answer(self, what: str) -> None:
        found = calculator.answer(calculator.Form().put("what", what))
        assert found.sheet is not None
        assert found.sheet.fits

    @pytest.mark.parametrize(
        ("key", "text"),
        [("tokens", "0"), ("seq", "-1"), ("deadline", "soon"), ("gpus", "1e30"), ("gpus", "0")],
    )
    def test_nonsense_in_training_is_a_problem_in_words(self, key: str, text: str) -> None:
        found = calculator.answer(calculator.Form().put("what", "train").put(key, text))
        assert found.problem or (found.sheet is not None and not found.sheet.fits)
        assert found.problem != "the calculator failed"

    def test_a_model_that_fits_nowhere_is_an_answer(self) -> None:
        form = calculator.Form().put("model", "DeepSeek-V3/R1").put("part", "t4")
        found = calculator.answer(form)
        assert found.sheet is not None
        assert found.sheet.answer

    @pytest.mark.parametrize(
        "told",
        [
            {"what": "serve", "rate": "12.4", "ttft": "500ms", "dtype": "fp8"},
            {"what": "train", "model": "GPT-3 175B", "gpus": "1024"},
            {"what": "train", "deadline": "60d"},
            {"what": "finetune", "method": "qlora", "deadline": "any"},
        ],
    )
    def test_the_command_of_a_form_gives_the_same_answer(self, told: dict[str, str]) -> None:
        form = calculator.Form()
        for key, value in told.items():
            form = form.put(key, value)
        sheet = calculator.answer(form).sheet
        assert sheet is not None
        words = shlex.split(calculator.command_of(form))
        assert words[:2] == ["coldaisle", "size"]
        done = CliRunner().invoke(COMMANDS[words[2]], [*words[3:], "--json"], standalone_mode=False)
        assert done.exception is None, done.exception
        (part,) = json.loads(done.stdout)["parts"]
        assert sheet.gpus is not None
        assert part["gpus"]["value"] == sheet.gpus.value
        assert part["answer"].startswith(sheet.answer.rstrip("."))

    def test_a_served_load_is_held_against_the_gpus_that_serve_it(self) -> None:
        form, *_ = calculator.measured(with_services(make_snapshot(), NIGHT), PROMISES)
        assert form.held > 0
        sheet = calculator.answer(form).sheet
        assert sheet is not None
        assert sheet.sections[0].name == "measured against calculated"
        assert dict(sheet.sections[0].figures)["GPUs that serve it now"].value == form.held
        other = calculator.answer(form.put("rate", "1")).sheet
        assert other is not None
        assert other.sections[0].name != "measured against calculated", "that is nobody's load"

    async def test_it_is_not_computed_on_the_screens_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import threading

        where: list[int] = []
        real = calculator.answer

        def answer(form: calculator.Form) -> calculator.Answer:
            where.append(threading.get_ident())
            return real(form)

        monkeypatch.setattr(calculator, "answer", answer)
        async with app_of().run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("tab")
            await calculated(pilot)
            assert where
            assert threading.get_ident() not in where


class TestHidden:
    async def test_a_hidden_screen_measures_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from coldaisle.analyzers.advice import instant

        app = app_of()
        async with app.run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            await pilot.press("escape")
            await pilot.pause()
            asked: list[Snapshot] = []
            monkeypatch.setattr(instant, "utilisations_now", lambda snapshot: asked.append(snapshot))
            assert isinstance(app.feed, FakeFeed)
            app.feed.send(replace(advised(), at=AT + 2))
            await pilot.pause()
            await asyncio.sleep(0)
            assert not asked


@pytest.mark.parametrize("size", SIZES)
def test_picture(snap_compare: object, size: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(), terminal_size=SIZES[size], run_before=opened)


@pytest.mark.parametrize("size", SIZES)
def test_picture_of_the_calculator(snap_compare: object, size: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(serving_app(), terminal_size=SIZES[size], run_before=to_calculator)


@pytest.mark.parametrize("size", SIZES)
def test_picture_of_chosen_advice(snap_compare: object, size: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(), terminal_size=SIZES[size], run_before=chosen)


@pytest.mark.parametrize("before", [chosen, opened, to_calculator], ids=["racks", "sizing", "calculator"])
def test_picture_without_colour_or_utf8(snap_compare: object, before: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(no_colour=True, ascii_only=True), terminal_size=(120, 34), run_before=before)
