"""The extractors by name (arXiv 2605.00474, Table III)."""

from collections.abc import Callable, Mapping
from typing import Any

from ierf.concepts.extractor import Extractor, Shift
from ierf.concepts.kmeans import BisectingSphericalKMeans
from ierf.concepts.matrix_factors import NMF, PCA, DictionaryLearning
from ierf.concepts.sae.sae import SAE
from ierf.concepts.sae.variants import RULES
from ierf.errors import UnknownNameError


def _maker(kind: str) -> Callable[..., SAE]:
    def make(n_concepts: int, seed: int = 0, shift: Shift = None, **options: Any) -> SAE:
        return SAE(kind, n_latents=n_concepts, seed=seed, shift=shift, **options)

    return make


SAES: Mapping[str, Callable[..., SAE]] = {f"sae_{kind}": _maker(kind) for kind in RULES}
"""Name -> maker `(n_concepts, seed, shift, **options)`, options being those of `SAE`."""


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
