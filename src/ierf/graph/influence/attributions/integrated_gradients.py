"""Integrated gradients: the default, whose attributions add up to the score."""

from typing import Literal, get_args

import torch

from ierf.errors import IerfError, UnknownNameError
from ierf.graph.influence.attributions.attribution import Attribution, Question
from ierf.graph.influence.attributions.gradients import gradients
from ierf.graph.influence.attributions.secants import piecewise_affine, secant_slopes
from ierf.graph.influence.attributions.without_scale import check_scale
from ierf.graph.influence.quadrature import THIRDS, further_midpoints, graded, midpoints, way_from_nothing
from ierf.graph.influence.reconstruction import Reconstruction

Rule = Literal["secants", "midpoints", "graded"]
"""How the integral is taken."""


def integrated_gradients(
    x: Reconstruction,
    question: Question,
    *,
    steps: int = 16,
    rule: Rule | None = None,
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
        rule = "secants" if piecewise_affine(x, question) else "graded"
    if rule not in get_args(Rule):
        raise UnknownNameError("rule for the integral", rule, get_args(Rule))
    start, end = question.ends(x)
    check_scale(x, question, (start, end))
    change, part = end - start, x.part
    slopes = part.new_zeros(len(end), *part.shape)
    summed, total = torch.zeros_like(slopes), 0.0
    taken, targets = torch.zeros(end.shape, dtype=torch.long), list(range(len(end)))
    while targets:
        if rule == "secants":
            slopes[targets] = secant_slopes(x, question, way_from_nothing(steps, part.dtype), targets)
        else:
            first = not int(taken[targets[0]])
            new = midpoints(steps) if first else further_midpoints(steps // THIRDS)
            alphas, weights = graded(new) if rule == "graded" else (new, torch.ones_like(new))
            summed[targets] += gradients(x, question, alphas, weights, targets)
            total += float(weights.sum())
            slopes[targets] = summed[targets] / total
        taken[targets] = steps
        missed = ((slopes * part).flatten(1).sum(1) - change).abs() > tolerance * change.abs()
        steps *= THIRDS
        targets = [t for t in targets if missed[t]] if steps <= most_steps else []
    return Attribution.by_slopes(x, (start, end), slopes, taken)
