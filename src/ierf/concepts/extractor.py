"""What every way of finding concepts has in common, in scikit-learn's manner: `X ≈ U V + shift`."""

from typing import Any, Protocol, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError

Shift = Float[Tensor, " C"] | np.ndarray | str | None
"""What is subtracted from PFVs: a vector (μ_BN, see `ierf.model.shift_of`), "mean", or None for nothing."""


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


def as_vectors(x: Float[Tensor, "N C"] | np.ndarray) -> Float[Tensor, "N C"]:
    """The PFVs as a tensor without gradients: float64 stays, all else becomes float32, on the device where they are.

    Raises `IerfError` if they are no (N, C) matrix with a row and a column, or hold NaN or infinity.
    """
    given = torch.as_tensor(x if isinstance(x, Tensor) or x.flags.writeable else x.copy()).detach().contiguous()
    if given.ndim != 2 or not given.numel():
        raise IerfError(f"concepts are found in PFVs of shape (N, C), one row each; got the shape {tuple(given.shape)}")
    vectors = given if given.dtype == torch.float64 else given.float()
    if not bool(torch.isfinite(vectors.sum(1)).all()) and not bool(torch.isfinite(vectors).all()):
        bad = int((~torch.isfinite(vectors).all(1)).nonzero()[0])
        raise IerfError(f"PFV {bad} holds NaN or infinity; leave such rows out")
    return vectors


def shift_vector(x: Float[Tensor, "N C"], shift: Shift) -> Float[Tensor, " C"]:
    """The vector to subtract from PFVs. Raises `IerfError` for another word than "mean", or a wrong length."""
    if shift is None:
        return x.new_zeros(x.shape[1])
    if isinstance(shift, str):
        if shift != "mean":
            raise IerfError(f'a shift is a vector of length C, "mean" or None, not {shift!r}')
        return x.mean(0, dtype=torch.float64).to(x)
    vector = torch.as_tensor(shift).detach().to(x)
    if vector.shape != x.shape[1:] or not bool(torch.isfinite(vector).all()):
        raise IerfError(f"the shift is one finite number per channel, {x.shape[1]} of them; got {tuple(vector.shape)}")
    return vector


def describe_shift(shift: Shift) -> str | None:
    """A shift in the words of a JSON configuration: "mean", "given" or None."""
    return shift if shift is None or isinstance(shift, str) else "given"
