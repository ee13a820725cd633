"""Insertion and deletion: how soon a class appears, or vanishes, when patches do so in the order of a map."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.metrics.scoring import Baseline, Score, Target, baseline_of, finite, maps_of, pictures, scores
from ierf.model import VisionModel, as_vision_model


@dataclass(frozen=True)
class Curve:
    """The score of the class against the share of patches that have changed."""

    fractions: Float[Tensor, " S"]
    """From 0 to 1."""
    scores: Float[Tensor, "N S"]
    baseline: Float[Tensor, " N"]
    """The score of the baseline alone."""
    full: Float[Tensor, " N"]
    """The score of the whole picture."""

    @property
    def auc(self) -> Float[Tensor, " N"]:
        """The area under the curve, by the trapezoid rule."""
        return torch.trapezoid(self.scores.double(), self.fractions.double()).to(self.scores)

    @property
    def normalised(self) -> "Curve":
        """`(y − y(baseline)) / (y(x) − y(baseline))`: the baseline at 0, the whole picture at 1.

        NaN where the two score the same. A class that the picture speaks against has its curve turned over.
        """
        span = self.full - self.baseline
        share = (self.scores - self.baseline[:, None]) / span.where(span != 0, torch.nan)[:, None]
        return replace(self, scores=share, baseline=0 * span, full=span / span)


@renamed(at_once="batch")
def insertion(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "N 3 H W"],
    target: Target,
    map: Float[Tensor, "N h w"],
    *,
    patch: int | None = None,
    steps: int | None = None,
    baseline: Baseline = 0.0,
    score: Score = "logit",
    batch: int = 64,
) -> Curve:
    """The class's score as patches appear on the baseline, those with the largest sum of the map first.

    Petsiuk et al., arXiv 1806.07421, with patches for pixels. Patches with equal sums go row by row. Patches cut by
    the right or lower edge sum over what is left of them. A map that is the same everywhere has no order
    of its own, so that it scores what row by row scores. A map with a value that is not finite has the score NaN.

    Args:
        target: a class by index or name, one per sample, a function of the output, or None: the class predicted for x.
        map: relevance; of another size than the pixels it is scaled bilinearly.
        patch: the side of a square patch, by default a 14th of the picture's longer side; 1 for pixels.
        steps: into how many equal parts (up to rounding) the patches go, by default one patch at a time.
        baseline: the picture without evidence; zero is the mean colour of the usual preprocessing.
        score: "logit" or "probability".
        batch: most images in one pass.

    Raises:
        IerfError: a patch or a number of steps below 1, or arguments that do not fit together.
    """
    return _curve(model, x, target, map, True, patch, steps, baseline, score, batch)


@renamed(at_once="batch")
def deletion(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "N 3 H W"],
    target: Target,
    map: Float[Tensor, "N h w"],
    *,
    patch: int | None = None,
    steps: int | None = None,
    baseline: Baseline = 0.0,
    score: Score = "logit",
    batch: int = 64,
) -> Curve:
    """The class's score as patches vanish to the baseline, those with the largest sum of the map first.

    Everything else is as in `insertion`.
    """
    return _curve(model, x, target, map, False, patch, steps, baseline, score, batch)


def _curve(
    model: VisionModel | nn.Module,
    x: Tensor,
    target: Target,
    map: Tensor,
    inserting: bool,
    patch: int | None,
    steps: int | None,
    baseline: Baseline,
    score: Score,
    batch: int,
) -> Curve:
    vision_model = as_vision_model(model)
    pixels = pictures(x).to(vision_model.device, vision_model.dtype_for(x))
    maps = maps_of(map, pixels)
    rank, patches = _ranks(maps, patch)
    counts = _counts(patches, steps).to(pixels.device)
    nothing = baseline_of(pixels, baseline)
    before, after = (nothing, pixels) if inserting else (pixels, nothing)

    def variant(i: Tensor, s: Tensor) -> Tensor:
        changed = rank[i] < counts[s, None, None]
        return torch.where(changed[:, None], after[i], before[i])

    values = scores(vision_model, pixels, target, len(counts), variant, score=score, batch=batch)
    values = values.where(finite(maps)[:, None], torch.nan)
    first, last = values[:, 0], values[:, -1]
    ends = (first, last) if inserting else (last, first)
    return Curve(counts.to(values) / patches, values, *ends)


def _ranks(maps: Float[Tensor, "N H W"], patch: int | None) -> tuple[Int[Tensor, "N H W"], int]:
    """Each pixel's place in the order in which the patches change, and how many patches there are."""
    height, width = maps.shape[1:]
    side = max(1, round(max(height, width) / 14)) if patch is None else patch
    if side < 1:
        raise IerfError(f"a patch is at least one pixel wide, not {side}")
    kernel = (min(side, height), min(side, width))
    sums = F.avg_pool2d(maps[:, None].double(), kernel, ceil_mode=True, divisor_override=1)
    order = sums.flatten(1).argsort(dim=1, descending=True, stable=True)
    ranks = order.argsort(1).view(len(maps), *sums.shape[2:])
    rows, columns = (torch.arange(length, device=maps.device) // side for length in (height, width))
    return ranks[:, rows[:, None], columns], order.shape[1]


def _counts(patches: int, steps: int | None) -> Int[Tensor, " S"]:
    """How many patches have changed at each point of the curve."""
    if steps is not None and steps < 1:
        raise IerfError(f"a curve has at least one step, not {steps}")
    n = patches if steps is None else min(steps, patches)
    return (torch.arange(n + 1) * patches / n).round().long()
