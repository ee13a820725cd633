"""Fidelity (arXiv 2605.00474, VII-G, VI-A): of maps to the network, of concepts to the vectors they stand for."""

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.metrics.scoring import Baseline, Preset, Target, baseline_of, check_preset, finite, maps_of, pictures, scores
from ierf.model import VisionModel, as_vision_model


@renamed(at_once="batch")
def fidelity(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "N 3 H W"],
    target: Target,
    map: Float[Tensor, "*M N h w"],
    *,
    runs: int = 100,
    pixels: int | None = None,
    baseline: Baseline | None = None,
    preset: Preset = "paper",
    seed: int = 0,
    batch: int = 64,
) -> Float[Tensor, "*M N"]:
    """`Corr_S(Σ_{i∈S} φ_i, y(x) − y(x_S→baseline))`, Pearson over random sets S of pixels, y the logit.

    arXiv 2605.00474, VII-G, after Bhatt et al., arXiv 2005.00631. The preset "paper" takes 200 pixels, all channels of
    each, to 0. "quantus" does what Quantus 0.6 does by default: 224 values of the pixels' channels, each drawn by
    itself and counted with its pixel's φ, go to the least value of the sample. Every sample sees the same sets. Scale
    and offset of a map don't matter, so that normalising changes nothing.

    NaN where the sums or the scores are the same in all runs, up to rounding, and for a map that is not finite.

    Args:
        target: a class by index or name, one per sample, a function of the output, or None: the class predicted for x.
        map: relevance; of another size than the pixels it is scaled bilinearly. Several maps of the same pictures,
            with one axis more in front, share the forward passes.
        runs: how many sets.
        pixels: |S|, by default the preset's.
        baseline: what takes the place of S, by default the preset's.
        seed: of the sets.
        batch: most images in one pass.

    Raises:
        IerfError: fewer than two runs, or a set that is empty or larger than the picture.
    """
    check_preset(preset)
    if runs < 2:
        raise IerfError(f"a correlation needs at least two runs, not {runs}")
    vision_model = as_vision_model(model)
    images = pictures(x).to(vision_model.device, vision_model.dtype_for(x))
    maps = torch.stack([maps_of(one, images) for one in (map if map.ndim == 4 else map[None])])
    by_channel = preset == "quantus"
    if baseline is None:
        baseline = images.amin((1, 2, 3), keepdim=True) if by_channel else 0.0
    start = baseline_of(images, baseline)
    # What is drawn: values (C, H, W), each with its pixel's relevance, or whole pixels (1, H, W).
    drawn = images.shape[1:] if by_channel else (1, *images.shape[2:])
    size = (224 if by_channel else 200) if pixels is None else pixels
    sets = _sets(prod(drawn), runs, size, seed).to(images.device)

    def variant(i: Tensor, s: Tensor) -> Tensor:
        hidden = torch.zeros(len(i), prod(drawn), dtype=torch.bool, device=images.device)
        hidden.scatter_(1, sets[s], True)
        return torch.where(hidden.view(-1, *drawn), start[i], images[i])

    # The untouched score shifts the drop by a constant, which no correlation sees.
    drops = -scores(vision_model, images, target, runs, variant, batch=batch)
    found = torch.stack([_correlation(one, drops, sets, drawn, torch.finfo(images.dtype).eps) for one in maps])
    return found if map.ndim == 4 else found[0]


def _correlation(
    maps: Float[Tensor, "N H W"],
    drops: Float[Tensor, "N R"],
    sets: Int[Tensor, "R S"],
    drawn: Sequence[int],
    eps: float,
) -> Float[Tensor, " N"]:
    relevance = [one.expand(drawn).flatten().double() for one in maps]
    sums = torch.stack([one[sets].sum(1) for one in relevance])
    correlation = _pearson(sums, drops.double(), torch.finfo(maps.dtype).eps, eps)
    return correlation.where(finite(maps), torch.nan).to(drops)


def _sets(n: int, runs: int, size: int, seed: int) -> Int[Tensor, "R S"]:
    """Random sets of `size` of n numbers, drawn on the CPU, so that every device sees the same."""
    if not 1 <= size <= n:
        raise IerfError(f"a set of {size} pixels cannot be drawn from {n}; choose pixels= between 1 and {n}")
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(runs, n, generator=generator).topk(size, sorted=False).indices


def _pearson(a: Float[Tensor, "N R"], b: Float[Tensor, "N R"], eps_a: float, eps_b: float) -> Float[Tensor, " N"]:
    """Correlation along the runs; NaN where a series is constant up to rounding by its `eps`."""
    varies = _varies(a, eps_a) & _varies(b, eps_b)
    a, b = (series - series.mean(1, keepdim=True) for series in (a, b))
    spread = a.square().sum(1).sqrt() * b.square().sum(1).sqrt()
    return ((a * b).sum(1) / spread).where(varies, torch.nan)


def _varies(series: Tensor, eps: float) -> Tensor:
    low, high = series.aminmax(dim=1)
    return high - low > 8 * eps * series.abs().amax(1)


def relative_error(x: Float[Tensor, "*N C"], reconstruction: Float[Tensor, "*N C"]) -> Float[Tensor, "*N"]:
    """`‖x − x̂‖₂ / ‖x‖₂`, Rel-ℓ2 of arXiv 2605.00474, Table III. NaN for a vector that is zero."""
    error, norm = (x - reconstruction).square().sum(-1).sqrt(), x.square().sum(-1).sqrt()
    return error / norm.where(norm > 0, torch.nan)


def l0_ratio(codes: Float[Tensor, "*N K"]) -> Float[Tensor, "*N"]:
    """`1 − ‖u‖₀ / K`, the share of concepts that are not used (arXiv 2605.00474, Table III)."""
    return 1 - (codes != 0).sum(-1) / codes.shape[-1]
