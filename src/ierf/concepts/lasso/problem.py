"""A Lasso with its atoms brought to norm 1."""

from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError


@dataclass(frozen=True, eq=False)
class Problem:
    """`½‖x − u V‖² + λ‖u‖₁` in the coefficients `z_k = u_k ‖v_k‖` of unit atoms: `½‖x − z Ṽ‖² + Σ_k w_k |z_k|`.

    Steps and choices no longer depend on how long atoms are. An atom of norm 0 gets `w = ∞` and is never used.
    """

    atoms: Float[Tensor, "K C"]
    """`Ṽ`"""
    norms: Float[Tensor, " K"]
    lam: float
    positive: bool

    @classmethod
    def of(cls, atoms: Float[Tensor, "K C"], lam: float, positive: bool) -> "Problem":
        if not (isfinite(lam) and lam > 0):
            raise IerfError(f"the Lasso needs a positive λ, not {lam}; without one it is least squares")
        norms = atoms.norm(dim=1)
        return cls(atoms / norms.where(norms > 0, 1)[:, None], norms, lam, positive)

    @property
    def weights(self) -> Float[Tensor, " K"]:
        """`w_k = λ / ‖v_k‖`"""
        return self.lam / self.norms


def vectors_and_atoms(
    x: Float[Tensor, "N C"] | np.ndarray, atoms: Float[Tensor, "K C"] | np.ndarray
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "K C"]]:
    """Both as tensors of one type, float32 or, if either is, float64, on the vectors' device, without gradients.

    Raises `IerfError` if they do not fit together, if there is no atom, or for NaN and infinity.
    """
    x, atoms = (torch.as_tensor(given).detach() for given in (x, atoms))
    if x.ndim != 2 or atoms.ndim != 2 or x.shape[1] != atoms.shape[1] or not atoms.numel():
        raise IerfError(
            f"the Lasso takes vectors (N, C) and at least one atom (K, C) of as many channels; "
            f"got {tuple(x.shape)} and {tuple(atoms.shape)}"
        )
    dtype = torch.float64 if torch.float64 in (x.dtype, atoms.dtype) else torch.float32
    for name, given in (("vectors", x), ("atoms", atoms)):
        bad = ~torch.isfinite(given).all(1)
        if bad.any():
            raise IerfError(f"{int(bad.sum())} of the {name} hold NaN or infinity; leave such rows out")
    return x.to(dtype), atoms.to(x.device, dtype)
