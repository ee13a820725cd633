"""Grad-CAM: the class's gradient, averaged over positions, weighs the channels of a feature map."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ierf.attribution.srd import logit_weights, srd_pass
from ierf.attribution.targets import PFV, Channel, Direction, Relevance, Target
from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.rules import SRDRules, as_relevance


def gradcam(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Target = None, resolution: str = "input"
) -> Float[Tensor, "N h w"]:
    """`ReLU(Σ_k α_k^c A^k)` with `α` the spatial mean of ∂y^c/∂A (Selvaraju et al., arXiv 1610.02391, Eq. 1–2).

    `A` is the encoder output for resolution "low" and "input" (there the map is scaled up bilinearly, as the authors
    do), the output of the layer at "high", or of the layer that `resolution` names.
    """
    if isinstance(target, Channel | PFV | Direction | Relevance):
        raise IerfError(f"Grad-CAM explains logits, not a {type(target).__name__}; use method 'srd' for that")
    with srd_pass(model, x, SRDRules(bias="drop", unknown="gradient")) as run:
        node = run.encoder if resolution == "input" else run.at(resolution)
        entry, logits = run.tape.nodes[node], run.tape.settle(run.tape.output)
        with run.backward.as_gradient():
            (slope,) = torch.autograd.grad(logits, entry.tensor, logit_weights(logits, target))
        positions = [i for i in range(slope.ndim) if i not in (0, entry.axis)]
        cam = as_relevance(slope.mean(positions, keepdim=True), run.pfvs(node), entry.axis).clamp_min(0)
    if resolution != "input":
        return cam
    return F.interpolate(cam[:, None], size=x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
