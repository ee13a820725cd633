"""How far a latent is from saying where it comes from: spread of its activation, and where the evidence is instead."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


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
