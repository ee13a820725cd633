"""Gradient × input: the slope at X̂ itself."""

import torch

from ierf.graph.influence.attributions.attribution import Attribution, Question
from ierf.graph.influence.attributions.gradients import gradients
from ierf.graph.influence.reconstruction import Reconstruction


def gradient_x_input(x: Reconstruction, question: Question) -> Attribution:
    """`u_pq ∂S_t(X̂) / ∂u_pq`."""
    ends = question.ends(x)
    once = torch.ones(1)
    return Attribution.by_slopes(x, ends, gradients(x, question, once, once, list(range(len(ends[1])))))
