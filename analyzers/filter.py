"""The filter language: what people type into ``/`` and give to ``--where``, as a tree.

::

    filter      any
    any         all { ("|" | "or") all }
    all         not { ("&" | "and") not }
    not         ("!" | "not") not | "(" any ")" | "missing" "(" field ")" | comparison | words
    comparison  field ("<" "<=" ">" ">=" "==" "!=" "~=" "!~") value      = is ==, =~ is ~=
    words       word { word }                                            any of them

A word is a part of a name (``r07``), a pattern (``*n03``) or a node set (``r[01-04]n02``). A value may have a
display unit (``util<5`` is per cent, ``mem>70GiB``, ``left<1h30m``); ``field==-`` is ``missing(field)``. What holds
blanks or signs is quoted: ``jobname=="train moe"``; a quoted value is never a pattern. After ``~=`` stands a
regular expression (:mod:`.patterns`), up to a blank, or a sign outside its brackets.

Nothing here knows what fields there are: :mod:`.selection` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from coldaisle.sources.errors import FilterError

MAX_LENGTH = 1000
"""Characters of a filter."""
MAX_DEPTH = 40
"""Brackets and negations inside each other."""
MAX_WORDS = 64
"""Words of one filter."""


class Op(StrEnum):
    """How a field is compared."""

    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    IS = "=="
    IS_NOT = "!="
    LIKE = "~="
    UNLIKE = "!~"


class Span(NamedTuple):
    """A part of what was typed: characters [start, stop)."""

    start: int
    stop: int


NOWHERE = Span(0, 0)


@dataclass(frozen=True, slots=True)
class Words:
    """Names: any of them."""

    words: tuple[str, ...]
    spans: tuple[Span, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field against a value."""

    name: str
    """Of the field."""
    op: Op
    value: str
    literal: bool = False
    """It was quoted: no pattern, no node set."""
    at: Span = field(default=NOWHERE, compare=False)
    """Where the field was typed."""
    value_at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Absent:
    """Whether a field has no value."""

    name: str
    at: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary."""

    of: Filter


@dataclass(frozen=True, slots=True)
class All:
    """Two or more that must all hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """Two or more of which one must hold."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = Words | Comparison | Absent | Not | All | Any

_OPERATOR = re.compile(r"<=|>=|==|!=|~=|=~|!~|<|>|=")
_WORD = re.compile(r"""(?:(?!~=|=~|!=|!~)[^\s&|()<>="'])(?:(?!~=|=~|!=|!~)[^\s&|()<>=])*""")
"""``!`` inside a word belongs to it, as in the node set ``r[1-9]!r3``; so do quotes."""
_EXPRESSION = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\.|[^\s]", re.DOTALL)
"""A piece of a regular expression."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
_UNIT = re.compile(r"[A-Za-z%°µ][A-Za-z%°µ/]{0,9}")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}", re.ASCII)
_ESCAPED = re.compile(r"\\([\\\"'])")
_AND, _OR, _NOT = ("&", "and"), ("|", "or"), ("!", "not")
_KEYWORDS = frozenset({"and", "or", "not"})
_SYNONYMS = {"=": "==", "=~": "~="}


def parse(text: str) -> Filter | None:
    """The tree of a filter, None for an empty one; FilterError says what is wrong, where, and what to do."""
    if len(text) > MAX_LENGTH:
        raise FilterError(f"a filter has at most {MAX_LENGTH} characters", start=MAX_LENGTH, stop=len(text))
    if not text.strip():
        return None
    return _Parser(text).whole()


def show(tree: Filter) -> str:
    """A filter that parses to this tree."""
    match tree:
        case Words(words):
            return " ".join(word if _is_bare(word) else _quoted(word) for word in words)
        case Comparison(name, op, value, literal):
            return f"{name}{op}{_shown_value(op, value, literal=literal)}"
        case Absent(name):
            return f"missing({name})"
        case Not(of):
            return f"!{_bracketed(of, All, Any)}"
        case All(parts):
            return " & ".join(_bracketed(part, All, Any) for part in parts)
        case Any(parts):
            return " | ".join(_bracketed(part, Any) for part in parts)


def caret(error: FilterError, text: str, width: int) -> tuple[str, str]:
    """The part of ``text`` that the error concerns, in at most ``width`` characters, and carets under it."""
    first = 0 if error.stop <= width else max(0, error.start - width // 2)
    shown = text[first : first + width]
    count = max(1, min(error.stop, first + width) - error.start)
    return shown, " " * (error.start - first) + "^" * min(count, max(1, width - (error.start - first)))


def _bracketed(tree: Filter, *loose: type) -> str:
    return f"({show(tree)})" if isinstance(tree, loose) else show(tree)


def _shown_value(op: Op, value: str, *, literal: bool) -> str:
    if op in (Op.LIKE, Op.UNLIKE):
        return value if _WORD.fullmatch(value) and value.isalnum() else _quoted(value)
    return _quoted(value) if literal else value


def _is_bare(word: str) -> bool:
    return bool(_WORD.fullmatch(word)) and word[0] != "!" and word.casefold() not in _KEYWORDS


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Parser:
    """Reads from left to right; ``at`` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.words = 0

    def whole(self) -> Filter:
        tree = self.any()
        self._skip()
        if self.at < len(self.text):
            here = self.text[self.at]
            if here == ")":
                raise self._error("a bracket ends that never began", "take it away, or write ( before it", 1)
            raise self._error("two conditions side by side", "write & (both) or | (either) between them", 1)
        return tree

    def any(self) -> Filter:
        return self._joined(self.all, _OR, Any)

    def all(self) -> Filter:
        return self._joined(self.negated, _AND, All)

    def _joined(
        self, part: Callable[[], Filter], signs: tuple[str, str], kind: Callable[[tuple[Filter, ...]], Filter]
    ) -> Filter:
        parts = [part()]
        while self._takes(signs):
            parts.append(part())
        return parts[0] if len(parts) == 1 else kind(tuple(parts))

    def negated(self) -> Filter:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} brackets inside each other", "write it flatter", 1)
        tree = Not(self.negated()) if self._takes(_NOT) else self._one()
        self.depth -= 1
        return tree

    def _one(self) -> Filter:
        self._skip()
        if self.text.startswith("(", self.at):
            return self._group()
        begun = self.at
        word, span = self._word()
        if word.casefold() == "missing" and self.text[begun] not in "\"'" and self._next() == "(":
            return self._absent()
        self._skip()
        if (operator := _OPERATOR.match(self.text, self.at)) is not None:
            return self._comparison(word, span, operator)
        return self._names(word, span)

    def _group(self) -> Filter:
        opened = self.at
        self.at += 1
        tree = self.any()
        if self._next() != ")":
            raise FilterError("a bracket is not closed", "write ) after it", start=opened, stop=opened + 1)
        self.at += 1
        return tree

    def _absent(self) -> Filter:
        opened = self.at
        self.at += 1
        self._skip()
        name = _FIELD.match(self.text, self.at)
        if name is None:
            raise self._error("missing( wants a field", "write missing(power)", 1)
        self.at = name.end()
        if self._next() != ")":
            raise FilterError("a bracket is not closed", "write ) after it", start=opened, stop=opened + 1)
        self.at += 1
        return Absent(name[0], Span(name.start(), name.end()))

    def _comparison(self, name: str, span: Span, operator: re.Match[str]) -> Filter:
        if not _FIELD.fullmatch(name):
            raise FilterError(
                f"{name[:40]!r} is not a field", "write a field, as in util<5", span.start, span.stop
            )
        op = Op(_SYNONYMS.get(operator[0], operator[0]))
        self.at = operator.end()
        self._skip()
        begun = self.at
        quoted = begun < len(self.text) and self.text[begun] in "\"'"
        if quoted:
            value = self._string()
        elif op in (Op.LIKE, Op.UNLIKE):
            value = self._expression()
        else:
            value = self._value()
        if not value and not quoted:
            raise FilterError(
                f"a value is missing after {name}{operator[0]}", "write one, as in util<5", begun - 1, begun
            )
        where = Span(begun, self.at)
        if value == "-" and not quoted and op in (Op.IS, Op.IS_NOT):
            return Absent(name, span) if op is Op.IS else Not(Absent(name, span))
        is_literal = quoted and op not in (Op.LIKE, Op.UNLIKE)
        return Comparison(name, op, value, is_literal, span, where)

    def _value(self) -> str:
        found = _WORD.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        if not _NUMBER.fullmatch(found[0]):
            return found[0]
        # ``70 GiB``, as values are shown
        gap = re.compile(r"\s+").match(self.text, self.at)
        unit = _WORD.match(self.text, gap.end()) if gap else None
        if unit is None or not _UNIT.fullmatch(unit[0]) or unit[0].casefold() in _KEYWORDS:
            return found[0]
        self.at = unit.end()
        return found[0] + unit[0]

    def _expression(self) -> str:
        """Up to a blank, or a sign that no bracket of its own holds."""
        begun, depth = self.at, 0
        while (piece := _EXPRESSION.match(self.text, self.at)) is not None:
            if depth == 0 and piece[0] in (")", "&", "|"):
                break
            depth += {"(": 1, ")": -1}.get(piece[0], 0)
            self.at = piece.end()
        return self.text[begun : self.at]

    def _names(self, word: str, span: Span) -> Filter:
        words, spans = [word], [span]
        while self._begins_word():
            before = self.at
            word, span = self._word()
            self._skip()
            if _OPERATOR.match(self.text, self.at) or self.text.startswith("(", self.at):
                self.at = before  # the next condition: whoever called says what is missing between
                break
            words.append(word)
            spans.append(span)
        self.words += len(words)
        if self.words > MAX_WORDS:
            raise FilterError(
                f"more than {MAX_WORDS} names", "write them as a node set", span.start, span.stop
            )
        return Words(tuple(words), tuple(spans))

    def _begins_word(self) -> bool:
        self._skip()
        if self.at >= len(self.text):
            return False
        if self.text[self.at] in "\"'":
            return True
        found = _WORD.match(self.text, self.at)
        return found is not None and found[0][0] != "!" and found[0].casefold() not in _KEYWORDS

    def _word(self) -> tuple[str, Span]:
        begun = self.at
        if not self._begins_word():
            raise self._nothing_here()
        if self.text[self.at] in "\"'":
            word = self._string()
            if not word:
                raise FilterError("an empty name", "write a part of a name", begun, self.at)
        else:
            found = _WORD.match(self.text, self.at)
            assert found is not None
            word, self.at = found[0], found.end()
        return word, Span(begun, self.at)

    def _string(self) -> str:
        sign, begun = self.text[self.at], self.at
        at = begun + 1
        while at < len(self.text) and self.text[at] != sign:
            at += 2 if self.text[at] == "\\" else 1
        if at >= len(self.text):
            raise FilterError("a quoted text has no end", f"write {sign} after it", begun, len(self.text))
        self.at = at + 1
        return _ESCAPED.sub(r"\1", self.text[begun + 1 : at])

    def _takes(self, signs: tuple[str, str]) -> bool:
        """Whether a sign stands here, as such (``&``, ``&&``) or as a word; it is passed over."""
        self._skip()
        sign, word = signs
        if self.text.startswith(sign, self.at):
            self.at += 2 if sign != "!" and self.text.startswith(sign * 2, self.at) else 1
            return True
        found = _WORD.match(self.text, self.at)
        if found is None or found[0].casefold() != word:
            return False
        self.at = found.end()
        return True

    def _nothing_here(self) -> FilterError:
        if self.at >= len(self.text):
            return self._error(
                "something is missing at the end", "write a name, or a condition as in util<5", 1
            )
        if self.text[self.at] in "\"'":
            return self._error("a quote stands alone", "close it", 1)
        if (operator := _OPERATOR.match(self.text, self.at)) is not None:
            remedy = f"write a field before it, as in util{operator[0]}5"
            return self._error(f"a field is missing before {operator[0]}", remedy, len(operator[0]))
        return self._error("a name or a condition is missing here", "write one, as in r07 or util<5", 1)

    def _next(self) -> str:
        self._skip()
        return self.text[self.at : self.at + 1]

    def _skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _error(self, problem: str, remedy: str, length: int) -> FilterError:
        return FilterError(problem, remedy, start=self.at, stop=self.at + length)
