"""What every way of finding concepts has in common, in scikit-learn's manner, and the ways by name."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ierf.concepts.dictionary import DictionaryLearning
from ierf.concepts.kmeans import BisectingSphericalKMeans
from ierf.concepts.nmf import NMF
from ierf.concepts.pca import PCA
from ierf.concepts.sae.extractors import SAES
from ierf.concepts.vectors import Shift
from ierf.errors import UnknownNameError


class Extractor(Protocol):
    """Concepts as vectors: `X ≈ U V + shift` with codes U = `transform(X)` and V = `components_`.

    PFVs come in as a tensor or a numpy array of any float type; tensors come out, float32 (float64 stays), on the
    device of what came in.
    """

    @property
    def components_(self) -> Float[Tensor, "K C"]:
        """The concept vectors (atoms), in the shifted space."""

    @property
    def shift_(self) -> Float[Tensor, " C"]:
        """What is subtracted from PFVs first."""

    def fit(self, x: Float[Tensor, "N C"] | np.ndarray) -> Self:
        """Find the concepts of these PFVs."""

    def transform(self, x: Float[Tensor, "N C"] | np.ndarray) -> Float[Tensor, "N K"]:
        """The extractor's own codes."""

    @property
    def config(self) -> dict[str, Any]:
        """Its name and parameters, as JSON can hold them."""


EXTRACTORS: Mapping[str, Callable[..., Extractor]] = {
    "bisecting": BisectingSphericalKMeans,
    "dictionary": DictionaryLearning,
    "nmf": NMF,
    "pca": PCA,
    **SAES,
}
"""Name -> maker `(n_concepts, seed, shift, **options)`."""


def make_extractor(name: str, n_concepts: int, seed: int = 0, shift: Shift = None, **options: Any) -> Extractor:
    """The extractor of this name, not yet fitted. Raises `UnknownNameError` with the nearest names."""
    if name not in EXTRACTORS:
        raise UnknownNameError("extractor", name, EXTRACTORS)
    return EXTRACTORS[name](n_concepts, seed=seed, shift=shift, **options)
