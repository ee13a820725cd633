"""Integrated gradients (arXiv 2605.00474, Eq. 15): the default, whose attributions add up to the score."""

from math import expm1, log
from typing import Literal, get_args

import torch
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.graph.influence.layer_objective import Attribution, LayerObjective, Reconstruction, gradients
from ierf.graph.influence.rescale_rule import piecewise_affine, rescale_slopes

IntegralRule = Literal["secants", "midpoints", "graded"]
"""How the integral is taken."""

THIRDS = 3
_GRADE = log(1e3)

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
            falls with 1 / steps. "graded" has Gauss–Legendre points that lie the closer the nearer they are to no
            concepts, as layer-norms need: the error falls exponentially where all is smooth. "secants" gives every
            activation function its mean slope over the step, as DeepLIFT does over the whole way: the error falls with
            1 / steps², and attributions add up whatever it is. None: secants where only affine operations, activation
            functions and max-pooling lie between, else graded.

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
    taken, targets = torch.zeros(end.shape, dtype=torch.long), list(range(len(end)))
    while targets:
        if rule == "secants":
            slopes[targets] = rescale_slopes(x, objective, way_from_nothing(steps, part.dtype), targets)
        else:
            slopes[targets] = gradients(x, objective, *_points(rule, steps, part.dtype), targets)
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


def graded(steps: int) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    """Gauss–Legendre points s of `α = (e^{κs} − 1) / (e^κ − 1)`, κ = log 1000, and weights times `dα/ds`, in sum 1.

    A layer-norm undoes the scale of what enters it. Without a shift a score changes as `α / √(α² + w²)` does, with
    `w = √ε / σ` for a standard deviation σ of what enters: 1e-3 and less. 16 points in α miss that by 0.9, these by
    3e-6, and 48 of them reach `w = 1e-4`. Where a shift keeps σ up on all the way, points in α would do as well.
    """
    points, plain = leggauss(steps)
    s = torch.from_numpy((points + 1) / 2)
    weights = torch.from_numpy(plain) * (_GRADE * s).exp()
    return (_GRADE * s).expm1() / expm1(_GRADE), weights / weights.sum()


def way_from_nothing(steps: int, dtype: torch.dtype) -> Float[Tensor, " S+1"]:
    """The ends of equal intervals; the first is 0⁺, the smallest step that the type resolves at 1."""
    way = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    way[0] = torch.finfo(dtype).eps
    return way


def _points(rule: IntegralRule, steps: int, dtype: torch.dtype) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    """Points and weights; graded ones lie behind 0⁺, where `LayerObjective.ends` begins: layer-norms tell it from 0."""
    if rule == "midpoints":
        return midpoints(steps), torch.full((steps,), 1 / steps, dtype=torch.float64)
    start = torch.finfo(dtype).eps
    alphas, weights = graded(steps)
    return start + (1 - start) * alphas, weights


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
