"""Integrated gradients (arXiv 2605.00474, Eq. 15): the default, whose attributions add up to the score."""

from math import expm1, log
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.graph.influence.layer_objective import Attribution, LayerObjective, Reconstruction, gradients
from ierf.graph.influence.rescale_rule import piecewise_affine, rescale_slopes

IntegralRule = Literal["secants", "midpoints", "graded"]
"""How the integral is taken."""

THIRDS = 3
_GRADE = log(1e6)

_FLAT = 1e-3
"""A score that changes by no more than this share of it from no concepts to all is looked at closer."""
_SAME = 1e-3


def integrated_gradients(
    x: Reconstruction,
    objective: LayerObjective,
    *,
    steps: int = 16,
    rule: IntegralRule | None = None,
    tolerance: float = 1e-3,
    most_steps: int = 500,
) -> Attribution:
    """`u_pq ∫₀¹ ∂S_t(shift + α U V) / ∂u_pq dα` (arXiv 2605.00474, Eq. 15), as `u_pq ⟨g_p, v_q⟩` with `g = ∫ ∂S/∂X̂ dα`.

    Each step's forward pass serves all targets, each target has its own way back to X̂, and coefficients come in at the
    end alone. A target whose attributions miss `S(X̂) − S(0⁺)` by more than `tolerance` of it gets three times the
    steps, again and again up to `most_steps`.

    Args:
        rule: "midpoints" takes gradients in the middle of each step. They jump where a ReLU opens, and the error
            falls with 1 / steps. "graded" makes steps the smaller the nearer they are to no concepts, as layer-norms
            need. "secants" gives every activation function its mean slope over the step, as DeepLIFT does over the
            whole way: the error falls with 1 / steps², and attributions add up whatever it is. None: secants where
            only affine operations, activation functions and max-pooling lie between, else graded.

    Raises an `IerfError` for no step, for another rule, and for scores that have no integral (`check_scale`).
    """
    if steps < 1:
        raise IerfError(f"the way from no concepts to all needs at least one step, not {steps}")
    if rule is None:
        rule = "secants" if piecewise_affine(x, objective) else "graded"
    if rule not in get_args(IntegralRule):
        raise UnknownNameError("rule for the integral", rule, get_args(IntegralRule))
    start, end = objective.ends(x)
    check_scale(x, objective, (start, end))
    change, part = end - start, x.part
    slopes = part.new_zeros(len(end), *part.shape)
    summed, total = torch.zeros_like(slopes), 0.0
    taken, targets = torch.zeros(end.shape, dtype=torch.long), list(range(len(end)))
    while targets:
        if rule == "secants":
            slopes[targets] = rescale_slopes(x, objective, way_from_nothing(steps, part.dtype), targets)
        else:
            first = not int(taken[targets[0]])
            new = midpoints(steps) if first else further_midpoints(steps // THIRDS)
            alphas, weights = graded(new) if rule == "graded" else (new, torch.ones_like(new))
            summed[targets] += gradients(x, objective, alphas, weights, targets)
            total += float(weights.sum())
            slopes[targets] = summed[targets] / total
        taken[targets] = steps
        missed = ((slopes * part).flatten(1).sum(1) - change).abs() > tolerance * change.abs()
        steps *= THIRDS
        targets = [t for t in targets if missed[t]] if steps <= most_steps else []
    return Attribution.by_slopes(x, (start, end), slopes, taken)


def midpoints(steps: int) -> Float[Tensor, " S"]:
    """`(i + ½) / S`: all weigh 1 / S, and neither 0 nor 1 is among them; at 0 a cosine may have no value.

    On the way through a network of ReLUs gradients jump, against which no rule of higher order helps.
    """
    return (torch.arange(steps, dtype=torch.float64) + 0.5) / steps


def graded(way: Float[Tensor, " S"]) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    """`α = (e^{κs} − 1) / (e^κ − 1)` for points s, which makes steps near 0 a millionth of those at 1, and `dα/ds`.

    A layer-norm undoes the scale of what enters it, so that a score changes as soon as α leaves 0.
    """
    return (way * _GRADE).expm1() / expm1(_GRADE), _GRADE * (way * _GRADE).exp() / expm1(_GRADE)


def further_midpoints(steps: int) -> Float[Tensor, " 2S"]:
    """The midpoints of a third of the step that are not among those of the whole step."""
    finer = midpoints(THIRDS * steps)
    return finer[torch.arange(THIRDS * steps) % THIRDS != 1]


def way_from_nothing(steps: int, dtype: torch.dtype) -> Float[Tensor, " S+1"]:
    """The ends of equal intervals; the first is 0⁺, the smallest step that the type resolves at 1."""
    way = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    way[0] = torch.finfo(dtype).eps
    return way


class ScaleInvarianceError(IerfError):
    """There is no such integral."""


def check_scale(
    x: Reconstruction, objective: LayerObjective, ends: tuple[Float[Tensor, " T"], Float[Tensor, " T"]]
) -> None:
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
    half, full = (gradients(x, objective, alpha * once, once, flat).flatten(1) for alpha in (0.5, 1.0))
    length = full.norm(dim=1)
    if bool(((length > 0) & ((half - 2 * full).norm(dim=1) <= _SAME * length)).any()):
        raise ScaleInvarianceError(
            "these scores do not depend on how much of the concepts is there, as no bias lies between the layers and "
            "there is no shift, so that integrated gradients and DeepLIFT have no value; give source_shift, "
            "such as the mean PFV, or take method='gradient_x_input', which keeps their order"
        )
