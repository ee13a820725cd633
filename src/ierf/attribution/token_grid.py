"""Rows and columns of a token sequence: which token stands for which patch of the picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.errors import IerfError
from ierf.rules import Node, Tape

_MOST_PREFIX_TOKENS = 16
"""Before the patches of a sequence of which only the length is known."""


@dataclass(frozen=True)
class TokenGrid:
    """`rows` × `columns` patches in row-major order, behind `prefix` tokens that are none (class, registers)."""

    prefix: int
    rows: int
    columns: int

    @classmethod
    def by_aspect(cls, tokens: int, like: Sequence[int]) -> "TokenGrid | None":
        """The grid with the shape of a picture (height, width) that leaves the fewest prefix tokens."""
        for patches in range(tokens, max(0, tokens - _MOST_PREFIX_TOKENS), -1):
            rows = isqrt(patches * like[0] // like[1])
            if rows and patches % rows == 0 and rows * like[1] == patches // rows * like[0]:
                return cls(tokens - patches, rows, patches // rows)
        return None

    @property
    def patches(self) -> int:
        return self.rows * self.columns

    def to_map(self, values: Float[Tensor, "*batch T"]) -> Float[Tensor, "*batch rows columns"]:
        """The values of the patches in their places; those of other tokens are left out."""
        patches = values[..., self.prefix : self.prefix + self.patches]
        return patches.reshape(*patches.shape[:-1], self.rows, self.columns)

    def to_tokens(self, values: Float[Tensor, "*batch rows columns"], tokens: int) -> Float[Tensor, "*batch {tokens}"]:
        """The values of the patches in a sequence of `tokens`; 0 for other tokens."""
        behind = tokens - self.prefix - self.patches
        return torch.nn.functional.pad(values.flatten(-2), (self.prefix, behind))

    def index(self, cells: Int[Tensor, "P 2"]) -> Int[Tensor, "P 1"]:
        """(row, column) of patches -> their places in the sequence. Raises `IerfError` outside the grid."""
        outside = ((cells < 0) | (cells >= torch.tensor([self.rows, self.columns]))).any(1)
        if bool(outside.any()):
            raise IerfError(
                f"no patch at {tuple(cells[outside][0].tolist())}; the patches are {self.rows} × {self.columns}"
            )
        return self.prefix + cells[:, :1] * self.columns + cells[:, 1:]

    def is_shape_of(self, size: Sequence[int]) -> bool:
        """Whether a map of this size has the proportions of the grid."""
        return len(size) == 2 and size[0] * self.columns == size[1] * self.rows

    def cell(self, index: int) -> tuple[int, int] | None:
        """(row, column) of the patch at a place in the sequence; None for any other token."""
        patch = index - self.prefix
        return divmod(patch, self.columns) if 0 <= patch < self.patches else None


def token_grid(tape: Tape, node: int) -> TokenGrid | None:
    """The grid of the patches in the sequence of tokens at `node`; None for other maps and where it is unknown.

    Rows and columns are those of the nearest map with two position axes that every path passes and that has no more
    positions than tokens: a patch embedding's convolution, a merging of patches. Without such a map (patches cut out
    by a reshape) the first sequence of tokens is taken for patches in the picture's shape. Where tokens were put
    before or behind the patches is read off from the values at each concatenation.
    """
    if len(tape.nodes[node].map_shape) != 1:
        return None
    tokens = tape.nodes[node].positions
    shape = _patches(tape, node)
    if shape is None or prod(shape) > tokens:
        return None
    prefix = _prefix(tape, node, prod(shape))
    return None if prefix is None else TokenGrid(prefix, *shape)


def _patches(tape: Tape, node: int) -> tuple[int, int] | None:
    passed, tokens = _passed(tape, node), tape.nodes[node].positions
    for k in reversed(passed):
        shape = tape.nodes[k].map_shape
        if len(shape) == 2 and 1 < prod(shape) <= tokens:
            return shape[0], shape[1]
    picture = tape.nodes[0].map_shape
    sequences = [k for k in passed if len(tape.nodes[k].map_shape) == 1]
    if len(picture) != 2 or not sequences:
        return None
    grid = TokenGrid.by_aspect(tape.nodes[sequences[0]].positions, picture)
    return None if grid is None else (grid.rows, grid.columns)


def _passed(tape: Tape, node: int) -> list[int]:
    """Maps that every path to `node` and to the output passes: nothing of the inside of an attention is among them."""
    of_node = set(tape.cuts(node))
    return [k for k in tape.cuts() if k in of_node]


def _prefix(tape: Tape, node: int, patches: int) -> int | None:
    """How many tokens stand before the patches; None if the patches are not among the tokens as they were.

    Goes back to where the sequence got its length, and on from the shorter or longer one of which it was made.
    """
    tokens = tape.nodes[node].positions
    if tokens == patches:
        return 0
    same = node
    for k in reversed(_passed(tape, node)):
        if tape.nodes[k].map_shape != (tokens,):
            break
        same = k
    entry = tape.nodes[same]
    for parent in entry.parents:
        other = tape.nodes[parent]
        if len(other.map_shape) != 1 or other.positions < patches or other.positions == tokens:
            continue
        inner = _prefix(tape, parent, patches)
        shift = _shift(other, entry) if other.positions < tokens else _shift(entry, other)
        if inner is None or shift is None:
            continue
        prefix = inner + shift if other.positions < tokens else inner - shift
        if 0 <= prefix <= tokens - patches:
            return prefix
    return None


def _shift(part: Node, whole: Node) -> int | None:
    """After how many tokens of `whole` the tokens of `part` follow, the last place if there are several."""
    some, every = (entry.tensor.detach().movedim(entry.axis, -1) for entry in (part, whole))
    length = some.shape[1]
    if some.shape[::2] != every.shape[::2]:
        return None
    places = range(every.shape[1] - length, -1, -1)
    return next((i for i in places if torch.equal(every[:, i : i + length], some)), None)
