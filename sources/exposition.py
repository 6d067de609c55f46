"""Prometheus text 0.0.4 and OpenMetrics 1.0, fast on a page that was seen before.

A scrape brings the same lines again and again with other numbers behind them. A :class:`Reader`
learns a page's *layout* once: which lines are samples, and the bytes before each number. From then
on it splits the page, compares those bytes in bulk and converts the numbers; nothing is tokenised.
A page whose layout changed is learnt anew, with every series already known looked up, not parsed.

Accepted beyond the formats' letter, because exporters do it: blank lines, CRLF, blanks around
commas, missing TYPE and HELP, counters without ``_total``, exemplars in 0.0.4 (dropped), unknown
escapes (kept as written). Refused: bytes that are not UTF-8, a last line without its end (a page
cut off would give a wrong number), and whatever exceeds :class:`Limits`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_, itemgetter
from typing import NamedTuple, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.errors import Garbled
from coldaisle.sources.units import show


class Series(NamedTuple):
    """What a number belongs to. Labels in the page's order, unescaped; all of it foreign text."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a page may cost us. Beyond it the page is refused as a whole."""

    page_bytes: int = 8 << 20
    lines: int = 200_000
    series: int = 100_000
    line_bytes: int = 64 << 10
    labels: int = 128
    """Per series."""
    label_chars: int = 16 << 10
    """Of a label's value, and of a name."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What a page holds, without the numbers. The same object while the page's layout is the same."""

    series: tuple[Series, ...]
    """Only the wanted ones, in the page's order; duplicates stay."""
    types: Mapping[str, str]
    """Metric family -> ``counter``, ``gauge``, ..., where the page says so."""
    names: frozenset[str]
    """Every sample name on the page, wanted or not."""


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """A page as read: ``values[i]`` belongs to ``shape.series[i]``."""

    shape: Shape
    values: NDArray[np.float64]
    timestamps: NDArray[np.float64] | None = None
    """Seconds since the epoch, NaN where a sample has none; None: no sample has one."""


Wanted = Callable[[str], bool]
Lines = Sequence[bytes]


class Reader:
    """Reads the successive pages of one target. ``wanted`` picks samples by name; None: all.

    Memory stays at one layout, bounded by the limits. Raises Garbled with the line and the reason.
    """

    def __init__(self, target: str, *, wanted: Wanted | None = None, limits: Limits = Limits()) -> None:
        self._target = target
        self._wanted = wanted
        self._limits = limits
        self._layout: _Layout | None = None
        self._dialect: bool | None = None

    def read(self, body: bytes, *, openmetrics: bool | None = None) -> Page:
        """The page's samples. ``openmetrics``: None looks for ``# EOF`` at the end."""
        dialect = _ends_with_eof(body) if openmetrics is None else openmetrics
        if self._layout is not None and dialect == self._dialect:
            page = self._again(self._layout, body)
            if page is not None:
                return page
        return self._learn(body, dialect)

    def _again(self, layout: _Layout, body: bytes) -> Page | None:
        """The page by the learnt layout; None if it is not laid out so."""
        lines = body.split(b"\n", layout.lines)
        if len(lines) != layout.lines or layout.fixed_of(lines) != layout.fixed:
            return None
        picked = layout.wanted_of(lines)
        rests = list(map(bytes.removeprefix, picked, layout.prefixes))
        if any(map(is_, rests, picked)):  # removeprefix gives back the line itself where it does not begin so
            return None
        if not all(map(bytes.startswith, layout.skipped_of(lines), layout.skipped)):
            return None
        return self._page(layout, rests)

    def _page(self, layout: _Layout, rests: list[bytes]) -> Page | None:
        values = _plain_numbers(rests)
        if values is not None:
            return Page(layout.shape, values)
        readings = []
        for rest in rests:
            reading = _reading(rest, bool(self._dialect))
            if isinstance(reading, str):
                return None  # learning says where and what
            readings.append(reading)
        return _stamped(layout.shape, readings)

    def _learn(self, body: bytes, openmetrics: bool) -> Page:
        """Takes the page apart line by line, and keeps its layout."""
        known = self._layout.known if self._layout else {}
        self._layout = None
        lesson = _Lesson(self._target, self._limits, openmetrics, known, self._wanted)
        layout, readings = lesson.learn(body)
        self._layout, self._dialect = layout, openmetrics
        return _stamped(layout.shape, readings)


def parse(
    body: bytes,
    *,
    target: str = "page",
    openmetrics: bool | None = None,
    limits: Limits = Limits(),
) -> Page:
    """One page, once, with all its series. Raises Garbled."""
    return Reader(target, limits=limits).read(body, openmetrics=openmetrics)


def sample(line: bytes, blocks: dict[str, _Labels], limits: Limits = Limits()) -> tuple[Series, float]:
    """One line of a page that is not kept: whose number it is, and the number. Raises ValueError with the reason.

    ``blocks`` keeps label blocks from line to line: many families of a page say the same of an object.
    """
    text = line.decode("utf-8")  # UnicodeDecodeError is a ValueError
    end, series = _tokenise(text, limits, blocks)
    reading = _reading(text[end:].encode(), False)
    if isinstance(reading, str):
        raise ValueError(reading)
    return series, reading[0]


Reading = tuple[float, float | None]
_Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """A page without its numbers: for each line what it is, and the bytes that do not change."""

    shape: Shape
    lines: int
    fixed_of: Callable[[Lines], tuple[bytes, ...]]
    fixed: tuple[bytes, ...]
    """Comments and blank lines, whole."""
    wanted_of: Callable[[Lines], tuple[bytes, ...]]
    prefixes: tuple[bytes, ...]
    """Of each wanted sample: all bytes before its number."""
    skipped_of: Callable[[Lines], tuple[bytes, ...]]
    skipped: tuple[bytes, ...]
    known: dict[bytes, Series]


class _Lesson:
    """One pass over a page that is not known, or not any more."""

    def __init__(
        self,
        target: str,
        limits: Limits,
        openmetrics: bool,
        known: dict[bytes, Series],
        wanted: Wanted | None,
    ) -> None:
        self._target = target
        self._limits = limits
        self._openmetrics = openmetrics
        self._known = known
        self._wanted = wanted
        self._types: dict[str, str] = {}
        self._seen: dict[bytes, Series] = {}
        self._samples: list[tuple[int, bytes, Series]] = []
        self._skips: list[tuple[int, bytes]] = []
        self._fixed: list[int] = []
        self._readings: list[Reading] = []
        self._names: set[str] = set()
        self._blocks: dict[str, _Labels] = {}

    def learn(self, body: bytes) -> tuple[_Layout, list[Reading]]:
        """The layout, and this page's readings of the wanted samples."""
        lines = self._lines(body)
        ended = False
        for number, line in enumerate(lines):
            text = line.strip()
            if not text or text.startswith(b"#"):
                self._fixed.append(number)
                ended = ended or (self._openmetrics and text == b"# EOF")
                self._comment(text)
            elif ended:
                self._refuse(number, "a sample after # EOF", line)
            else:
                self._sample(number, line)
        if self._openmetrics and not ended:
            raise Garbled(
                self._target,
                "the page is cut off: no # EOF at its end",
                "ask again; then look at the exporter's log",
            )
        return self._layout(lines), self._readings

    def _lines(self, body: bytes) -> list[bytes]:
        if len(body) > self._limits.page_bytes:
            raise Garbled(self._target, f"the page is larger than {show(self._limits.page_bytes, 'B')}")
        lines = body.split(b"\n", self._limits.lines)
        if len(lines) > self._limits.lines:
            raise Garbled(self._target, f"the page has more than {self._limits.lines} lines")
        if lines[-1].strip() and not (self._openmetrics and lines[-1].strip() == b"# EOF"):
            self._refuse(len(lines) - 1, "the page is cut off: its last line has no end", lines[-1])
        return lines

    def _comment(self, text: bytes) -> None:
        words = text.split(None, 3)
        if (
            len(words) == 4
            and words[0] == b"#"
            and words[1] == b"TYPE"
            and len(text) <= self._limits.line_bytes
        ):
            name = words[2].decode("utf-8", "replace").strip('"')
            self._types[name] = words[3].decode("utf-8", "replace").strip()

    def _sample(self, number: int, line: bytes) -> None:
        if len(line) > self._limits.line_bytes:
            self._refuse(number, f"longer than {self._limits.line_bytes} bytes", line)
        guess = line[: line.rfind(b"} ") + 2]
        series = self._known.get(guess)
        prefix = guess
        if series is None:
            prefix, series = self._head(number, line)
        reading = _reading(line[len(prefix) :], self._openmetrics)
        if isinstance(reading, str):
            self._refuse(number, reading, line)
        self._names.add(series.name)
        if self._wanted is not None and not self._wanted(series.name):
            self._skips.append((number, prefix))
            return
        if len(self._samples) >= self._limits.series:
            self._refuse(number, f"more than {self._limits.series} series", line)
        self._seen[prefix] = series
        self._samples.append((number, prefix, series))
        self._readings.append(reading)

    def _head(self, number: int, line: bytes) -> tuple[bytes, Series]:
        """The bytes before the number, and the series they name."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            self._refuse(number, "not UTF-8 text", line)
        try:
            end, series = _tokenise(text, self._limits, self._blocks)
        except ValueError as error:
            self._refuse(number, str(error), line)
        return text[:end].encode(), series

    def _layout(self, lines: list[bytes]) -> _Layout:
        fixed_of = _picker(self._fixed)
        shape = Shape(tuple(s for _, _, s in self._samples), self._types, frozenset(self._names))
        return _Layout(
            shape=shape,
            lines=len(lines),
            fixed_of=fixed_of,
            fixed=fixed_of(lines),
            wanted_of=_picker([n for n, _, _ in self._samples]),
            prefixes=tuple(p for _, p, _ in self._samples),
            skipped_of=_picker([n for n, _ in self._skips]),
            skipped=tuple(p for _, p in self._skips),
            known=self._seen,
        )

    def _refuse(self, number: int, reason: str, line: bytes) -> NoReturn:
        shown = line[:60].decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")
        more = "..." if len(line) > 60 else ""
        raise Garbled(
            self._target,
            f"not a metrics page: line {number + 1}: {reason}: {shown}{more}",
            "check that the address and path are an exporter's (usually /metrics)",
        )


_JSON = msgspec.json.Decoder(list[float])
_BLANKS = " \t"
_NAME = re.compile(r"[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)?[ \t]*")
_QUOTED = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_QUOTED_NAME = re.compile(rf"[ \t]*{_QUOTED}[ \t]*([,}}])")
_LABEL = re.compile(rf"[ \t]*(?:([a-zA-Z_][a-zA-Z0-9_]*)|{_QUOTED})[ \t]*=[ \t]*{_QUOTED}[ \t]*([,}}])")
_CLOSE = re.compile(r"[ \t]*}")
_GAP = re.compile(r"[ \t]*")
_ESCAPE = re.compile(r'\\([\\n"])')
_HEXADECIMAL = re.compile(r"[+-]?0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*[pP][+-]?[0-9]+")


def _tokenise(text: str, limits: Limits, blocks: dict[str, _Labels]) -> tuple[int, Series]:
    """Where the number begins, and the series before it. Raises ValueError with the reason.

    ``blocks`` keeps label blocks met before: the same GPU stands behind every family of a page.
    """
    match = _NAME.match(text)
    name, at = (match[1] or "", match.end()) if match else ("", 0)
    labels: _Labels = ()
    if text.startswith("{", at):
        begin = at
        known = blocks.get(text[begin : text.rfind("}") + 1]) if name else None
        if known is not None:
            return _end(_GAP, text, text.rfind("}") + 1), Series(name, known)
        at, quoted, labels = _labels(text, at + 1, limits)
        if quoted is None:
            blocks[text[begin:at]] = labels
        elif name:
            raise ValueError("two metric names")
        name = quoted if quoted is not None else name
        at = _end(_GAP, text, at)
    elif not name or text[at - 1] not in _BLANKS:
        raise ValueError("not a sample")
    if not name:
        raise ValueError("no metric name")
    if len(name) > limits.label_chars:
        raise ValueError(f"a name longer than {limits.label_chars} characters")
    return at, Series(name, labels)


def _labels(text: str, at: int, limits: Limits) -> tuple[int, str | None, _Labels]:
    """From behind the brace: where its pair ends, a quoted metric name if there is one, the labels."""
    quoted: str | None = None
    labels: dict[str, str] = {}
    head = _QUOTED_NAME.match(text, at)
    if head:
        quoted, at = _unescape(head[1]), head.end()
        if head[2] == "}":
            return at, quoted, ()
    while True:
        close = _CLOSE.match(text, at)
        if close:
            return close.end(), quoted, tuple(labels.items())
        match = _LABEL.match(text, at)
        if not match:
            raise ValueError('a label that is not name="value"')
        name = match[1] if match[1] is not None else _unescape(match[2])
        if name in labels:
            raise ValueError(f"the label {name[:40]!r} twice")
        if len(match[3]) > limits.label_chars or len(name) > limits.label_chars:
            raise ValueError(f"a label longer than {limits.label_chars} characters")
        if len(labels) >= limits.labels:
            raise ValueError(f"more than {limits.labels} labels")
        labels[name] = _unescape(match[3])
        at = match.end()
        if match[4] == "}":
            return at, quoted, tuple(labels.items())


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], text)


def _reading(rest: bytes, openmetrics: bool) -> Reading | str:
    """``value [timestamp] [# exemplar]`` -> value and seconds; a text says what is wrong with it."""
    if not rest.isascii() and not _is_utf8(rest):
        return "not UTF-8 text"
    words = rest.partition(b"#")[0].split()
    if not 1 <= len(words) <= 2:
        return "no number" if not words else "more than a number and a timestamp"
    value = _number(words[0])
    if value is None:
        return "not a number"
    if len(words) == 1:
        return value, None
    stamp = _number(words[1])
    if stamp is None or not np.isfinite(stamp):
        return "not a timestamp"
    return value, stamp if openmetrics else stamp / 1000


def _plain_numbers(rests: list[bytes]) -> NDArray[np.float64] | None:
    """Every rest as one number; None if any of them is something else: a timestamp, an exemplar, rubbish."""
    try:
        # JSON's numbers are most of ours, and its decoder is twice as fast as float(). A comma in a rest shows.
        numbers = _JSON.decode(b"[" + b",".join(rests) + b"]")
        if len(numbers) == len(rests):
            return np.fromiter(numbers, np.float64, len(rests))
    except msgspec.DecodeError:
        pass
    if b"_" in b"".join(rests):  # float() reads 1_000
        return None
    try:
        return np.fromiter(map(float, rests), np.float64, len(rests))
    except ValueError:
        return None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _number(word: bytes) -> float | None:
    """A number as Go's ParseFloat reads it; None if it is none."""
    if b"_" in word:
        return None
    try:
        return float(word)
    except ValueError:
        pass
    text = word.decode("ascii", "replace")
    if not _HEXADECIMAL.fullmatch(text):
        return None
    try:
        return float.fromhex(text)
    except (ValueError, OverflowError):
        return None


def _stamped(shape: Shape, readings: list[Reading]) -> Page:
    values = np.array([value for value, _ in readings], np.float64)
    if all(stamp is None for _, stamp in readings):
        return Page(shape, values)
    stamps = np.array([np.nan if stamp is None else stamp for _, stamp in readings], np.float64)
    return Page(shape, values, stamps)


def _ends_with_eof(body: bytes) -> bool:
    tail = body[-16:].rstrip()
    return tail == b"# EOF" or tail.endswith(b"\n# EOF")


def _picker(indices: list[int]) -> Callable[[Lines], tuple[bytes, ...]]:
    """A function that takes these items of a list, at C speed."""
    if len(indices) > 1:
        return itemgetter(*indices)
    return lambda lines: tuple(lines[i] for i in indices)
