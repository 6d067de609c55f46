"""Foreign text is inert where it is shown, and its width is what a terminal makes of it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from coldaisle.sources.text import (
    MAX_TEXT,
    cell_width,
    clip,
    decode,
    fit,
    natural_key,
    plain,
    valid_host_name,
)

# hostile characters are rare in text(): draw them often
HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\x1b[]0;1m\x07\x9b\x9d\\\u202e\u2066\u200b\u0301\n\t漢é\U0001f600🇩👍🏽\u1161"),
        st.characters(),
    ),
    max_size=60,
)


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("n001.example.org", "n001.example.org"),
        ("[red]x[/red]", "[red]x[/red]"),
        ("a\x1b[31;1mred\x1b[0mb", "a\ufffdred\ufffdb"),
        ("a\x1b]52;c;cm0gLXJm\x07b", "a\ufffdb"),
        ("a\x1b]8;;http://x\x1b\\b", "a\ufffdb"),
        ("a\x9b31mb", "a\ufffdb"),
        ("a\x1b]0;never closed", "a\ufffd0;never closed"),
        ("line\nline\r\ttab", "line line  tab"),
        ("a\u2028b\u00a0c\u3000d", "a b c d"),
        ("abc\u202edcba\u2066", "abc\ufffddcba\ufffd"),
        ("zero\u200bwidth\ufeff", "zero\ufffdwidth\ufffd"),
        ("del\x7f nul\x00", "del\ufffd nul\ufffd"),
        ("e\u0301" + "\u0302" * 100, "é\u0302\u0302"),
        ("\u0301alone", "alone"),
        ("\ud800 surrogate", "\ufffd surrogate"),
        ("Zürich 漢字", "Zürich 漢字"),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
    ],
)
def test_foreign_text_is_shown_inert(foreign: str | bytes, shown: str) -> None:
    assert plain(foreign) == shown


@pytest.mark.parametrize(("foreign", "shown"), [("Zürich…", "Zurich."), ("漢\x1b[0m", "??"), ("½", "1")])
def test_ascii_keeps_the_letter_where_there_is_one(foreign: str, shown: str) -> None:
    assert plain(foreign, ascii_only=True) == shown


def test_long_text_is_cut_before_it_costs() -> None:
    assert len(plain("\x1b[" * 10_000_000)) <= MAX_TEXT + 1
    assert len(plain(b"\xff" * 10_000_000)) <= 4 * MAX_TEXT + 1


@given(HOSTILE)
def test_nothing_that_acts_remains(foreign: str) -> None:
    for char in plain(foreign):
        category = unicodedata.category(char)
        assert category[0] != "C"
        assert category not in ("Zl", "Zp")
        assert char.isprintable()


@given(HOSTILE, st.integers(0, 30))
def test_width_is_what_the_terminal_library_measures(foreign: str, width: int) -> None:
    shown = plain(foreign)
    assert cell_width(shown) == cell_len(shown)
    assert cell_len(plain(foreign, width)) <= width
    assert cell_len(fit(shown, width)) == width


@given(HOSTILE)
def test_making_inert_twice_changes_nothing(foreign: str) -> None:
    assert plain(plain(foreign)) == plain(foreign)


@given(HOSTILE)
def test_ascii_only_is_ascii(foreign: str) -> None:
    assert plain(foreign, ascii_only=True).isascii()


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("node-001", 8, "node-001"),
        ("node-001", 7, "node-0…"),
        ("漢字漢字", 5, "漢字…"),
        ("漢字漢字", 4, "漢…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
    ],
)
def test_a_cut_is_shown(text: str, width: int, shown: str) -> None:
    assert clip(text, width) == shown


def test_padding_on_either_side() -> None:
    assert fit("漢", 4) == "漢  "
    assert fit("12", 4, right=True) == "  12"
    assert plain("much too long", 6, ascii_only=True) == "much ~"


def test_decoding_never_fails() -> None:
    assert decode(b"ok \xf0\x9f") == "ok \ufffd"


@pytest.mark.parametrize(
    "name", ["n1", "r01n02.example.org", "x1000c0s0b0n0", "10.0.0.1", "::1", "fe80::1", "a_b", "host."]
)
def test_host_names_that_are_names(name: str) -> None:
    assert valid_host_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-oProxyCommand=x",
        "a b",
        "a;b",
        "a/b",
        "a@b",
        "n1\n",
        "a..b",
        "x" * 64,
        "a." * 127 + "aa",
        "é",
        "a.-b",
        "fe80::1%x y",
        "$(id)",
    ],
)
def test_host_names_that_are_refused(name: str) -> None:
    assert not valid_host_name(name)


def test_natural_order_counts() -> None:
    assert sorted(["n10", "n2", "n01", "n1", "a", "r2n1", "r10n1", "r2"], key=natural_key) == [
        "a",
        "n01",
        "n1",
        "n2",
        "n10",
        "r2",
        "r2n1",
        "r10n1",
    ]


@given(st.lists(st.text(max_size=12)))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    ordered = sorted(names, key=natural_key)
    backwards = list(reversed(ordered))
    backwards.sort(key=natural_key)
    assert backwards == ordered


def test_numbers_longer_than_python_reads_can_be_ordered() -> None:
    assert natural_key("n" + "9" * 5000) > natural_key("n" + "8" * 5000)
