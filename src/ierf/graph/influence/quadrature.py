"""Points on the way from no concepts (0) to all of them (1)."""

from math import expm1, log

import torch
from jaxtyping import Float
from torch import Tensor

THIRDS = 3
_GRADE = log(1e6)


def midpoints(steps: int) -> Float[Tensor, " S"]:
    """`(i + ½) / S`: all weigh 1 / S, and neither 0 nor 1 is among them; at 0 a cosine may have no value.

    On the way through a network of ReLUs gradients jump, against which no rule of higher order helps.
    """
    return (torch.arange(steps, dtype=torch.float64) + 0.5) / steps


def graded(way: Float[Tensor, " S"]) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    """`α = (e^{κs} − 1) / (e^κ − 1)` for points s, which makes steps near 0 a millionth of those at 1, and `dα/ds`.

    A layer-norm undoes the scale of what enters it, so that a score changes as soon as α leaves 0.
    """
    return (way * _GRADE).expm1() / expm1(_GRADE), _GRADE * (way * _GRADE).exp() / expm1(_GRADE)


def further_midpoints(steps: int) -> Float[Tensor, " 2S"]:
    """The midpoints of a third of the step that are not among those of the whole step."""
    finer = midpoints(THIRDS * steps)
    return finer[torch.arange(THIRDS * steps) % THIRDS != 1]


def way_from_nothing(steps: int, dtype: torch.dtype) -> Float[Tensor, " S+1"]:
    """The ends of equal intervals; the first is 0⁺, the smallest step that the type resolves at 1."""
    way = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    way[0] = torch.finfo(dtype).eps
    return way
