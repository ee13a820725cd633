"""The photographs that activate each latent most, and a uniform sample of those that do, of any stream of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.concepts.sae import SAE
from ierf.store import Dtype, check_dtype

_AT_ONCE = 1 << 20
"""Products that a block of photographs has: they stay in a processor's cache until their maximum is taken."""


@dataclass(frozen=True, eq=False)
class MaxActivations:
    """What the latents do at one kind of token of N photographs."""

    values: Float[Tensor, "N K"]
    """The largest activation over the positions."""
    bounds: Float[Tensor, "N K"]
    """What no activation exceeds, where products are rounded."""
    maps: Callable[[Int[Tensor, " A"], Int[Tensor, " A"]], Float[Tensor, "A p"]]
    """Photographs in ascending order, a latent for each -> its activations at all positions there, not rounded."""


@torch.no_grad()
def max_activations(
    sae: SAE, pfvs: Float[Tensor, "N P C"], parts: Sequence[slice], dtype: Dtype = "float32"
) -> list[MaxActivations]:
    """The peaks within parts of the positions.

    As σ of a pointwise kind grows with `π`, `max_p σ(π_p) = σ(max_p π_p)`: products are taken block by block, only
    their largest is kept, and no σ is taken of the others. In "bfloat16" the products are rounded, but not `maps`:
    `|π' − π| ≤ ‖w − w'‖ ‖x‖ + ‖w'‖ ‖x − x'‖ + ε |π'|`, which `bounds` allow for. Other kinds need all their codes.
    """
    check_dtype(dtype)
    pfvs = pfvs.to(sae.decoder)
    if sae.rule.pointwise:
        return _pointwise(sae, pfvs, parts, torch.bfloat16 if dtype == "bfloat16" else pfvs.dtype)
    codes = sae.encode(pfvs.flatten(0, 1)).view(*pfvs.shape[:2], -1)
    return [of_codes(codes[:, part]) for part in parts]


def of_codes(codes: Float[Tensor, "N p K"]) -> MaxActivations:
    """The peaks of codes that are at hand."""
    values = codes.amax(1)
    return MaxActivations(values, values, lambda samples, latents: codes[samples, :, latents])


def numbered(groups: Int[Tensor, " A"]) -> Int[Tensor, " A"]:
    """Each element's number among those of its group, in order: 5 7 5 5 -> 0 0 1 2."""
    ordered, order = groups.sort(stable=True)
    among = torch.arange(len(groups), device=groups.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(order).scatter(0, order, among)


def _pointwise(
    sae: SAE, pfvs: Float[Tensor, "N P C"], parts: Sequence[slice], dtype: torch.dtype
) -> list[MaxActivations]:
    weights = sae.weights
    encoder, bias = weights.encoder, weights.encoder_bias / sae.scale
    x = pfvs if weights.input_bias is None else pfvs - weights.input_bias / sae.scale
    near, rows = x.to(dtype), encoder.to(dtype)
    of_x = torch.stack([x.norm(dim=2), (x - near).norm(dim=2)])
    summing = x.shape[2] * torch.finfo(x.dtype).eps
    of_rows = torch.stack([(encoder - rows).norm(dim=1) + summing * encoder.norm(dim=1), rows.to(x.dtype).norm(dim=1)])
    found = []
    for part, largest in zip(parts, _largest_products(near, rows, parts), strict=True):
        largest = largest.to(x.dtype)
        error = of_x[:, :, part].amax(2).T @ of_rows + torch.finfo(dtype).eps * largest.abs()
        values, bounds = sae.activation(largest + bias), sae.activation(largest + error + bias)
        found.append(MaxActivations(values, bounds, _maps(sae, x[:, part], encoder, bias)))
    return found


def _largest_products(
    x: Float[Tensor, "N P C"], encoder: Float[Tensor, "K C"], parts: Sequence[slice]
) -> list[Float[Tensor, "N K"]]:
    """`max_p ⟨w_k, x_p⟩` within each part of the positions."""
    samples, positions, _ = x.shape
    at_once = min(samples, max(1, _AT_ONCE // (positions * len(encoder))))
    space = x.new_empty(at_once * positions, len(encoder))
    largest: list[list[Tensor]] = [[] for _ in parts]
    for block in torch.split(x, at_once):
        products = torch.mm(block.flatten(0, 1), encoder.T, out=space[: block.shape[0] * positions])
        for part, found in zip(parts, largest, strict=True):
            found.append(products.view(len(block), positions, -1)[:, part].amax(1))
    return [torch.cat(found) for found in largest]


def _maps(
    sae: SAE, x: Float[Tensor, "N p C"], encoder: Float[Tensor, "K C"], bias: Float[Tensor, " K"]
) -> Callable[[Int[Tensor, " A"], Int[Tensor, " A"]], Float[Tensor, "A p"]]:
    """What latents do in some photographs: one product for each photograph, with those asked of it."""

    @torch.no_grad()
    def maps(samples: Int[Tensor, " A"], latents: Int[Tensor, " A"]) -> Float[Tensor, "A p"]:
        counts = torch.bincount(samples, minlength=len(x)).tolist()
        asked = torch.split(latents, counts)
        products = torch.cat([encoder[some] @ one.T for some, one in zip(asked, x, strict=True)])
        return sae.activation(products.T + bias[latents], latents).T

    return maps


@dataclass(frozen=True)
class TopExamples:
    """Of the latents of one layer, read at patches or at the class token, in a memory that does not grow.

    A photograph counts with its largest activation. `sample` is a uniform sample without replacement of the
    photographs that activate a latent: those with the largest random keys.
    """

    top: Float[Tensor, "K n"]
    """Activations of the photographs that activate a latent most, descending; 0: there are no more."""
    top_images: Int[Tensor, "K n"]
    top_places: Int[Tensor, "K n"]
    """Row-major places of the strongest patch; 0 of a class token."""
    sample_keys: Float[Tensor, "K m"]
    sample: Float[Tensor, "K m"]
    sample_images: Int[Tensor, "K m"]
    sample_places: Int[Tensor, "K m"]
    sample_entropy: Float[Tensor, "K m"]
    """Normalised collision entropy of the activation map."""
    fired: Float[Tensor, " K"]
    """In how many photographs the latent is active."""
    total: Float[Tensor, " K"]
    """Sum of the activations."""
    of_class: Float[Tensor, "K T"]
    """Sum of the activations over the photographs of each predicted class."""

    @classmethod
    def empty(cls, latents: int, top: int, sample: int, classes: int) -> Self:
        tops, samples = torch.zeros(latents, top), torch.zeros(latents, sample)
        sums = torch.zeros(latents, dtype=torch.float64)
        return cls(
            top=tops,
            top_images=tops.int(),
            top_places=tops.int(),
            sample_keys=samples,
            sample=samples.clone(),
            sample_images=samples.int(),
            sample_places=samples.int(),
            sample_entropy=samples.clone(),
            fired=sums,
            total=sums.clone(),
            of_class=sums[:, None].repeat(1, classes),
        )

    def tensors(self) -> Mapping[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def with_more(
        self, peaks: MaxActivations, images: Int[Tensor, " N"], keys: Float[Tensor, "N K"], classes: Int[Tensor, " N"]
    ) -> Self:
        """After N more photographs: their peaks, their numbers, random keys in (0, 1), their predicted classes.

        Activation maps are asked for only where a photograph may be kept of a latent.
        """
        values, bounds = peaks.values.cpu(), peaks.bounds.cpu()
        entering = (bounds > self.top[:, -1]) | (keys * (bounds > 0) > self.sample_keys[:, -1])
        samples, latents = entering.nonzero(as_tuple=True)
        device = peaks.values.device
        maps = peaks.maps(samples.to(device), latents.to(device)).cpu().float()
        more = _Table.of(latents, maps, images[samples], keys[samples, latents])
        return replace(
            self,
            **self._examples(more),
            fired=self.fired + (values > 0).sum(0),
            total=self.total + values.double().sum(0),
            of_class=self.of_class.T.index_add(0, classes, values.double()).T,
        )

    def _examples(self, more: "_Table") -> dict[str, Tensor]:
        """The photographs kept of all latents."""
        changed = _largest(
            more.rows,
            (self.top, self.top_images, self.top_places),
            (more.values, more.images, more.places),
        ) + _largest(
            more.rows,
            (self.sample_keys, self.sample, self.sample_images, self.sample_places, self.sample_entropy),
            (more.keys * (more.values > 0), more.values, more.images, more.places, more.entropy),
        )
        return dict(zip(_EXAMPLES, changed, strict=True))


_EXAMPLES = tuple(field.name for field in fields(TopExamples) if field.name.startswith(("top", "sample")))


@dataclass(frozen=True)
class _Table:
    """Photographs that may be kept, a row for each latent that has any, filled up with zeros."""

    rows: Int[Tensor, " k"]
    """The latents."""
    values: Float[Tensor, "k m"]
    images: Int[Tensor, "k m"]
    places: Int[Tensor, "k m"]
    entropy: Float[Tensor, "k m"]
    keys: Float[Tensor, "k m"]

    @classmethod
    def of(
        cls,
        latents: Int[Tensor, " A"],
        maps: Float[Tensor, "A p"],
        images: Int[Tensor, " A"],
        keys: Float[Tensor, " A"],
    ) -> Self:
        """Of activation maps, those of a latent in the order of their photographs."""
        rows, row = torch.unique(latents, return_inverse=True)
        slots = numbered(latents)
        width = int(slots.amax()) + 1 if len(slots) else 0
        columns = (maps.amax(1), images.int(), maps.argmax(1).int(), collision_entropy(maps), keys)
        tables = (one.new_zeros(len(rows), width).index_put((row, slots), one) for one in columns)
        return cls(rows, *tables)


def collision_entropy(maps: Float[Tensor, "A p"]) -> Float[Tensor, " A"]:
    """`log((Σ z)² / Σ z²) / log p`, Rényi's entropy of order 2: 0 for one patch or none, 1 for all alike."""
    if maps.shape[1] == 1:
        return torch.zeros_like(maps[:, 0])
    first, second = maps.sum(1), maps.norm(dim=1)
    entropy: Tensor = 2 * (first / second.where(second > 0, 1)).clamp_min(1).log() / math.log(maps.shape[1])
    return entropy


def _largest(
    rows: Int[Tensor, " k"], kept: Sequence[Float[Tensor, "K n"]], more: Sequence[Float[Tensor, "k m"]]
) -> list[Float[Tensor, "K n"]]:
    """Columns of which the first decides: in some rows the n largest of what was kept and of what comes."""
    first, order = torch.cat([kept[0][rows], more[0]], 1).topk(kept[0].shape[1], dim=1)
    others = (torch.cat([old[rows], new], 1).gather(1, order) for old, new in zip(kept[1:], more[1:], strict=True))
    return [old.index_copy(0, rows, new) for old, new in zip(kept, (first, *others), strict=True)]
