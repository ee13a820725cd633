"""How sure a mean over images is."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_AT_ONCE = 1 << 20
"""At most this many drawn values in memory."""


@dataclass(frozen=True)
class Interval:
    """A mean, and between which values it lies."""

    mean: float
    low: float
    high: float


def confidence_interval(
    values: Float[Tensor, " N"], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean of `values` and the percentile interval of its bootstrap (Efron & Tibshirani 1993, Sec. 13.3).

    Between the `(1 ∓ level) / 2` quantiles of the means of `resamples` draws of N values with replacement. It answers
    for the choice of images only. For two methods on the same images take the interval of the differences. NaN values
    are left out; without any other value all three numbers are NaN.
    """
    known = values[~values.isnan()].double().cpu()
    n = len(known)
    if n == 0:
        return Interval(torch.nan, torch.nan, torch.nan)
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, _AT_ONCE // n)
    draws = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    means = torch.cat([known[torch.randint(n, (draw, n), generator=generator)].mean(1) for draw in draws])
    low, high = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(float(known.mean()), low, high)
