"""The keys of a config.json that somebody else wrote, read one at a time, each by its type. The file is bounded; nothing of it runs."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.text import plain

MOST_BYTES: Final = 4 * 2**20
"""Of a config.json; the largest known have some hundred thousand, labels and quantised layers with them."""
MOST_LAYERS: Final = 10_000
NAME_CELLS: Final = 60

_Count = Annotated[int, Meta(ge=0, le=10**9)]
_Counts = Annotated[list[_Count], Meta(max_length=MOST_LAYERS)]
_NOTHING = (b"null", b"0", b"false", b"[]", b"{}", b'""')
_NESTED = ("text_config", "llm_config", "language_config")
"""Where a model that also sees or hears keeps what concerns its language model."""
_SPLIT = ("attn_config", "ffn_config")
"""Where DBRX and MPT keep what others have beside the rest."""


class Family(Struct, frozen=True, forbid_unknown_fields=True):
    """What the code for a ``model_type`` builds that its config.json does not say: ``hf_families.toml`` has the words."""

    gated: bool
    tied: bool = False
    bias: bool = False
    qkv_bias: bool = False
    attention_bias: bool = False
    head_bias: bool = False
    norms: int = 2
    norm_bias: bool = False
    qk_norm: bool = False
    qk_norm_wide: bool = False
    output_gate: bool = False
    shared_gate: bool = False
    shared_experts: int = 0
    positions: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    sinks: bool = False
    ffn_factor: int | None = None
    mlp: bool = True
    layer: str = ""
    lightning: bool = False
    shared_blocks: bool = False
    window: str = "none"
    delta: str = "gated"
    auto_ffn: bool = False
    defaults: dict[str, int] = {}
    nested: dict[str, int] = {}


@cache
def families() -> Mapping[str, Family]:
    """All known ones by ``model_type``."""
    text = (files(__package__) / "hf_families.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Family])


@dataclass(frozen=True, slots=True)
class Keys:
    """A config.json, or the part of it that tells of the language model. ``null`` is as absent.

    Every question may name several spellings of a key; the first that is there answers. Errors: SizingError for a value of
    another type, and where one that is needed is absent.
    """

    where: str
    own: Mapping[str, Raw]
    outer: Mapping[str, Raw]
    """Around it, where it is nested."""
    defaults: Mapping[str, int]

    def count(self, *names: str) -> int | None:
        """A whole number from 0 on, or a list that says it for each layer; the default of its family where it is absent."""
        found = self._value(_Count | _Counts, names)
        if isinstance(found, list):
            if len(set(found)) != 1:
                raise SizingError(
                    f"{self.where}: {names[0]} differs from layer to layer, or is empty; one for all is sized"
                )
            return int(found[0])
        if found is not None:
            return int(found)
        known = (self.defaults[name] for name in names if name in self.defaults)
        return next(known, None) if not self._is_null(names) else None

    def needed(self, words: str, *names: str) -> int:
        """A whole number above 0 that nothing else tells."""
        found = self.count(*names)
        if found is None:
            raise self.missing(words, *names)
        if found == 0:
            raise SizingError(f"{self.where}: {names[0]} is 0; it has to be above zero")
        return found

    def flag(self, name: str, default: bool) -> bool:
        """True or false; of the part around it where its own does not say."""
        for keys in (self.own, self.outer):
            found = self._of(keys, name, bool)
            if found is not None:
                return bool(found)
        return default

    def word(self, *names: str) -> str:
        """A text; empty where absent."""
        return self._value(str, names) or ""

    def ratio(self, name: str, default: float) -> float:
        """A number above zero."""
        found = self._value(Annotated[float, Meta(gt=0, le=1000)], (name,))
        return default if found is None else float(found)

    def words(self, name: str) -> Sequence[str] | None:
        """A list of texts."""
        return self._value(Annotated[list[str], Meta(max_length=MOST_LAYERS)], (name,))  # type: ignore[no-any-return]

    def counts(self, name: str) -> Sequence[int] | None:
        """A list of whole numbers."""
        return self._value(_Counts, (name,))  # type: ignore[no-any-return]

    def inside(self, name: str) -> Keys:
        """The object that a key holds; empty where absent."""
        found = self.own.get(name, Raw(b"{}"))
        return Keys(f"{self.where}: {name}", _object(bytes(found), f"{self.where}: {name}"), {}, {})

    def has(self, *names: str) -> bool:
        """Whether any of them is there and not null, 0, false or empty."""
        return any(name in self.own and bytes(self.own[name]).strip() not in _NOTHING for name in names)

    def missing(self, words: str, *names: str) -> SizingError:
        """The error for a key that nothing else tells."""
        others = f" (or {', '.join(names[1:])})" if len(names) > 1 else ""
        return SizingError(
            f"{self.where} does not tell {words}: there is no {names[0]}{others}",
            f"add {names[0]} to it, or give the shape instead of a file",
        )

    def _is_null(self, names: Sequence[str]) -> bool:
        return any(name in self.own for name in names)

    def _value(self, kind: Any, names: Sequence[str]) -> Any:
        found = (self._of(self.own, name, kind) for name in names)
        return next((value for value in found if value is not None), None)

    def _of(self, keys: Mapping[str, Raw], name: str, kind: Any) -> Any:
        if name not in keys:
            return None
        try:
            return msgspec.json.decode(keys[name], type=kind | None)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise SizingError(f"{self.where}: {name}: {error}", "is it a config.json of a decoder?") from None


def read_keys(path: Path) -> Keys:
    """Of a config.json, or of the folder that has one. Errors: SizingError for what cannot be read or is no JSON object."""
    file = path / "config.json" if path.is_dir() else path
    where = plain(str(file), NAME_CELLS * 2)
    outer = _object(_content(file, where), where)
    for name in _NESTED:
        if name in outer and bytes(outer[name]).lstrip().startswith(b"{"):
            return _with_defaults(Keys(where, _object(bytes(outer[name]), where), outer, {}))
    for name in _SPLIT:
        if bytes(outer.get(name, b"")).lstrip().startswith(b"{"):
            outer = {**_object(bytes(outer[name]), where), **outer}
    return _with_defaults(Keys(where, outer, {}, {}))


def _with_defaults(keys: Keys) -> Keys:
    family = family_of(keys)
    if family is None:
        return keys
    return Keys(
        keys.where, keys.own, keys.outer, {**(family.nested if keys.outer else {}), **family.defaults}
    )


def family_of(keys: Keys) -> Family | None:
    """The family that ``model_type`` names; None where it is not known."""
    return families().get(keys.word("model_type"))


def _content(file: Path, where: str) -> bytes:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SizingError(f"{where} is not a file", "name a config.json, or the folder that has one")
        if status.st_size > MOST_BYTES:
            raise SizingError(
                f"{where} has {status.st_size:,} bytes; a config.json has at most {MOST_BYTES:,}",
                "name the config.json beside the weights, not the weights",
            )
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise SizingError(
            f"{where} cannot be read: {reason}", "name a config.json, or the folder that has one"
        ) from None
    if len(content) > MOST_BYTES:
        raise SizingError(f"{where} is larger than {MOST_BYTES:,} bytes", "name a config.json")
    return content


def _object(content: bytes, where: str) -> dict[str, Raw]:
    try:
        return msgspec.json.decode(content, type=dict[str, Raw])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise SizingError(
            f"{where} is no JSON object: {error}", "name the config.json of a model on Hugging Face"
        ) from None
