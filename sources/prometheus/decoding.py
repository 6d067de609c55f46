"""Answers of the HTTP API as columns: no Python object lives as long as a sample does.

::

    {"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": {"Hostname": "n01", "gpu": "0"}, "values": [[1700000000, "0.5"], [1700000060, "NaN"]]}]}}

The samples of all series of a slice of an answer are joined, freed of brackets and quotes, and read as
one list of numbers; where no series has a hole, without their times. Native histograms (``histogram``, ``histograms``) have no value and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Raw, Struct
from numpy.typing import NDArray

from coldaisle.sources.errors import Garbled, Unusable
from coldaisle.sources.http_errors import is_web_page
from coldaisle.sources.prometheus.answers import Labels, Listed, Values
from coldaisle.sources.text import plain

SLICE_BYTES = 1_000_000
"""Of an answer decoded in one go: longer holds up every thread, the screen's too."""
WHOLE_BYTES = 2_500_000
"""Of a range that is: so many samples take 6 ms."""
MAX_WARNINGS, MAX_WARNING = 20, 300
PARTIAL = "a partial answer: some of its storage does not answer"
MAX_CELLS = 32_000_000
"""Of one Matrix: 256 MB."""

_PUNCTUATION = b'[]" \n\r\t'
_QUOTE, _COMMA = b'",'
_NEXT_SERIES = re.compile(rb',\s*(?=\{\s*"metric"\s*:)')
"""Between two series. It cannot occur within a string: there its quotes would be escaped."""

_BEGIN = re.compile(rb"\[\s*\[\s*(\d+(?:\.\d+)?)\s*,")
"""The first time of a series."""

Series = TypeVar("Series", "_Point", "_Points")


class Data(Struct):
    """What an evaluated query is: a ``vector``, ``matrix``, ``scalar`` or ``string``."""

    type: str = msgspec.field(name="resultType", default="")
    result: Raw = Raw(b"[]")


class _Envelope(Struct):
    status: str = ""
    error_type: str = msgspec.field(name="errorType", default="")
    error: str = ""
    warnings: list[str] | None = None
    infos: list[str] | None = None
    is_partial: bool | None = msgspec.field(name="isPartial", default=None)
    """A VictoriaMetrics cluster says it so."""


class _Evaluated(_Envelope):
    data: Data | None = None


class _Listed(_Envelope):
    data: list[str] | None = None


class _Answered(_Envelope):
    data: Raw = Raw(b"null")


class _Point(Struct, gc=False):
    metric: dict[str, str] = {}
    value: Raw = Raw()


class _Points(Struct, gc=False):
    metric: Raw = Raw(b"{}")
    values: Raw = Raw()


class _Matrix(Struct):
    type: str = msgspec.field(name="resultType", default="")
    result: list[_Points] = []


class _Ranged(_Envelope):
    data: _Matrix | None = None


Said = tuple[str, ...]
_ranged = msgspec.json.Decoder(_Ranged)
_evaluated = msgspec.json.Decoder(_Evaluated)
_listed = msgspec.json.Decoder(_Listed)
_answered = msgspec.json.Decoder(_Answered)
_point_list = msgspec.json.Decoder(list[_Point])
_points_list = msgspec.json.Decoder(list[_Points])
_labels = msgspec.json.Decoder(dict[str, str])
_numbers = msgspec.json.Decoder(list[float])


class Refused(Exception):
    """The body says that the server could not do it."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind)
        self.kind = kind
        """Prometheus's ``errorType``, empty where there is none."""
        self.text = text
        """Other people's."""


def refusal(body: bytes) -> Refused | None:
    """What the body of an error says, if it is one of this API."""
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return None if envelope.status == "success" else Refused(envelope.error_type, envelope.error)


def evaluated(body: bytes, target: str) -> tuple[Data, Said]:
    """The result of a query, not yet read, and warnings. Raises Garbled, Refused."""
    envelope = _decoded(_evaluated, body, target)
    if envelope.data is None:
        raise Garbled(target, "an answer without data", _NOT_THE_API)
    return envelope.data, _said(envelope)


def ranged(body: bytes, target: str) -> tuple[Iterator[list[_Points]], Said]:
    """The series of a range, slice by slice, for :class:`Columns`; and warnings. Raises Garbled, Refused, Unusable."""
    if len(body) > WHOLE_BYTES:
        data, said = evaluated(body, target)
        _expect(data.type, "matrix", target)
        return _slices(bytes(data.result), _points_list, target), said
    envelope = _decoded(_ranged, body, target)
    if envelope.data is None:
        raise Garbled(target, "an answer without data", _NOT_THE_API)
    _expect(envelope.data.type, "matrix", target)
    return iter([envelope.data.result]), _said(envelope)


def listed(body: bytes, target: str) -> Listed:
    """Names of metrics or labels, and warnings. Raises Garbled, Refused."""
    envelope = _decoded(_listed, body, target)
    return Listed(tuple(envelope.data or ()), _said(envelope))


def answered(body: bytes, target: str) -> bytes:
    """Whatever ``data`` is, as JSON. Raises Garbled, Refused."""
    return bytes(_decoded(_answered, body, target).data)


def points(data: Data, target: str) -> Iterator[tuple[list[Labels], Values]]:
    """The series of an instant answer, slice by slice: labels, and one value each. Raises Garbled, Unusable."""
    if data.type == "scalar":
        samples, counts = _samples([bytes(data.result)], target)
        if counts[0] != 1:
            raise Garbled(target, "a number that is none", _NOT_THE_API)
        yield [{}], samples[:, 1].copy()
        return
    _expect(data.type, "vector", target)
    for some in _slices(bytes(data.result), _point_list, target):
        series = [one for one in some if one.value]
        samples, counts = _samples([bytes(one.value) for one in series], target)
        if not (counts == 1).all():
            raise Garbled(target, "a series without its one value", _NOT_THE_API)
        yield [one.metric for one in series], samples[:, 1].copy()


class Columns:
    """A Matrix as it grows, from answers in any order: one row a series, one column an instant.

    A server may align the instants to multiples of the step; a sample then stands at the nearest of ours.
    """

    def __init__(self, times: Values, step: float, target: str) -> None:
        self.labels: list[Labels] = []
        self._times = times
        self._step = step
        self._target = target
        self._values = np.full((0, len(times)), np.nan)
        self._rows: dict[bytes, int] = {}
        self._known: dict[frozenset[tuple[str, str]], int] = {}

    @property
    def values(self) -> Values:
        """[series, instant]"""
        return self._values[: len(self.labels)]

    def add(self, slices: Iterable[list[_Points]], first: int, last: int) -> Iterator[None]:
        """Take an answer for the instants from ``first`` up to ``last``, a slice a step. Raises Garbled."""
        for some in slices:
            series = [one for one in some if one.values]
            rows = np.array([self._row(bytes(one.metric)) for one in series], np.intp)
            self._grow()
            texts = [bytes(one.values) for one in series]
            if self._are_whole(texts, first, last):
                values = _parsed(_quoted(b"".join(texts)), self._target)
                if len(values) != len(texts) * (last - first):
                    raise Garbled(self._target, "a sample is no pair of time and value", _NOT_THE_API)
                self._values[rows, first:last] = values.reshape(len(texts), -1)
            else:
                self._place(rows, *_samples(texts, self._target))
            yield

    def _are_whole(self, texts: Sequence[bytes], first: int, last: int) -> bool:
        """Whether every series has every instant.

        None has more than one sample an instant: their number says it, if the first stands where it should.
        """
        if not texts or sum(text.count(b'"') for text in texts) != 2 * len(texts) * (last - first):
            return False
        begin = _BEGIN.match(texts[0])
        return begin is not None and abs(float(begin[1]) - self._times[first]) < self._step / 2

    def _place(self, rows: NDArray[np.intp], samples: Values, counts: NDArray[np.intp]) -> None:
        """Each sample by its time."""
        places = np.rint((samples[:, 0] - self._times[0]) / self._step)
        inside = (places >= 0) & (places < len(self._times))
        at = places[inside].astype(np.intp)
        self._values[np.repeat(rows, counts)[inside], at] = samples[inside, 1]

    def _row(self, metric: bytes) -> int:
        """Servers write the labels of a series the same way each time: mostly the text decides."""
        row = self._rows.get(metric)
        if row is None:
            labels = _read(_labels, metric, self._target)
            row = self._known.setdefault(frozenset(labels.items()), len(self.labels))
            if row == len(self.labels):
                self.labels.append(labels)
            self._rows[metric] = row
        return row

    def _grow(self) -> None:
        wanted = len(self.labels)
        if wanted * len(self._times) > MAX_CELLS:
            raise Garbled(
                self._target,
                f"more than {MAX_CELLS:,} samples: {wanted:,} series at {len(self._times):,} instants",
                "ask for a shorter time, or a longer step",
            )
        if wanted > len(self._values):
            more = max(wanted, min(wanted + wanted // 2, MAX_CELLS // len(self._times)))
            grown = np.full((more, len(self._times)), np.nan)
            grown[: len(self._values)] = self._values
            self._values = grown


_NOT_THE_API = "is this the address of a Prometheus-compatible server?"


def _decoded(decoder: msgspec.json.Decoder[Envelope], body: bytes, target: str) -> Envelope:
    envelope = _read(decoder, body, target)
    if envelope.status == "error":
        raise Refused(envelope.error_type, envelope.error)
    if envelope.status != "success":
        raise Garbled(target, "answers JSON that is not Prometheus's", _NOT_THE_API)
    return envelope


Envelope = TypeVar("Envelope", _Evaluated, _Ranged, _Listed, _Answered)
Read = TypeVar("Read")


def _read(decoder: msgspec.json.Decoder[Read], body: bytes, target: str) -> Read:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Garbled(target, _why_garbled(body, error), _NOT_THE_API) from None


def _why_garbled(body: bytes, error: Exception) -> str:
    if is_web_page(body):
        return "answers a web page (HTML): a login page, or another address than the API's"
    if "truncated" in str(error):
        return "the answer breaks off in its middle"
    return f"the answer is not the JSON that was expected: {plain(str(error), 100)}"


def _said(envelope: _Envelope) -> Said:
    texts = [*(envelope.warnings or ()), *(envelope.infos or ())]
    if envelope.is_partial:
        texts.insert(0, PARTIAL)
    return tuple(plain(text, MAX_WARNING) for text in texts[:MAX_WARNINGS])


def _expect(type_: str, wanted: str, target: str) -> None:
    if type_ != wanted:
        raise Unusable(target, f"answers a {plain(type_, 40) or 'thing without a type'}, not a {wanted}")


def _slices(
    result: bytes, decoder: msgspec.json.Decoder[list[Series]], target: str
) -> Iterator[list[Series]]:
    """An array of series in parts of about SLICE_BYTES."""
    start = 0
    while len(result) - start > SLICE_BYTES + SLICE_BYTES // 4:
        cut = _NEXT_SERIES.search(result, start + SLICE_BYTES)
        if cut is None:
            break
        opened = b"" if start == 0 else b"["
        yield _read(decoder, opened + result[start : cut.start()] + b"]", target)
        start = cut.end()
    yield _read(decoder, result if start == 0 else b"[" + result[start:], target)


def _samples(series: Sequence[bytes], target: str) -> tuple[Values, NDArray[np.intp]]:
    """``[[time, "value"], ...]`` of each series -> all samples [sample, (time, value)], and how many each series has."""
    texts = [text.translate(None, _PUNCTUATION) for text in series]
    counts = np.array([text.count(b",") + 1 if text else 0 for text in texts], np.intp)
    numbers = _parsed(b",".join(filter(None, texts)), target)
    if (counts % 2).any() or len(numbers) != counts.sum():
        raise Garbled(target, "a sample is no pair of time and value", _NOT_THE_API)
    return numbers.reshape(-1, 2), counts // 2


def _parsed(text: bytes, target: str) -> Values:
    """Numbers between commas; with NaN and infinities among them it takes twice as long."""
    try:
        return np.array(_numbers.decode(b"[" + text + b"]"), np.float64)
    except msgspec.DecodeError:
        pass
    try:
        return np.array(text.split(b","), dtype=np.float64)
    except ValueError:
        raise Garbled(target, "a sample that is no number", _NOT_THE_API) from None


def _quoted(text: bytes) -> bytes:
    """What stands in quotes, between commas: values without their times, and without a look at each."""
    letters = np.frombuffer(text, np.uint8)
    inside = np.bitwise_xor.accumulate((letters == _QUOTE).view(np.uint8)).view(np.bool_)
    kept = letters[inside]  # with the quote that opens each
    kept[kept == _QUOTE] = _COMMA
    return kept[1:].tobytes()


def joined(parts: Iterable[tuple[list[Labels], Values]]) -> tuple[list[Labels], Values]:
    """What :func:`points` gave, in one."""
    labels: list[Labels] = []
    values = [np.empty(0)]
    for some, numbers in parts:
        labels += some
        values.append(numbers)
    return labels, np.concatenate(values)
