"""How sure a mean over images is, and how alike two maps are."""

from dataclasses import dataclass
from math import atan, cos, isnan, nan, pi, sin, sqrt
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.extras import extra
from ierf.metrics import normalise_map

_AT_ONCE = 1 << 20
"""At most this many drawn values in memory."""
_FEW = 30
"""Fewer values than that say too little of their spread for a bootstrap."""


@dataclass(frozen=True)
class Interval:
    """A mean, and between which values it lies."""

    mean: float
    low: float
    high: float
    n: int = 0
    """Of how many values."""


def confidence_interval(
    values: Float[Tensor, " N"], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean of `values`, and an interval that holds the true one in about `level` of all samples.

    | values | interval |
    |---|---|
    | only 0 and 1: hits and misses | Wilson's (1927), which is no point for 53 of 53 |
    | fewer than 30 others | `mean ± t s/√n`, with Student's t of n − 1 degrees of freedom |
    | 30 and more | between the `(1 ∓ level) / 2` quantiles of the means of `resamples` draws of N with replacement |

    The last is the bootstrap's percentile interval (Efron & Tibshirani 1993, Sec. 13.3); of 3 to 20 values it holds
    the mean in 69 to 93 % where it says 95. An interval answers for the choice of images only. For two methods on the
    same images take the interval of the differences. NaN values are left out; one value has no interval (NaN), and
    without any value all three numbers are NaN.
    """
    known = values[~values.isnan()].double().cpu()
    n = len(known)
    if n == 0:
        return Interval(nan, nan, nan)
    mean = float(known.mean())
    if bool(((known == 0) | (known == 1)).all()):
        return Interval(mean, *wilson(int(known.sum()), n, level), n)
    if n == 1:
        return Interval(mean, nan, nan, 1)
    if n < _FEW:
        half = student_quantile((1 + level) / 2, n - 1) * float(known.std()) / sqrt(n)
        return Interval(mean, mean - half, mean + half, n)
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, _AT_ONCE // n)
    draws = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    means = torch.cat([known[torch.randint(n, (draw, n), generator=generator)].mean(1) for draw in draws])
    low, high = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(mean, low, high, n)


def wilson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The shares p for which `|hits/n − p| ≤ z √(p (1 − p) / n)` (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * sqrt(hits * (n - hits) / n + z * z / 4)
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)


def student_quantile(p: float, degrees: int) -> float:
    """Where Student's distribution has the share p < 1 below, p ≥ ½ (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    low, high = 0.0, 1.0
    while _student_share(high, degrees) < 2 * p - 1:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, degrees) < 2 * p - 1 else (low, middle)
    return high


def _student_share(t: float, degrees: int) -> float:
    """P(|T| ≤ t)."""
    angle = atan(t / sqrt(degrees))
    odd = degrees % 2
    term, total = (cos(angle) if odd else 1.0), 0.0
    for j in range((degrees - odd) // 2):
        total += term
        term *= cos(angle) ** 2 * (2 * j + 1 + odd) / (2 * j + 2 + odd)
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def shown(interval: Interval, of: int | None = None) -> str:
    """`0.382 (0.341 – 0.420)`, with `n = 12` where that is not the number `of` values one expects; or a dash."""
    if isnan(interval.mean):
        return "–"
    fewer = f"n = {interval.n}" if interval.n and interval.n != of else ""
    span = "" if isnan(interval.low) else f"{interval.low:.3f} – {interval.high:.3f}"
    inside = ", ".join(part for part in (span, fewer) if part)
    return f"{interval.mean:.3f} ({inside})" if inside else f"{interval.mean:.3f}"


def spearman(a: Float[Tensor, "H W"], b: Float[Tensor, "H W"]) -> float:
    """The correlation of the ranks; equal values share the mean of theirs. NaN where a map is constant."""
    return pearson(ranks(a), ranks(b))


def pearson(a: Float[Tensor, "*P"], b: Float[Tensor, "*P"]) -> float:
    """The correlation of the values. NaN where a map is constant or not finite."""
    centred = [t.double().flatten() - t.double().mean() for t in (a, b)]
    spread = centred[0].norm() * centred[1].norm()
    return float(centred[0] @ centred[1] / spread) if spread > 0 else torch.nan


def ranks(map: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Each value's place in ascending order, from 0; equal values have the mean of their places."""
    values = map.flatten()
    ascending = values.sort().values
    below, up_to = (torch.searchsorted(ascending, values, right=right) for right in (False, True))
    return ((below + up_to - 1) / 2).view(map.shape).double()


def ssim(a: Float[Tensor, "H W"], b: Float[Tensor, "H W"]) -> float:
    """Structural similarity of two maps, each divided by its own max |·| and taken absolutely: values in [0, 1].

    Wang et al., IEEE TIP 2004, by scikit-image with its usual 7 × 7 window. NaN where a map is zero or not finite.
    """
    maps = [normalise_map(t.detach().double().cpu()).abs() for t in (a, b)]
    if not all(bool(t.isfinite().all()) and bool(t.any()) for t in maps):
        return torch.nan
    one, other = (t.numpy() for t in maps)
    return float(extra("skimage.metrics", "demo").structural_similarity(one, other, data_range=1.0))
