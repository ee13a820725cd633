"""The pieces of every rule: autograd functions whose way back can be switched to the plain gradient.

The class head of a network is explained by its ordinary gradient and what lies below by rules, in one forward pass.
So the decision falls on the way back: `Backward.plain` turns every rule of that pass into the gradient.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ierf.errors import UnsupportedOperationError


@dataclass(slots=True, eq=False)
class Place:
    """An operation's line in the ledger: where it stands on the tape and what to call it."""

    node: int
    operation: str
    module: str
    account: "Place | None" = None
    """The operation whose line this one shares: a batch-norm that is folded shares its convolution's."""

    def line(self) -> "Place":
        return self if self.account is None else self.account.line()


@dataclass(slots=True)
class Backward:
    """The switches and the ledger shared by all rules of one recorded pass."""

    metered: bool = False
    """Whether every operation notes the relevance at its inputs and outputs; must be chosen before the forward pass."""
    many: bool = False
    """Whether backward passes run in batches, by `torch.func.vmap`; must be chosen before the forward pass."""
    plain: bool = False
    leaks: dict[Place, float] | None = None
    """Relevance that arrived at an operation's outputs minus what left by its inputs; None: do not measure."""

    @contextmanager
    def as_gradient(self) -> Iterator[None]:
        """Inside: the plain gradient of the network, whatever the rules."""
        before, self.plain = self.plain, True
        try:
            yield
        finally:
            self.plain = before

    @contextmanager
    def measuring(self) -> Iterator[dict[Place, float]]:
        """Inside: what each operation takes in and does not pass on is added up."""
        before, self.leaks = self.leaks, defaultdict(float)
        try:
            yield self.leaks
        finally:
            self.leaks = before


def through(function: type[Function], *args: Any) -> Tensor:
    """`function.apply(*args)`, typed."""
    output: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return output


class _Constant(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, backward: Backward) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.switch = backward
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        return (grad if ctx.switch.plain else None), None


def constant(x: Tensor, backward: Backward) -> Tensor:
    """`x`, through which no relevance flows (the plain gradient still does)."""
    return through(_Constant, x, backward)


class _Unruled(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, backward: Backward, place: Place, way_out: str) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.switch, ctx.place, ctx.way_out = backward, place, way_out
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is not None and not ctx.switch.plain:
            where = f" (called by the module {ctx.place.module!r})" if ctx.place.module else ""
            raise UnsupportedOperationError(
                f"there is no rule for the operation {ctx.place.operation!r}{where}; {ctx.way_out}"
            )
        return grad, None, None, None


def unruled(x: Tensor, backward: Backward, place: Place, way_out: str) -> Tensor:
    """`x`, which raises once relevance wants to pass through it: harmless where only a gate or the head uses it."""
    return through(_Unruled, x, backward, place, way_out)


class _Metered(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, backward: Backward, place: Place, sign: float) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        ctx.switch, ctx.place, ctx.sign = backward, place, sign
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is not None and ctx.switch.leaks is not None:
            x = ctx.saved_tensors[0]
            parts = (torch.view_as_real(t) if t.is_complex() else t for t in (x, grad))
            ctx.switch.leaks[ctx.place.line()] += ctx.sign * float(torch.mul(*parts).double().sum())
        return grad, None, None, None


def metered(x: Tensor, backward: Backward, place: Place, sign: float) -> Tensor:
    """`x`, which adds the relevance `⟨x, g⟩` on its way, times `sign`, to the line of `place`."""
    return through(_Metered, x, backward, place, sign)


Axes = int | tuple[int, ...]
"""Of the channels."""


def inner(x: Tensor, y: Tensor, axis: Axes) -> Tensor:
    """`⟨x, y⟩` over the channels, the axis kept."""
    return (x * y).sum(axis, keepdim=True)


def inverse_square(x: Tensor, axis: Axes) -> Tensor:
    """`1 / ‖x‖²` over the channels, the axis kept; 0 where `x` vanishes: `‖x‖ ≤ 64 eps · max ‖x‖` over the positions.

    A position that is silent (a black patch, a dead vector, terms that cancel but for rounding) has nothing to pass
    relevance on to.
    """
    norm2 = x.square().sum(axis, keepdim=True)
    floor = norm2.reshape(len(norm2), -1).amax(1) * (64 * torch.finfo(norm2.dtype).eps) ** 2
    floor = floor.clamp_min(torch.finfo(norm2.dtype).tiny).view(-1, *[1] * (norm2.ndim - 1))
    return norm2.masked_fill(norm2 <= floor, torch.inf).reciprocal()


def gradient_of(function: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Tensor:
    """The vector-Jacobian product of `function` at `x`; differentiable again if gradients are being recorded."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        point = x if again and x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(function(point), point, grad, create_graph=again)[0]
