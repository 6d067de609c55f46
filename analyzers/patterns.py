r"""Regular expressions that cannot hang: people type them while a screen waits, names come from anywhere.

What Python's ``re`` does by trying out (``(a+)+$`` on thirty letters takes hours) is done here by an automaton
that looks at every character once (Thompson 1968; states are made when they are first met). It knows ``. [a-z]
[^x] ( ) | * + ? {m,n} ^ $ \d \w \s \D \W \S`` and escapes; not back references, look-around or lazy signs.
Letters of either case are alike. Texts are looked at up to MAX_TEXT characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_PATTERN = 200
"""Characters of an expression."""
MAX_NODES = 400
"""Of the automaton; ``{m,n}`` multiplies them."""
MAX_DEPTH = 30
"""Brackets inside each other."""
MAX_TEXT = 512
MAX_STATES = 2000
"""That are kept of one automaton; then they are made anew."""

Test: TypeAlias = Callable[[str], bool]
_SIGNS = frozenset("\\.[](){}*+?|^$")
_CLASSES: dict[str, Test] = {
    "d": str.isdigit,
    "w": lambda char: char.isalnum() or char == "_",
    "s": str.isspace,
}


class PatternError(ValueError):
    """A mistake in an expression; ``at``: its first character."""

    def __init__(self, problem: str, at: int) -> None:
        super().__init__(problem)
        self.at = at


@dataclass(slots=True, eq=False)
class _Node:
    """A state of the automaton: what it lets pass, and where it leads."""

    test: Test | str | None = None
    """A test of a character; ``^`` or ``$``; None: passes by itself."""
    to: list[_Node] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _State:
    """A set of nodes, and where characters lead from it."""

    nodes: tuple[_Node, ...]
    is_match: bool
    ends: bool
    """Whether it matches where the text ends."""
    after: dict[str, _State] = field(default_factory=dict)


class Pattern:
    """A compiled expression; ``search`` costs a step a character, whatever the expression is."""

    def __init__(self, text: str) -> None:
        """PatternError says what is wrong with it."""
        if len(text) > MAX_PATTERN:
            raise PatternError(f"a regular expression has at most {MAX_PATTERN} characters", MAX_PATTERN)
        self.text = text
        parser = _Parser(text)
        self._first, self._last = parser.whole()
        self._states: dict[frozenset[int], _State] = {}
        self._start = self._state([self._first], at_start=True)

    def search(self, text: str) -> bool:
        """Whether any part of the text matches."""
        state = self._start
        for char in text[:MAX_TEXT]:
            if state.is_match:
                return True
            following = state.after.get(char)
            if following is None:
                following = self._step(state, char)
            state = following
        return state.is_match or state.ends

    def _step(self, state: _State, char: str) -> _State:
        alike = {char, char.lower(), char.upper()}
        reached = [
            following
            for node in state.nodes
            if callable(node.test) and any(map(node.test, alike))
            for following in node.to
        ]
        # what is sought may begin at every character
        following = self._state([*reached, self._first], at_start=False)
        state.after[char] = following
        return following

    def _state(self, begun: Iterable[_Node], *, at_start: bool) -> _State:
        nodes = _closure(begun, at_start=at_start, at_end=False)
        key = frozenset(map(id, nodes))
        if at_start or (known := self._states.get(key)) is None:
            known = _State(
                tuple(nodes),
                self._last in nodes,
                self._last in _closure(begun, at_start=at_start, at_end=True),
            )
            if len(self._states) >= MAX_STATES:
                self._states = {}
                self._start.after.clear()
            if not at_start:
                self._states[key] = known
        return known


def _closure(begun: Iterable[_Node], *, at_start: bool, at_end: bool) -> dict[_Node, None]:
    """Every node that is reached without a character."""
    found: dict[_Node, None] = {}
    waiting = list(begun)
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        found[node] = None
        if node.test is None or (node.test == "^" and at_start) or (node.test == "$" and at_end):
            waiting.extend(node.to)
    return found


_Piece: TypeAlias = tuple[_Node, _Node]


class _Parser:
    """Reads an expression; every piece is an automaton with one entrance and one exit."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.count = 0
        self.depth = 0

    def whole(self) -> _Piece:
        piece = self._either()
        if self.at < len(self.text):
            raise PatternError("a bracket ends that never began", self.at)
        return piece

    def _either(self) -> _Piece:
        first, last = self._node(), self._node()
        while True:
            begin, end = self._sequence()
            first.to.append(begin)
            end.to.append(last)
            if not self._takes("|"):
                return first, last

    def _sequence(self) -> _Piece:
        first = last = self._node()
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            begin, end = self._repeated()
            last.to.append(begin)
            last = end
        return first, last

    def _repeated(self) -> _Piece:
        begun = self.at
        piece = self._atom()
        ended = self.at
        while self.at < len(self.text) and self.text[self.at] in "*+?{":
            bounds = self._bounds()
            if bounds is None:
                break
            if piece is not None and self.at < len(self.text) and self.text[self.at] in "?+":
                raise PatternError("lazy and possessive signs are not known here", self.at)
            resume = self.at
            piece = self._times(begun, ended, piece, *bounds)
            self.at, ended = resume, resume
        return piece

    def _bounds(self) -> tuple[int, int | None] | None:
        sign = self.text[self.at]
        if sign != "{":
            self.at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        inside, closed, _ = self.text[self.at + 1 :].partition("}")
        low, comma, high = inside.partition(",")
        numbers = all(
            part.isascii() and part.isdigit() and len(part) <= 3 for part in (low or "0", high or "0")
        )
        if not closed or not numbers or not (low or high):
            raise PatternError("{ wants numbers: write {3} or {2,5}, or \\{ for the sign itself", self.at)
        least = int(low or 0)
        most = (int(high) if high else None) if comma else least
        if most is not None and most < least:
            raise PatternError(f"{{{inside}}} ends before it begins", self.at)
        self.at += len(inside) + 2
        return least, most

    def _times(self, begun: int, ended: int, piece: _Piece, least: int, most: int | None) -> _Piece:
        """A piece repeated: copies of it are read again from the text."""

        def copy() -> _Piece:
            again = _Parser(self.text[:ended])
            again.at, again.count, again.depth = begun, self.count, self.depth
            made = again._repeated()
            self.count = again.count
            return made

        first, last = self._node(), self._node()
        at, unused = first, [piece]
        for _ in range(least):
            begin, end = unused.pop() if unused else copy()
            at.to.append(begin)
            at = end
        if most is None:
            begin, end = unused.pop() if unused else copy()
            loop = self._node()
            at.to.append(loop)
            loop.to += [begin, last]
            end.to.append(loop)
            return first, last
        for _ in range(most - least):
            begin, end = unused.pop() if unused else copy()
            at.to += [begin, last]
            at = end
        at.to.append(last)
        return first, last

    def _atom(self) -> _Piece:
        char, begun = self.text[self.at], self.at
        self.at += 1
        if char == "(":
            return self._group(begun)
        if char in "*+?{":
            raise PatternError(f"nothing stands before {char}: write \\{char} for the sign itself", begun)
        if char in "^$":
            return self._single(char)
        if char == ".":
            return self._single(lambda _: True)
        if char == "[":
            return self._single(self._set(begun))
        return self._single(self._escape(begun) if char == "\\" else _equal(char))

    def _group(self, begun: int) -> _Piece:
        if self.text.startswith("?:", self.at):
            self.at += 2
        elif self.text.startswith("?", self.at):
            raise PatternError("(? is not known here, except (?:", begun)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise PatternError(f"more than {MAX_DEPTH} brackets inside each other", begun)
        piece = self._either()
        self.depth -= 1
        if not self._takes(")"):
            raise PatternError("a bracket is not closed", begun)
        return piece

    def _escape(self, begun: int) -> Test:
        if self.at >= len(self.text):
            raise PatternError("\\ stands at the end: write \\\\ for the sign itself", begun)
        char = self.text[self.at]
        self.at += 1
        if char in _CLASSES:
            return _CLASSES[char]
        if char.lower() in _CLASSES:
            inside = _CLASSES[char.lower()]
            return lambda other: not inside(other)
        if char.isalnum():
            raise PatternError(f"\\{char} is not known here", begun)
        return _equal(char)

    def _set(self, begun: int) -> Test:
        negated = self._takes("^")
        tests: list[Test] = []
        while True:
            if self.at >= len(self.text):
                raise PatternError("[ is not closed", begun)
            if self.text[self.at] == "]" and tests:
                self.at += 1
                break
            tests.append(self._set_item())
        if negated:
            # neither spelling of a letter may be inside
            return lambda char: not any(test(one) for test in tests for one in (char.lower(), char.upper()))
        return lambda char: any(test(char) for test in tests)

    def _set_item(self) -> Test:
        low = self.text[self.at]
        self.at += 1
        if low == "\\":
            begun = self.at - 1
            test = self._escape(begun)
            low = self.text[self.at - 1]
            if low.lower() in _CLASSES:
                return test
        rest = self.text[self.at : self.at + 2]
        if len(rest) < 2 or rest[0] != "-" or rest[1] == "]":
            return _equal(low)
        high = rest[1]
        self.at += 2
        if high == "\\":
            self._escape(self.at - 1)
            high = self.text[self.at - 1]
        if high < low:
            raise PatternError(f"{low}-{high} ends before it begins", self.at - 3)
        return lambda char: low <= char <= high

    def _single(self, test: Test | str) -> _Piece:
        first, last = self._node(), self._node()
        first.test = test
        first.to.append(last)
        return first, last

    def _node(self) -> _Node:
        self.count += 1
        if self.count > MAX_NODES * 2:
            raise PatternError("the expression is too large: repeat less", max(self.at - 1, 0))
        return _Node()

    def _takes(self, char: str) -> bool:
        if not self.text.startswith(char, self.at):
            return False
        self.at += 1
        return True


def _equal(char: str) -> Test:
    return lambda other: other == char
