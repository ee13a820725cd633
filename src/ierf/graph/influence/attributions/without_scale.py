"""Scores that only ask for the direction of what concepts make, along whose way no integral exists."""

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError
from ierf.graph.influence.attributions.attribution import Question
from ierf.graph.influence.attributions.gradients import gradients
from ierf.graph.influence.reconstruction import Reconstruction

_FLAT = 1e-3
"""A score that changes by no more than this share of it from no concepts to all is looked at closer."""
_SAME = 1e-3


class WithoutScaleError(IerfError):
    """There is no such integral."""


def check_scale(x: Reconstruction, question: Question, ends: tuple[Float[Tensor, " T"], Float[Tensor, " T"]]) -> None:
    """Refuse scores with `S(α X̂) = S(X̂)` for all α > 0: `∂S/∂X̂ (α X̂) = ∂S/∂X̂ (X̂) / α`, and `∫ dα / α` diverges at 0.

    So it is for cosines where neither a bias nor a shift lies between source and target. The sign is that gradients
    double at half the way. Raises `IerfError`.
    """
    if bool(x.shift.any()):
        return
    start, end = ends
    flat = (((end - start).abs() <= _FLAT * end.abs()) & (end != 0)).nonzero()[:, 0].tolist()
    if not flat:
        return
    once = torch.ones(1)
    half, full = (gradients(x, question, alpha * once, once, flat).flatten(1) for alpha in (0.5, 1.0))
    length = full.norm(dim=1)
    if bool(((length > 0) & ((half - 2 * full).norm(dim=1) <= _SAME * length)).any()):
        raise WithoutScaleError(
            "these scores do not depend on how much of the concepts is there, as no bias lies between the layers and "
            "there is no shift, so that integrated gradients and DeepLIFT have no value; give source_shift, "
            "such as the mean PFV, or take method='gradient_x_input', which keeps their order"
        )
