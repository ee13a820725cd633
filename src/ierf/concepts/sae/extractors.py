"""Autoencoders by their names as extractors."""

from collections.abc import Callable, Mapping
from typing import Any

from ierf.concepts.sae.rules import RULES
from ierf.concepts.sae.sae import SAE
from ierf.concepts.vectors import Shift


def _maker(kind: str) -> Callable[..., SAE]:
    def make(n_concepts: int, seed: int = 0, shift: Shift = None, **options: Any) -> SAE:
        return SAE(kind, n_latents=n_concepts, seed=seed, shift=shift, **options)

    return make


SAES: Mapping[str, Callable[..., SAE]] = {f"sae_{kind}": _maker(kind) for kind in RULES}
"""Name -> maker `(n_concepts, seed, shift, **options)`, options being those of `SAE`."""
