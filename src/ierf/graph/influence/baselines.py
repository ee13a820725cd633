"""The attributions that integrated gradients are compared with (arXiv 2605.00474, VI-C), all with one signature."""

import torch

from ierf.attribution.kernel_shap import coalitions, shapley_values
from ierf.graph.influence.integrated_gradients import check_scale, way_from_nothing
from ierf.graph.influence.layer_objective import Attribution, LayerObjective, Reconstruction, gradients
from ierf.graph.influence.rescale_rule import Recorded, rescale_slopes
from ierf.rules import AttnLRPRules


def gradient_x_input(x: Reconstruction, objective: LayerObjective) -> Attribution:
    """`u_pq ∂S_t(X̂) / ∂u_pq`."""
    ends = objective.ends(x)
    once = torch.ones(1)
    return Attribution.by_slopes(x, ends, gradients(x, objective, once, once, list(range(len(ends[1])))))


def deeplift(x: Reconstruction, objective: LayerObjective) -> Attribution:
    """`u_pq ⟨m_p, v_q⟩` with DeepLIFT's multipliers m (Shrikumar et al., arXiv 1704.02685, rescale rule).

    The score has its own secant, so that attributions add up to `S(X̂) − S(0⁺)` where all between is affine or an
    activation function; max-pooling, norms and gates, which pass their gradient, make it DeepLIFT-like.

    Raises an `IerfError` for scores that do not depend on how much of the concepts is there (`check_scale`).
    """
    ends = objective.ends(x)
    check_scale(x, objective, ends)
    slopes = rescale_slopes(x, objective, way_from_nothing(1, x.atoms.dtype), list(range(len(ends[1]))))
    return Attribution.by_slopes(x, ends, slopes)


def lrp(x: Reconstruction, objective: LayerObjective) -> Attribution:
    """`u_pq ⟨g_p, v_q⟩` with the relevance `R_p = X̂_p ⊙ g_p` of the ε-rule, ε → 0 (Bach et al. 2015).

    It starts with `R_i = (y_i − shift) ⊙ s_i`, `s` the score's slope with the PFV's length held constant: a cosine's
    gradient is orthogonal to the PFV and has no relevance. What biases and the shift take is missing from the sum.
    """
    rules = AttnLRPRules("cp", conv_gamma=0.0, unknown="gradient")
    run = Recorded.of(x.full[None], objective.section, rules.table(), rules.fallback)
    starts = objective.score.slope(run.output.detach(), None)
    return Attribution.by_slopes(x, objective.ends(x), torch.stack([run.back(start)[0] for start in starts]))


def kernel_shap(
    x: Reconstruction, objective: LayerObjective, *, samples: int | None = None, seed: int = 0
) -> Attribution:
    """Shapley values of the active concepts, each taken away at all positions at once; they add up to the score.

    samples: how many coalitions (see `ierf.attribution.kernel_shap`); None: four for each concept,
    at least 512.
    """
    start, end = objective.ends(x)
    z, weight = coalitions(len(x.active), max(512, 4 * len(x.active)) if samples is None else samples, seed)
    z = z.to(x.codes.device)
    worth = torch.cat([objective.values(x.with_only(some)) for some in torch.split(z, objective.batch)])
    gain = (worth - start).double().T
    values = shapley_values(z.double(), weight.to(gain.device), gain, (end - start).double())
    return Attribution(x, start, end, values.to(end))


def random(x: Reconstruction, objective: LayerObjective, *, seed: int = 0) -> Attribution:
    """A random number for each coefficient that is not zero, of its own for each target."""
    ends = objective.ends(x)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(ends[1]), *x.codes.shape, generator=generator).to(x.codes)
    return Attribution.by_products(x, ends, drawn * (x.codes != 0))


def coefficient_size(x: Reconstruction, objective: LayerObjective) -> Attribution:
    """`|u_pq| ‖v_q‖`, the same for all targets."""
    ends = objective.ends(x)
    size = x.codes.abs() * x.atoms.norm(dim=1)
    return Attribution.by_products(x, ends, size.expand(len(ends[1]), -1, -1))
