"""What an attribution has to beat: chance, and the size of the coefficients."""

import torch

from ierf.graph.influence.attributions.attribution import Attribution, Question
from ierf.graph.influence.reconstruction import Reconstruction


def random(x: Reconstruction, question: Question, *, seed: int = 0) -> Attribution:
    """A random number for each coefficient that is not zero, of its own for each target."""
    ends = question.ends(x)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(ends[1]), *x.codes.shape, generator=generator).to(x.codes)
    return Attribution.by_products(x, ends, drawn * (x.codes != 0))


def coefficient_size(x: Reconstruction, question: Question) -> Attribution:
    """`|u_pq| ‖v_q‖`, the same for all targets."""
    ends = question.ends(x)
    size = x.codes.abs() * x.atoms.norm(dim=1)
    return Attribution.by_products(x, ends, size.expand(len(ends[1]), -1, -1))
