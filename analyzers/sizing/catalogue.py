"""Models and nodes as data, and the parts that a request names.

The figures stand in ``models.csv`` and ``nodes.csv`` beside this; those of accelerators and fabrics in ``sources/parts``. An
empty cell is a figure that is not known: None for counts, NaN for measures, never 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType

from coldaisle.analyzers.sizing.bounds import check_fields
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.parts.catalogue import (
    GIB,
    NAN,
    Fabric,
    Part,
    candidates,
    fabrics,
    number,
    parts,
    rows,
)

FROM_CONFIG = "read from a config.json"
"""Status of such a model; its note is for its user."""
GIGABIT = 1e9 / 8
MLA_HEAD = 160.0
"""What a head of MLA is wide before its latent: 192 of query and key, 128 of value (DeepSeek-V2 and V3, Kimi-K2)."""
_MOST_NAME = 60
SERVER = 8
"""GPUs that a usual server joins with links of their own."""


_SIZES = ("params", "active_params", "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab")


@dataclass(frozen=True, slots=True)
class Model:
    """A transformer by its shape. Parameters and sizes are counts; None: not known.

    Errors: SizingError for a size that is not above zero, for heads that KV heads do not divide, for more active parameters
    than there are.
    """

    name: str
    params: float
    active_params: float
    """Of one token; all of them in a dense model."""
    layers: int | None = None
    kv_layers: int | None = None
    """Layers that keep keys and values: fewer in a hybrid."""
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    ffn: int | None = None
    """Width of one MLP; of one expert in a mixture."""
    vocab: int | None = None
    attention: str = ""
    """``MHA``, ``GQA``, ``MLA``, with words: as the table has it."""
    kv_bytes_per_token: float = NAN
    """At 16 bit, over all layers, as published; NaN: to be computed from the shape."""
    window_layers: int = 0
    """Of ``kv_layers`` those that see only the last ``window`` tokens."""
    window: int | None = None
    experts: int | None = None
    experts_active: int | None = None
    gated_ffn: bool = True
    """Three matrices a MLP instead of two (SwiGLU)."""
    tied_embedding: bool = False
    latent_dim: int | None = None
    """Of MLA: elements a token and layer keeps, one copy for all heads."""
    score_dim: float | None = None
    """Of MLA: what a head is wide where whole sequences are read, queries with keys and values on the mean; None: as usual."""
    index_bytes: float = 0.0
    """That each layer keeps of a token beside keys and values, to choose whom to attend to; whatever their format."""
    state_bytes: float = 0.0
    """That layers without keys and values keep of a request, however long it is."""
    stored: str = "bf16"
    """Format that its weights are published in, as ``weights.FORMATS`` names it."""
    status: str = ""
    """Whether it was read, and where; or remembered."""
    note: str = ""

    def __post_init__(self) -> None:
        check_fields(self, _SIZES, f"{self.name}: ")
        if self.active_params > self.params:
            raise SizingError(
                f"{self.name}: {self.active_params:.4g} active parameters of {self.params:.4g}; a token meets no more than there are"
            )
        if self.layers and (self.kv_layers or 0) > self.layers:
            raise SizingError(
                f"{self.name}: {self.kv_layers} layers keep keys and values, of {self.layers}; there cannot be more"
            )
        if self.heads and self.kv_heads and self.heads % self.kv_heads:
            raise SizingError(
                f"{self.name}: {self.heads} heads do not divide over {self.kv_heads} KV heads; one has to be a multiple of the other"
            )

    @property
    def is_mixture(self) -> bool:
        """Whether a token meets only some of the parameters."""
        return self.active_params < self.params

    @property
    def is_mla(self) -> bool:
        """Whether keys and values are one latent, which tensor parallelism does not divide."""
        return self.latent_dim is not None or self.attention.startswith("MLA")

    @property
    def attention_width(self) -> float:
        """Of all heads together, where whole sequences are read: heads times their size; NaN: not known."""
        if self.is_mla and self.heads:
            return self.heads * (self.score_dim or MLA_HEAD)
        if self.heads and self.head_dim:
            return float(self.heads * self.head_dim)
        return float(self.hidden) if self.hidden else NAN

    @property
    def attending_layers(self) -> int | None:
        """Layers that look at other tokens: those that keep keys and values, else all."""
        return self.layers if self.kv_layers is None else self.kv_layers

    @property
    def embedding_params(self) -> float:
        """Of one table, vocabulary times hidden; NaN: not known."""
        return float(self.vocab * self.hidden) if self.vocab and self.hidden else NAN


@dataclass(frozen=True, slots=True)
class NodeType:
    """A server as it is sold or let. W, bytes and bytes/s; NaN: not known."""

    id: str
    system: str
    part: str
    """Id of its accelerators."""
    gpus: int
    power_w: float
    """Of the name plate."""
    measured_power_w: float
    """The most that anybody measured under work; ``measured_basis`` says which work."""
    measured_basis: str
    rack_units: float
    cooling: str
    nics: str
    network: float
    """One way, over all its ports."""
    memory_bytes: float
    sources: tuple[str, ...]
    status: str
    notes: str

    @property
    def network_per_gpu(self) -> float:
        """Bytes/s one way."""
        return self.network / self.gpus


@cache
def models() -> Mapping[str, Model]:
    """All models, by name."""
    return MappingProxyType({row["model"]: _model(row) for row in rows(__package__, "models.csv")})


@cache
def nodes() -> Mapping[str, NodeType]:
    """All nodes, by id."""
    return MappingProxyType({row["id"]: _node(row) for row in rows(__package__, "nodes.csv")})


def nodes_of(part: Part) -> tuple[NodeType, ...]:
    """The nodes that are sold with a part; those with a name plate first."""
    mine = [node for node in nodes().values() if node.part == part.id]
    return tuple(sorted(mine, key=lambda node: math.isnan(node.power_w)))


def part_named(name: str, memory_bytes: float = NAN) -> Part:
    """The part that an id or a product name means; ``H100`` is the one for servers of eight, not a card.

    Errors: SizingError, with the ids that it may be.
    """
    found = candidates(name, memory_bytes)
    served = tuple(part for part in found if part.scaleup_gpus >= SERVER)
    for chosen in (found, served):
        if len(chosen) == 1:
            return chosen[0]
    if found:
        raise SizingError(f"{name} may be {_listed(tuple(part.id for part in found))}; name one of them")
    raise _unknown("part", name, parts())


def model_named(name: str) -> Model:
    """The model that a name means, whatever its case and hyphens. Errors: SizingError, with the names that it may be."""
    wanted = _plain(name)
    known = models().values()
    for found in (
        [model for model in known if wanted in _names(model.name)],
        [model for model in known if wanted and any(wanted in each for each in _names(model.name))],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise SizingError(
                f"{name} may be {_listed(tuple(model.name for model in found))}; name one of them"
            )
    raise _unknown("model", name, models())


def node_named(name: str) -> NodeType:
    """The node of an id or a system's name. Errors: SizingError, with the ids that there are."""
    wanted = _plain(name)
    for node in nodes().values():
        if wanted in (_plain(node.id), _plain(node.system)):
            return node
    raise _unknown("node", name, nodes())


def fabric_named(name: str) -> Fabric:
    """The network of an id. Errors: SizingError, with the ids that there are."""
    found = fabrics().get(name.casefold())
    if found is None:
        raise SizingError(f"there is no fabric {name} in the catalogue; it has {_listed(tuple(fabrics()))}")
    return found


def _unknown(what: str, name: str, known: Iterable[str]) -> SizingError:
    """With the names that come near; with all of them where none does."""
    names = {_plain(one): one for one in known}
    near = [names[one] for one in get_close_matches(_plain(name)[:_MOST_NAME], names, 3, 0.6)]
    shown = name if len(name) <= _MOST_NAME else f"{name[:_MOST_NAME]}…"
    remedy = f"did you mean {_listed(tuple(near))}?" if near else f"it has {_listed(tuple(names.values()))}"
    return SizingError(f"there is no {what} {shown} in the catalogue", remedy)


def dense(name: str, params: float, **shape: int | None) -> Model:
    """A model that is known by its size alone, or by parts of its shape."""
    return replace(Model(name, params, params), **shape)  # type: ignore[arg-type]


def _plain(name: str) -> str:
    return re.sub(r"[-_\s.]+", "", name).casefold()


def _names(name: str) -> set[str]:
    """``DeepSeek-V3/R1`` is both; ``Llama-3.x-8B`` is Llama 3, 3.1 and so on."""
    first, _, other = name.partition("/")
    plain = {_plain(name), _plain(first)}
    if other:
        plain.add(_plain(first.rpartition("-")[0] + other))
    if "3.x" in name:
        plain |= {_plain(name.replace("3.x", version)) for version in ("3", "3.1", "3.3")}
    return plain


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]


def _count(cell: str) -> int | None:
    return int(float(cell)) if cell.strip() else None


def _model(row: Mapping[str, str]) -> Model:
    attention = row["attention"]
    latent = re.match(r"MLA: (\d+) latent \+ (\d+) rope", attention)
    return Model(
        name=row["model"],
        params=float(row["params_total"]),
        active_params=float(row["params_active"]),
        layers=_count(row["n_layers"]),
        kv_layers=_count(row["n_kv_layers"]),
        hidden=_count(row["d_model"]),
        heads=_count(row["n_heads"]),
        kv_heads=_count(row["n_kv_heads"]),
        head_dim=_count(row["head_dim"]),
        ffn=_count(row["ffn"]),
        vocab=_count(row["vocab"]),
        attention=attention,
        kv_bytes_per_token=number(row["kv_bytes_per_token_16bit"]),
        window_layers=_count(row["window_layers"]) or 0,
        window=_count(row["window_tokens"]),
        experts=_count(row["experts"]),
        experts_active=_count(row["experts_active"]),
        gated_ffn=row["gated_ffn"] != "no",
        tied_embedding=row["tied_embedding"] == "yes",
        latent_dim=int(latent[1]) + int(latent[2]) if latent else None,
        stored=row["stored"] or "bf16",
        status=row["status"],
        note=row["note"],
    )


def _node(row: Mapping[str, str]) -> NodeType:
    return NodeType(
        id=row["id"],
        system=row["system"],
        part=row["accelerator_id"],
        gpus=int(row["n_accel"]),
        power_w=number(row["power_nameplate_w"]),
        measured_power_w=number(row["power_measured_peak_w"]),
        measured_basis=row["power_measured_basis"],
        rack_units=number(row["rack_units"]),
        cooling=row["cooling"],
        nics=row["scaleout_nics"],
        network=number(row["scaleout_gbps_total"]) * GIGABIT,
        memory_bytes=number(row["host_mem_gb"]) * GIB,
        sources=tuple(key.strip() for key in row["sources"].split(";")),
        status=row["status"],
        notes=row["notes"],
    )
