"""Sharing Ratio Decomposition: from a class, a PFV or a direction to the pixels (arXiv 2605.00474, Sec. IV)."""

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from typing import Literal, Self, get_args
from warnings import warn

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.recorded import RecordedPass
from ierf.attribution.target_seeds import LayerTarget, asked_of, logit_weights, reading, relevance_map
from ierf.attribution.targets import Channel, Direction, Latent, Target
from ierf.errors import IerfError, UnknownNameError
from ierf.model import VisionModel
from ierf.rules import SRDRules, as_relevance

Head = Literal["clamped", "mean", "raw", "integrated"]
HEADS: tuple[str, ...] = get_args(Head)
STEPS = 16


class SRDPass(RecordedPass):
    """One forward pass with sharing-ratio rules."""

    def final_ratio(self, target: Target, head: Head, steps: int = STEPS) -> Tensor:
        """`μ_i→c` at the encoder output (Eq. 5–6), (N, H, W).

        Φ_i^c = Σ_k α_k^c A_i^k with α the spatial mean of ∂y^c/∂A; of tokens, which a head may read one by one, and of
        a head that reads single positions, it is ∂y^c/∂A_i itself. mean: minus the mean of Φ over all classes, which is
        Φ of the mean logit, so one gradient serves. clamped: the positive part of that. Without classes (one output,
        an embedding, a dense output, a function of the outputs) both are Φ. integrated: see `integrated_ratio`.
        """
        if head == "integrated":
            return self.integrated_ratio(target, steps)
        target = asked_of(target, self.outputs)
        entry, logits = self.tape.nodes[self.encoder], self.logits
        weights = logit_weights(logits, target)
        centred = head != "raw" and self._has_classes(target)
        if centred:
            weights = weights - weights.sum(1, keepdim=True) / logits.shape[1]
        gradient = self.slope(weights)
        tokens = entry.axis > 1 and self.grid(self.encoder) is not None
        if not tokens and not self.reads_positions:
            gradient = gradient.mean([i for i in range(gradient.ndim) if i not in (0, entry.axis)], keepdim=True)
        phi = as_relevance(gradient, self.pfvs(self.encoder), entry.axis)
        return phi.clamp_min(0) if centred and head == "clamped" else phi

    def _has_classes(self, target: Target) -> bool:
        """Whether a class is asked for among others, from which it can be told (Eq. 5)."""
        logits = self.logits
        return self.outputs == "classes" and not callable(target) and logits.ndim == 2 and logits.shape[1] > 1

    def integrated_ratio(self, target: Target, steps: int = STEPS) -> Tensor:
        """`μ_i→c = ∫₀¹ ⟨∂y^c/∂A_i, dA_i/dα⟩ dα` along the pictures `αx`, (N, H, W); by the trapezium rule.

        What each PFV of the encoder output adds to the logit on the way from zero to `x`: its conductance (Dhamdhere et
        al., arXiv 1805.12233). Where every path passes the encoder output, its sum tends to `y^c(x) − y^c(0)` as
        `steps` grow.
        """
        target = asked_of(target, self.outputs)
        asked = logit_weights(self.logits, None).argmax(1).tolist() if target is None else target
        points = ((run.slope(logit_weights(run.logits, asked)), run.pfvs(run.encoder)) for run in self._way(steps))
        axis = self.tape.nodes[self.encoder].axis
        return reduce(torch.add, (as_relevance((g + h) / 2, b - a, axis) for (g, a), (h, b) in pairwise(points)))

    def slope(self, weights: Tensor) -> Tensor:
        """The plain gradient of the weighted logits at the encoder output."""
        with self.backward.as_gradient():
            tensor = self.tape.nodes[self.encoder].tensor
            return torch.autograd.grad(self.logits, tensor, weights, retain_graph=True)[0]

    def _way(self, steps: int) -> Iterator[Self]:
        """The passes on `αx`, α = 0, 1/steps, …, 1."""
        assert self.tape_of is not None
        for k in range(steps):
            yield replace(self, tape=self.tape_of((k / steps * self.pfvs(0)).requires_grad_()))
        yield self

    def start(self, target: Target, head: Head = "clamped", steps: int = STEPS) -> tuple[int, Tensor]:
        """Where a target's relevance begins: a node, and the gradient there that carries the relevance."""
        if head not in HEADS:
            raise UnknownNameError("choice for head", head, HEADS)
        if steps < 1:
            raise IerfError(f"the integrated head needs a step, not {steps}")
        if not isinstance(target, LayerTarget):
            ratio = self.final_ratio(target, head, steps)
            silent = (ratio == 0).flatten(1).all(1)
            if bool(silent.any()):
                warn(_nothing_speaks(silent, head), stacklevel=2)
            return self.encoder, self.cotangent(self.encoder, ratio)
        node = self.layer(target.layer)
        pfvs = self.pfvs(node)
        if isinstance(target, Channel | Direction | Latent):
            source = self.pfvs(self.entering(node)) if isinstance(target, Latent) else pfvs
            relevance = reading(source.movedim(self.tape.nodes[node].axis, -1), target, self.grid(node))
        else:
            shape = (len(pfvs), *self.tape.nodes[node].map_shape)
            relevance = relevance_map(target, shape, self.grid(node)).to(pfvs)
        return node, self.cotangent(node, relevance)


def _nothing_speaks(silent: Tensor, head: Head) -> str:
    samples = ", ".join(map(str, silent.nonzero()[:, 0].tolist()))
    cause = (
        'no position speaks for the target more than for the average class; head="mean" shows what speaks against it'
        if head == "clamped"
        else "the target does not depend on the encoder output there"
    )
    return f"the map of sample {samples} is zero: {cause}"


def srd(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    bias: Literal["norm", "uniform", "drop"] = "norm",
    head: Head = "clamped",
    steps: int = STEPS,
    unknown: Literal["raise", "gradient"] = "raise",
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """Sharing Ratio Decomposition, `φ_c(x) = Σ_i μ_i→c iERF_i` (Eq. 4), by one forward and one backward pass.

    Args:
        bias: who inherits a bias's relevance: inputs in proportion to their contribution's norm ("norm", conserves),
            equally ("uniform") or nobody ("drop": fastest, leaks).
        head: the final ratio of a class: "clamped" max(Φ − mean over classes, 0), "mean" Φ − mean, "raw" Φ;
            "integrated" what each PFV of `encoder` adds to the logit on the way from zero pixels to `x`: signed, and of
            use at a layer below the last.
        steps: more passes of the integrated head; its sum approaches the logit's rise as they grow.
        unknown: an operation without a rule raises, or passes relevance by its plain "gradient".
        encoder: the layer to take as the encoder output; None finds it.
    """
    with SRDPass.of(model, x, SRDRules(bias, unknown), encoder) as run:
        node = run.at(resolution)
        return run.on_grid(node, run.carry(*run.start(target, head, steps), [node])[0].detach())
