"""Backward rules between two layers: DeepLIFT's rescale rule from point to point of the way, and any table of rules.

The rescale rule (Shrikumar et al., arXiv 1704.02685) gives every activation function the slope of its secant, here
between two points on the way from no concepts to all, instead of from the baseline.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function

from ierf.errors import IerfError
from ierf.graph.influence.layer_objective import LayerObjective, LayersBetween, Reconstruction
from ierf.operations import ACTIVATIONS, CONVOLUTIONS, LINEAR, SELECTING, map_tensors
from ierf.rules import Backward, record
from ierf.rules.call import Call, Rule, replaced

_AFFINE = LINEAR | CONVOLUTIONS | frozenset("add sub rsub linear addmm batch_norm __setitem__".split())
_PRODUCTS = frozenset("mul div matmul".split())
"""Affine as long as the other factor is a constant."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """One pass from the source's PFVs to the target."""

    source: Float[Tensor, "B P C"]
    output: Float[Tensor, "B ..."]

    @classmethod
    def of(
        cls, pfvs: Float[Tensor, "B P C"], section: LayersBetween, rules: Mapping[str, Rule], fallback: Rule
    ) -> "Recorded":
        """The pass under `rules`; operations without one take `fallback`."""
        leaf = pfvs.detach().requires_grad_()
        tape = record(nn.Module(), leaf, rules, fallback, Backward(), section)
        return cls(leaf, tape.settle(tape.output))

    def back(self, weights: Float[Tensor, "B ..."]) -> Float[Tensor, "B P C"]:
        """What becomes of `weights` at the target on the way back to the source."""
        return torch.autograd.grad(self.output, self.source, weights, retain_graph=True)[0]


def rescale_slopes(
    x: Reconstruction, objective: LayerObjective, way: Float[Tensor, " S+1"], targets: list[int]
) -> Float[Tensor, "t P C"]:
    """The mean over the intervals of `way`, weighted by length, of the slopes `m` of some targets.

    `⟨m, X̂(α₁) − X̂(α₀)⟩ = S(X̂(α₁)) − S(X̂(α₀))` exactly, where all between is affine or an activation function.
    Elsewhere the gradient at α₁ counts.
    """
    total = x.part.new_zeros(len(targets), *x.part.shape)
    for first in range(0, len(way) - 1, objective.batch):
        alphas = way[first : first + objective.batch + 1].to(x.part)
        lengths = (alphas[1:] - alphas[:-1]).view(-1, 1, 1) / (way[-1] - way[0]).to(x.part)
        run = Recorded.of(x.at(alphas), objective.section, dict.fromkeys(ACTIVATIONS, _activation), Call.run)
        y = run.output.detach()
        for i, of_target in enumerate(objective.score.slope(y[1:], y[:-1])[targets]):
            weights = torch.cat([torch.zeros_like(y[:1]), of_target])
            total[i] += (run.back(weights)[1:] * lengths).sum(0)
    return total


def piecewise_affine(x: Reconstruction, objective: LayerObjective) -> bool:
    """Whether only affine operations, activation functions and selections lie between source and target."""
    others: list[str] = []
    rules = dict.fromkeys(_AFFINE | SELECTING | ACTIVATIONS, Call.run) | dict.fromkeys(
        _PRODUCTS, partial(_product, others)
    )
    try:
        Recorded.of(x.full[None], objective.section, rules, partial(_other, others))
    except IerfError:
        return False
    return not others


def _product(others: list[str], call: Call) -> Any:
    return call.run() if len(call.activations()) == 1 and call.node_of(call.args[0]) else _other(others, call)


def _other(others: list[str], call: Call) -> Any:
    others.append(call.name)
    return call.run()


def _activation(call: Call) -> Any:
    if len(call.activations()) != 1:
        return call.run()
    (x,) = call.activations()

    def function(point: Tensor) -> Tensor:
        args, kwargs = map_tensors(partial(replaced, x, point), (call.args, call.kwargs))
        value: Tensor = call.func(*args, **kwargs)
        return value

    output: Tensor = _Secant.apply(x, function)  # type: ignore[no-untyped-call]
    return output


class _Secant(Function):
    """`f(x)` at all points of the way; on the way back each has the slope from the point before, the first has none.

    Where input and point before nearly agree, the slope is taken over a difference that the type resolves.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        y = function(x)
        close = torch.finfo(x.dtype).eps ** 0.5 * x[1:].abs() + torch.finfo(x.dtype).tiny
        back = x[1:] - x[:-1]
        back = torch.where(back.abs() > close, back, close)
        ctx.save_for_backward((y[1:] - function(x[1:] - back)) / back)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return torch.cat([torch.zeros_like(grad[:1]), grad[1:] * slope]), None
