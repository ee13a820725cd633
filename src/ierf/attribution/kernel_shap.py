"""KernelSHAP: Shapley values of patches, by weighted regression on pictures without some (arXiv 1705.07874)."""

from itertools import product
from math import comb

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ierf.attribution.integrated_gradients import Baseline, baseline_like
from ierf.attribution.objective import Objective, explaining, portions
from ierf.attribution.targets import Target
from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.model import VisionModel

Segments = Int[Tensor, "#N H W"]
"""To which patch or superpixel each pixel belongs, counted from 0."""


@renamed(at_once="batch")
def kernel_shap(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    patch: int | Segments | None = None,
    samples: int = 1024,
    baseline: Baseline = 0.0,
    seed: int = 0,
    batch: int = 64,
) -> Float[Tensor, "N H W"]:
    """Shapley values `φ` of patches, each spread evenly over its pixels; the map sums to `y(x) − y(x₀)`.

    `φ` minimises `Σ_z π(z) (y(x_z) − y(x₀) − ⟨φ, z⟩)²` subject to `Σ φ = y(x) − y(x₀)`, where `x_z` shows the patches
    of the coalition z on the baseline x₀ and `π(z) = (M − 1) / (C(M, |z|) |z| (M − |z|))` (Lundberg & Lee, arXiv
    1705.07874, Theorem 2). Coalitions are drawn from π in pairs with their complements (Covert & Lee, arXiv
    2012.01536); where `samples` suffices for all of them, all are taken and φ is exact. Every sample sees the same
    coalitions, so that a map depends neither on batch mates nor, by chance, on small changes of the picture.

    Args:
        patch: the side of a square patch; or superpixels, (H, W) or (N, H, W). By default the patches that the
            network itself makes tokens of, if it does, they divide the picture, and `samples` suffices for them; else
            a 14th of the picture. A superpixel that a sample lacks is a player without influence, whose value is not
            shown.
        samples: how many coalitions, at least twice the number of patches.
        baseline: what takes the place of a removed patch.
        seed: of the coalitions.
        batch: most images in one pass.

    Raises:
        IerfError: no picture, fewer than two patches, or too few coalitions to tell the patches apart.
    """
    with explaining(model, x, target, resolution) as y, torch.no_grad():
        if y.pixels.ndim != 4:
            raise IerfError(f"patches need pictures (N, C, H, W), not {tuple(y.pixels.shape)}")
        segments = _segments(y.pixels, (_own_patch(y, samples) or _a_14th(y.pixels)) if patch is None else patch)
        n_patches = int(segments.max()) + 1
        z, weight = (t.to(y.pixels.device) for t in coalitions(n_patches, samples, seed))
        nothing, everything = z.new_zeros(1, n_patches), z.new_ones(1, n_patches)
        worth = _worth(y, baseline_like(y.pixels, baseline), segments, torch.cat([nothing, everything, z]), batch)
        gain = (worth[:, 1:] - worth[:, :1]).double()
        phi = shapley_values(z.double(), weight, gain[:, 1:], gain[:, 0])
        labels = segments.flatten(1)
        area = torch.zeros_like(phi).scatter_add(1, labels, torch.ones_like(labels).double())
        return (phi / area).gather(1, labels).view(segments.shape).to(y.pixels)


def coalitions(n_patches: int, samples: int, seed: int) -> tuple[Bool[Tensor, "B M"], Float[Tensor, " B"]]:
    """Coalitions other than nothing and everything, and what each weighs in the regression.

    All of them with weights π(z) if there are no more than `samples`; else random ones, drawn from π, that weigh alike.
    """
    m = n_patches
    if m < 2:
        raise IerfError("Shapley values need at least two patches; choose a smaller patch=")
    if m < 32 and 2**m - 2 <= samples:
        z = torch.tensor(list(product([False, True], repeat=m))[1:-1])
        sizes = z.sum(1).tolist()
        return z, torch.tensor([(m - 1) / (comb(m, s) * s * (m - s)) for s in sizes], dtype=torch.float64)
    if samples < 2 * m:
        raise IerfError(f"{samples} coalitions do not tell {m} patches apart; ask for samples={2 * m} or more")
    generator = torch.Generator().manual_seed(seed)
    size = torch.arange(1, m)
    drawn = 1 + torch.multinomial(1 / (size * (m - size)), samples // 2, replacement=True, generator=generator)
    order = torch.rand(samples // 2, m, generator=generator).argsort(1).argsort(1)
    z = order < drawn[:, None]
    return torch.cat([z, ~z]), torch.ones(2 * len(z), dtype=torch.float64)


def shapley_values(
    z: Float[Tensor, "B M"], weight: Float[Tensor, " B"], gain: Float[Tensor, "N B"], total: Float[Tensor, " N"]
) -> Float[Tensor, "N M"]:
    """`argmin_φ Σ_z weight (gain − ⟨φ, z⟩)²` subject to `Σ φ = total`, for all samples with one factorisation.

    By the Lagrangian: `φ = A⁻¹b − A⁻¹1 (⟨1, A⁻¹b⟩ − total) / ⟨1, A⁻¹1⟩`, `A = zᵀ W z`, `b = zᵀ W gain`.
    """
    factor, failed = torch.linalg.cholesky_ex(z.T @ (weight[:, None] * z))
    pivots = factor.diagonal()
    if bool(failed) or float(pivots.min()) < 1e-6 * float(pivots.max()):
        raise IerfError("the coalitions drawn do not tell all patches apart; ask for more samples=")
    free = torch.cholesky_solve(((gain * weight) @ z).T, factor)
    one = torch.cholesky_solve(torch.ones_like(free[:, :1]), factor)
    return (free - one * (free.sum(0) - total) / one.sum()).T


def _worth(y: Objective, start: Tensor, segments: Segments, z: Bool[Tensor, "B M"], batch: int) -> Float[Tensor, "N B"]:
    """`y(x_z)` of every sample and coalition."""
    worth = start.new_zeros(len(start), len(z))
    for some, part in portions(len(start), len(z), batch):
        shown = z[part][:, segments[some]].transpose(0, 1).unsqueeze(2)
        worth[some, part] = y(torch.where(shown, y.pixels[some, None], start[some, None]), some)
    return worth


def _own_patch(y: Objective, samples: int) -> tuple[int, int] | None:
    """(height, width) of the patches of the network's first tokens; None where there are none that `samples` allow."""
    try:
        run = y.record(y.pixels[:1])
    except IerfError:
        return None
    grid = next((grid for k in run.tape.cuts() if (grid := run.grid(k))), None)
    height, width = y.pixels.shape[2:]
    if grid is None or height % grid.rows or width % grid.columns or 2 * grid.patches > samples:
        return None
    return height // grid.rows, width // grid.columns


def _a_14th(pixels: Tensor) -> int:
    return max(1, round(max(pixels.shape[2:]) / 14))


def _segments(pixels: Tensor, patch: int | tuple[int, int] | Segments) -> Int[Tensor, "N H W"]:
    if pixels.ndim != 4:
        raise IerfError(f"patches need pictures (N, C, H, W), not {tuple(pixels.shape)}")
    n, _, height, width = pixels.shape
    if isinstance(patch, Tensor):
        if (
            patch.is_floating_point()
            or patch.shape not in ((height, width), (n, height, width))
            or bool(patch.min() < 0)
        ):
            raise IerfError(
                f"superpixels are whole numbers from 0, ({height}, {width}) or one map per sample; "
                f"got {tuple(patch.shape)} {patch.dtype}"
            )
        return patch.to(pixels.device, torch.long).expand(n, -1, -1)
    sides = patch if isinstance(patch, tuple) else (patch, patch)
    if min(sides) < 1:
        raise IerfError(f"a patch is at least one pixel wide, not {min(sides)}")
    rows, columns = (
        torch.arange(length, device=pixels.device) // side for length, side in zip((height, width), sides, strict=True)
    )
    return (rows[:, None] * (int(columns[-1]) + 1) + columns).expand(n, -1, -1)
