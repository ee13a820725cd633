"""Where a PFV was: at the row and column of a map or of a patch, or at a token in front of the patches."""

import numpy as np
from jaxtyping import Int

NO_ROW = -1
"""The row of a token that is no patch; its column is its place in the sequence."""


def stored_positions(
    places: Int[np.ndarray, "*batch"], size: tuple[int, ...], prefix: int
) -> Int[np.ndarray, "*batch axes"]:
    """Places in a sequence of `prefix` tokens and then a row-major map of this size -> what a store keeps of them.

    (row, column) on the map; (−1, index) of a token in front of it, where no patch can be.
    """
    found = np.stack(np.unravel_index(np.maximum(places - prefix, 0), size), -1)
    if prefix:
        tokens = np.stack([np.full_like(places, NO_ROW), places], -1)
        found = np.where((places < prefix)[..., None], tokens, found)
    return found.astype(np.int32)


def position_of(stored: Int[np.ndarray, " axes"]) -> tuple[int, ...]:
    """A position as `ierf.effective_receptive_fields` takes it: (row, column), or (index,) of a token."""
    first, *rest = map(int, stored)
    return tuple(rest) if first == NO_ROW else (first, *rest)


def token_name(index: int) -> str:
    """What a token in front of the patches is called: the first one "class token"."""
    return f"prefix token {index}" if index else "class token"
