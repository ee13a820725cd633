"""Layer-wise relevance propagation: AttnLRP and CP-LRP (arXiv 2402.05602, 2202.07304), and LRP-z⁺ (1512.02479)."""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.attribution.objective import explaining_logits
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.target_seeds import (
    LayerTarget,
    asked_of,
    latent_indices,
    latents,
    logit_weights,
    place_of,
    reading,
    relevance_map,
)
from ierf.attribution.targets import Channel, Direction, Latent, Target
from ierf.model import VisionModel
from ierf.rules import AttnLRPRules, Backward, as_relevance, record
from ierf.rules.call import Unknown
from ierf.rules.zplus import zplus_table


class AttnLRPPass(RecordedPass):
    """One forward pass with the rules of AttnLRP."""

    def start(self, target: Target) -> tuple[int, Tensor]:
        """Where a target's relevance begins: a node, and the gradient there that carries the relevance.

        A logit has its own value as relevance; a channel or a direction `d` gives `a_ik d_k` to channel k of PFV i.
        A latent hands its pre-activation on by the rules of AttnLRP: where its encoder normalises, by a constant.
        A PFV or a relevance map gives `a_ik² / ‖a_i‖²` of a PFV's relevance to its channel k.
        """
        if not isinstance(target, LayerTarget):
            return self.tape.output, logit_weights(self.logits, asked_of(target, self.outputs))
        node = self.layer(target.layer)
        if isinstance(target, Latent):
            node = self.entering(node)
            return node, self._latent(node, target)
        axis, pfvs = self.tape.nodes[node].axis, self.pfvs(node)
        if isinstance(target, Channel | Direction):
            with torch.enable_grad():
                point = pfvs.clone().requires_grad_()
                value = reading(point.movedim(axis, -1), target, self.grid(node)).sum()
                return node, torch.autograd.grad(value, point)[0]
        shape = (len(pfvs), *self.tape.nodes[node].map_shape)
        return node, self.cotangent(node, relevance_map(target, shape, self.grid(node)).to(pfvs))

    def _latent(self, node: int, target: Latent) -> Tensor:
        """`∂π_k/∂a` of the one PFV that a latent is read from, by the rules of AttnLRP."""
        axis = self.tape.nodes[node].axis
        pfvs = self.pfvs(node).movedim(axis, -1)
        place = place_of(pfvs, target, self.grid(node)).bool()
        rules, there = AttnLRPRules(), pfvs[place].requires_grad_()
        encoder = target.sae if isinstance(target.sae, nn.Module) else nn.Identity()
        tape = record(encoder, there, rules.table(), rules.fallback, Backward(), partial(latents, target=target))
        codes = tape.settle(tape.output)
        index = latent_indices(target, len(codes), codes.shape[1]).to(codes.device)
        (slope,) = torch.autograd.grad(codes, there, torch.zeros_like(codes).scatter(1, index, 1))
        return torch.zeros_like(pfvs).masked_scatter(place[..., None], slope).movedim(-1, axis)


def attnlrp(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    conv_gamma: float | None = None,
    linear_gamma: float = 0.0,
    unknown: Literal["raise", "gradient"] = "raise",
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """AttnLRP: `R = x ⊙ g` after one backward pass by the rules of `ierf.rules.attnlrp` (Achtibat et al., ICML 2024).

    Relevance passes through the attention weights to queries and keys. It is not conserved there: biases, added
    constants and the softmax keep a part (`ierf.check_conservation` says how much, and where).

    Args:
        conv_gamma, linear_gamma: how much more counts what agrees with the sign of an output, in convolutions and
            linear layers; 0 is the ε-rule, which patch embeddings have by default. None: 0.25 in convolutions behind
            another layer, those of a stem. (The authors use 0.25 and 0.05.) See `ierf.rules.attnlrp`.
        unknown: an operation without a rule raises, or passes relevance by its plain "gradient".
        encoder: the layer to take as the encoder output, for resolution "low" and "high"; None finds it.
    """
    rules = AttnLRPRules("lrp", conv_gamma, linear_gamma, unknown)
    return _map(model, x, target, resolution, rules, encoder)


def cp_lrp(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    conv_gamma: float | None = None,
    linear_gamma: float = 0.0,
    unknown: Literal["raise", "gradient"] = "raise",
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """CP-LRP: AttnLRP with the attention weights held constant (Ali et al., ICML 2022).

    All relevance of `softmax(QKᵀ) V` goes to `V`. Without biases, position embeddings and class tokens, the map sums
    to the logit. Options as in `attnlrp`.
    """
    rules = AttnLRPRules("cp", conv_gamma, linear_gamma, unknown)
    return _map(model, x, target, resolution, rules, encoder)


def _map(
    model: VisionModel, x: Tensor, target: Target, resolution: str, rules: AttnLRPRules, encoder: str | None
) -> Tensor:
    with AttnLRPPass.of(model, x, rules, encoder) as run:
        node = run.at(resolution)
        return run.on_grid(node, run.carry(*run.start(target), [node])[0].detach())


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
