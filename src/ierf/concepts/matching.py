"""How alike two sets of concepts of a layer are."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.errors import IerfError
from ierf.model.loading.extras import extra


@dataclass(frozen=True, eq=False)
class Matching:
    """Pairs of concepts, one of each set, with the largest sum of cosines; as many as the smaller set has."""

    rows: Int[Tensor, " M"]
    """Concepts of the first set, ascending."""
    columns: Int[Tensor, " M"]
    """Their partners in the second."""
    cosines: Float[Tensor, " M"]
    chance: float
    """The mean cosine of the pairs when the channels of one set are shuffled."""

    @property
    def mean(self) -> float:
        return float(self.cosines.mean())

    @property
    def median(self) -> float:
        return float(self.cosines.median())

    def share_above(self, cosine: float) -> float:
        """The share of the pairs that are at least so alike."""
        return float((self.cosines >= cosine).float().mean())


def match_concepts(one: Float[Tensor, "K C"], other: Float[Tensor, "L C"], seed: int = 0) -> Matching:
    """Match the concept vectors of two sets one to one by the Hungarian method (Kuhn 1955), largest cosines first.

    `seed` is that of the shuffle that `chance` comes from. Raises `IerfError` for different numbers of channels, or
    without scipy.
    """
    if one.shape[1] != other.shape[1]:
        raise IerfError(f"concepts of {one.shape[1]} and of {other.shape[1]} channels cannot be compared")
    rows, columns, cosines = _best(one, other)
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(other.shape[1]))
    return Matching(rows, columns, cosines, float(_best(one, other[:, shuffled])[2].mean()))


def _best(
    one: Float[Tensor, "K C"], other: Float[Tensor, "L C"]
) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"], Float[Tensor, " M"]]:
    optimize = extra("scipy.optimize", "concepts")
    cosines = F.normalize(one.float()) @ F.normalize(other.float()).T
    rows, columns = map(torch.from_numpy, optimize.linear_sum_assignment(cosines.cpu().numpy(), maximize=True))
    return rows, columns, cosines[rows, columns]
