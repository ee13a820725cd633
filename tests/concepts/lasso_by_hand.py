"""Lasso problems, and their optimality worked out in float64 by the definition."""

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
