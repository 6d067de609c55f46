"""What is to be sized: a run of training or fine-tuning, or a load that is served, whatever the part. Pure.

Fields are canonical: tokens, s, bytes/s, W, ratios; None: not told, then the plan chooses or takes what is usual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.flops import Method, shaped
from coldaisle.analyzers.sizing.plan_serving import Request
from coldaisle.analyzers.sizing.power import Prices
from coldaisle.analyzers.sizing.search import Spread
from coldaisle.analyzers.sizing.serving_site import with_site
from coldaisle.analyzers.sizing.sheet import Sheet
from coldaisle.analyzers.sizing.site import Site
from coldaisle.analyzers.sizing.told_gpus import in_time, plan_serving_on
from coldaisle.analyzers.sizing.training import plan_finetuning, plan_training
from coldaisle.sources.parts.catalogue import Part

ANY_PART = ""
"""Key of the prices that hold for parts without their own."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is to run, with the prices of parts by their ids."""

    site: Site = field(default_factory=Site)
    prices: Mapping[str, Prices] = field(default_factory=dict)

    def of(self, part: Part) -> Site:
        """The site with what this part costs."""
        return replace(self.site, prices=self.prices.get(part.id, self.prices.get(ANY_PART)))


@dataclass(frozen=True, slots=True)
class Run:
    """Training from the beginning; with ``method`` fine-tuning."""

    model: Model
    tokens: float
    seq: int
    gpus: int | None = None
    deadline_s: float | None = None
    batch_tokens: float | None = None
    dtype: str | None = None
    spread: Spread = field(default_factory=Spread)
    method: Method | None = None
    rank: int = 16

    @property
    def is_number_asked(self) -> bool:
        """Whether the answer is how many GPUs."""
        return self.gpus is None

    def plan(self, part: Part, place: Place) -> Sheet:
        """Errors: SizingError for what means nothing on this part."""
        return in_time(self._plan(part, place), self.deadline_s, self.gpus)

    def _plan(self, part: Part, place: Place) -> Sheet:
        plan = plan_training if self.method is None else self._fine_tuning()
        return plan(
            self.model, self.tokens, part, gpus=self.gpus, deadline_s=self.deadline_s, seq=self.seq,
            batch_tokens=self.batch_tokens, dtype=self.dtype, site=place.of(part), **asdict(self.spread),
        )  # fmt: skip

    def _fine_tuning(self) -> Callable[..., Sheet]:
        return partial(plan_finetuning, method=self.method or "lora", rank=self.rank)


@dataclass(frozen=True, slots=True)
class Service:
    """Serving; on so many ``gpus``, None: on as few as do."""

    request: Request
    gpus: int | None = None

    @property
    def model(self) -> Model:
        """What is served."""
        return self.request.model

    @property
    def is_number_asked(self) -> bool:
        """Whether the answer is how many GPUs: there is a load, and no number is told."""
        return self.gpus is None and (is_told(self.request.rate) or is_told(self.request.users))

    def plan(self, part: Part, place: Place) -> Sheet:
        """Errors: SizingError for what means nothing on this part."""
        known, notes = shaped(self.request.model)
        keeping = known.layers if known.kv_layers is None else known.kv_layers
        request = replace(self.request, model=replace(known, kv_layers=keeping))
        sheet = plan_serving_on(request, part, self.gpus, place.of(part))
        sheet = replace(sheet, answer=_whole_answer(known, sheet), warnings=(*notes, *sheet.warnings))
        return with_site(sheet, part, place.of(part))


def _whole_answer(model: Model, sheet: Sheet) -> str:
    """A sentence that stands by itself, as in training: who does not fit, and what binds."""
    words = sheet.answer
    if words.startswith(("does ", "is ")):
        words = f"{model.name} {words}"
    if sheet.binding is None or "What binds: " in words:
        return words
    return f"{words}. What binds: {sheet.binding.name}"


Task = Run | Service


def is_told(value: object) -> bool:
    """Whether a field of a task was told: neither None nor NaN."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))
