"""KernelSHAP: Shapley values of whole concepts."""

import torch

from ierf.attribution.kernel_shap import coalitions, shapley_values
from ierf.graph.influence.attributions.attribution import Attribution, Question
from ierf.graph.influence.reconstruction import Reconstruction


def kernel_shap(x: Reconstruction, question: Question, *, samples: int | None = None, seed: int = 0) -> Attribution:
    """Shapley values of the active concepts, each taken away at all positions at once; they add up to the score.

    samples: how many coalitions (see `ierf.attribution.kernel_shap`); None: four for each concept,
    at least 512.
    """
    start, end = question.ends(x)
    z, weight = coalitions(len(x.active), max(512, 4 * len(x.active)) if samples is None else samples, seed)
    z = z.to(x.codes.device)
    worth = torch.cat([question.values(x.with_only(some)) for some in torch.split(z, question.at_once)])
    gain = (worth - start).double().T
    values = shapley_values(z.double(), weight.to(gain.device), gain, (end - start).double())
    return Attribution(x, start, end, values.to(end))
