"""Regular expressions without trying out: they find what ``re`` finds, and nothing makes them slow."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldaisle.analyzers.patterns import Pattern, PatternError

pieces = st.sampled_from(
    ["a", "b", "0", ".", "[ab]", "[^a]", "[a-c0-2]", r"\d", r"\w", r"\.", "^", "$", "n0", r"\D", r"[\d_]"]
)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeated = st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{,2}", "{2,}"]))
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        repeated.map(lambda found: f"(?:{found[0]}){found[1]}"),
    )


expressions = st.recursive(pieces, grown, max_leaves=6)


@given(expressions, st.text("ab0cn1_.A", max_size=8))
@settings(max_examples=300)
def test_it_agrees_with_re(expression: str, text: str) -> None:
    # {,2} is {0,2} here; re of this Python agrees
    found = re.search(expression, text, re.IGNORECASE | re.ASCII) is not None
    assert Pattern(expression).search(text) == found


@given(st.text(max_size=40) | st.text("ab()[]{}*+?|^$\\.-,12", max_size=40))
def test_any_text_is_an_expression_or_a_mistake(expression: str) -> None:
    assert 0 <= place_of_mistake(expression) <= len(expression)


def place_of_mistake(expression: str) -> int:
    try:
        Pattern(expression).search("r07n01")
    except PatternError as error:
        return error.at
    return 0


@pytest.mark.parametrize(
    ("expression", "text", "found"),
    [
        ("r07", "R07N01", True),
        ("^r0[1-4]n(01|02)$", "r03n02", True),
        ("^r0[1-4]n(01|02)$", "r05n02", False),
        ("^$", "", True),
        ("", "anything", True),
        ("[]a]", "]", True),
        ("[^]a]", "]", False),
        ("[A-Z]", "q", True),
        (r"\bx", "x", None),
        (r"(a)\1", "aa", None),
        ("(?=a)", "a", None),
        ("a*?", "a", None),
        ("*", "a", None),
        ("a{2", "aa", None),
        ("a{3,1}", "a", None),
        ("(a", "a", None),
        ("a)", "a", None),
        ("[a", "a", None),
        ("a\\", "a", None),
        ("[z-a]", "a", None),
        ("(" * 40 + "a" + ")" * 40, "a", None),
        ("((a{9}){9}){9}", "a", None),
        ("x" * 201, "a", None),
    ],
)
def test_what_it_knows(expression: str, text: str, found: bool | None) -> None:
    if found is None:
        with pytest.raises(PatternError):
            Pattern(expression)
    else:
        assert Pattern(expression).search(text) is found


@pytest.mark.parametrize(
    "expression",
    ["(a+)+$", "(a*)*b", "(a|a)*b", "(a|aa)+$", ".*.*.*.*.*b", "(.*a){12}b", "(a?){50}a{50}b", "([a-z]+)*1"],
)
def test_nothing_makes_it_slow(expression: str) -> None:
    pattern = Pattern(expression)
    begun = time.process_time()
    for tail in range(50):
        pattern.search("a" * 500 + "!" * tail)
    assert time.process_time() - begun < 5.0  # 0.1 s alone; trying out would take years
