"""The calculator's form: what can be asked of it, filled in with what is measured; and the answer. Nothing is drawn here.

The formulas (analyzers.sizing) are imported when the first answer is wanted.
"""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

from coldaisle.sources.errors import ColdaisleError
from coldaisle.sources.text import plain

if TYPE_CHECKING:
    from coldaisle.analyzers.serving import Totals
    from coldaisle.analyzers.sizing.sheet import Sheet
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.settings import ServingSettings

log = logging.getLogger(__name__)

MOST_TYPED = 80
ANY = "any"
"""Stands where nothing is asked for."""


class Field(NamedTuple):
    """A line of the form."""

    key: str
    label: str
    unit: str
    """A unit of the catalogue of metrics; empty: a name."""
    help: str
    is_optional: bool = False


WHAT: Final = (
    Field("what", "what", "", "serve, train or finetune: each is sized by rules of its own"),
    Field("model", "model", "", "a model of the catalogue: left and right choose, Enter types"),
    Field("part", "part", "", "a part of the catalogue"),
)
SERVE: Final = (
    *WHAT,
    Field("dtype", "weights", "", "format of the weights"),
    Field("rate", "requests/s", "/s", "that arrive, at the busiest; any: one replica", True),
    Field("isl", "tokens in", "tokens", "of a request"),
    Field("osl", "tokens out", "tokens", "of an answer"),
    Field("ttft", "TTFT goal", "s", "time to the first token", True),
    Field("itl", "ITL goal", "s", "time between tokens", True),
)
_RUN: Final = (
    Field("tokens", "tokens", "tokens", "of the whole run: 300G, 15T"),
    Field("seq", "sequence", "tokens", "tokens of a sequence"),
    Field("deadline", "within", "s", "a time to be done in: 30d; any: the fewest GPUs that hold it", True),
    Field("gpus", "GPUs", "1", "so many, and the answer is a time; any: as many as the time needs", True),
)
TRAIN: Final = (*WHAT, *_RUN)
FINETUNE: Final = (*WHAT, Field("method", "method", "", "full, lora or qlora"), *_RUN)
FIELDS: Final[Mapping[str, tuple[Field, ...]]] = {"serve": SERVE, "train": TRAIN, "finetune": FINETUNE}
METHODS: Final = ("lora", "qlora", "full")
DEFAULTS: Final = {
    "what": "serve", "tokens": "300G", "seq": "8192", "deadline": "30d", "gpus": ANY, "method": "lora",
    "model": "Llama-3.x-70B", "part": "h100_sxm", "dtype": "bf16", "rate": ANY, "isl": "2000", "osl": "300", "ttft": ANY,
    "itl": ANY,
}  # fmt: skip
GUESS = "an example"


_GOALS: Final = ("ttft", "itl")


@dataclass(frozen=True, slots=True)
class Form:
    """What is asked: texts by the key of their field, and where each is from."""

    title: str = "an example; nothing is measured here"
    texts: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULTS))
    origins: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(DEFAULTS, GUESS))
    held: int = 0
    """GPUs that serve this load now; 0: it is nobody's."""

    def put(self, key: str, text: str, origin: str = "typed") -> Form:
        """The same with another text in a field. What is typed is another load than the one that is served."""
        held = 0 if origin == "typed" and key not in _GOALS else self.held
        return replace(
            self, texts={**self.texts, key: text}, origins={**self.origins, key: origin}, held=held
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a form: a sheet, or why there is none."""

    form: Form
    sheet: Sheet | None = None
    problem: str = ""
    remedy: str = ""


def answer(form: Form) -> Answer:
    """Compute; never raises. For a thread that is not the screen's."""
    try:
        return Answer(form, _held(ASKED[what_of(form)](form.texts), form.held))
    except ColdaisleError as error:
        return Answer(form, problem=plain(str(error), 400), remedy=plain(error.remedy, 400))
    except ValueError as error:
        return Answer(form, problem=plain(str(error), 400))
    except Exception:  # supervision: a mistake in a formula must not end the screen
        log.exception("the calculator failed")
        return Answer(form, problem="the calculator failed", remedy="the log says why")


def _held(sheet: Sheet, gpus: int) -> Sheet:
    """With what serves it now, where that is known."""
    if not gpus:
        return sheet
    from coldaisle.analyzers.sizing.checked import checked_gpus

    return checked_gpus(sheet, gpus)


def _serving(texts: Mapping[str, str]) -> Sheet:
    from coldaisle.analyzers.sizing.catalogue import model_named, part_named
    from coldaisle.analyzers.sizing.plan_serving import Request, plan_serving

    asked = {one.key: value_of(one, texts[one.key]) for one in SERVE if one.unit}
    request = Request(
        model_named(texts["model"]),
        isl=asked["isl"],
        osl=asked["osl"],
        rate=asked["rate"],
        ttft=asked["ttft"],
        itl=asked["itl"],
        dtype=texts["dtype"],
    )
    return plan_serving(request, part_named(texts["part"]))


def _training(texts: Mapping[str, str]) -> Sheet:
    from coldaisle.analyzers.sizing.catalogue import model_named, part_named
    from coldaisle.analyzers.sizing.training import plan_training

    run = _run_of(texts)
    return plan_training(
        model_named(texts["model"]),
        run.tokens,
        part_named(texts["part"]),
        gpus=run.gpus,
        deadline_s=run.deadline_s,
        seq=run.seq,
    )


def _finetuning(texts: Mapping[str, str]) -> Sheet:
    from coldaisle.analyzers.sizing.catalogue import model_named, part_named
    from coldaisle.analyzers.sizing.training import plan_finetuning

    run = _run_of(texts)
    return plan_finetuning(
        model_named(texts["model"]),
        run.tokens,
        part_named(texts["part"]),
        method=_method(texts["method"]),
        gpus=run.gpus,
        deadline_s=run.deadline_s,
        seq=run.seq,
    )


class _Run(NamedTuple):
    """What training and fine-tuning have in common."""

    tokens: float
    seq: int
    deadline_s: float | None
    gpus: int | None


def _run_of(texts: Mapping[str, str]) -> _Run:
    """ValueError for what is no number."""
    asked = {one.key: value_of(one, texts[one.key]) for one in _RUN}
    given = {key: None if math.isnan(asked[key]) else asked[key] for key in ("deadline", "gpus")}
    if given["gpus"] is not None:
        given["deadline"] = None  # with a number of GPUs the answer is a time
    gpus = given["gpus"]
    return _Run(asked["tokens"], int(asked["seq"]), given["deadline"], None if gpus is None else int(gpus))


def _method(text: str) -> Literal["full", "lora", "qlora"]:
    if text not in METHODS:
        raise ValueError(f"method: {text} is none of {', '.join(METHODS)}")
    return cast('Literal["full", "lora", "qlora"]', text)


ASKED: Final[Mapping[str, Callable[[Mapping[str, str]], Sheet]]] = {
    "serve": _serving, "train": _training, "finetune": _finetuning,
}  # fmt: skip


def command_of(form: Form) -> str:
    """``coldaisle size serve --model ... --part ...``: what gives the same answer in a shell."""
    words = ["coldaisle", "size", what_of(form)]
    has_number = form.texts["gpus"] != ANY
    for one in fields_of(form)[1:]:
        text = form.texts[one.key]
        # With a number of GPUs the answer is a time, and a deadline is not looked at.
        if text != ANY and not (one.key == "deadline" and has_number):
            words += [f"--{one.key}", text]
    return shlex.join(words)


def what_of(form: Form) -> str:
    """What is sized; ``serve`` where what was typed is none of it."""
    return form.texts["what"] if form.texts["what"] in FIELDS else "serve"


def fields_of(form: Form) -> tuple[Field, ...]:
    """The lines of a form."""
    return FIELDS[what_of(form)]


def value_of(one: Field, text: str) -> float:
    """What a field's text means, in its canonical unit; NaN: it is not asked for. ValueError says what is accepted."""
    from coldaisle.sources.units import parse

    if one.is_optional and text.strip().casefold() in ("", "-", ANY):
        return math.nan
    try:
        return parse(text, one.unit)
    except ValueError as error:
        raise ValueError(f"{one.label}: {error}") from None


def problem_of(one: Field, text: str) -> str:
    """What is wrong with a text, as it is typed; empty: nothing."""
    if not one.unit:
        known = {"what": tuple(FIELDS), "method": METHODS}.get(one.key)
        if known is not None:
            return "" if text.strip() in known else f"one of {', '.join(known)}"
        return "" if text.strip() else "a name"
    try:
        value_of(one, text)
    except ValueError as error:
        return str(error)
    return ""


def choices(key: str) -> tuple[str, ...]:
    """What a field goes through with left and right; empty: it is typed."""
    from coldaisle.analyzers.sizing.catalogue import models
    from coldaisle.analyzers.sizing.weights import FORMATS
    from coldaisle.sources.parts.catalogue import parts

    known: Mapping[str, Callable[[], tuple[str, ...]]] = {
        "what": lambda: tuple(FIELDS),
        "method": lambda: METHODS,
        "model": lambda: tuple(models()),
        "part": lambda: tuple(parts()),
        "dtype": lambda: tuple(FORMATS),
    }
    return known[key]() if key in known else ()


def turned(form: Form, key: str, by: int) -> Form:
    """The next choice of a field; where it is typed the same form."""
    known = choices(key)
    if not known:
        return form
    here = form.texts[key]
    at = known.index(here) + by if here in known else 0 if by > 0 else -1
    form = form.put(key, known[at % len(known)], "chosen")
    if key == "what" and form.origins["tokens"] == GUESS:
        form = form.put("tokens", "1G" if what_of(form) == "finetune" else DEFAULTS["tokens"], GUESS)
    return form


# --- what is measured --------------------------------------------------------------------------------


def measured(snapshot: Snapshot, promises: ServingSettings | None) -> list[Form]:
    """A form for each service whose load is measured, the most GPUs first."""
    if not snapshot.layout.servers:
        return []
    from coldaisle.analyzers.serving import group, limits_of, totals

    found = totals(snapshot, group(snapshot.layout))
    limits = limits_of(found.grouping, promises) if promises is not None else {}
    services = found.grouping.services
    gpus = [sum(len(snapshot.layout.servers[at].gpus) for at in service.servers) for service in services]
    forms = []
    for at in sorted(range(len(services)), key=lambda at: -gpus[at]):
        goals = {key: float(limits[name][at]) for key, name in GOALS if name in limits}
        forms.append(_form_of(snapshot, found, at, goals, gpus[at]))
    return [form for form in forms if form is not None]


GOALS: Final = (("ttft", "ttft_p99"), ("itl", "itl_p99"))
"""Fields and the promises that they are filled in with."""


def _form_of(
    snapshot: Snapshot, found: Totals, at: int, goals: Mapping[str, float], gpus: int
) -> Form | None:
    """The load of one service as a form; None: its rate is not told."""
    service = found.grouping.services[at]
    rate = found.figure("serve.requests", at).value
    tokens = {
        "isl": found.figure("serve.prompt_tokens", at).value, "osl": found.figure("serve.gen_tokens", at).value
    }  # fmt: skip
    if not rate > 0:
        return None
    held = f", {gpus} GPUs hold it now" if gpus else ""
    form = Form(f"{plain(service.name, 40)}: {len(service.servers)} replicas{held}", held=gpus)
    form = form.put("what", "serve", "what is measured").put("rate", f"{rate:.3g}", "measured now")
    for key, value in tokens.items():
        if value > 0:
            form = form.put(key, f"{value / rate:.0f}", "measured now: tokens/s over requests/s")
    for key, limit in goals.items():
        if limit > 0:
            form = form.put(key, f"{limit:g}s", "promised (p99)")
    return _with_names(snapshot, form, service.model or service.name, service.servers)


def _with_names(snapshot: Snapshot, form: Form, model: str, servers: tuple[int, ...]) -> Form:
    """With the model, or the one of its size, and the part that serves it."""
    from coldaisle.sources.parts.catalogue import find_part

    name, origin = _model_of(model)
    if name:
        form = form.put("model", name, origin)
    layout = snapshot.layout
    gpu = next((gpu for server in servers for gpu in layout.servers[server].gpus), None)
    board = layout.gpus[gpu] if gpu is not None else None
    if board is not None and board.model:
        part = find_part(board.model, float(board.memory_bytes) if board.memory_bytes else math.nan)
        if part is not None:
            form = form.put("part", part.id, "what serves it")
    return form


def _model_of(name: str) -> tuple[str, str]:
    """The model of the catalogue that a served name means, else the first one of the size in it; and how it was found."""
    import re

    from coldaisle.analyzers.sizing.catalogue import model_named, models

    short = name.rpartition("/")[2][:MOST_TYPED]
    try:
        return model_named(short).name, "what is served"
    except ColdaisleError:
        pass
    size = re.search(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z0-9])", short)
    if size is None:
        return "", ""
    params = float(size[1]) * 1e9
    alike = [one for one in models().values() if abs(one.params / params - 1) < 0.1] if params else []
    if not alike:
        return "", ""
    return alike[-1].name, f"of the size of {plain(short, 24)}, which is in no catalogue"
