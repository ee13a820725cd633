"""The largest activation of each latent in each photograph; all others are computed for some of them only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.concepts.sae import SAE

_AT_ONCE = 1 << 20
"""Products that a block of photographs has: they stay in a processor's cache until their maximum is taken."""


@dataclass(frozen=True, eq=False)
class Peaks:
    """What the latents do at one kind of token of N photographs."""

    values: Float[Tensor, "N K"]
    """The largest activation over the positions."""
    bounds: Float[Tensor, "N K"]
    """What no activation exceeds, where products are rounded."""
    maps: Callable[[Int[Tensor, " A"], Int[Tensor, " A"]], Float[Tensor, "A p"]]
    """Photographs in ascending order, a latent for each -> its activations at all positions there, not rounded."""


@torch.no_grad()
def peaks(sae: SAE, pfvs: Float[Tensor, "N P C"], parts: Sequence[slice], bfloat16: bool = False) -> list[Peaks]:
    """The peaks within parts of the positions.

    As σ of a pointwise kind grows with `π`, `max_p σ(π_p) = σ(max_p π_p)`: products are taken block by block, only
    their largest is kept, and no σ is taken of the others. With `bfloat16` the products are rounded, but not `maps`:
    `|π' − π| ≤ ‖w − w'‖ ‖x‖ + ‖w'‖ ‖x − x'‖ + ε |π'|`, which `bounds` allow for. Other kinds need all their codes.
    """
    pfvs = pfvs.to(sae.decoder)
    if sae.rule.pointwise:
        return _pointwise(sae, pfvs, parts, torch.bfloat16 if bfloat16 else pfvs.dtype)
    codes = sae.encode(pfvs.flatten(0, 1)).view(*pfvs.shape[:2], -1)
    return [of_codes(codes[:, part]) for part in parts]


def of_codes(codes: Float[Tensor, "N p K"]) -> Peaks:
    """The peaks of codes that are at hand."""
    values = codes.amax(1)
    return Peaks(values, values, lambda samples, latents: codes[samples, :, latents])


def numbered(groups: Int[Tensor, " A"]) -> Int[Tensor, " A"]:
    """Each element's number among those of its group, in order: 5 7 5 5 -> 0 0 1 2."""
    ordered, order = groups.sort(stable=True)
    among = torch.arange(len(groups), device=groups.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(order).scatter(0, order, among)


def _pointwise(sae: SAE, pfvs: Float[Tensor, "N P C"], parts: Sequence[slice], dtype: torch.dtype) -> list[Peaks]:
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
        found.append(Peaks(values, bounds, _maps(sae, x[:, part], encoder, bias)))
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
