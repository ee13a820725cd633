"""The Lasso of many vectors: Newton steps on the few atoms that matter, checked against all of them."""

import warnings
from dataclasses import replace
from math import ceil, log

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.concepts.lasso.problem import Problem
from ierf.concepts.lasso.rounds import State, play
from ierf.concepts.lasso.solution import LassoCodes
from ierf.errors import IerfError

_FACTOR, _LOOSE = 1.5, 1e-2
"""Of a path: the ratio of neighbouring λ, and the tolerance on the way."""


def solve(
    problem: Problem, x: Float[Tensor, "N C"], tol: float, max_rounds: int, start: LassoCodes | None = None
) -> LassoCodes:
    """The Lasso of every row, from the codes `start` or from zero; warns of rows that are not done at the end.

    Rows that are not done in `max_rounds` begin again from zero at a λ that leaves them nothing, and follow it down in
    steps of a factor 1.5, as in pathwise coordinate descent (Friedman et al., 2007), with as many rounds each.
    """
    state = State.empty(len(x), x)
    everything = torch.arange(len(x), device=x.device)
    if start is not None and len(x):
        indices, values = _fitting(start, problem, x)
        state.put(everything, indices, values * problem.norms[indices])
    left = _rounds(problem, x, state, everything, tol, max_rounds)
    if len(left):
        state.clear(left)
        for lam in _path(problem, x[left]):
            _rounds(replace(problem, lam=lam), x, state, left, _LOOSE, max_rounds)
        left = _rounds(problem, x, state, left, tol, max_rounds)
    if len(left):
        warnings.warn(
            f"the Lasso of {len(left)} of {len(x)} vectors did not reach {tol:.0e} λ, the worst is off by "
            f"{float(state.kkt[left].max()):.0e} λ; a larger λ, float64 or more than {max_rounds} rounds may help",
            stacklevel=3,
        )
    return state.solution(problem, tol)


def _rounds(
    problem: Problem, x: Float[Tensor, "N C"], state: State, rows: Int[Tensor, " B"], tol: float, max_rounds: int
) -> Int[Tensor, " L"]:
    """Rounds for some vectors until all are done; returns those that are not after `max_rounds`."""
    for number in range(max_rounds + 1):
        blocks = state.blocks(rows, problem)
        rows = torch.cat([rows[:0], *(play(problem, x, state, some, tol, number < max_rounds) for some in blocks)])
        if not len(rows):
            break
    return rows


def _path(problem: Problem, x: Float[Tensor, "B C"]) -> list[float]:
    """From the λ that leaves nothing of any vector, or little more, down to the problem's own, which is left out."""
    largest = float((x @ problem.atoms.T).abs().mul_(problem.norms).max())
    count = ceil(log(max(1.0, largest / problem.lam), _FACTOR))
    return [problem.lam * _FACTOR**k for k in range(count - 1, 0, -1)]


def _fitting(start: LassoCodes, problem: Problem, x: Float[Tensor, "N C"]) -> tuple[Tensor, Tensor]:
    shape = (len(x), len(problem.atoms))
    if tuple(start.sparse.shape) != shape:
        raise IerfError(f"the codes to start from are {tuple(start.sparse.shape)}, those to be found {shape}")
    return start.sparse.indices.to(x.device), start.sparse.values.to(x)
