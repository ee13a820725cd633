"""The layers between source and target, run once and walked back by other rules than the gradient's."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.graph.influence.attributions.attribution import Layers
from ierf.rules import Backward, record
from ierf.rules.mode import Rule


@dataclass(frozen=True, eq=False)
class Recorded:
    """One pass from the source's PFVs to the target."""

    source: Float[Tensor, "B P C"]
    output: Float[Tensor, "B ..."]

    @classmethod
    def of(cls, pfvs: Float[Tensor, "B P C"], section: Layers, rules: Mapping[str, Rule], fallback: Rule) -> "Recorded":
        """The pass under `rules`; operations without one take `fallback`."""
        leaf = pfvs.detach().requires_grad_()
        tape = record(nn.Module(), leaf, rules, fallback, Backward(), section)
        return cls(leaf, tape.settle(tape.output))

    def back(self, weights: Float[Tensor, "B ..."]) -> Float[Tensor, "B P C"]:
        """What becomes of `weights` at the target on the way back to the source."""
        return torch.autograd.grad(self.output, self.source, weights, retain_graph=True)[0]
