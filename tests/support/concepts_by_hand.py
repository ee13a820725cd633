"""The Lasso and bisecting spherical k-means by their definitions, in float64."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def correlated(n: int, channels: int, atoms: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Vectors and atoms that share few strong directions, atoms of different lengths, in float64."""
    generator = torch.Generator().manual_seed(seed)
    strong = torch.randn(channels // 4, channels, generator=generator, dtype=torch.float64)
    x, v = (
        torch.randn(rows, channels // 4, generator=generator, dtype=torch.float64) @ strong
        + torch.randn(rows, channels, generator=generator, dtype=torch.float64)
        for rows in (n, atoms)
    )
    return x, v * torch.linspace(0.3, 3, atoms, dtype=torch.float64)[:, None]


def largest_lam(x: Tensor, atoms: Tensor) -> float:
    """The smallest λ at which all codes are zero."""
    return float((x @ atoms.T).abs().max())


def objective(x: Tensor, atoms: Tensor, codes: Tensor, lam: float) -> Tensor:
    x, atoms, codes = x.double(), atoms.double(), codes.double()
    return 0.5 * (x - codes @ atoms).square().sum(1) + lam * codes.abs().sum(1)


def violation(x: Tensor, atoms: Tensor, codes: Tensor, lam: float, positive: bool = False) -> Tensor:
    """The largest violation of an optimality condition of each vector, relative to λ."""
    x, atoms, codes = x.double(), atoms.double(), codes.double()
    slopes = (x - codes @ atoms) @ atoms.T
    worst = []
    for slope, code in zip(slopes, codes, strict=True):
        used = code != 0
        inside = (slope - lam * code.sign())[used].abs()
        outside = (slope if positive else slope.abs())[~used] - lam
        worst.append(torch.cat([inside, outside.clamp(min=0), torch.zeros(1).double()]).max() / lam)
    return torch.stack(worst)


_MODULUS = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15


def scrambled(key: int) -> int:
    """SplitMix64 with Python's integers."""
    z = (key + _GOLDEN) % _MODULUS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % _MODULUS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % _MODULUS
    return z ^ (z >> 31)


@dataclass
class Leaf:
    node: int
    rows: np.ndarray
    key: int


def wait(key: int, row: int) -> float:
    """How long a row waits to be drawn: −log of the row-th number of SplitMix64 begun at `key`."""
    return -math.log(((scrambled((key + int(row) * _GOLDEN) % _MODULUS) >> 11) + 0.5) / 2**53)


def two_means(units: np.ndarray, rows: np.ndarray, key: int, max_iter: int, tol: float) -> np.ndarray | None:
    """Which of the rows go to the second part; None if all have the same direction."""
    directed = np.flatnonzero((units != 0).any(1))
    if not len(directed):
        return None
    first = min(directed, key=lambda i: wait(scrambled(key + 3), rows[i]))
    distances = {i: 1 - units[i] @ units[first] for i in directed}
    apart = [i for i in directed if distances[i] >= 2**-20]
    if not apart:
        return None
    second = min(apart, key=lambda i: wait(scrambled(key + 4), rows[i]) / distances[i])
    centroids = units[[first, second]]
    right = units @ (centroids[1] - centroids[0]) > 2**-20
    for _ in range(max_iter):
        means = np.stack([units[~right].mean(0), units[right].mean(0)])
        centroids = means / np.linalg.norm(means, axis=1, keepdims=True)
        after = units @ (centroids[1] - centroids[0]) > 2**-20
        moved = int((after != right).sum())
        right = after
        if moved <= tol * len(directed):
            break
    return right


def bisect(
    x: np.ndarray, n_concepts: int, seed: int, max_iter: int = 100, tol: float = 0.001
) -> tuple[list[int], list[int], list[set[int]]]:
    """Parents and sizes of the nodes in the order of the splits, and the rows of each leaf."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    units = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)
    leaves, whole = [Leaf(0, np.arange(len(x)), scrambled(seed))], []
    parents, sizes = [-1], [len(x)]
    while leaves and len(leaves) + len(whole) < n_concepts:
        leaf = min(leaves, key=lambda leaf: (-len(leaf.rows), leaf.rows[0]))
        leaves.remove(leaf)
        right = two_means(units[leaf.rows], leaf.rows, leaf.key, max_iter, tol)
        if right is None:
            whole.append(leaf)
            continue
        for side, rows in ((1, leaf.rows[~right]), (2, leaf.rows[right])):
            leaves.append(Leaf(len(parents), rows, scrambled(leaf.key + side)))
            parents.append(leaf.node)
            sizes.append(len(rows))
    return parents, sizes, [set(map(int, leaf.rows)) for leaf in leaves + whole]
