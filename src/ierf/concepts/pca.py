"""Principal components as concepts."""

from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ierf.concepts.vectors import Shift, as_vectors, describe_shift, shift_vector
from ierf.errors import IerfError


class PCA:
    """Orthonormal directions along which PFVs vary most, `X ≈ (X − shift) Vᵀ V + shift`; at most as many as channels.

    They are the first eigenvectors of `(X − shift)ᵀ(X − shift)`, each with its largest entry positive (the first
    of those that are as large to one part in 10⁵, so that rounding turns no sign). With the
    default shift, "mean", that is principal component analysis; another shift gives the best subspace through it.
    """

    components_: Float[Tensor, "K C"]
    shift_: Float[Tensor, " C"]
    explained_: Float[Tensor, " K"]
    """The share of `‖X − shift‖²` along each direction, the largest first."""

    def __init__(self, n_concepts: int, seed: int = 0, shift: Shift = "mean") -> None:
        """`seed` is there for the common interface: nothing is random. A shift of None means "mean"."""
        self.n_concepts, self.seed, self.shift = n_concepts, seed, "mean" if shift is None else shift

    def fit(self, x: Float[Tensor, "N C"] | np.ndarray) -> Self:
        """Find the directions. Raises `IerfError` for more of them than channels or PFVs."""
        vectors = as_vectors(x)
        most = min(vectors.shape)
        if not 1 <= self.n_concepts <= most:
            raise IerfError(
                f"{len(vectors)} PFVs of {vectors.shape[1]} channels have between 1 and {most} principal components, "
                f"not {self.n_concepts}"
            )
        self.shift_ = shift_vector(vectors, self.shift)
        centred = (vectors - self.shift_).double()
        scatter = centred.T @ centred
        values, directions = torch.linalg.eigh(scatter)
        components = directions.flip(1)[:, : self.n_concepts].T
        sizes = components.abs()
        first = (sizes >= (1 - 1e-5) * sizes.amax(1, keepdim=True)).int().argmax(1, keepdim=True)
        largest = components.gather(1, first)
        self.components_ = (components * largest.sign()).to(vectors)
        total = scatter.trace()
        self.explained_ = (values.flip(0)[: self.n_concepts].clamp(min=0) / total.where(total > 0, 1)).to(vectors)
        return self

    def transform(self, x: Float[Tensor, "N C"] | np.ndarray) -> Float[Tensor, "N K"]:
        """`(x − shift) Vᵀ`"""
        vectors = as_vectors(x)
        return (vectors - self.shift_.to(vectors)) @ self.components_.to(vectors).T

    @property
    def config(self) -> dict[str, Any]:
        return {
            "name": "pca",
            "n_concepts": self.n_concepts,
            "seed": self.seed,
            "shift": describe_shift(self.shift),
        }
