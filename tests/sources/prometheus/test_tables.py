"""What of a sample is new, and whose it is."""

from __future__ import annotations

import numpy as np

from coldaisle.sources.prometheus.queries import Key, Question
from coldaisle.sources.prometheus.tables import Age, Answer, Frame, ages, keys_of
from coldaisle.sources.source import GpuRef, Kind, Missing, NodeRef
from coldaisle.sources.vocabularies import Rule, shipped

NAN = float("nan")
DCGM = next(one for one in shipped() if one.name == "dcgm-exporter")


def test_a_sample_is_new_once_and_old_when_its_target_has_stopped() -> None:
    at = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    stamps = np.array([[9.0, 9.0, 29.0, 29.0, NAN]])
    codes, told = ages(stamps, at, np.array([NAN]), 10.5)
    assert codes.tolist() == [[Age.NEW, Age.OLD, Age.NEW, Age.OLD, Age.GONE]]
    assert told.tolist() == [29.0]
    codes, _ = ages(stamps[:, :2], at[:2], np.array([9.0]), 60.0)
    assert codes.tolist() == [[Age.TOLD, Age.TOLD]]


def test_keys_of_the_usual_shapes() -> None:
    series = [{"UUID": "a", "GPU_I_ID": "1"}, {"UUID": "b"}]
    assert keys_of(Key((("UUID",), ("GPU_I_ID",))), series) == [("a", "1"), ("b", "")]
    assert keys_of(Key((("UUID",), ())), series) == [("a", ""), ("b", "")]
    assert keys_of(Key((("UUID",),)), series) == [("a",), ("b",)]


def frame(*rules: Rule) -> tuple[Frame, list[Question]]:
    asked = [Question(rule.names[0], (rule,), Key((("UUID",), ()))) for rule in rules]
    made = Frame(DCGM, Kind.GPU, asked)
    made.arrange({(name, ""): (GpuRef("n", name), 0) for name in ("a", "b")})
    return made, asked


def rule(key: str, place: int = 0) -> Rule:
    return [one for one in DCGM.metric if one.key == key][place]


def test_scale_blank_and_range_are_those_of_a_page() -> None:
    made, (util, temp) = frame(rule("gpu.util"), rule("gpu.temp"))
    answers = [
        Answer(util, [{"UUID": "b"}, {"UUID": "a"}], np.array([[50.0], [9.223372036854775794e18]])),
        Answer(temp, [{"UUID": "a"}], np.array([[4000.0]])),
    ]
    sheet, _ = made.evaluate(answers, (), 1)
    column = made.metrics.index("gpu.util")
    assert np.isnan(sheet.values[0, 0, column])
    assert sheet.values[0, 1, column] == 0.5
    assert sheet.reasons[0, 0, column] == Missing.BLANK
    heat = made.metrics.index("gpu.temp")
    assert np.isnan(sheet.values[0, 0, heat])
    assert [Missing(code) for code in sheet.reasons[0, :, heat]] == [Missing.BLANK, Missing.NOT_EXPORTED]


def test_the_first_rule_that_finds_an_entity_counts() -> None:
    made, (old, new) = frame(rule("gpu.sm_clock", 0), rule("gpu.sm_clock", 1))
    answers = [
        Answer(new, [{"UUID": "a"}, {"UUID": "b"}], np.array([[1.9e9], [1.8e9]])),
        Answer(old, [{"UUID": "a"}], np.array([[1000.0]])),
    ]
    sheet, _ = made.evaluate(answers, (), 1)
    assert sheet.values[0, :, made.metrics.index("gpu.sm_clock")].tolist() == [1000.0, 1800.0]


def test_a_query_that_failed_says_so() -> None:
    made, (util,) = frame(rule("gpu.util"))
    sheet, _ = made.evaluate([], util.rules, 1)
    assert sheet.reasons[0, 0, made.metrics.index("gpu.util")] == Missing.FAILED


def test_entities_stay_the_same_object_and_keep_what_is_known() -> None:
    made, _ = frame(rule("gpu.util"))
    entities = made.entities
    made.known["gpu.xid_last"] = np.array([1.0, 2.0])
    made.arrange({(name, ""): (GpuRef("n", name), 0) for name in ("a", "b")})
    assert made.entities is entities
    made.arrange({(name, ""): (GpuRef("n", name), 0) for name in ("b", "c")})
    assert made.known["gpu.xid_last"][0] == 2.0
    assert np.isnan(made.known["gpu.xid_last"][1])


def test_a_node_of_many_parts_is_bounded() -> None:
    made, _ = frame(rule("gpu.util"))
    made.add({(str(number), ""): (NodeRef("n"), 0) for number in range(2000)})
    assert len(made.entities) == 512
