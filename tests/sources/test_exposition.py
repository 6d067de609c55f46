"""Prometheus text: held to prometheus_client's parser, to the formats, and to hostile pages."""

from __future__ import annotations

import math
import os
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from coldaisle.sources.errors import Garbled
from coldaisle.sources.exposition import Limits, Page, Reader, Series, parse

Flat = list[tuple[str, dict[str, str], float, float | None]]


def flat(page: Page) -> Flat:
    stamps = page.timestamps
    return [
        (
            series.name,
            dict(series.labels),
            float(value),
            None if stamps is None or math.isnan(stamps[i]) else float(stamps[i]),
        )
        for i, (series, value) in enumerate(zip(page.shape.series, page.values, strict=True))
    ]


def reference(text: str) -> Flat:
    return [
        (
            sample.name,
            dict(sample.labels),
            float(sample.value),
            None if sample.timestamp is None else float(sample.timestamp),
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def counted(page: Page) -> Flat:
    """As the reference names counters: it appends ``_total`` where the page left it out."""
    bare = {
        name for name, type_ in page.shape.types.items() if type_ == "counter" and not name.endswith("_total")
    }
    return [(name + "_total" if name in bare else name, *rest) for name, *rest in flat(page)]  # type: ignore[misc]


def same(ours: Flat, theirs: Flat) -> bool:
    """The same samples in any order: the reference groups families, a page need not."""
    return sorted(map(repr, ours)) == sorted(map(repr, theirs))


# The reference closes a family at a name's end and drops what it calls misplaced; names stay distinct here.
names = st.from_regex(r"[a-z_][a-z0-9_:]{0,12}", fullmatch=True)
# Names with two underscores are reserved: the reference refuses them, some exporters have them all the same.
label_names = st.from_regex(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)
label_values = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=20
)
numbers = st.one_of(
    st.floats().map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(
        ["NaN", "+Inf", "-Inf", "1e9", "1E-3", "+4", "0x1p3"[:1], "9223372036854775794", ".5", "5."]
    ),
)
stamps = st.one_of(st.none(), st.integers(-(10**12), 10**13))


blocks = st.lists(st.dictionaries(label_names, label_values, max_size=4), max_size=4)


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


@st.composite
def pages(draw: st.DrawFn) -> str:
    lines: list[str] = []
    for name in draw(st.lists(names, max_size=6, unique=True)):
        if draw(st.booleans()):
            lines.append(f"# HELP {name} some \\n help")
        if draw(st.booleans()):
            lines.append(f"# TYPE {name} {draw(st.sampled_from(['gauge', 'untyped']))}")
        labelled: list[dict[str, str]] = draw(blocks)
        braces: bool = draw(st.booleans())
        for labels in labelled:
            comma = draw(st.sampled_from([",", ", "]))
            block = comma.join(f'{key}="{escaped(value)}"' for key, value in labels.items())
            stamp = draw(stamps)
            head = name + (f"{{{block}}}" if labels or braces else "")
            lines.append(f"{head} {draw(numbers)}" + ("" if stamp is None else f" {stamp}"))
        if draw(st.booleans()):
            lines.append("")
    return "".join(line + "\n" for line in lines)


@settings(max_examples=80, deadline=None)
@given(pages())
def test_reads_what_the_reference_reads(text: str) -> None:
    reader = Reader("generated")
    first, again = (
        reader.read(text.encode(), openmetrics=False),
        reader.read(text.encode(), openmetrics=False),
    )
    theirs = reference(text)
    assert same(flat(first), theirs)
    assert same(flat(again), theirs)
    assert again.shape is first.shape


@settings(max_examples=80, deadline=None)
@given(pages(), pages(), st.randoms(use_true_random=False))
def test_a_page_after_any_other_page_reads_as_if_it_were_the_first(
    one: str, two: str, chance: random.Random
) -> None:
    lines = one.splitlines(keepends=True)
    chance.shuffle(lines)
    reader = Reader("generated")
    for text in (one, "".join(lines), two, one):
        assert same(
            flat(reader.read(text.encode(), openmetrics=False)), flat(parse(text.encode(), openmetrics=False))
        )


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=400), st.text('ab{}",=\\ #\n\t01.eE+-\r_:nNif', max_size=200).map(str.encode)
    ),
    st.booleans(),
)
def test_rubbish_is_garbled_and_nothing_else(body: bytes, openmetrics: bool) -> None:
    reader = Reader("rubbish")
    reader.read(b'a{b="c"} 1\n', openmetrics=False)
    try:
        page = reader.read(body, openmetrics=openmetrics)
    except Garbled as error:
        said = str(error)
    else:
        said = "rubbish: "
        assert len(page.values) == len(page.shape.series)
    assert said.startswith("rubbish: ")
    assert "\n" not in said


@settings(max_examples=80, deadline=None)
@given(pages(), st.data())
def test_a_page_changed_anywhere_is_read_as_it_stands_or_refused(text: str, data: st.DataObject) -> None:
    body = text.encode()
    if not body:
        return
    reader = Reader("changed")
    reader.read(body, openmetrics=False)
    at = data.draw(st.integers(0, len(body) - 1))
    changed = body[:at] + data.draw(st.binary(min_size=0, max_size=3)) + body[at + 1 :]
    outcomes = []
    for read in (reader.read, Reader("changed").read):
        try:
            outcomes.append(sorted(map(repr, flat(read(changed, openmetrics=False)))))
        except Garbled as error:
            outcomes.append([str(error)])
    assert outcomes[0] == outcomes[1]


OPENMETRICS = """\
# HELP jobs Jobs.
# TYPE jobs counter
jobs_total{kind="a"} 17 1520879607.789 # {trace="KOO5S4vxi0o"} 0.67
jobs_created{kind="a"} 1520430000.123 1520879607.789
# TYPE wait histogram
wait_bucket{le="0.1"} 8 # {} 0.054
wait_bucket{le="+Inf"} 17 # {id="a # b"} 9.8 1520879607.7
wait_count 17
wait_sum 324789.3
# TYPE build info
build_info{version="1 # 2 } 3"} 1
# EOF
"""


def test_openmetrics_like_the_reference() -> None:
    theirs: Flat = [
        (
            sample.name,
            dict(sample.labels),
            float(sample.value),
            None if sample.timestamp is None else float(sample.timestamp),
        )
        for family in openmetrics_parser.text_string_to_metric_families(OPENMETRICS)
        for sample in family.samples
    ]
    reader = Reader("om")
    for _ in range(2):
        page = reader.read(OPENMETRICS.encode())
        assert same(flat(page), theirs)
    assert page.timestamps is not None
    assert page.timestamps[0] == 1520879607.789
    assert page.shape.types["wait"] == "histogram"


def test_openmetrics_without_its_end_is_cut_off() -> None:
    cut = OPENMETRICS.removesuffix("# EOF\n").encode()
    with pytest.raises(Garbled, match="cut off: no # EOF"):
        parse(cut, openmetrics=True)
    with pytest.raises(Garbled, match="after # EOF"):
        parse(OPENMETRICS.encode() + b"late 1\n", openmetrics=True)


def test_timestamps_are_milliseconds_in_text_and_seconds_in_openmetrics() -> None:
    text = parse(b"a 1 1500\nb 2\n")
    assert text.timestamps is not None
    assert text.timestamps[0] == 1.5
    assert math.isnan(text.timestamps[1])
    om = parse(b"a 1 1500\n# EOF\n")
    assert om.timestamps is not None
    assert om.timestamps[0] == 1500.0


@pytest.mark.parametrize(
    ("line", "series", "value"),
    [
        (b'{"my.metric",label="v"} 1', Series("my.metric", (("label", "v"),)), 1.0),
        (b'{"my.metric"} 1', Series("my.metric"), 1.0),
        (b'{"a.b","odd.label"="x y"} 1', Series("a.b", (("odd.label", "x y"),)), 1.0),
        (b'a{b="1", c="2",} 3', Series("a", (("b", "1"), ("c", "2"))), 3.0),
        (b'a { b = "1" } 3', Series("a", (("b", "1"),)), 3.0),
        (rb'a{b="x\\y\"z\n"} 3', Series("a", (("b", 'x\\y"z\n'),)), 3.0),
        (rb'a{b="\q"} 3', Series("a", (("b", r"\q"),)), 3.0),
        (b'a{b="} 9 # {"} 3', Series("a", (("b", "} 9 # {"),)), 3.0),
        (b"a\t5\r", Series("a"), 5.0),
        (b"a 0x1.8p1", Series("a"), 3.0),
        (b"a 1e400", Series("a"), math.inf),
        (b"a{} 4", Series("a"), 4.0),
    ],
)
def test_the_formats_corners(line: bytes, series: Series, value: float) -> None:
    reader = Reader("corner")
    for _ in range(2):
        page = reader.read(line + b"\n")
        assert page.shape.series == (series,)
        assert page.values.tolist() == [value]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"a 1\nb 2\nc 3.1", "line 3: the page is cut off: its last line has no end: c 3.1"),
        (b"<html>\n", "line 1: not a sample: <html>"),
        (b"a 1\nb{c=d} 2\n", "line 2: a label that is not name="),
        (b'a{b="1",b="2"} 1\n', "the label 'b' twice"),
        (b"a 1_000\n", "not a number"),
        (b"a\n", "line 1: not a sample"),
        (b"a 1 2 3\n", "more than a number and a timestamp"),
        (b'a{b="1"}\n', "no number"),
        (b"a 1 NaN\n", "not a timestamp"),
        (b"\x7fELF\x02\x01\x01\x00\n", "not a sample"),
        (b'a{b="\xff\xfe"} 1\n', "not UTF-8"),
        (b'a{b="\x1b]52;c;aGk=\x07"} x\n', r"\x1b]52"),
    ],
)
def test_what_is_wrong_and_where(body: bytes, says: str) -> None:
    with pytest.raises(Garbled) as caught:
        parse(body, target="n01:9400")
    assert says in str(caught.value)
    assert str(caught.value).startswith("n01:9400: ")
    assert "\x1b" not in str(caught.value)


def test_limits_refuse_the_page_and_say_which() -> None:
    small = Limits(page_bytes=1000, lines=20, series=5, line_bytes=200, labels=3, label_chars=50)
    for body, says in [
        (b"a 1\n" * 300, "larger than 1000 B"),
        (b"\n" * 30, "more than 20 lines"),
        (b"a 1\n" * 6, "more than 5 series"),
        (b"a " + b"1" * 300 + b"\n", "longer than 200 bytes"),
        (b'a{b="1",c="1",d="1",e="1"} 1\n', "more than 3 labels"),
        (b'a{b="' + b"x" * 60 + b'"} 1\n', "a label longer than 50"),
    ]:
        with pytest.raises(Garbled, match=says):
            parse(body, limits=small)


def test_long_labels_within_the_limits_are_kept_whole() -> None:
    value = "x" * 10_000
    assert parse(f'a{{b="{value}"}} 1\n'.encode()).shape.series[0].labels == (("b", value),)


def test_only_what_is_wanted_is_kept_but_every_name_is_known() -> None:
    reader = Reader("some", wanted={"b"}.__contains__)
    for number in range(3):
        page = reader.read(b"# TYPE a counter\na 1\nb %d\nc 3\n" % number)
        assert page.shape.series == (Series("b"),)
        assert page.values.tolist() == [number]
        assert page.shape.names == {"a", "b", "c"}
    assert reader.read(b"# TYPE a counter\nb 7\nb 8\nc 3\n").values.tolist() == [7, 8]


def test_the_shape_is_the_same_object_while_the_layout_is_the_same() -> None:
    reader = Reader("same")
    first = reader.read(b'a{b="1"} 1\n')
    assert reader.read(b'a{b="1"} 22.5\n').shape is first.shape
    assert reader.read(b'a{b="2"} 22.5\n').shape is not first.shape


def test_a_million_blank_lines_cost_no_memory() -> None:
    body = b"\n" * (8 << 20)
    tracemalloc.start()
    with pytest.raises(Garbled):
        parse(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def samples() -> Path:
    folder = os.environ.get("COLDAISLE_SAMPLES")
    if not folder:
        pytest.skip("COLDAISLE_SAMPLES is not set")
    return Path(folder) / "prom"


@pytest.mark.parametrize(
    "pattern",
    [
        "dcgm/*.prom",
        "node_exporter/*.txt",
        "nvidia_gpu_exporter/*.prom",
        "inference/*.prom",
        "kube-state-metrics/*.prom",
        "all-smi/*.prom",
    ],
)
def test_real_pages_read_as_the_reference_reads_them(pattern: str) -> None:
    found = sorted(samples().glob(pattern))
    assert found
    for path in found:
        text = path.read_text(encoding="utf-8")
        text = text if text.endswith("\n") else text + "\n"
        assert same(counted(parse(text.encode(), target=path.name)), reference(text)), path.name
