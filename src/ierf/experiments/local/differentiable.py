"""Explanations as differentiable functions of the pixels: for attacks that go through the explanation.

A map is made by a backward pass whose rules are recorded in turn (`create_graph`). What is differentiated the second
time is the network's own forward pass, so that pass takes plain gradients: `Backward.as_gradient`. Where second
derivatives vanish, a ReLU becomes a softplus `log(1 + exp(β z)) / β` (Dombrowski et al., arXiv 1906.07983, Sec. 3),
which is the ReLU for large β.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from ierf.attribution.gradients import strongest_channel
from ierf.attribution.guided_backprop import RECTIFIERS
from ierf.attribution.recorded import RecordedPass
from ierf.attribution.running import running
from ierf.attribution.starts import logit_weights
from ierf.errors import UnknownNameError
from ierf.model import VisionModel
from ierf.rules import Backward, SRDRules, as_cotangent, as_relevance, record
from ierf.rules.mode import Call, Rule
from ierf.rules.primitives import through
from ierf.rules.zplus import zplus_table

Trace = Callable[[Mapping[str, Rule], Rule, Tensor], RecordedPass]
"""(rules, rule for the rest, pixels) -> the forward pass."""

STEPS = 8
"""Points on the way of integrated gradients; each costs three passes in every step of an attack."""


@dataclass(frozen=True)
class Explained:
    """A map and the logits, both with the graph that leads back to the pixels."""

    pixels: Float[Tensor, "N 3 H W"]
    map: Float[Tensor, "N H W"]
    logits: Float[Tensor, "N K"]
    backward: Backward

    def gradient(self, loss: Float[Tensor, ""]) -> Float[Tensor, "N 3 H W"]:
        """`∂loss/∂pixels` of a function of the map and the logits."""
        with self.backward.as_gradient():
            return torch.autograd.grad(loss, self.pixels)[0]


@contextmanager
def explained(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Sequence[int], method: str, beta: float | None = None
) -> Iterator[Explained]:
    """The map of a method for one class per sample, differentiable.

    The class matters to all but "srd", whose `μ^{L→O}` is 1 everywhere (arXiv 2605.00474, IV-B3): the sum of the iERFs
    of all PFVs at the encoder output.

    Args:
        method: one of `MAPS`.
        beta: of the softplus in place of every ReLU; None keeps the ReLUs.
    """
    if method not in MAPS:
        raise UnknownNameError("differentiable method", method, MAPS)
    with running(model, x) as (forward, pixels):
        backward = Backward()

        def trace(rules: Mapping[str, Rule], fallback: Rule, images: Tensor) -> RecordedPass:
            table = rules if beta is None else softened(beta, rules, fallback)
            return RecordedPass(record(model.net, images, table, fallback, backward, forward.recorded), backward)

        map, logits = MAPS[method](trace, pixels, target)
        yield Explained(pixels, map, logits, backward)


def soft_logits(model: VisionModel, x: Float[Tensor, "N 3 H W"], beta: float) -> Float[Tensor, "N K"]:
    """The logits with a softplus in place of every ReLU."""
    with running(model, x) as (forward, pixels):
        rules, backward = softened(beta, {}, Call.run), Backward()
        tape = record(model.net, pixels, rules, Call.run, backward, forward.recorded)
        return tape.settle(tape.output).detach()


def softened(beta: float, rules: Mapping[str, Rule], fallback: Rule) -> dict[str, Rule]:
    """The rules, with a softplus computed in place of ReLU and ReLU6."""
    names = ("relu", "relu6", "hardtanh")
    return {**rules, **{name: partial(_soft, beta, rules.get(name, fallback)) for name in names}}


def _soft(beta: float, rule: Rule, call: Call) -> Any:
    given = call.given("input", "min_val", "max_val")
    low, high = {"relu": (0.0, None), "relu6": (0.0, 6.0)}.get(
        call.name, (given.get("min_val", -1.0), given.get("max_val", 1.0))
    )
    call.func, call.args, call.kwargs = partial(_soft_clamp, beta, low, high), (given["input"],), {}
    return rule(call)


def _soft_clamp(beta: float, low: float, high: float | None, z: Tensor) -> Tensor:
    """`low + softplus(z − low) − softplus(z − high)`."""
    above = low + F.softplus(z - low, beta)
    return above if high is None else above - F.softplus(z - high, beta)


def _gradient(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    slope, logits = _slope(trace, {}, pixels, target)
    return strongest_channel(slope), logits


def _gradient_x_input(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    slope, logits = _slope(trace, {}, pixels, target)
    return (pixels * slope).sum(1), logits


def _guided_backprop(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    slope, logits = _slope(trace, dict.fromkeys(RECTIFIERS | {"hardtanh"}, _guided), pixels, target)
    return strongest_channel(slope), logits


def _integrated_gradients(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    """From a baseline of zeros."""
    points, weights = (torch.from_numpy(numbers).to(pixels) for numbers in leggauss(STEPS))
    alpha, weight = (t.view(-1, 1, 1, 1, 1) for t in ((points + 1) / 2, weights / 2))
    slope, _ = _slope(trace, {}, (alpha * pixels).flatten(0, 1), list(target) * STEPS)
    average = (weight * slope.view(STEPS, *pixels.shape)).sum(0)
    return (pixels * average).sum(1), trace({}, Call.run, pixels).logits


def _lrp_zplus(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    table, fallback = zplus_table()
    logits = trace(table, fallback, pixels).logits
    (slope,) = torch.autograd.grad(logits, pixels, logit_weights(logits.detach(), list(target)), create_graph=True)
    return slope.sum(1), logits


def _srd(trace: Trace, pixels: Tensor, target: Sequence[int]) -> tuple[Tensor, Tensor]:
    rules = SRDRules()
    run = trace(rules.table(), rules.fallback, pixels)
    entry = run.tape.nodes[run.encoder]
    everywhere = torch.ones(len(pixels), *entry.map_shape).to(pixels)
    cotangent = as_cotangent(everywhere, entry.tensor, entry.axis)
    (slope,) = torch.autograd.grad(run.tape.settle(run.encoder), pixels, cotangent, create_graph=True)
    return as_relevance(slope, pixels, 1), run.logits


MAPS: Mapping[str, Callable[[Trace, Tensor, Sequence[int]], tuple[Tensor, Tensor]]] = {
    "srd": _srd,
    "gradient": _gradient,
    "gradient_x_input": _gradient_x_input,
    "guided_backprop": _guided_backprop,
    "integrated_gradients": _integrated_gradients,
    "lrp_zplus": _lrp_zplus,
}
"""Method -> (map, logits). Fig. 4's methods."""


def _slope(
    trace: Trace, rules: Mapping[str, Rule], images: Tensor, target: Sequence[int]
) -> tuple[Float[Tensor, "N 3 H W"], Float[Tensor, "N K"]]:
    """`∂y/∂x` by the way back of `rules`, and the logits."""
    logits = trace(rules, Call.run, images).logits
    weights = logit_weights(logits.detach(), list(target))
    return torch.autograd.grad(logits, images, weights, create_graph=True)[0], logits


def _guided(call: Call) -> Tensor:
    return through(_PositiveGradient, call.run(), call.backward)


class _PositiveGradient(Function):
    """As in guided backpropagation, but for the second pass."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, backward: Backward) -> Tensor:
        ctx.switch = backward
        return a.view_as(a)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad if ctx.switch.plain else grad.clamp_min(0), None
