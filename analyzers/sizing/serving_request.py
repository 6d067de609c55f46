"""What is to be served, and how: a request to the calculator, checked. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.analyzers.sizing.weights import format_named
from coldaisle.sources.parts.catalogue import Part

NAN = math.nan
MOST_TOKENS = 1e8
MOST_GPUS = 131_072
MOST_RUNNING = 2048
"""Requests that an engine runs at once by its own limit (TensorRT-LLM; vLLM has from 256 to 1,024)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be served. Tokens, requests/s, s; NaN: not asked for.

    Either ``rate`` (requests/s that arrive) or ``users`` (that each wait for an answer, then ask again) or neither: then one
    replica. ``kv_memory``: bytes a GPU that the engine says are free for keys and values, instead of an estimate.
    Errors: SizingError for what means nothing.
    """

    model: Model
    isl: float
    osl: float
    rate: float = NAN
    users: float = NAN
    ttft: float = NAN
    itl: float = NAN
    dtype: str = "bf16"
    kv_dtype: str = "auto"
    """``auto``: 8 bit for weights of fp8 and fp4 on parts that compute fp8, as TensorRT-LLM has it, else 16."""
    tensor: int | None = None
    pipeline: int | None = None
    replicas: int | None = None
    memory_share: float = 0.9
    max_model_len: float = NAN
    batched_tokens: float = 8192.0
    max_running: float = MOST_RUNNING
    margin: float = 0.15
    """Added to the load once; 0.15 is 15 %."""
    kv_memory: float = NAN

    def __post_init__(self) -> None:
        for name, words in _ABOVE_ZERO.items():
            value = getattr(self, name)
            if value is None or (
                isinstance(value, float) and math.isnan(value) and name not in ("isl", "osl")
            ):
                continue
            if not 0 < value < math.inf:
                raise SizingError(f"{words} is {value:g}; it has to be above zero")
            if name in _FROM_ONE and value < 1:
                raise SizingError(f"{words} is {value:g}; it has to be at least 1")
            if isinstance(value, float) and name in ("tensor", "pipeline", "replicas"):
                raise SizingError(f"{words} is {value:g}; it has to be a whole number")
        self._check_layout()
        format_named(self.dtype)
        if not math.isnan(self.rate) and not math.isnan(self.users):
            raise SizingError(
                "requests/s and users both",
                "give one: users ask again once answered, a rate arrives by itself",
            )
        self._check_lengths()
        if not 0 < self.memory_share <= 1:
            raise SizingError(f"a memory share of {self.memory_share:g}; it is a ratio above 0 and at most 1")
        if not 0 <= self.margin <= 10:
            raise SizingError(f"a margin of {self.margin:g}; it is a ratio from 0 (none) to 10")

    def _check_layout(self) -> None:
        layers = self.model.layers
        if self.pipeline is not None and layers is not None and self.pipeline > layers:
            raise SizingError(
                f"{self.pipeline:,} pipeline stages for {layers} layers; a stage has at least one of them",
                f"at most {layers} stages; replicas for more GPUs",
            )
        if self.replicas is not None and self.replicas > MOST_GPUS:
            raise SizingError(f"{self.replicas:,} replicas; at most {MOST_GPUS:,} are sized")

    def _check_lengths(self) -> None:
        if self.length > MOST_TOKENS:
            raise SizingError(f"{self.length:,.0f} tokens a request; at most {MOST_TOKENS:,.0f} are sized")
        if self.max_model_len < self.length:
            raise SizingError(
                f"requests of {self.length:,.0f} tokens do not fit a longest of {self.max_model_len:,.0f}",
                "raise --max-model-len, or make requests shorter",
            )
        if self.max_model_len > MOST_TOKENS:
            raise SizingError(
                f"a longest request of {self.max_model_len:,.0f} tokens; at most {MOST_TOKENS:,.0f} are sized"
            )

    @property
    def has_load(self) -> bool:
        """Whether a rate or users are asked for, not one replica alone."""
        return not (math.isnan(self.rate) and math.isnan(self.users))

    @property
    def has_goal(self) -> bool:
        """Whether there is a latency to keep."""
        return not (math.isnan(self.ttft) and math.isnan(self.itl))

    @property
    def length(self) -> float:
        """Tokens of a request at its end."""
        return self.isl + self.osl

    @property
    def longest(self) -> float:
        """Tokens of the longest request that is accepted: an engine does not start where its memory has no room for one."""
        return self.length if math.isnan(self.max_model_len) else self.max_model_len

    @property
    def step_tokens(self) -> float:
        """The most that one step takes in; a longest request that the engine accepts may need no more."""
        return min(self.batched_tokens, max(self.longest, 2048.0))


_FROM_ONE = ("isl", "osl", "tensor", "pipeline", "replicas", "max_model_len", "batched_tokens", "max_running")
_ABOVE_ZERO = {
    "isl": "tokens in a request (isl)",
    "osl": "tokens out of a request (osl)",
    "rate": "requests/s",
    "users": "users",
    "ttft": "the goal for the time to first token",
    "itl": "the goal for the time between tokens",
    "tensor": "tensor parallelism",
    "pipeline": "pipeline stages",
    "replicas": "replicas",
    "max_model_len": "the longest request",
    "batched_tokens": "tokens a step",
    "max_running": "requests at once",
    "kv_memory": "memory for keys and values",
}


def settled(request: Request, part: Part) -> Request:
    """The request with the format of keys and values that ``auto`` means on a part."""
    if request.kv_dtype != "auto":
        return request
    small = format_named(request.dtype)[0] in _EIGHT_BIT_CACHE and part.peak("fp8") > 0
    return replace(request, kv_dtype="fp8" if small else "bf16")


_EIGHT_BIT_CACHE = ("fp8", "fp4")
"""Formats of weights whose published checkpoints and tables (TensorRT-LLM, NIM) come with keys and values of 8 bit."""
