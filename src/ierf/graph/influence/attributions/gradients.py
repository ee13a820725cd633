"""Gradients of scores by X̂ at points on the way from no concepts to all of them."""

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.graph.influence.attributions.attribution import Question
from ierf.graph.influence.reconstruction import Reconstruction


def gradients(
    x: Reconstruction, question: Question, way: Float[Tensor, " S"], weights: Float[Tensor, " S"], targets: list[int]
) -> Float[Tensor, "t P C"]:
    """`Σ_s w_s ∂S_t/∂X̂ (shift + α_s U V)` of some targets."""
    total = x.part.new_zeros(len(targets), *x.part.shape)
    for both in torch.split(torch.stack([way, weights], 1).to(total), question.at_once):
        alphas, some = both.unbind(1)
        points = x.at(alphas).requires_grad_()
        with torch.enable_grad():
            scores = (some @ question(points)).unbind()
        for i, t in enumerate(targets):
            total[i] += torch.autograd.grad(scores[t], points, retain_graph=True)[0].sum(0)
    return total
