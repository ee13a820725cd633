"""Concepts as factors, `X − shift ≈ U V`: PCA, NMF and dictionary learning (arXiv 2605.00474, Table III)."""

from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ierf.concepts.extractor import Estimator, Shift, Vectors, as_vectors, describe_shift, shift_vector, shifted
from ierf.concepts.sparse_coding import choose_lam, lasso
from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.extras import extra


class PCA(Estimator):
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
        self.n_concepts, self.seed, self.shift = n_concepts, seed, shift

    def fit(self, x: Vectors, y: object = None) -> Self:
        """Find the directions. Raises `IerfError` for more of them than channels or PFVs."""
        vectors = as_vectors(x)
        most = min(vectors.shape)
        if not 1 <= self.n_concepts <= most:
            raise IerfError(
                f"{len(vectors)} PFVs of {vectors.shape[1]} channels have between 1 and {most} principal components, "
                f"not {self.n_concepts}"
            )
        self.shift_ = shift_vector(vectors, self._shift)
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

    def transform(self, x: Vectors) -> Float[Tensor, "N K"]:
        """`(x − shift) Vᵀ`"""
        vectors = shifted(self, x)
        return vectors @ self.components_.to(vectors).T

    @property
    def config(self) -> dict[str, Any]:
        return {
            "name": "pca",
            "n_concepts": self.n_concepts,
            "seed": self.seed,
            "shift": describe_shift(self._shift),
        }

    @property
    def _shift(self) -> Shift:
        return "mean" if self.shift is None else self.shift


class NMF(Estimator):
    """`X − shift ≈ U V` with U, V ≥ 0, by scikit-learn’s coordinate descent from random factors (`ierf[concepts]`).

    The PFVs themselves must be ≥ 0 after the shift: those behind a ReLU are, those before it are not.
    """

    components_: Float[Tensor, "K C"]
    shift_: Float[Tensor, " C"]

    def __init__(self, n_concepts: int, seed: int = 0, shift: Shift = None, max_iter: int = 200) -> None:
        """max_iter: the most sweeps of coordinate descent, for `fit` as for `transform`."""
        self.n_concepts, self.seed, self.shift, self.max_iter = n_concepts, seed, shift, max_iter

    def fit(self, x: Vectors, y: object = None) -> Self:
        """Find the factors. Raises `IerfError` for negative PFVs."""
        vectors = as_vectors(x)
        self.shift_ = shift_vector(vectors, self.shift)
        self._peer = extra("sklearn.decomposition", "concepts").NMF(
            self.n_concepts, init="random", random_state=self.seed, max_iter=self.max_iter, tol=1e-4
        )
        self._peer.fit(_positive(vectors - self.shift_))
        self.components_ = torch.from_numpy(self._peer.components_).to(vectors)
        return self

    def transform(self, x: Vectors) -> Float[Tensor, "N K"]:
        """`argmin_{U ≥ 0} ‖x − shift − U V‖²`, up to scikit-learn's tolerance. Raises `IerfError` for negative PFVs."""
        vectors = shifted(self, x)
        return torch.from_numpy(self._peer.transform(_positive(vectors))).to(vectors)

    @property
    def config(self) -> dict[str, Any]:
        return {
            "name": "nmf",
            "n_concepts": self.n_concepts,
            "seed": self.seed,
            "shift": describe_shift(self.shift),
            "max_iter": self.max_iter,
        }


def _positive(shifted: Float[Tensor, "N C"]) -> np.ndarray:
    negative = int((shifted < 0).any(1).sum())
    if negative:
        raise IerfError(
            f"NMF takes PFVs without negative values, and {negative} of {len(shifted)} have some after the shift; "
            'collect them behind the activation, values="output", and shift them by nothing'
        )
    values: np.ndarray = shifted.cpu().numpy()
    return values


class DictionaryLearning(Estimator):
    """`min_{U,V} ½‖X − shift − U V‖² + λ‖U‖₁` over atoms of norm ≤ 1; needs `ierf[concepts]`.

    scikit-learn's `MiniBatchDictionaryLearning` (Mairal et al., ICML 2009) with LARS, which the papers used (GIG,
    settings of 4.1). The variant without mini-batches would solve a Lasso of all PFVs for each update of the atoms. It
    begins with PFVs drawn by `seed`: scikit-learn's own start, singular vectors, has no more than C of them.
    """

    components_: Float[Tensor, "K C"]
    shift_: Float[Tensor, " C"]
    lam_: float
    """λ"""

    @renamed(batch_size="batch")
    def __init__(
        self,
        n_concepts: int,
        seed: int = 0,
        shift: Shift = None,
        lam: float | None = None,
        l0_ratio: float = 0.995,
        max_iter: int = 10,
        batch: int = 256,
    ) -> None:
        """How atoms are learnt.

        Args:
            lam: λ, in the units of `sparse_encode(alpha=λ)`; by default the one that gives the PFVs drawn at the
                start, as atoms, `l0_ratio` (arXiv 2605.00474, Table III), and one coefficient at least.
            l0_ratio: `1 − ‖u‖₀ / K`, where λ is not given.
            max_iter: the most passes over the PFVs; scikit-learn stops when the objective no longer falls.
            batch: PFVs for each update of the atoms.
        """
        self.n_concepts, self.seed, self.shift, self.lam = n_concepts, seed, shift, lam
        self.l0_ratio, self.max_iter, self.batch = l0_ratio, max_iter, batch

    def fit(self, x: Vectors, y: object = None) -> Self:
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
            batch_size=min(self.batch, len(vectors)),
            dict_init=start.double().cpu().numpy(),
            random_state=self.seed,
        )
        learner.fit(shifted.double().cpu().numpy())
        self.components_ = torch.from_numpy(learner.components_).to(vectors)
        return self

    def transform(self, x: Vectors) -> Float[Tensor, "N K"]:
        """The Lasso codes with the λ that the atoms were learnt with."""
        return lasso(shifted(self, x), self.components_, self.lam_).codes

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
            "batch_size": self.batch,
        }
