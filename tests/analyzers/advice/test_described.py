"""Work that a site describes, held against what telemetry says of it."""

from __future__ import annotations

from typing import Any

import pytest
from lab.usages import WORKS, given, having, refused, series, usage_of

from coldaisle.analyzers.advice.advice import Advice
from coldaisle.analyzers.advice.counsel import settings
from coldaisle.analyzers.audit.audit import audited
from coldaisle.analyzers.audit.joining import Joined
from coldaisle.analyzers.audit.pseudonyms import Pseudonyms
from coldaisle.analyzers.sizing.catalogue import model_named, part_named
from coldaisle.analyzers.sizing.serving_site import figure_of
from coldaisle.analyzers.sizing.training import plan_training
from coldaisle.analyzers.usage import Usage
from coldaisle.sources.errors import ConfigError

EIGHT = {"name": "train*", "model": "llama-3.1-8b"}


def site(**of: Any) -> dict[str, dict[str, object]]:
    return {"described": {"jobs": [{**EIGHT, **of}]}}


def ran(tensor: float = 0.45, **stay: object) -> Usage:
    """Ten jobs of eight H100, four hours each."""
    reads = having(WORKS, gpu__tensor_active=tensor, gpu__sm_clock=1980.0)
    return usage_of(series(10, reads=reads, stay={"name": "train-8b", "state": "COMPLETED", **stay}))


def only(usage: Usage, **of: Any) -> Advice:
    (found,) = given(usage, "described", site(**of))
    return found


def tokens_in(hours: float) -> float:
    """That eight H100 train an 8B model on in so many hours, as it is calculated."""
    sheet = plan_training(model_named("llama-3.1-8b"), 1e12, part_named("h100_sxm"), gpus=8)
    wall = figure_of(sheet, "time", "wall clock")
    assert wall is not None
    return 1e12 * hours * 3600 / wall.value


def test_jobs_that_take_what_is_calculated_agree() -> None:
    found = only(ran(), tokens=tokens_in(4.0))
    assert found.quantity.value == pytest.approx(1.0, rel=1e-3)
    assert found.action.startswith("plan train* by its description")
    assert found.because.endswith("agree")


def test_jobs_that_take_three_times_as_long_are_to_be_mended_before_anything_is_bought() -> None:
    found = only(ran(), tokens=tokens_in(4.0 / 3))
    assert (
        found.action == "find out what holds train* back before buying: it takes 3 times what is calculated"
    )
    assert found.quantity.low > 1.5
    assert found.grounds[0].metric == "slurm.elapsed"


def test_jobs_that_are_much_faster_than_calculated_are_not_what_was_described() -> None:
    assert only(ran(), tokens=tokens_in(12.0)).action.startswith("correct the description of train*")


def test_without_tokens_tensor_cores_are_held_against_the_plan() -> None:
    slow = only(ran(tensor=0.12))
    assert "tensor cores reach 12% of their peak" in slow.because
    assert slow.action.startswith("find out what holds train* back")
    assert slow.grounds[0].metric == "gpu.tensor_active"
    assert only(ran(tensor=0.42)).because.endswith("agree")


def test_what_is_not_known_is_said() -> None:
    def why(usage: Usage, **of: Any) -> str:
        assert not given(usage, "described", site(**of))
        return "; ".join(one.why for one in refused(usage, "described", site(**of)))

    assert "[[advice.described.jobs]]" in refused(ran(), "described")[0].why
    assert "no job named other ran" in why(ran(), name="other")
    assert "no job named" in why(ran(), user="nobody")
    assert "no job named" in why(ran(state="FAILED"), tokens=1e9)
    assert "there is no model" in why(ran(), model="gpt-17")
    assert "neither a model nor parameters" in why(ran(), model="")
    assert "does not fit on 8" in why(ran(), model="llama-3.1-405b")
    assert "of the 3 jobs" in why(usage_of(series(2, stay={"name": "train-8b", "state": "COMPLETED"})))
    keys = tuple(key for key in WORKS if key != "gpu.tensor_active")
    unmeasured = usage_of(series(10, stay={"name": "train-8b", "state": "COMPLETED"}), keys=keys)
    assert "gpu.tensor_active of its GPUs is not measured" in why(unmeasured)


def test_descriptions_go_by_other_names_where_names_are_replaced() -> None:
    words = Pseudonyms(b"x" * 32)
    settings_ = settings(site(tokens=tokens_in(4.0 / 3), user="rsun"))
    made = audited(Joined(ran(), ()), settings_, cluster="atlas", made_at=0.0, pseudonyms=words)
    (found,) = (one for one in made.counsel.given if one.rule == "described")
    assert words.word("job", "train-8b") in found.action
    assert "train-8b" not in repr(made.counsel)
    none = audited(Joined(ran(name="other"), ()), settings_, cluster="atlas", made_at=0.0, pseudonyms=words)
    assert "train*" not in repr(none.counsel)


def test_names_in_it_stay_text() -> None:
    usage = ran(name="train\x1b[31m")
    assert only(usage, tokens=tokens_in(4.0), name="train\x1b*").action.isprintable()


def test_servers_are_held_against_the_gpus_that_their_load_takes() -> None:
    serves = {"name": "train*", "method": "serve", "input_tokens": 1000.0, "output_tokens": 200.0}
    few = only(ran(), **serves, requests_s=1.0)
    assert few.action.startswith("take replicas of train* away")
    assert "8 GPUs serve it" in few.because
    assert few.because.endswith("more GPUs than calculated")
    many = only(ran(), **serves, requests_s=2000.0)
    assert many.action.startswith("check the promises of train*")
    unknown = [one.why for one in refused(ran(), "described", site(**serves))]
    assert "its load is not described" in unknown[0]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"method": "serve", "requests_s": 0.0}, "requests_s is 0; it has to be above zero"),
        ({"method": "serve", "itl": float("nan")}, "itl is nan"),
        ({"tokens": -1e9}, "tokens is -1e"),
        ({"seq": 0}, "seq is 0"),
        ({"model": "", "params": float("inf")}, "params is inf"),
        ({"method": "serve", "tokens": 1e9}, "tokens is of runs, and method is serve"),
        ({"method": "serve", "seq": 4096}, "seq is of runs"),
        ({"method": "lora", "requests_s": 4.0}, 'requests_s is of servers, and method is lora: leave it out, or write method = "serve"'),
        ({"params": 8e9}, "model and params both"),
    ],
)  # fmt: skip
def test_what_a_description_cannot_mean_is_an_error_and_not_ignored(
    told: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        settings(site(**told))
    assert said in str(error.value)
    assert "described" in str(error.value)
