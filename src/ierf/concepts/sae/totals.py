"""Sums over all processes of a data-parallel run.

Every loss is that of the whole batch, on all ranks: `total` adds the parts up on the way forward and leaves the
gradient alone on the way back. What a rank's backward pass gives is then its part of the gradient; parts add up too.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed


def ranks() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def total(part: Tensor) -> Tensor:
    """The sum of all ranks' parts, with the gradient of one's own."""
    if ranks() == 1:
        return part
    summed: Tensor = _Total.apply(part)  # type: ignore[no-untyped-call]
    return summed


def add_up(parts: list[Tensor]) -> None:
    """Replace each tensor by its sum over the ranks."""
    if ranks() > 1:
        for part in parts:
            distributed.all_reduce(part)


def gathered(part: Float[Tensor, " A"]) -> Float[Tensor, " B"]:
    """All ranks' numbers, one behind the other; every rank gives as many."""
    if ranks() == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(ranks())]
    distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        summed = part.detach().clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]
