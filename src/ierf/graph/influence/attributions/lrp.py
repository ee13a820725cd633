"""Layer-wise relevance propagation from a concept's score to coefficients."""

import torch

from ierf.graph.influence.attributions.attribution import Attribution, Question
from ierf.graph.influence.attributions.by_rules import Recorded
from ierf.graph.influence.reconstruction import Reconstruction
from ierf.rules import AttnLRPRules


def lrp(x: Reconstruction, question: Question) -> Attribution:
    """`u_pq ⟨g_p, v_q⟩` with the relevance `R_p = X̂_p ⊙ g_p` of the ε-rule, ε → 0 (Bach et al. 2015).

    It starts with `R_i = (y_i − shift) ⊙ s_i`, `s` the score's slope with the PFV's length held constant: a cosine's
    gradient is orthogonal to the PFV and has no relevance. What biases and the shift take is missing from the sum.
    """
    rules = AttnLRPRules("cp", conv_gamma=0.0, unknown="gradient")
    run = Recorded.of(x.full[None], question.section, rules.table(), rules.fallback)
    starts = question.score.slope(run.output.detach(), None)
    return Attribution.by_slopes(x, question.ends(x), torch.stack([run.back(start)[0] for start in starts]))
