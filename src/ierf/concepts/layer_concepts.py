"""The concepts of one layer (Sec. VI-A1): vectors, what is known of each, and how alike two sets of them are."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.concepts.codes import Codes, LassoCodes
from ierf.concepts.relaxed_lasso import refit as least_squares
from ierf.concepts.sparse_coding import lasso
from ierf.concepts.tree import ConceptTree, cluster
from ierf.errors import IerfError
from ierf.extras import extra
from ierf.model import Values

ShiftFrom = Literal["batch-norm", "zero", "mean", "extractor"]
"""Where a shift comes from: μ_BN; nothing to subtract; the mean PFV of the store; the extractor's own."""


class ClassShares(NamedTuple):
    """In photographs of which predicted classes the positive coefficients of concepts lie; concepts end to end.

    Concept k has the classes `classes[starts[k]:starts[k + 1]]`, the largest share first.
    """

    starts: Int[Tensor, " K+1"]
    classes: Int[Tensor, " E"]
    shares: Float[Tensor, " E"]

    def of(self, concept: int) -> dict[int, float]:
        """Class -> share of the sum of the concept's positive coefficients; they sum to 1. Empty if it has none."""
        rows = slice(int(self.starts[concept]), int(self.starts[concept + 1]))
        return dict(zip(self.classes[rows].tolist(), self.shares[rows].tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class LayerConcepts:
    """Concepts of one layer, `X ≈ U V + shift`, and how they occur in the store that they were found in."""

    name: str
    atoms: Float[Tensor, "K C"]
    """`V`, the concept vectors, in the shifted space."""
    shift: Float[Tensor, " C"]
    shift_from: ShiftFrom
    lam: float
    """λ of the Lasso that codes PFVs."""
    positive: bool
    """Whether coefficients are non-negative."""
    values: Values
    """What the PFVs are: before the layer's last activation, or behind."""
    map: tuple[int, ...]
    prefix_tokens: int | None
    extractor: Mapping[str, Any]
    """Configuration of what found the concepts."""
    rows: int
    """PFVs that they were found in."""
    encoded: int
    """PFVs that were coded for λ, frequencies, strengths, relevance and classes."""
    l0_ratio: float
    """`1 − ‖u‖₀ / K`, the mean over the encoded PFVs."""
    relative_error: float
    """`‖x − x̂‖ / ‖x‖` in the shifted space, the mean over the encoded PFVs."""
    frequencies: Float[Tensor, " K"]
    """The share of the encoded PFVs whose coefficient is not zero."""
    strengths: Float[Tensor, " K"]
    """The mean size of the coefficients that are not zero."""
    relevances: Float[Tensor, " K"]
    """The concept's share of the relevance of the encoded PFVs; they sum to 1, see `relevance_shares`."""
    exemplars: Int[Tensor, "K E"]
    """Rows of the store whose PFVs point most nearly where the atom points, in the shifted space."""
    cosines: Float[Tensor, "K E"]
    """Theirs."""
    class_shares: ClassShares
    tree: ConceptTree | None
    """Of the clusters that were split, or of concepts clustered by cosine and co-firing; its `made_by` says which.

    None in banks of other extractors than bisecting k-means that were fitted before there were such, without scipy, or
    with more concepts than are clustered; see `hierarchy`.
    """

    def __repr__(self) -> str:
        return f"LayerConcepts({self.name!r}, {len(self)} concepts of {self.atoms.shape[1]} channels)"

    def __len__(self) -> int:
        return len(self.atoms)

    @cached_property
    def hierarchy(self) -> ConceptTree:
        """`tree`; where the bank has none, one by the cosine of the atoms alone, see `ierf.concepts.tree`.

        Raises `IerfError` where that cannot be: without scipy, or for more than 16384 concepts.
        """
        return cluster(self.atoms) if self.tree is None else self.tree

    def encode(self, pfvs: Float[Tensor, "*batch C"], refit: bool = False) -> Codes:
        """The Lasso codes of PFVs, `argmin_u ½‖x − shift − u V‖² + λ‖u‖₁` (Eq. 12), computed where the PFVs are.

        With `refit`, least squares on the concepts that the Lasso chose, see `ierf.concepts.refit`; it warns of PFVs
        whose coefficients would explode, so that they keep the Lasso's. Raises `IerfError` for another number of
        channels.
        """
        if pfvs.shape[-1] != self.atoms.shape[1]:
            raise IerfError(
                f"the concepts of {self.name!r} have {self.atoms.shape[1]} channels, these PFVs {pfvs.shape[-1]}; "
                "give them channels last"
            )
        shift, atoms = self.shift.to(pfvs.device), self.atoms.to(pfvs.device)
        shifted = pfvs.detach().reshape(-1, pfvs.shape[-1]).to(atoms) - shift
        chosen = lasso(shifted, atoms, self.lam, self.positive)
        codes = self._refitted(shifted, chosen) if refit else chosen.sparse
        shape = *pfvs.shape[:-1], codes.values.shape[-1]
        return Codes(codes.indices.view(shape), codes.values.view(shape), len(self))

    def _refitted(self, shifted: Float[Tensor, "N C"], chosen: LassoCodes) -> Codes:
        found = least_squares(shifted, self.atoms, chosen, self.positive)
        if count := int(found.kept.sum()):
            warnings.warn(
                f"{self.name}: the refitted coefficients of {count} of {len(shifted)} PFVs explode, as concepts nearly "
                "coincide; these keep the Lasso's",
                stacklevel=3,
            )
        return found.sparse

    def reconstruct(self, codes: Codes) -> Float[Tensor, "*batch C"]:
        """`x̂ = u V + shift`."""
        atoms = self.atoms.to(codes.values.device)
        return codes.times(atoms) + self.shift.to(atoms)

    def nearest(self, concept: int, count: int = 5) -> list[tuple[int, float]]:
        """The concepts with the largest cosine to this one, with the cosine."""
        unit = F.normalize(self.atoms)
        cosines = unit @ unit[self.concept(concept)]
        cosines[concept] = -torch.inf
        best = cosines.topk(min(count, len(self) - 1))
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    def concept(self, index: int) -> int:
        """The index itself. Raises `IerfError` if there is no such concept."""
        if not 0 <= index < len(self):
            raise IerfError(
                f"there is no concept {index} of {self.name!r}; they are numbered from 0 to {len(self) - 1}"
            )
        return index


def relevance_shares(codes: Codes, atoms: Float[Tensor, "K C"], relevances: Float[Tensor, " N"]) -> Float[Tensor, " K"]:
    """The relevance of PFVs, passed on to the concepts that make them up: `Σ_p R_p u_pk ⟨v_k, x̂_p⟩ / ‖x̂_p‖²`.

    It is the sharing ratio of Sharing Ratio Decomposition for x̂ = Σ_k u_k v_k: the shares of a PFV sum to 1. A PFV
    without any concept passes nothing on.
    """
    made = codes.times(atoms)
    along = (made @ atoms.T).gather(1, codes.indices) * codes.values
    whole = made.square().sum(1, keepdim=True)
    shares = torch.where(whole > 0, along / whole, 0) * relevances[:, None].to(along)
    return shares.new_zeros(codes.n_concepts).scatter_add(0, codes.indices.flatten(), shares.flatten())


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
