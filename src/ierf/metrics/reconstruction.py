"""Table III of arXiv 2605.00474: how much of a vector is left when it is written with concepts, and with how many."""

import torch
from jaxtyping import Float
from torch import Tensor


def relative_error(x: Float[Tensor, "*N C"], reconstruction: Float[Tensor, "*N C"]) -> Float[Tensor, "*N"]:
    """`‖x − x̂‖₂ / ‖x‖₂`, Rel-ℓ2 of arXiv 2605.00474, Table III. NaN for a vector that is zero."""
    error, norm = (x - reconstruction).square().sum(-1).sqrt(), x.square().sum(-1).sqrt()
    return error / norm.where(norm > 0, torch.nan)


def l0_ratio(codes: Float[Tensor, "*N K"]) -> Float[Tensor, "*N"]:
    """`1 − ‖u‖₀ / K`, the share of concepts that are not used (arXiv 2605.00474, Table III)."""
    return 1 - (codes != 0).sum(-1) / codes.shape[-1]
