"""The filter language: what parses to what, and that nothing that can be typed does anything but work or explain itself."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.analyzers.filter import (
    MAX_LENGTH,
    Absent,
    All,
    Any,
    Comparison,
    Filter,
    Not,
    Op,
    Words,
    caret,
    parse,
    show,
)
from coldaisle.sources.errors import FilterError

words = st.text(string.ascii_letters + string.digits + "_.:/[]-*?,", min_size=1, max_size=12)
fields = st.from_regex(r"\A[a-z][a-z_]{0,8}(\.[a-z_]{1,6})?\Z")
bare_values = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_%/*?.\[\],-]{0,10}\Z")
compared = st.sampled_from([op for op in Op if op not in (Op.LIKE, Op.UNLIKE)])


def names(draw_from: st.SearchStrategy[str]) -> st.SearchStrategy[Filter]:
    return st.lists(draw_from, min_size=1, max_size=3).map(lambda found: Words(tuple(found)))


leaves: st.SearchStrategy[Filter] = st.one_of(
    names(words),
    names(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)),
    st.builds(Comparison, fields, compared, bare_values),
    st.builds(Comparison, fields, compared, st.text(max_size=10), st.just(True)),
    st.builds(Comparison, fields, st.sampled_from([Op.LIKE, Op.UNLIKE]), st.text(min_size=1, max_size=12)),
    st.builds(Absent, fields),
)


def branches(parts: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(Not, parts), st.builds(All, several), st.builds(Any, several))


trees = st.recursive(leaves, branches, max_leaves=8)


@given(trees)
def test_what_is_shown_parses_to_the_same(tree: Filter) -> None:
    if len(show(tree)) <= MAX_LENGTH:
        assert parse(show(tree)) == tree


@given(st.text(max_size=60) | st.text("ab0 <>=!~&|()[]\"'\\-.*?%missingandornot", max_size=60))
def test_any_text_is_a_filter_or_a_mistake_with_its_place(text: str) -> None:
    tree, error = outcome(text)
    if error is None:
        assert tree is None or parse(show(tree)) == tree
        return
    assert 0 <= error.start < error.stop <= max(len(text), error.start) + 1
    assert str(error)
    shown, marks = caret(error, text, 30)
    assert len(shown) <= 30
    assert len(marks) <= 31
    assert marks.strip() == "^" * len(marks.strip())


def outcome(text: str) -> tuple[Filter | None, FilterError | None]:
    try:
        return parse(text), None
    except FilterError as error:
        return None, error


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", None),
        ("   ", None),
        ("r07", Words(("r07",))),
        ("r01 r02", Words(("r01", "r02"))),
        ("r[01-04]n02!r02n02 *n03", Words(("r[01-04]n02!r02n02", "*n03"))),
        ("util<5", Comparison("util", Op.LESS, "5")),
        ("util <= 5%", Comparison("util", Op.AT_MOST, "5%")),
        ("mem>70 GiB", Comparison("mem", Op.MORE, "70GiB")),
        ("user=alice", Comparison("user", Op.IS, "alice")),
        ('jobname=="train moe"', Comparison("jobname", Op.IS, "train moe", literal=True)),
        ("host~=r0[7|8](a|b) & x", All((Comparison("host", Op.LIKE, "r0[7|8](a|b)"), Words(("x",))))),
        ("(host=~r07)", Comparison("host", Op.LIKE, "r07")),
        ("power==-", Absent("power")),
        ("power!=-", Not(Absent("power"))),
        ("missing( power )", Absent("power")),
        ("missing", Words(("missing",))),
        ("a | b & !c", Any((Words(("a",)), All((Words(("b",)), Not(Words(("c",)))))))),
        ("a or b and not c", Any((Words(("a",)), All((Words(("b",)), Not(Words(("c",)))))))),
        ("a || b && c", Any((Words(("a",)), All((Words(("b",)), Words(("c",))))))),
        ("(a b)", Words(("a", "b"))),
        ('"or"', Words(("or",))),
        ("temp>-5", Comparison("temp", Op.MORE, "-5")),
        ("util<5 and r07", All((Comparison("util", Op.LESS, "5"), Words(("r07",))))),
    ],
)
def test_what_means_what(text: str, tree: Filter | None) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "start", "problem", "remedy"),
    [
        ("r07 util<5", 4, "two conditions side by side", "write & (both) or | (either)"),
        ("util<", 4, "a value is missing after util<", "util<5"),
        ("<5", 0, "a field is missing before <", "write a field"),
        ("(r07", 0, "a bracket is not closed", "write )"),
        ("r07)", 3, "a bracket ends that never began", "take it away"),
        ("r07 &", 5, "something is missing at the end", "write a name"),
        ("& r07", 0, "a name or a condition is missing here", "r07"),
        ('user=="x', 6, "a quoted text has no end", 'write " after it'),
        ("7x<5", 0, "'7x' is not a field", "write a field"),
        ("x" * 1001, 1000, "at most 1000 characters", ""),
        ("(" * 60, 40, "more than 40 brackets", "flatter"),
        ("!" * 900 + "a", 40, "more than 40 brackets", "flatter"),
        ("a " * 65, 128, "more than 64 names", "node set"),
    ],
)
def test_mistakes_have_a_place_and_a_remedy(text: str, start: int, problem: str, remedy: str) -> None:
    with pytest.raises(FilterError, match=re.escape(problem)) as raised:
        parse(text)
    assert raised.value.start == start
    assert remedy in raised.value.remedy


def test_the_caret_stands_under_the_mistake() -> None:
    error = FilterError("", "", 6, 9)
    assert caret(error, "r07 & utl<5", 80) == ("r07 & utl<5", "      ^^^")
    far = FilterError("", "", 500, 503)
    shown, marks = caret(far, "x" * 500 + "utl" + "y" * 90, 40)
    assert shown[marks.index("^") :].startswith("utl")
