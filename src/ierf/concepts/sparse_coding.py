"""The Lasso as one calls it (arXiv 2605.00474, Eq. 12), for one λ, several, or the λ of a sparsity (Table III)."""

import warnings
from collections.abc import Sequence
from math import exp, log

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ierf.concepts.active_set import Problem, solve, vectors_and_atoms
from ierf.concepts.codes import LassoCodes
from ierf.errors import IerfError

_SAMPLE = 512
_SMALLEST = 1e-4
"""Of the largest λ that leaves any coefficient: below it float32 has no digits left to tell zero from not zero."""
_CLOSE = 0.02
_TRIES = 20
_REACHED = 0.9
"""Of the coefficients that any λ leaves: as many can be had without going to the end of float32."""


def choose_lam(
    x: Float[Tensor, "N C"] | np.ndarray,
    atoms: Float[Tensor, "K C"] | np.ndarray,
    target_l0: float,
    positive: bool = False,
) -> float:
    """The λ at which so many coefficients are not zero, in the mean over at most 512 rows of x, within 2 %.

    λ is halved until there are enough, then found between the last two by regula falsi in log λ; each Lasso starts
    from the codes of the larger λ.

    A ratio that leaves less than one coefficient to a vector, as 0.996 does to 16 atoms (0.06), would leave most
    vectors without any: it is read as one coefficient in the mean, with a warning.

    Args:
        target_l0: the mean number of coefficients that are not zero; below 1 it is the ratio `1 − ‖u‖₀ / K` of
            arXiv 2605.00474, Table III.

    Raises:
        IerfError: as many coefficients can't be had, or there is nothing to choose by.
    """
    vectors, given = vectors_and_atoms(x, atoms)
    wanted = (1 - target_l0) * len(given) if target_l0 < 1 else target_l0
    if not 0 < wanted <= min(given.shape):
        raise IerfError(
            f"target_l0={target_l0} asks for {wanted:.4g} of {len(given)} coefficients; between 0 and "
            f"{min(given.shape)}, the number of channels or atoms, can be had"
        )
    rows = torch.linspace(0, len(vectors) - 1, min(_SAMPLE, len(vectors)), device=vectors.device).round().long()
    sample = vectors[rows]
    slopes = sample @ given.T
    largest = float((slopes if positive else slopes.abs()).amax()) if len(sample) else 0.0
    if largest <= 0:
        raise IerfError("there is no vector that any atom could stand for; λ can't be chosen by target_l0")
    if target_l0 < 1 and wanted < 1:
        usable = (slopes if positive else slopes.abs()) > 0
        asked, wanted = wanted, max(wanted, min(1.0, _REACHED * float(usable.sum(1).float().mean())))
        warnings.warn(
            f"a ratio of {target_l0:g} leaves {asked:.2g} of {len(given)} coefficients to a vector, so that most would "
            f"have none; λ is chosen for {wanted:.2g} in the mean. Ask for a smaller ratio (l0_ratio=, --l0-ratio; "
            f"{1 - 1 / len(given):.3g} is one coefficient), a number (target_l0=), or for more concepts",
            stacklevel=2,
        )

    def at(lam: float, start: LassoCodes | None) -> tuple[LassoCodes, float]:
        codes = solve(Problem.of(given, lam, positive), sample, 1e-2, 50, start)
        return codes, float(codes.l0.mean())

    high, above, few = largest, None, 0.0
    while True:
        low = high / 2
        if low < _SMALLEST * largest:
            raise IerfError(f"no λ leaves {wanted:.4g} coefficients; the smallest tried, {high:.2g}, leaves {few:.4g}")
        codes, many = at(low, above)
        if many >= wanted:
            break
        high, above, few = low, codes, many
    for _ in range(_TRIES):
        if abs(many - wanted) <= _CLOSE * wanted:
            return low
        share = min(max((wanted - few) / (many - few), 0.1), 0.9)
        lam = exp(log(high) + share * (log(low) - log(high)))
        codes, found = at(lam, above)
        if found >= wanted:
            low, many = lam, found
        else:
            high, above, few = lam, codes, found
            if abs(few - wanted) <= _CLOSE * wanted:
                return high
    return low


def lasso(
    x: Float[Tensor, "N C"] | np.ndarray,
    atoms: Float[Tensor, "K C"] | np.ndarray,
    lam: float = 0.1,
    positive: bool = False,
    *,
    target_l0: float | None = None,
    tol: float = 1e-3,
    max_rounds: int = 50,
    start: LassoCodes | None = None,
) -> LassoCodes:
    """`argmin_u ½‖x − u V‖² + λ‖u‖₁` for every row of x (arXiv 2605.00474, Eq. 12).

    In each round the atoms that violate the optimality conditions most join those in use, and Newton steps solve the
    Lasso of these few. A vector is done when none of all K atoms violates its condition by more than `tol · λ`. λ is
    that of scikit-learn's `sparse_encode(alpha=λ)`; its `Lasso(alpha=λ / C)` means the same.

    Args:
        x: the vectors, already shifted.
        positive: coefficients ≥ 0 only.
        target_l0: choose λ for this mean number of coefficients that are not zero, see `choose_lam`; `lam` is not used.
        tol: the largest violation, relative to λ.
        max_rounds: a vector that needs more follows λ down from large values, with so many rounds for each; one that
            is not done then is given up, with a warning and in `.converged`.
        start: codes to begin with, such as those of a neighbouring λ.

    Raises:
        IerfError: λ ≤ 0, NaN, no atoms, or shapes that do not fit together.
    """
    vectors, given = vectors_and_atoms(x, atoms)
    if target_l0 is not None:
        lam = choose_lam(vectors, given, target_l0, positive)
    return solve(Problem.of(given, lam, positive), vectors, tol, max_rounds, start)


def lasso_path(
    x: Float[Tensor, "N C"] | np.ndarray,
    atoms: Float[Tensor, "K C"] | np.ndarray,
    lams: Sequence[float],
    positive: bool = False,
    *,
    tol: float = 1e-3,
    max_rounds: int = 50,
) -> list[LassoCodes]:
    """The Lasso for several λ, in the order given; each is solved from the codes of the next larger one."""
    vectors, given = vectors_and_atoms(x, atoms)
    found: dict[float, LassoCodes] = {}
    start = None
    for lam in sorted(set(lams), reverse=True):
        start = found[lam] = solve(Problem.of(given, lam, positive), vectors, tol, max_rounds, start)
    return [found[lam] for lam in lams]
