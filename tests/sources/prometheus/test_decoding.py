"""Answers as columns, held against plain json."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources.errors import Garbled, Unusable
from coldaisle.sources.prometheus import decoding
from coldaisle.sources.prometheus.answers import Labels, Values
from coldaisle.sources.prometheus.decoding import Columns, Refused

START, STEP = 1_700_000_000.0, 60.0

names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
labels = st.dictionaries(names, st.text(max_size=8), max_size=3)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**15), 10**15).map(str),
    st.sampled_from(["NaN", "+Inf", "-Inf", "1e+06", "-0", "5e-324", "1.7976931348623157e+308"]),
)
compact = st.sampled_from([(",", ":"), (", ", ": ")])


def text_of(result: object, type_: str, separators: tuple[str, str] = (",", ":")) -> bytes:
    answer = {"status": "success", "data": {"resultType": type_, "result": result}}
    return json.dumps(answer, separators=separators).encode()


def vector(body: bytes) -> tuple[list[Labels], Values]:
    data, _ = decoding.evaluated(body, "prom:9090")
    return decoding.joined(decoding.points(data, "prom:9090"))


def matrix(*bodies: bytes, count: int = 10, within: tuple[int, int] | None = None) -> Columns:
    columns = Columns(START + STEP * np.arange(count, dtype=np.float64), STEP, "prom:9090")
    for body in bodies:
        slices, _ = decoding.ranged(body, "prom:9090")
        for _ in columns.add(slices, *(within or (0, count))):
            pass
    return columns


@given(st.lists(st.tuples(labels, numbers), max_size=8), compact, st.booleans())
def test_an_instant_answer_is_what_json_reads(
    series: list[tuple[dict[str, str], str]], separators: tuple[str, str], whole: bool
) -> None:
    at = 1_700_000_000 if whole else 1_700_000_000.123
    body = text_of([{"metric": one, "value": [at, value]} for one, value in series], "vector", separators)
    found, values = vector(body)
    assert found == [one for one, _ in series]
    assert np.array_equal(values, [float(value) for _, value in series], equal_nan=True)


@given(
    st.dictionaries(
        labels.map(lambda one: tuple(sorted(one.items()))),
        st.dictionaries(st.integers(0, 9), numbers, max_size=10),
        max_size=6,
    ),
    compact,
    st.integers(0, 10),
)
def test_a_range_is_what_json_reads_in_however_many_answers(
    series: dict[tuple[tuple[str, str], ...], dict[int, str]], separators: tuple[str, str], cut: int
) -> None:
    def answer(first: int, last: int) -> bytes:
        result = [
            {
                "metric": dict(one),
                "values": [
                    [START + STEP * at, value] for at, value in sorted(samples.items()) if first <= at < last
                ],
            }
            for one, samples in series.items()
        ]
        return text_of([one for one in result if one["values"]], "matrix", separators)

    columns = matrix(answer(0, cut), answer(cut, 10))
    found = dict(
        zip([tuple(sorted(one.items())) for one in columns.labels], columns.values.tolist(), strict=True)
    )
    assert set(found) == {one for one, samples in series.items() if samples}
    for one, row in found.items():
        expected = [float(series[one].get(at, "nan")) for at in range(10)]
        assert np.array_equal(row, expected, equal_nan=True)


@given(
    st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=5),
    compact,
    st.sampled_from([0.0, 0.25, 29.0, 31.0, -29.0]),
)
def test_series_without_holes_are_read_without_their_times(
    rows: list[list[str]], separators: tuple[str, str], shift: float
) -> None:
    """A server that aligns instants to multiples of the step moves all of them alike."""
    result = [
        {
            "metric": {"n": str(number)},
            "values": [[START + STEP * (3 + at) + shift, value] for at, value in enumerate(row)],
        }
        for number, row in enumerate(rows)
    ]
    columns = matrix(text_of(result, "matrix", separators), within=(3, 7))
    begin = 4 if shift > 30 else 3
    expected = np.array([[float(value) for value in row] for row in rows])
    assert np.array_equal(columns.values[:, begin : begin + 4], expected, equal_nan=True)
    assert np.isnan(np.delete(columns.values, range(begin, begin + 4), axis=1)).all()


@pytest.mark.parametrize("value", ["seven", "", '1"', "1,2"])
def test_values_that_are_no_numbers(value: str) -> None:
    for values in ([[START, value]], [[START, value], [START + STEP, "1"]], [[START + STEP, value]]):
        with pytest.raises(Garbled):
            matrix(text_of([{"metric": {}, "values": values}], "matrix"), within=(0, 1))


def test_labels_in_another_order_are_the_same_series() -> None:
    one = {"metric": {"a": "1", "b": "2"}, "values": [[START, "1"]]}
    other = {"metric": {"b": "2", "a": "1"}, "values": [[START + STEP, "2"]]}
    columns = matrix(text_of([one], "matrix"), text_of([other], "matrix"))
    assert columns.labels == [{"a": "1", "b": "2"}]
    assert columns.values[0, :2].tolist() == [1.0, 2.0]


def test_samples_between_our_instants_stand_at_the_nearest_and_others_nowhere() -> None:
    values = [[START - 60, "9"], [START + 20, "1"], [START + 80.5, "2"], [START + 700, "9"]]
    row = matrix(text_of([{"metric": {}, "values": values}], "matrix")).values[0]
    assert row[:2].tolist() == [1.0, 2.0]
    assert np.isnan(row[2:]).all()


def test_native_histograms_have_no_value() -> None:
    histogram = {"count": "2", "sum": "1.5", "buckets": [[0, "0.5", "1", "2"]]}
    series: list[dict[str, Any]] = [
        {"metric": {"a": "1"}, "histogram": [START, histogram]},
        {"metric": {"a": "2"}, "value": [START, "7"]},
    ]
    found, values = vector(text_of(series, "vector"))
    assert (found, values.tolist()) == ([{"a": "2"}], [7.0])
    mixed = {"metric": {"a": "3"}, "values": [[START, "1"]], "histograms": [[START + 60, histogram]]}
    alone = {"metric": {"a": "4"}, "histograms": [[START + 60, histogram]]}
    columns = matrix(text_of([mixed, alone], "matrix"))
    assert columns.labels == [{"a": "3"}]


def test_a_scalar_is_a_series_without_labels() -> None:
    found, values = vector(text_of([START, "+Inf"], "scalar"))
    assert (found, values.tolist()) == ([{}], [math.inf])


def test_nothing_is_an_empty_answer() -> None:
    found, values = vector(text_of([], "vector"))
    assert (found, values.shape) == ([], (0,))
    assert matrix(text_of([], "matrix")).values.shape == (0, 10)


def test_large_answers_are_read_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "SLICE_BYTES", 200)
    nasty = ',{"metric":{"x":"y"},"value":[1,"2"]}'  # within a string its quotes are escaped
    series = [{"metric": {"n": f"{turn}{nasty}"}, "value": [START, str(turn)]} for turn in range(50)]
    data, _ = decoding.evaluated(text_of(series, "vector"), "prom:9090")
    parts = list(decoding.points(data, "prom:9090"))
    assert len(parts) > 5
    found, values = decoding.joined(parts)
    assert found == [one["metric"] for one in series]
    assert values.tolist() == list(range(50))


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_warnings_are_kept_bounded_and_inert(separators: tuple[str, str]) -> None:
    answer = {
        "status": "success",
        "data": {"resultType": "vector", "result": []},
        "warnings": ["store \x1b[31mprom-2\x1b[0m is gone", "x" * 10_000],
        "infos": [f"info {turn}" for turn in range(100)],
    }
    _, said = decoding.evaluated(json.dumps(answer, separators=separators).encode(), "prom:9090")
    assert said[0] == "store �prom-2� is gone"
    assert len(said) == decoding.MAX_WARNINGS
    assert max(map(len, said)) <= decoding.MAX_WARNING


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "breaks off"),
        (text_of([{"metric": {}, "value": [1, "2"]}], "vector")[:-20], "breaks off"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b'{"status":"ok"}', "not Prometheus's"),
        (b"[1,2]", "not the JSON"),
        (b'{"status":"success"}', "without data"),
        (b'{"status":"success","data":{"resultType":"vector","result":{"a":1}}}', "not the JSON"),
        (text_of([{"metric": {}, "value": [START, "seven"]}], "vector"), "no number"),
        (text_of([{"metric": {}, "value": [START]}], "vector"), "no pair"),
        (text_of([{"metric": {}, "value": [START, "1", "2", "3"]}], "vector"), "one value"),
        (text_of([{"metric": {"a": 1}, "value": [START, "1"]}], "vector"), "not the JSON"),
        (b'{"status":"success","data":' + b"[" * 100_000, ""),
        (b"\xff\xfe\x00", "not the JSON"),
    ],
)
def test_what_is_no_answer_says_so(body: bytes, problem: str) -> None:
    with pytest.raises(Garbled) as caught:
        vector(body)
    assert problem in caught.value.problem
    assert caught.value.remedy


@pytest.mark.parametrize(("type_", "result"), [("matrix", []), ("string", [START, "a"]), ("", [])])
def test_another_kind_of_result_is_unusable(type_: str, result: list[object]) -> None:
    with pytest.raises(Unusable, match="not a vector"):
        vector(text_of(result, type_))


def test_an_error_in_the_body_is_told_apart() -> None:
    with pytest.raises(Refused) as caught:
        decoding.evaluated(b'{"status":"error","errorType":"timeout","error":"too slow"}', "prom:9090")
    assert (caught.value.kind, caught.value.text) == ("timeout", "too slow")


def test_more_series_than_fit_end_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_CELLS", 25)
    series = [{"metric": {"n": str(turn)}, "values": [[START, "1"]]} for turn in range(3)]
    with pytest.raises(Garbled, match="3 series at 10 instants"):
        matrix(text_of(series, "matrix"))


@given(st.binary(max_size=80))
def test_any_bytes_are_garbled_and_nothing_else(body: bytes) -> None:
    with pytest.raises(Garbled):
        decoding.evaluated(body, "prom:9090")
