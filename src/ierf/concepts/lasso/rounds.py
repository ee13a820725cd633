"""Rounds of the Lasso: certify the codes, let the most violating atoms join those in use, step, drop those at zero."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.concepts.codes import Codes
from ierf.concepts.lasso.newton import Small, descend
from ierf.concepts.lasso.problem import Problem
from ierf.concepts.lasso.solution import LassoCodes

_MEMORY = 1 << 23
"""Bytes of the largest tensor made for the vectors that are worked on at once."""
_FEWEST, _MOST = 12, 64
"""Atoms that join a vector's own in one round: half as many as there are, within these bounds."""
_STEPS = 2


@dataclass(eq=False)
class State:
    """The codes of all vectors as they are, in the coefficients of unit atoms, packed to the left; certificates."""

    indices: Int[Tensor, "N A"]
    values: Float[Tensor, "N A"]
    sizes: Int[Tensor, " N"]
    room: Int[Tensor, " N"]
    """The most atoms that may join; fewer after a round in which most of them did not stay."""
    kkt: Float[Tensor, " N"]
    objective: Float[Tensor, " N"]
    gap: Float[Tensor, " N"]

    @classmethod
    def empty(cls, n: int, like: Tensor) -> "State":
        """All codes zero."""
        none, counts = like.new_zeros(n, 0), torch.zeros(n, dtype=torch.long, device=like.device)
        return cls(none.long(), none, counts, counts + _MOST, *(like.new_zeros(n) for _ in range(3)))

    def clear(self, rows: Int[Tensor, " B"]) -> None:
        """Begin again with some vectors."""
        self.values[rows], self.indices[rows], self.sizes[rows], self.room[rows] = 0, 0, 0, _MOST

    def put(self, rows: Int[Tensor, " B"], indices: Int[Tensor, "B A"], values: Float[Tensor, "B A"]) -> None:
        """Replace the codes of some vectors, leaving out coefficients that are zero."""
        sizes = (values != 0).sum(1)
        width = int(sizes.max())
        order = (values == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
        values = values.gather(1, order)
        indices = indices.gather(1, order).masked_fill(values == 0, 0)
        more = max(0, width - self.indices.shape[1])
        if more:
            self.indices, self.values = F.pad(self.indices, (0, more)), F.pad(self.values, (0, more))
        less = self.indices.shape[1] - width
        self.indices[rows], self.values[rows] = F.pad(indices, (0, less)), F.pad(values, (0, less))
        self.sizes[rows] = sizes

    def blocks(self, rows: Int[Tensor, " T"], problem: Problem) -> Iterator[Int[Tensor, " B"]]:
        """These vectors, sorted by how many atoms they use, in blocks that need a bounded memory."""
        rows = rows[self.sizes[rows].argsort()]
        n_atoms, channels = problem.atoms.shape
        end = len(rows)
        while end:
            widest = int(self.sizes[rows[end - 1]])
            widest += _joining(widest)
            numbers = max(n_atoms, widest * max(channels, widest))
            start = max(0, end - max(1, _MEMORY // (numbers * problem.atoms.element_size())))
            yield rows[start:end]
            end = start

    def solution(self, problem: Problem, tol: float) -> LassoCodes:
        """The codes in the coefficients of the atoms as they were given, indices ascending."""
        width = int(self.sizes.max()) if len(self.sizes) else 0
        indices, values = self.indices[:, :width], self.values[:, :width]
        order = indices.masked_fill(values == 0, len(problem.atoms)).argsort(dim=1)
        indices, values = indices.gather(1, order), values.gather(1, order)
        values = (values / problem.norms[indices]).masked_fill(values == 0, 0)
        sparse = Codes(indices, values, len(problem.atoms))
        return LassoCodes(sparse, problem.lam, self.kkt, self.objective, self.gap, self.kkt <= tol)


def play(
    problem: Problem, x: Float[Tensor, "N C"], state: State, rows: Int[Tensor, " B"], tol: float, step: bool
) -> Int[Tensor, " L"]:
    """Certify the codes of some vectors; with `step`, better those that are not good enough. Returns which they are."""
    width = int(state.sizes[rows].max())
    own, z = state.indices[rows, :width], state.values[rows, :width]
    used = z != 0
    rest = x[rows] - Codes(own, z, len(problem.atoms)).times(problem.atoms)
    slopes = rest @ problem.atoms.T
    sizes = slopes if problem.positive else slopes.abs()

    own_slopes, own_weights = slopes.gather(1, own), problem.weights[own].where(used, 1)
    unused = (sizes * (problem.norms / problem.lam)).amax(1) - 1
    wrong = (own_slopes / own_weights - z.sign()).abs().where(used, 0)
    kkt = torch.cat([wrong, unused.clamp(min=0)[:, None]], 1).amax(1)
    state.kkt[rows] = kkt
    state.objective[rows], state.gap[rows] = _certificates(x[rows], rest, (own_weights * z.abs()).sum(1), kkt)
    left = kkt > tol
    if not (step and bool(left.any())):
        return rows[left]

    over = (sizes - problem.weights).scatter_add_(1, own, torch.zeros_like(z).masked_fill(used, -torch.inf))
    most, new = over[left].topk(min(_joining(width), over.shape[1]), 1)
    rows, own, z, own_slopes, own_weights = (part[left] for part in (rows, own, z, own_slopes, own_weights))
    new_slopes = slopes[left].gather(1, new)
    joins = (most > 0) & (torch.arange(new.shape[1], device=x.device) < state.room[rows, None])
    indices = torch.cat([own, new], 1)
    taken = problem.atoms[indices]
    small = Small(
        taken @ taken.mT,
        torch.cat([own_slopes, new_slopes], 1),
        torch.cat([own_weights, problem.weights[new].where(joins, 1)], 1),
        torch.cat([z, torch.zeros_like(new_slopes)], 1),
        torch.cat([z.sign(), new_slopes.sign() * joins], 1),
    )
    z = descend(small, _STEPS).z
    joined, stayed = joins.sum(1), (z[:, width:] != 0).sum(1)
    room = torch.where(2 * stayed >= joined, 2 * state.room[rows], joined // 2).clamp(1, _MOST)
    # One atom that does not stay tells that those in use are not at their best yet: a round for them alone.
    state.room[rows] = room.masked_fill((joined == 1) & (stayed == 0), 0)
    state.put(rows, indices, z)
    return rows


def _joining(width: int) -> int:
    return max(_FEWEST, min(_MOST, width // 2))


def _certificates(
    x: Float[Tensor, "B C"], rest: Float[Tensor, "B C"], penalty: Float[Tensor, " B"], kkt: Float[Tensor, " B"]
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The objective, and its distance to the dual one, `⟨θ, x⟩ − ½‖θ‖²` at the feasible `θ = rest / (1 + kkt)`."""
    x, rest, penalty = x.double(), rest.double(), penalty.double()
    scale = 1 / (1 + kkt.double())
    squares = rest.square().sum(1)
    gap = 0.5 * (1 + scale.square()) * squares + penalty - scale * (rest * x).sum(1)
    return (0.5 * squares + penalty).to(kkt), gap.clamp(min=0).to(kkt)
