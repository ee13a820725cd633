"""How far a latent is from saying where it comes from, and whether the evidence is: Sec. V-C1."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.cafe.latents import LatentLayer
from ierf.deprecated import renamed


def entropy(mass: Float[Tensor, "N h w"]) -> Float[Tensor, " N"]:
    """`−Σ p log p / log P` of the positive part: 0 for one patch, 1 for all alike; NaN where nothing is positive."""
    share = shares(mass).flatten(1)
    found: Tensor = -torch.xlogy(share, share).sum(1) / math.log(share.shape[1])
    return found


def spread(mass: Float[Tensor, "N h w"]) -> Float[Tensor, " N"]:
    """The mean distance of the positive part from its peak, `Σ p_q |q − peak|`, as a share of the diagonal."""
    return _distance(mass, mass)


def displacement(mass: Float[Tensor, "N h w"], evidence: Float[Tensor, "N h w"]) -> Float[Tensor, " N"]:
    """The mean distance of the evidence's positive part from the peak of the activation, as a share of the diagonal."""
    return _distance(mass, evidence)


def outside(mass: Float[Tensor, "N h w"], evidence: Float[Tensor, "N h w"], dilation: int = 1) -> Float[Tensor, " N"]:
    """The share of the evidence's positive part farther than `dilation` rows or columns from the activation's peak."""
    peak = torch.zeros_like(mass).flatten(1).scatter(1, _peak(mass)[:, None], 1).view_as(mass)
    near = F.max_pool2d(peak[:, None], 2 * dilation + 1, stride=1, padding=dilation)[:, 0]
    return (shares(evidence) * (1 - near)).sum((1, 2)) + 0 * shares(mass).sum((1, 2))


def shares(mass: Float[Tensor, "N h w"]) -> Float[Tensor, "N h w"]:
    """The positive part, divided by its sum; NaN where nothing is positive."""
    positive = mass.clamp_min(0).double()
    total = positive.sum((1, 2), keepdim=True)
    return positive / total.where(total > 0, torch.nan)


def _peak(mass: Float[Tensor, "N h w"]) -> Int[Tensor, " N"]:
    return mass.flatten(1).argmax(1)


def _distance(mass: Float[Tensor, "N h w"], other: Float[Tensor, "N h w"]) -> Float[Tensor, " N"]:
    """`Σ other_q |q − peak of mass|`; NaN where either has no positive part."""
    height, width = mass.shape[1:]
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).to(mass.device, torch.float64)
    peak = places[_peak(mass)]
    distances = (places - peak[:, None]).norm(dim=2) / max(math.hypot(height - 1, width - 1), 1)
    found: Tensor = (shares(other).flatten(1) * distances).sum(1) + 0 * shares(mass).sum((1, 2))
    return found


@dataclass(frozen=True)
class LatentCurves:
    """The share `z_k(x_S) / z_k(x)` of a latent's activation at its position, for each of N rows."""

    fractions: Float[Tensor, " S"]
    """Shares of patches that have changed, from 0 to 1."""
    insertion: Float[Tensor, "N S"]
    deletion: Float[Tensor, "N S"]

    def areas(self) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """Under both curves, by the trapezoid rule."""
        insertion, deletion = (torch.trapezoid(y, self.fractions) for y in (self.insertion, self.deletion))
        return insertion, deletion


@renamed(at_once="batch")
@torch.no_grad()
def latent_curves(
    layer: LatentLayer,
    x: Float[Tensor, "N 3 H W"],
    latents: Int[Tensor, " N"],
    positions: Int[Tensor, " N"],
    scores: Float[Tensor, "N rows columns"],
    *,
    points: int = 9,
    baseline: float = 0.0,
    batch: int = 64,
) -> LatentCurves:
    """Patches appear on a blank canvas, or vanish to it, those with the highest score first (Sec. V-C1).

    Patches with equal scores go row by row. The position at which the latent is read stays where it is in x.
    NaN where the latent is not active in x. All is computed where the network is, wherever the rest comes from.
    """
    x = x.to(layer.model.device)
    latents, positions, scores = (values.to(x.device) for values in (latents, positions, scores))
    rank = scores.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(1)
    patches = rank.shape[1]
    counts = torch.linspace(0, patches, min(points, patches + 1), device=x.device).round().long()
    shown = rank[:, None] < counts[:, None]
    frames = torch.cat([shown, ~shown[:, 1:-1]], 1).view(len(x), -1, *scores.shape[1:])
    found = []
    for rows in torch.split(torch.arange(frames.shape[0] * frames.shape[1], device=x.device), batch):
        sample, frame = rows // frames.shape[1], rows % frames.shape[1]
        mask = _at_pixels(frames[sample, frame], (x.shape[2], x.shape[3]))
        seen = torch.where(mask[:, None], x[sample], torch.full_like(x[:1], baseline))
        found.append(layer.activations(seen, latents[sample], positions[sample]))
    values = torch.cat(found).view(len(x), -1)
    inserted, inner = values[:, : len(counts)], values[:, len(counts) :]
    full = inserted[:, -1:].where(inserted[:, -1:] > 0, torch.nan)
    deleted = torch.cat([inserted[:, -1:], inner, inserted[:, :1]], 1)
    return LatentCurves((counts / patches).to(full), inserted / full, deleted / full)


def _at_pixels(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """The cell of each pixel: (B, rows, columns) -> (B, H, W)."""
    rows, columns = (
        torch.arange(length, device=cells.device) * count // length
        for length, count in zip(size, cells.shape[1:], strict=True)
    )
    return cells[:, rows[:, None], columns]
