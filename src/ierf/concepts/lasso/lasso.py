"""The Lasso as one calls it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ierf.concepts.lasso.choosing import choose_lam
from ierf.concepts.lasso.problem import Problem, vectors_and_atoms
from ierf.concepts.lasso.solution import LassoCodes
from ierf.concepts.lasso.solving import solve


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
