"""Node sets are read with a bound, and folded back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources.nodesets import MAX_NODES, expand, expand_all, expand_url, fold


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ["n1"]),
        ("a,b,a", ["a", "b"]),
        ("r[01-02]n[01-02]", ["r01n01", "r01n02", "r02n01", "r02n02"]),
        ("n[1-6/2]", ["n1", "n3", "n5"]),
        ("n[1-3]!n2", ["n1", "n3"]),
        ("n[1-2]:9400", ["n1:9400", "n2:9400"]),
        ("https://n[1-2]:9400/m", ["https://n1:9400/m", "https://n2:9400/m"]),
        ("kim@n[1-2]", ["kim@n1", "kim@n2"]),
    ],
)
def test_node_sets(text: str, names: list[str]) -> None:
    assert list(expand(text)) == names


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "such as"),
        ("n[1-99999999]", "99,999,999 nodes, more than 100,000"),
        ("n[1-300]m[1-300]m[1-300]", "27,000,000 nodes"),
        ("[1-1000]" * 2000, "too many nodes"),
        ("n[1-99999999 ]", "not a range"),
        ("n[[1-99999999]]", "bracket"),
        ("n[1-3", "bracket"),
        ("n]1", "bracket"),
        ("n[a-b]", "not a range"),
        ("n[3-1]", "not a range"),
        ("n[001-4]", "padding"),
        ("n[1-٣]", "not a range"),
        ("a,,b", "comma"),
        ("n[1-2],", "operand"),
        ("n[1-2]!n[1-2]", "holds no node"),
        ("@rack1", "groups"),
        ("n1\x1b[0m", "such as"),
    ],
)
def test_node_sets_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        expand(text)


def test_the_bound_is_for_all_sets_together() -> None:
    assert expand_all(["n[1-2]", "n2", "x"]) == ("n1", "n2", "x")
    with pytest.raises(ValueError, match="together they stand for more than 100,000"):
        expand_all(f"{letter}[1-90000]" for letter in "abcdefgh")


def test_names_fold() -> None:
    assert fold(["n003", "n001", "n002", "x"]) == "n[001-003],x"
    assert fold(["n2", "@x", "n1", "a,b", "[red]"]) == "n[1-2],@x,a,b,[red]"
    assert fold([]) == ""


@given(st.lists(st.from_regex(r"[a-z]{1,3}[0-9]{1,3}", fullmatch=True), min_size=1, max_size=30))
def test_what_was_folded_expands_to_the_same(names: list[str]) -> None:
    assert set(expand(fold(names))) == set(names)


@given(st.one_of(st.text(max_size=30), st.text("n0123456789[]-,/!&^ @%", max_size=20)))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        names = expand(text)
    except ValueError:
        return
    assert 0 < len(names) <= MAX_NODES


def test_an_address_may_hold_a_node_set_and_an_ampersand() -> None:
    assert expand_url("http://ipmi1:9290/ipmi?module=x&target=n[01-02]-bmc&y=1") == (
        "http://ipmi1:9290/ipmi?module=x&target=n01-bmc&y=1",
        "http://ipmi1:9290/ipmi?module=x&target=n02-bmc&y=1",
    )
    assert expand_url("http://n1/a?b=1&c=2") == ("http://n1/a?b=1&c=2",)
    with pytest.raises(ValueError, match="more than 100,000"):
        expand_url("http://a[1-1000]/?x=n[1-1000]&target=b[1-1000]")
