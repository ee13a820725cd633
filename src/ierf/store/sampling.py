"""Which PFVs of an image are taken."""

import hashlib
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

Sampling = Literal["relevance", "uniform", "all"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)


def draw(weights: Float[np.ndarray, " P"], count: int, key: str) -> Int[np.ndarray, " count"]:
    """`count` different positions, one after the other with probability ∝ the positive part of `weights` that is left.

    The `count` largest of `log w_p + g_p` with Gumbel noise `g` are such a draw (Kool et al., ICML 2019); positions
    without weight follow, each as likely as the others. The same `key` gives the same draw.
    """
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()))
    positive = weights > 0
    score = np.log(weights, where=positive, out=np.zeros(len(weights))) + random.gumbel(size=len(weights))
    return np.lexsort((-score, ~positive))[:count]
