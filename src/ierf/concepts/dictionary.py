"""Dictionary learning as concepts."""

from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ierf.concepts.lasso import choose_lam, lasso
from ierf.concepts.vectors import Shift, as_vectors, describe_shift, shift_vector
from ierf.errors import IerfError
from ierf.model.loading.extras import extra


class DictionaryLearning:
    """`min_{U,V} ½‖X − shift − U V‖² + λ‖U‖₁` over atoms of norm ≤ 1; needs `ierf[concepts]`.

    scikit-learn's `MiniBatchDictionaryLearning` (Mairal et al., ICML 2009) with LARS, which the papers used (GIG,
    settings of 4.1). The variant without mini-batches would solve a Lasso of all PFVs for each update of the atoms. It
    begins with PFVs drawn by `seed`: scikit-learn's own start, singular vectors, has no more than C of them.
    """

    components_: Float[Tensor, "K C"]
    shift_: Float[Tensor, " C"]
    lam_: float
    """λ"""

    def __init__(
        self,
        n_concepts: int,
        seed: int = 0,
        shift: Shift = None,
        lam: float | None = None,
        l0_ratio: float = 0.995,
        max_iter: int = 10,
        batch_size: int = 256,
    ) -> None:
        """How atoms are learnt.

        Args:
            lam: λ, in the units of `sparse_encode(alpha=λ)`; by default the one that gives the PFVs drawn at the
                start, as atoms, `l0_ratio` (arXiv 2605.00474, Table III), and one coefficient at least.
            l0_ratio: `1 − ‖u‖₀ / K`, where λ is not given.
            max_iter: the most passes over the PFVs; scikit-learn stops when the objective no longer falls.
            batch_size: PFVs for each update of the atoms.
        """
        self.n_concepts, self.seed, self.shift, self.lam = n_concepts, seed, shift, lam
        self.l0_ratio, self.max_iter, self.batch_size = l0_ratio, max_iter, batch_size

    def fit(self, x: Float[Tensor, "N C"] | np.ndarray) -> Self:
        """Learn the atoms. Raises `IerfError` for fewer PFVs than concepts."""
        vectors = as_vectors(x)
        self.shift_ = shift_vector(vectors, self.shift)
        shifted = vectors - self.shift_
        start = self._start(shifted)
        if self.lam is None:
            self.lam_ = choose_lam(shifted, start, max(1.0, (1 - self.l0_ratio) * self.n_concepts))
        else:
            self.lam_ = self.lam
        learner = extra("sklearn.decomposition", "concepts").MiniBatchDictionaryLearning(
            self.n_concepts,
            alpha=self.lam_,
            fit_algorithm="lars",
            max_iter=self.max_iter,
            batch_size=min(self.batch_size, len(vectors)),
            dict_init=start.double().cpu().numpy(),
            random_state=self.seed,
        )
        learner.fit(shifted.double().cpu().numpy())
        self.components_ = torch.from_numpy(learner.components_).to(vectors)
        return self

    def transform(self, x: Float[Tensor, "N C"] | np.ndarray) -> Float[Tensor, "N K"]:
        """The Lasso codes with the λ that the atoms were learnt with."""
        vectors = as_vectors(x)
        return lasso(vectors - self.shift_.to(vectors), self.components_, self.lam_).codes

    def _start(self, shifted: Float[Tensor, "N C"]) -> Float[Tensor, "K C"]:
        """PFVs drawn at random, of norm 1."""
        order = torch.randperm(len(shifted), generator=torch.Generator().manual_seed(self.seed)).to(shifted.device)
        usable = order[shifted[order].norm(dim=1) > 0]
        if len(usable) < self.n_concepts:
            raise IerfError(
                f"{self.n_concepts} concepts need as many PFVs that differ from the shift to begin with; "
                f"there are {len(usable)}"
            )
        return F.normalize(shifted[usable[: self.n_concepts]])

    @property
    def config(self) -> dict[str, Any]:
        return {
            "name": "dictionary",
            "n_concepts": self.n_concepts,
            "seed": self.seed,
            "shift": describe_shift(self.shift),
            "lam": self.lam,
            "l0_ratio": self.l0_ratio,
            "max_iter": self.max_iter,
            "batch_size": self.batch_size,
        }
