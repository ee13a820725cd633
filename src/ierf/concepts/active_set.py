"""The Lasso of many vectors by active sets: Newton steps on the few atoms that matter, checked against all (Eq. 12)."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil, isfinite, log
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.concepts.codes import Codes, LassoCodes
from ierf.errors import IerfError

_FLIPS = (1, 2, 4, 8, 16, 32)
_MEMORY = 1 << 23
"""Bytes of the largest tensor made for the vectors that are worked on at once."""
_FEWEST, _MOST = 12, 64
"""Atoms that join a vector's own in one round: half as many as there are, within these bounds."""
_STEPS = 2
_FACTOR, _LOOSE = 1.5, 1e-2
"""Of a path: the ratio of neighbouring λ, and the tolerance on the way."""


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


class Small(NamedTuple):
    """`½ zᵀGz − bᵀz + Σ_a w_a |z_a|` for each of B vectors with room for A atoms, at the point z."""

    gram: Float[Tensor, "B A A"]
    slope: Float[Tensor, "B A"]
    """`b − Gz`, how the atoms correlate with what z leaves over."""
    weights: Float[Tensor, "B A"]
    z: Float[Tensor, "B A"]
    signs: Float[Tensor, "B A"]
    """Of z; where z = 0, the sign that z may take, or 0 for an atom that stays out."""


def descend(small: Small, steps: int) -> Small:
    """Up to `steps` Newton steps, after none of which the objective is larger.

    With its signs fixed the objective is quadratic, with the minimum `z + G⁻¹(slope − w·signs)` over the atoms that
    have a sign. Of the points on the way there where the 1st, 2nd, 4th, 8th … sign flips, and the end, those atoms
    that have flipped set to 0, the best is taken, if it is better than z (the feature-sign search of Lee et al., NIPS
    2006, many flips at a time). From a z ≠ 0 on all its atoms the first flip always is, unless z is the minimum.
    An atom at 0 after a step stays out from then on.
    """
    for _ in range(steps):
        after = _step(small)
        settled = torch.equal(after.signs, small.signs)
        small = after
        if settled:
            break
    return small


def _step(small: Small) -> Small:
    gram, slope, weights, z, signs = small
    aim = _direction(gram, (slope - weights * signs) * signs.abs(), signs.abs())
    flips = torch.where((aim * signs < 0) & (z != 0), -z / aim, torch.inf)
    nth = flips.sort(1).values[:, [n - 1 for n in _FLIPS if n <= z.shape[1]]].clamp(max=1)
    lengths = torch.cat([torch.ones_like(nth[:, :1]), nth], 1)
    points = z[:, None] + lengths[..., None] * aim[:, None]
    points.masked_fill_(flips[:, None] <= lengths[..., None], 0)
    points.masked_fill_(points * signs[:, None] <= 0, 0)
    moves = points - z[:, None]
    falls = moves @ gram
    changes = moves * (0.5 * falls - slope[:, None]) + weights[:, None] * (points.abs() - z.abs()[:, None])
    best, at = changes.sum(2).min(1)
    better = best < 0
    row = torch.arange(len(z), device=z.device)
    z = torch.where(better[:, None], points[row, at], z)
    slope = torch.where(better[:, None], slope - falls[row, at], slope)
    return Small(gram, slope, weights, z, signs * (z != 0))


def _direction(
    gram: Float[Tensor, "B A A"], slope: Float[Tensor, "B A"], inside: Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """`G⁻¹ slope` among the atoms `inside`, 0 for the others.

    The diagonal, which is 1, is raised by a little, so that dependent atoms have an inverse; the next step, from the
    slope at the new point, makes good for it. Where rounding still spoils the factors, it is raised by more.
    """
    inner = gram * inside[:, None] * inside[..., None]
    ridge = 8 * torch.finfo(gram.dtype).eps
    diagonal = inner.diagonal(dim1=1, dim2=2)
    diagonal += 1 - inside + ridge
    factors, failed = torch.linalg.cholesky_ex(inner)
    if bool(failed.any()):
        diagonal[failed > 0] += 1e3 * ridge
        factors = torch.linalg.cholesky(inner)
    return torch.cholesky_solve(slope[..., None], factors)[..., 0]


def in_blocks(
    sizes: Int[Tensor, " T"], numbers: Callable[[int], int], item: int
) -> Iterator[tuple[Int[Tensor, " B"], int]]:
    """Places of vectors, sorted by how many atoms they use, in blocks of bounded memory, and the most atoms of a block.

    `numbers` is how many numbers of `item` bytes a vector needs that uses so many atoms.
    """
    places = sizes.argsort()
    end = len(places)
    while end:
        widest = int(sizes[places[end - 1]])
        start = max(0, end - max(1, _MEMORY // (numbers(widest) * item)))
        yield places[start:end], widest
        end = start


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
        n_atoms, channels = problem.atoms.shape

        def numbers(width: int) -> int:
            widest = width + _joining(width)
            return max(n_atoms, widest * max(channels, widest))

        for places, _ in in_blocks(self.sizes[rows], numbers, problem.atoms.element_size()):
            yield rows[places]

    def solution(self, problem: Problem, tol: float) -> LassoCodes:
        """The codes in the coefficients of the atoms as they were given, indices ascending."""
        width = int(self.sizes.max()) if len(self.sizes) else 0
        indices, values = self.indices[:, :width], self.values[:, :width]
        values = (values / problem.norms[indices]).masked_fill(values == 0, 0)
        sparse = Codes.packed(indices, values, len(problem.atoms))
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
