"""``coldaisle size`` for people: the answer, the parts side by side, then every figure of the best, within 80 columns. Pure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.comparison import Merit, Option
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.sizing.serving_site import at_load, throughput
from coldaisle.analyzers.sizing.sheet import Section, Sheet
from coldaisle.analyzers.sizing.tasks import Run, Service
from coldaisle.sources.text import cell_width, clip, fit, plain
from coldaisle.sources.units import NO_VALUE
from coldaisle.tui.figures import interval, number, shown
from coldaisle.tui.size_told import Told, source_words

WIDTH = 80
_LABEL = 38
_HEAD = 9
_MERITS: dict[Merit, str] = {
    "cost": "cheapest", "gpus": "fewest GPUs, then least energy,", "time": "quickest", "throughput": "highest throughput a GPU",
}  # fmt: skip
_ASCII = str.maketrans({"·": "*", "√": "sqrt", "²": "^2", "³": "^3", "≈": "~", "≤": "<=", "≥": ">=", "−": "-", "×": "x", "Σ": "sum ", "…": "..."})  # fmt: skip


def inert(line: str, *, ascii_only: bool = False) -> str:
    """A line that may hold foreign text; signs of formulas as ASCII has them."""
    return plain(line.translate(_ASCII) if ascii_only else line, ascii_only=ascii_only)


def text_lines(told: Told, *, explain: bool = False, width: int = WIDTH) -> Iterator[str]:
    """All of it."""
    yield from wrapped("", _asked(told), width)
    yield ""
    for label, words in _answer(told):
        yield from wrapped(f"{label:<{_HEAD}}", words, width)
    if len(told.options) > 1:
        yield ""
        yield from table_lines(told, width)
    shown_in_full = told.best or (told.options[0] if len(told.options) == 1 else None)
    if shown_in_full is not None and shown_in_full.sheet is not None:
        if len(told.options) > 1:
            yield ""
            yield from wrapped("", f"{shown_in_full.sheet.title}, in full:", width)
        yield from sheet_lines(shown_in_full.sheet, width, explain=explain)


# --- what was asked, and the answer -----------------------------------------------------------------------------------


def _asked(told: Told) -> str:
    task = told.task
    if isinstance(task, Run):
        return f"{_verb(task)} {model_words(task.model)} on {number(task.tokens)} tokens{_limits(task)}"
    return f"Serving {model_words(task.model)}, {_load(task)}"


def model_words(model: Model) -> str:
    """``Llama-3.x-70B (70.6 G parameters)``, and of a mixture how many are active."""
    active = f", {_short(model.active_params)} active" if model.is_mixture else ""
    name = plain(model.name, 60)
    return name if name.endswith("parameters") and not active else f"{name} ({_short(model.params)}{active})"


def _short(params: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if params >= size:
            return f"{params / size:.3g}{letter}"
    return f"{params:,.0f}"


def _verb(task: Run) -> str:
    return {None: "Training", "full": "Fine-tuning", "lora": "LoRA of", "qlora": "QLoRA of"}[task.method]


def _limits(task: Run) -> str:
    words = f" in sequences of {task.seq:,}"
    if task.gpus is not None:
        words += f", on {shown(task.gpus, 'gpus')}"
    if task.deadline_s is not None:
        words += f", within {shown(task.deadline_s, 's')}"
    return words


def _load(task: Service) -> str:
    asked = task.request
    words = f"{number(asked.isl)} tokens in and {number(asked.osl)} out"
    if not math.isnan(asked.rate):
        words = f"{number(asked.rate)} requests/s of {words}"
    elif not math.isnan(asked.users):
        words = f"{number(asked.users)} users with requests of {words}"
    else:
        words = f"requests of {words}"
    goals = [
        f"{name} at most {shown(goal, 's')}"
        for name, goal in (("TTFT", asked.ttft), ("ITL", asked.itl))
        if not math.isnan(goal)
    ]
    told = [words, *goals, f"weights {asked.dtype}, keys and values {asked.kv_dtype}"]
    if not (math.isnan(asked.rate) and math.isnan(asked.users)):
        told.append(f"{asked.margin:.0%} margin")
    return "; ".join(told)


def _answer(told: Told) -> Iterator[tuple[str, str]]:
    """The answer in lines of a word and what it is."""
    best = told.best
    if best is None or best.sheet is None:
        yield "ANSWER", _cannot(told)
        if len(told.options) == 1 and told.options[0].sheet is not None:
            yield from _beware(told.options[0].sheet)
        return
    sheet = best.sheet
    yield "ANSWER", _without_binding(sheet)
    if len(told.fitting) > 1:
        yield "CHOSEN", f"{_MERITS[told.merit]} of the {len(told.fitting)} parts that do it"
    if sheet.gpus is not None and not sheet.gpus.is_exact:
        yield "RANGE", f"{sheet.gpus.low:,.0f} to {sheet.gpus.high:,.0f} GPUs, four times of five"
    if speeds := ", ".join(_speeds(sheet)):
        yield "SPEED", speeds
    if sheet.binding is not None:
        yield "BINDS", _binding_words(sheet)
    if cost := _cost_words(best):
        yield "COST", cost
    yield from _beware(sheet)


def _without_binding(sheet: Sheet) -> str:
    return (
        sheet.answer
        if sheet.binding is None
        else sheet.answer.removesuffix(f". What binds: {sheet.binding.name}")
    )


def _cannot(told: Told) -> str:
    if len(told.options) > 1:
        return "none of these parts can do it"
    return f"it cannot be done: {_why_not(told.options[0])}"


def _beware(sheet: Sheet) -> Iterator[tuple[str, str]]:
    for warning in sheet.warnings:
        yield "BEWARE", warning


def _binding_words(sheet: Sheet) -> str:
    binding = sheet.binding
    assert binding is not None
    if binding.name == "request":
        return "nothing but the number of GPUs that was told"
    if len(binding.terms) < 2:
        return binding.name
    terms = ", ".join(f"{name} {interval(term)}" for name, term in binding.terms)
    return f"{binding.name}; what each asks for: {terms}"


def _speeds(sheet: Sheet) -> Iterator[str]:
    for label in ("throughput", "TTFT", "ITL"):
        if (figure := at_load(sheet, label)) is not None:
            yield f"{label} {interval(figure)}"


def _cost_words(best: Option) -> str:
    if (run := best.figure("cost", "the run")) is not None:
        return f"{interval(run)} for the run"
    hour, token = best.figure("cost", "an hour"), best.figure("cost", "a million output tokens")
    return ", ".join(
        words
        for words in (
            interval(hour) if hour else "",
            f"{interval(token)} a million output tokens" if token else "",
        )
        if words
    )


# --- the parts side by side -------------------------------------------------------------------------------------------


class _Column(NamedTuple):
    name: str
    of: Callable[[Option], str]
    right: bool = True
    keep: int = 0
    """The higher, the sooner it is left out where a line has no room for all."""


def table_lines(told: Told, width: int = WIDTH) -> Iterator[str]:
    """A row a part that does it, the best first; below, why the others do not."""
    if told.fitting:
        columns = _that_fit([one for one in _columns(told) if any(map(one.of, told.fitting))], told, width)
        rows = [[column.name for column in columns]]
        rows += [[column.of(option) or NO_VALUE for column in columns] for option in told.fitting]
        yield from aligned(rows, [column.right for column in columns], width)
    for option in told.options:
        if not option.fits:
            yield from wrapped(f"{option.part.id}: ", _why_not(option), width, hang=4)
    if told.merit != "cost" and len(told.fitting) > 1:
        yield from wrapped("", "What they cost: --price PART=$/h, with --price-date DAY.", width)


def _that_fit(columns: list[_Column], told: Told, width: int) -> list[_Column]:
    """Without those that may go, until a line has room for the rest."""
    while True:
        wide = sum(
            max(len(one.name), *(cell_width(one.of(row)) for row in told.fitting)) + 2 for one in columns
        )
        least = max(columns, key=lambda one: one.keep)
        if wide - 2 <= width or not least.keep:
            return columns
        columns = [one for one in columns if one is not least]


def _why_not(option: Option) -> str:
    if option.sheet is not None:
        return option.sheet.answer
    return "; ".join(filter(None, (option.problem, option.remedy)))


def _columns(told: Told) -> Iterator[_Column]:
    yield _Column("part", lambda one: one.part.id, right=False)
    yield _Column("GPUs", lambda one: _gpus(one.sheet))
    yield _Column("from-to", lambda one: _bounds(one.sheet), keep=1)
    yield _Column("layout", _layout, right=False, keep=2)
    if isinstance(told.task, Run):
        yield _Column("time", _figure("time", "wall clock"))
        yield _Column("MFU", _figure("time", "MFU"), keep=4)
        yield _Column("power", _figure("power and racks", "all nodes, name plate"), keep=3)
        yield _Column("cost", _figure("cost", "the run"))
    else:
        yield _Column("tok/s", lambda one: number(throughput(one.sheet)))
        yield _Column("TTFT", _speed("TTFT"))
        yield _Column("ITL", _speed("ITL"))
        yield _Column("power", _figure("power and racks", "all nodes, name plate"), keep=3)
        yield _Column("$/Mtok", lambda one: _figure("cost", "a million output tokens")(one).lstrip("$"))
    yield _Column("binds", _bound, right=False, keep=5)


def _speed(label: str) -> Callable[[Option], str]:
    def told(option: Option) -> str:
        figure = at_load(option.sheet, label) if option.sheet else None
        return "" if figure is None else shown(figure.value, figure.unit)

    return told


def _bound(option: Option) -> str:
    return option.sheet.binding.name if option.sheet and option.sheet.binding else ""


def _figure(section: str, label: str) -> Callable[[Option], str]:
    def told(option: Option) -> str:
        figure = option.figure(section, label)
        return "" if figure is None else shown(figure.value, figure.unit)

    return told


def _gpus(sheet: Sheet | None) -> str:
    return f"{sheet.gpus.value:,.0f}" if sheet and sheet.gpus else ""


def _bounds(sheet: Sheet | None) -> str:
    if sheet is None or sheet.gpus is None or sheet.gpus.is_exact:
        return ""
    return f"{sheet.gpus.low:,.0f}-{sheet.gpus.high:,.0f}"


_DEGREES = (
    ("tensor parallelism", "TP"), ("pipeline parallelism", "PP"), ("context parallelism", "CP"), ("expert parallelism", "EP"),
    ("data parallelism", "DP"), ("tensor parallel", "TP"), ("pipeline stages", "PP"),
)  # fmt: skip


def _layout(option: Option) -> str:
    """``TP8 PP4 DP16``; what is 1 stays away."""
    told = [(name, option.figure("layout", label)) for label, name in _DEGREES]
    words = " ".join(f"{name}{size.value:.0f}" for name, size in told if size is not None and size.value > 1)
    replicas = option.figure("layout", "replicas")
    if replicas is not None:
        return f"{replicas.value:,.0f}x{words or 'TP1'}"
    return words or "DP1"


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool], width: int) -> Iterator[str]:
    """Columns side by side; what is too wide for a line is cut at its end."""
    widths = [max(map(cell_width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (fit(cell, wide, right=side) for cell, wide, side in zip(row, widths, right, strict=True))
        yield clip("  ".join(cells).rstrip(), width)


# --- a sheet ----------------------------------------------------------------------------------------------------------


def sheet_lines(sheet: Sheet, width: int, *, explain: bool) -> Iterator[str]:
    """Every section; with ``explain`` how each figure was made, and what people say."""
    if explain and sheet.binding is not None:
        yield ""
        yield from section_lines(
            Section(f"what binds: {sheet.binding.name}", sheet.binding.terms), width, explain=True
        )
    for section in sheet.sections:
        yield ""
        yield from section_lines(section, width, explain=explain)
    yield from _verdict_lines(sheet, width, explain=explain)


def _verdict_lines(sheet: Sheet, width: int, *, explain: bool) -> Iterator[str]:
    yield ""
    if not explain:
        many = (
            f", and {len(sheet.verdicts)} rules of thumb that people quote, checked" if sheet.verdicts else ""
        )
        yield from wrapped("", f"--explain gives each number with its formula and source{many}.", width)
        return
    if sheet.verdicts:
        yield "WHAT PEOPLE SAY, AND WHAT IS TRUE OF IT HERE"
    for one in sheet.verdicts:
        yield from wrapped("  said:  ", one.claim, width)
        yield from wrapped("  true:  ", one.verdict, width)


def section_lines(section: Section, width: int, *, explain: bool) -> Iterator[str]:
    """A heading, and a line a figure; a table as one, unless each figure is explained."""
    yield plain(section.name, width).upper()
    if section.is_table and not explain:
        yield from _crossed(section, width)
    else:
        label = min(max((cell_width(plain(name)) for name, _ in section.figures), default=0), _LABEL)
        for name, figure in section.figures:
            yield clip(f"  {fit(plain(name), label)}  {interval(figure)}", width)
            if explain:
                yield from _made(figure, width)
    if section.note:
        yield from wrapped("  ", section.note, width)


def _made(figure: Quantity, width: int) -> Iterator[str]:
    if figure.formula:
        yield from wrapped("      = ", figure.formula, width)
    if figure.source:
        yield from wrapped("      from ", source_words(figure.source), width)


def _crossed(section: Section, width: int) -> Iterator[str]:
    """Figures whose labels are ``row: column``."""
    found: dict[str, dict[str, str]] = {}
    for label, figure in section.figures:
        row, _, column = plain(label).partition(": ")
        found.setdefault(row, {})[column] = shown(figure.value, figure.unit)
    fullest = max(found.values(), key=len, default={})  # its order; a row may lack some in the middle
    columns = list(dict.fromkeys([*fullest, *(column for cells in found.values() for column in cells)]))
    rows = [
        ["", *columns],
        *([row, *(cells.get(c, NO_VALUE) for c in columns)] for row, cells in found.items()),
    ]
    for line in aligned(rows, [False] + [True] * len(columns), width - 2):
        yield f"  {line}"


def wrapped(label: str, words: str, width: int, hang: int | None = None) -> Iterator[str]:
    """A label and words in lines; the next lines stand below the words, or ``hang`` cells in."""
    indent = " " * (cell_width(label) if hang is None else hang)
    yield from textwrap.wrap(
        plain(words), width, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False
    ) or [label.rstrip()]  # fmt: skip
