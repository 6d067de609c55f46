"""The table: columns by room, a cursor that follows its key, only what changed is painted, thousands of rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from lab.cost import cpu_seconds
from textual.app import App, ComposeResult
from textual.geometry import Region

from coldaisle.tui.widgets.lines import Run, row_text, row_width
from coldaisle.tui.widgets.table import Cell, Column, Placed, Table, cells_row, place

COLUMNS = (
    Column("name", "name", 8, keep=0),
    Column("power", "power", 7, right=True, keep=2),
    Column("why", "why", 6, keep=1, grows=True),
)


def cells_of(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
    cells = {"name": Run(key), "power": Run("612 W"), "why": Run(f"because of {key}")}
    return [cells[item.column.key] for item in placed]


class TableApp(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.moved: list[str] = []

    def compose(self) -> ComposeResult:
        yield Table(COLUMNS, empty="nothing here")

    def on_table_opened(self, event: Table.Opened) -> None:
        self.opened.append(event.key)

    def on_table_moved(self, event: Table.Moved) -> None:
        self.moved.append(event.key)

    @property
    def table(self) -> Table:
        return self.query_one(Table)

    @property
    def lines(self) -> list[str]:
        return [self.table.render_line(y).text.rstrip() for y in range(self.table.size.height)]


def names(count: int) -> list[str]:
    return [f"n{number:04d}" for number in range(count)]


def test_all_columns_where_there_is_room_and_one_grows() -> None:
    assert [(item.column.key, item.width) for item in place(COLUMNS, 40)] == [
        ("name", 8),
        ("power", 7),
        ("why", 23),
    ]


def test_the_least_wanted_column_goes_first() -> None:
    assert [item.column.key for item in place(COLUMNS, 20)] == ["name", "why"]
    assert [item.column.key for item in place(COLUMNS, 9)] == ["name"]


def test_one_column_is_always_there() -> None:
    assert len(place(COLUMNS, 3)) == 1


@pytest.mark.parametrize("text", ["x", "n" * 30, "节点节点节点节点"])
def test_cells_keep_their_columns(text: str) -> None:
    placed = place(COLUMNS, 40)
    row = cells_row([Run(text), Run("9 W"), Run("because")], placed)
    assert row_width(row) == 40
    assert row_text(row).index("9 W") + 3 == 8 + 1 + 7 or "节" in text


async def test_shows_header_and_rows() -> None:
    app = TableApp()
    async with app.run_test(size=(40, 6)) as pilot:
        app.table.show(names(2), cells_of)
        await pilot.pause()
        assert app.lines[0].split() == ["name", "power", "why"]
        assert app.lines[1].split() == ["n0000", "612", "W", "because", "of", "n0000"]
        assert app.lines[3] == ""


async def test_an_empty_table_says_why() -> None:
    app = TableApp()
    async with app.run_test(size=(40, 6)) as pilot:
        app.table.show([], cells_of)
        await pilot.pause()
        assert app.lines[1] == "nothing here"
        await pilot.press("down", "enter", "end")
        assert app.opened == []


async def test_keys_move_the_cursor_and_open() -> None:
    app = TableApp()
    async with app.run_test(size=(40, 12)) as pilot:
        app.table.show(names(100), cells_of)
        app.table.focus()
        await pilot.press("j", "j", "k", "enter")
        assert app.opened == ["n0001"]
        await pilot.press("end")
        assert app.table.key == "n0099"
        assert app.lines[-1].startswith("n0099")
        await pilot.press("pageup")
        assert app.table.key == "n0089"
        await pilot.press("home")
        assert app.table.key == "n0000"
        assert app.lines[1].startswith("n0000")


async def test_a_click_chooses_and_a_second_one_opens() -> None:
    app = TableApp()
    async with app.run_test(size=(40, 12)) as pilot:
        app.table.show(names(5), cells_of)
        await pilot.pause()
        await pilot.click(Table, offset=(2, 3))
        assert app.table.key == "n0002"
        await pilot.click(Table, offset=(2, 3))
        await pilot.pause()
        assert app.opened == ["n0002"]


async def test_the_cursor_stays_on_its_row_when_others_come_and_go() -> None:
    app = TableApp()
    async with app.run_test(size=(40, 12)) as pilot:
        app.table.show(names(5), cells_of)
        app.table.select("n0003")
        app.table.show(["a", *reversed(names(5))], cells_of)
        await pilot.pause()
        assert app.table.key == "n0003"


async def test_a_cursor_whose_row_is_gone_stays_at_its_place() -> None:
    app = TableApp()
    async with app.run_test(size=(40, 12)) as pilot:
        app.table.show(names(5), cells_of)
        app.table.select("n0004")
        app.table.show(names(2), cells_of)
        await pilot.pause()
        assert app.table.key == "n0001"


async def test_only_rows_that_differ_are_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    app = TableApp()
    async with app.run_test(size=(40, 12)) as pilot:
        values = dict.fromkeys(names(8), "612 W")

        def live(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
            return [Run(values[key]) if item.column.key == "power" else Run(key) for item in placed]

        app.table.show(names(8), live)
        await pilot.pause()
        painted: list[Region] = []
        monkeypatch.setattr(app.table, "refresh", lambda *regions, **_: painted.extend(regions))
        app.table.show(names(8), live)
        assert painted == []
        values["n0003"] = "700 W"
        app.table.show(names(8), live)
        assert [region.y for region in painted] == [4]


async def test_only_what_is_in_sight_is_built() -> None:
    app = TableApp()
    built: list[str] = []

    def counted(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
        built.append(key)
        return cells_of(key, placed)

    async with app.run_test(size=(40, 12)) as pilot:
        app.table.show(names(10_000), counted)
        await pilot.pause()
        built.clear()
        cost = cpu_seconds(lambda: app.table.show(names(10_000), counted))
        assert len(set(built)) <= 11
        assert cost < 0.2


async def test_a_tiny_terminal_and_back() -> None:
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.show(names(50), cells_of)
        app.table.select("n0040")
        for size in ((20, 5), (1, 1), (200, 50), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        assert app.table.key == "n0040"
        assert any(line.startswith("n0040") for line in app.lines)


async def test_markup_and_escapes_in_cells_are_text() -> None:
    app = TableApp()

    def hostile(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
        return [Run("[red]x[/]") for _ in placed]

    async with app.run_test(size=(60, 6)) as pilot:
        app.table.show(["one"], hostile)
        await pilot.pause()
        assert "[red]x[/]" in app.lines[1]
