"""What a store is to hold, fixed before the first photograph: which PFVs, which iERFs, all that its bytes depend on."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import ceil
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ierf.deprecated import by_present_names, renamed
from ierf.errors import IerfError, UnknownNameError
from ierf.model import Preprocess, Values
from ierf.typed import FieldError, typed

Sampling = Literal["relevance", "uniform", "all"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)
NO_ROW = -1
"""The row of a token that is no patch; its column is its place in the sequence."""
ZERO = 128
"""The byte that stands for 0."""
_LEVELS = 127
_USUAL_SIDE = 64


def draw(weights: Float[np.ndarray, " P"], count: int, key: str) -> Int[np.ndarray, " count"]:
    """`count` different positions, one after the other with probability ∝ the positive part of `weights` that is left.

    The `count` largest of `log w_p + g_p` with Gumbel noise `g` are such a draw (Kool et al., ICML 2019); positions
    without weight follow, each as likely as the others. The same `key` gives the same draw.
    """
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()))
    positive = weights > 0
    score = np.log(weights, where=positive, out=np.zeros(len(weights))) + random.gumbel(size=len(weights))
    return np.lexsort((-score, ~positive))[:count]


def stored_positions(
    places: Int[np.ndarray, "*batch"], size: tuple[int, ...], prefix: int
) -> Int[np.ndarray, "*batch axes"]:
    """Places in a sequence of `prefix` tokens and then a row-major map of this size -> what a store keeps of them.

    (row, column) on the map; (−1, index) of a token in front of it, where no patch can be.
    """
    found = np.stack(np.unravel_index(np.maximum(places - prefix, 0), size), -1)
    if prefix:
        tokens = np.stack([np.full_like(places, NO_ROW), places], -1)
        found = np.where((places < prefix)[..., None], tokens, found)
    return found.astype(np.int32)


def position_of(stored: Int[np.ndarray, " axes"]) -> tuple[int, ...]:
    """A position as `ierf.effective_receptive_fields` takes it: (row, column), or (index,) of a token."""
    first, *rest = map(int, stored)
    return tuple(rest) if first == NO_ROW else (first, *rest)


def token_name(index: int) -> str:
    """What a token in front of the patches is called: the first one "class token"."""
    return f"prefix token {index}" if index else "class token"


def reduced_size(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """The (rows, columns) to which maps of this size are reduced: the longer one becomes `side`, never more than it is.

    None divides it by the least whole number that leaves at most 64: 224 becomes 56, 64 stays.
    """
    longer = max(size)
    shrink = max(1.0, ceil(longer / _USUAL_SIDE) if side is None else longer / side)
    return max(1, round(size[0] / shrink)), max(1, round(size[1] / shrink))


def reduced(maps: Float[Tensor, "*batch H W"], size: tuple[int, int]) -> Float[Tensor, "*batch h w"]:
    """Sums over the area of each cell: `m'_o = Σ_i |o ∩ i| m_i`, so that a map keeps its sum.

    It is the area mean times the number of pixels of a cell, also where cells cut through pixels.
    """
    rows, columns = (_overlap(n, side).to(maps) for n, side in zip(size, maps.shape[-2:], strict=True))
    return rows @ maps @ columns.T


def quantised(maps: Float[Tensor, "R h w"]) -> tuple[UInt8[Tensor, "R h w"], Float[Tensor, " R"]]:
    """Bytes `q` and a scale `s` for each map: `m ≈ (q − 128) s`, `s = max |m| / 127`; exact at 0, within s/2 else."""
    scale = maps.flatten(1).abs().amax(1) / _LEVELS
    steps = (maps / scale.masked_fill(scale == 0, torch.inf).view(-1, 1, 1)).round()
    return (steps + ZERO).to(torch.uint8), scale.float()


def restored(quantised: UInt8[Tensor, "*batch h w"], scale: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch h w"]:
    """The maps again, float32."""
    return (quantised.float() - ZERO) * scale[..., None, None]


def _overlap(cells: int, pixels: int) -> Float[Tensor, "cells pixels"]:
    """The part of each pixel's side that lies in each of `cells` equal intervals of the axis; columns sum to 1."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    left = torch.arange(pixels, dtype=torch.float64)
    start, end = torch.maximum(edges[:-1, None], left), torch.minimum(edges[1:, None], left + 1)
    return (end - start).clamp_min(0)


FORMAT = "pfv-ierf-store"
VERSION = 2
PLAIN = 1
"""The version of stores without prefix tokens, which readers of version 1 know."""

_OPTIONAL = ("shift", "prefix_rows")
"""Of a layer's plan: left out where they say nothing."""

PFVType = Literal["float16", "float32"]
Dtype = Literal["float32", "bfloat16"]


@renamed(compute="dtype")
@dataclass(frozen=True)
class Settings:
    """How PFVs and iERFs are collected.

    Args:
        method: "srd", "attnlrp" or "cp_lrp"; None: AttnLRP for networks with attention, else SRD.
        options: of the method's rules.
        sampling: which PFVs of an image: by their "relevance" to the predicted class, "uniform" over positions, "all".
        per_image: how many of each image and layer.
        prefix_tokens: whether to keep, beside them, the tokens in front of the patches (class token, registers).
        seed: of the draws, which depend on it, the image's name and the layer alone.
        values: "pre-activation" PFVs where a layer's last operation is an activation, or the layer's "output".
        ierf: whether to keep an iERF with each PFV.
        resolution: side of the kept iERFs, see `ierf.store.reduced_size`.
        pfv_type: how PFVs are stored.
        dtype: "bfloat16" runs convolutions and matrix products in bfloat16.
        batch: images at once.
        block: images per chunk, at most; fewer where their PFVs take more than 16 MiB.
    """

    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = "relevance"
    per_image: int = 1
    prefix_tokens: bool = False
    seed: int = 0
    values: Values = "pre-activation"
    ierf: bool = True
    resolution: int | None = None
    pfv_type: PFVType = "float16"
    dtype: Dtype = "float32"
    batch: int = 16
    block: int = 512

    def __post_init__(self) -> None:
        for what, value, choices in (
            ("sampling", self.sampling, SAMPLINGS),
            ("kind of PFV values", self.values, get_args(Values)),
            ("type of PFVs", self.pfv_type, get_args(PFVType)),
        ):
            if value not in choices:
                raise UnknownNameError(what, value, choices)
        check_dtype(self.dtype)
        for name in ("per_image", "batch", "block"):
            if getattr(self, name) < 1:
                raise IerfError(f"{name} is at least 1, not {getattr(self, name)}")
        if self.resolution is not None and self.resolution < 1:
            raise IerfError(f"iERFs have at least one cell, so resolution cannot be {self.resolution}")
        if self.sampling == "all" and self.ierf:
            raise IerfError("iERFs of all positions do not fit on a disk; leave them out (ierf=False, --no-ierf)")
        if self.sampling == "all" and self.per_image != 1:
            raise IerfError("sampling 'all' takes every position once; leave per_image at 1")

    @classmethod
    def of(cls, **choices: Any) -> "Settings":
        """The settings with these names. Raises `UnknownNameError` for another name."""
        known, named = [f.name for f in fields(cls)], by_present_names(cls, choices, stacklevel=3)
        for name in named:
            if name not in known:
                raise UnknownNameError("setting of a store", name, known)
        return cls(**named)


def check_dtype(dtype: str) -> None:
    """Raises `UnknownNameError` for a type that nothing is computed in."""
    if dtype not in get_args(Dtype):
        raise UnknownNameError("type to compute in", str(dtype), get_args(Dtype))


@dataclass(frozen=True)
class LayerPlan:
    """What is kept of one layer."""

    name: str
    channels: int
    map: tuple[int, ...]
    """Size of the map, (rows, columns); (tokens,) where rows and columns are unknown."""
    prefix_tokens: int | None
    """Tokens in front of the patches, which are never drawn; None if the layer is no sequence of tokens on a grid."""
    values: Values
    rows_per_image: int
    ierf: Literal["pixels", "patches"] | None
    """What an iERF is a map of."""
    ierf_size: tuple[int, int] | None
    shift: str | None = None
    """SHA-256 of the bytes of μ_BN; None where the layer has none, or in stores that do not keep it."""
    prefix_rows: int = 0
    """The first so many rows of each image are its prefix tokens, in order; 0 where they are not kept."""


@dataclass(frozen=True)
class SourcePlan:
    """Photographs that were collected together."""

    address: str
    fingerprint: str
    first: int
    """Index of the first of them in the store, a multiple of the block."""
    count: int


@dataclass(frozen=True)
class Plan:
    """All of it. Two runs with equal plans write equal bytes."""

    model: Mapping[str, Any]
    method: str
    options: Mapping[str, Any]
    sampling: Mapping[str, Any]
    pfv_type: PFVType
    compute: Mapping[str, str]
    batch: int
    block: int
    versions: Mapping[str, str]
    layers: tuple[LayerPlan, ...]
    sources: tuple[SourcePlan, ...]

    @property
    def images(self) -> int:
        """Images in the store, with the gaps between sources."""
        return self.sources[-1].first + self.sources[-1].count

    @property
    def blocks(self) -> int:
        return -(-self.images // self.block)

    def layer(self, name: str) -> LayerPlan:
        """Raises `UnknownNameError` for a layer that the store does not hold."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise UnknownNameError("layer in the store", name, [layer.name for layer in self.layers])

    def to_json(self) -> dict[str, Any]:
        version = VERSION if any(layer.prefix_rows for layer in self.layers) else PLAIN
        content = {"format": FORMAT, "version": version, **asdict(self)}
        layers = [{k: v for k, v in layer.items() if k not in _OPTIONAL or v} for layer in content["layers"]]
        return {**content, "layers": layers}

    @classmethod
    def from_json(cls, content: Any, where: str) -> "Plan":
        """Raises `IerfError` for what is not a store, or one of another version."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise IerfError(f"{where!r} is not a PFV–iERF store")
        if content.get("version") not in (PLAIN, VERSION):
            raise IerfError(
                f"{where!r} has version {content.get('version')} of the format, this ierf reads {PLAIN} and {VERSION}; "
                "collect it anew"
            )
        try:
            plan = typed({f.name: content[f.name] for f in fields(cls) if f.name in content}, cls)
            _check(plan)
        except (FieldError, IerfError) as error:
            raise IerfError(f"the store {where!r} is damaged: {error} in its plan; collect it anew") from None
        return plan


@dataclass(frozen=True)
class ModelRecord:
    """What `Plan.model` holds."""

    name: str
    weights: str
    preprocessing: Preprocess


def check_names(names: Sequence[str], field: str) -> None:
    """Raises `FieldError` for layers that occur twice, or would lie outside of the folder."""
    if not names:
        raise FieldError(f"{field} is empty")
    for i, name in enumerate(names):
        if not name or "/" in name or "\\" in name or name in (".", ".."):
            raise FieldError(f"{field}[{i}] is {name!r}, which is no name of a layer")
        if name in names[:i]:
            raise FieldError(f"{field} has {name!r} twice")


def _check(plan: Plan) -> None:
    """Raises `FieldError` for what no store has, whatever the types."""
    typed(plan.model, ModelRecord, "model")
    check_names([layer.name for layer in plan.layers], "layers")
    if not plan.sources:
        raise FieldError("sources is empty")
    least = {"batch": plan.batch, "block": plan.block}
    for i, layer in enumerate(plan.layers):
        least |= {f"layers[{i}].{n}": getattr(layer, n) for n in ("channels", "rows_per_image")}
        least |= {f"layers[{i}].map": min(layer.map, default=0), f"layers[{i}].ierf_size": min(layer.ierf_size or (1,))}
        if min(layer.prefix_tokens or 0, layer.prefix_rows) < 0:
            raise FieldError(f"layers[{i}] has a negative number of tokens")
    for i, source in enumerate(plan.sources):
        least[f"sources[{i}].count"] = source.count
    for name, value in least.items():
        if value < 1:
            raise FieldError(f"{name} is {value}, not at least 1")
    end = 0
    for i, source in enumerate(plan.sources):
        if source.first != -(-end // plan.block) * plan.block:
            raise FieldError(f"sources[{i}].first is {source.first}, where the images before it end at {end}")
        end = source.first + source.count


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Where two JSON values differ, in words: `model.weights is "a1…" there, "b2…" here`."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else str(key))
    elif _plain(there) != _plain(here):
        yield f"{name} is {_short(there)} there, {_short(here)} here"


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
