"""Non-negative matrix factorisation as concepts."""

from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ierf.concepts.vectors import Shift, as_vectors, describe_shift, shift_vector
from ierf.errors import IerfError
from ierf.model.loading.extras import extra


class NMF:
    """`X − shift ≈ U V` with U, V ≥ 0, by scikit-learn’s coordinate descent from random factors (`ierf[concepts]`).

    The PFVs themselves must be ≥ 0 after the shift: those behind a ReLU are, those before it are not.
    """

    components_: Float[Tensor, "K C"]
    shift_: Float[Tensor, " C"]

    def __init__(self, n_concepts: int, seed: int = 0, shift: Shift = None, max_iter: int = 200) -> None:
        """max_iter: the most sweeps of coordinate descent, for `fit` as for `transform`."""
        self.n_concepts, self.seed, self.shift, self.max_iter = n_concepts, seed, shift, max_iter

    def fit(self, x: Float[Tensor, "N C"] | np.ndarray) -> Self:
        """Find the factors. Raises `IerfError` for negative PFVs."""
        vectors = as_vectors(x)
        self.shift_ = shift_vector(vectors, self.shift)
        self._peer = extra("sklearn.decomposition", "concepts").NMF(
            self.n_concepts, init="random", random_state=self.seed, max_iter=self.max_iter, tol=1e-4
        )
        self._peer.fit(self._positive(vectors))
        self.components_ = torch.from_numpy(self._peer.components_).to(vectors)
        return self

    def transform(self, x: Float[Tensor, "N C"] | np.ndarray) -> Float[Tensor, "N K"]:
        """`argmin_{U ≥ 0} ‖x − shift − U V‖²`, up to scikit-learn's tolerance. Raises `IerfError` for negative PFVs."""
        vectors = as_vectors(x)
        return torch.from_numpy(self._peer.transform(self._positive(vectors))).to(vectors)

    def _positive(self, vectors: Float[Tensor, "N C"]) -> np.ndarray:
        shifted = vectors - self.shift_.to(vectors)
        negative = int((shifted < 0).any(1).sum())
        if negative:
            raise IerfError(
                f"NMF takes PFVs without negative values, and {negative} of {len(vectors)} have some after the shift; "
                'collect them behind the activation, values="output", and shift them by nothing'
            )
        values: np.ndarray = shifted.cpu().numpy()
        return values

    @property
    def config(self) -> dict[str, Any]:
        return {
            "name": "nmf",
            "n_concepts": self.n_concepts,
            "seed": self.seed,
            "shift": describe_shift(self.shift),
            "max_iter": self.max_iter,
        }
