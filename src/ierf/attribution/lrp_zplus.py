"""LRP-z⁺: a logit handed back, layer by layer, to what speaks for it."""

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.objective import explaining_logits
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.target_seeds import logit_weights
from ierf.attribution.targets import Target
from ierf.model import VisionModel
from ierf.rules import Backward, as_relevance, record
from ierf.rules.call import Unknown
from ierf.rules.zplus import zplus_table


def lrp_zplus(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    unknown: Unknown = "raise",
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """`R_i = Σ_j (a_i w_ij)⁺ / Σ_i' (a_i' w_i'j)⁺ R_j` from the logit to the pixels, where the w² rule takes over.

    Montavon et al., arXiv 1512.02479; batch-norm is folded into the layer before it. The map at every
    layer sums to the logit, but for outputs that only their bias makes (nothing speaks for them, so nothing inherits)
    and zero-padding before the first layer. See `ierf.rules.zplus` for all operations.

    Args:
        unknown: an operation without a rule raises, or passes relevance by its plain "gradient".
        encoder: the layer to take as the encoder output, for resolution "low" and "high"; None finds it.

    Raises:
        UnsupportedOperationError: relevance needs to pass an operation without a rule.
    """
    with explaining_logits(model, x, target) as y:
        (table, fallback), backward = zplus_table(unknown), Backward()
        tape = record(y.net, y.pixels, table, fallback, backward, y.forward.recorded, y.forward.plain)
        run = RecordedPass(tape, backward, encoder)
        node = run.at(resolution)
        (slope,) = torch.autograd.grad(run.logits, run.tape.settle(node), logit_weights(run.logits, y.target))
        axis = run.tape.nodes[node].axis
        relevance = as_relevance(slope, run.pfvs(node), axis) if run.tape.behind_a_layer([node]) else slope.sum(axis)
        return run.on_grid(node, relevance)
