"""Products of n activations: an n-th of the relevance for each (AttnLRP, Prop. 3.3)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.autograd import Function

from ierf.operations import ACTIVATIONS, map_tensors
from ierf.rules.mode import Call, replaced
from ierf.rules.primitives import Backward, through
from ierf.rules.tape import Tape

_SCALING = frozenset(["mul", "div", "neg", "clone", "contiguous", "to", "type", "float", "double", "dropout"])
_ELEMENTWISE = ACTIVATIONS | _SCALING | {"add", "sub", "rsub"}


def product(call: Call) -> Any:
    """A product of matrices, or any that `einsum` makes."""
    return shared_out(call, varying(call, call.activations()))


def elementwise_product(call: Call) -> Any:
    """An activation function that is written out, `x · s(x)`, keeps all relevance; other products share it out."""
    factors = varying(call, call.activations())
    gate = _own_gate(call, factors)
    return shared_out(call, factors) if gate is None else call.run(hold=[gate])


def addcmul(call: Call) -> Any:
    """`x + value · a · b`."""
    return shared_out(call, varying(call, call.args[1:3]))


def sum_and_product(call: Call) -> Any:
    """`β · x + α · a @ b`."""
    return shared_out(call, varying(call, call.args[1:3]))


def varying(call: Call, factors: Sequence[Tensor]) -> list[Tensor]:
    """Those that relevance can flow through."""
    nodes = [call.node_of(factor) for factor in factors]
    return [factor for factor, node in zip(factors, nodes, strict=True) if node is not None and not node.constant]


def shared_out(call: Call, factors: Sequence[Tensor]) -> Any:
    """The operation itself, with an equal part of the relevance for each factor."""
    args: Any = (call.args, call.kwargs)
    for factor in {id(f): f for f in factors}.values():
        args = map_tensors(partial(replaced, factor, part(factor, 1 / len(factors), call.backward)), args)
    return call.func(*args[0], **args[1])


def part(x: Tensor, share: float, backward: Backward) -> Tensor:
    """`x`, which gets `share` of the relevance that comes back."""
    return x if share == 1 else through(_Part, x, share, backward)


class _Part(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float, backward: Backward) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.share, ctx.switch = share, backward
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        return (grad if grad is None or ctx.switch.plain else grad * ctx.share), None, None


def _own_gate(call: Call, factors: Sequence[Tensor]) -> Tensor | None:
    """The factor that is an elementwise function of the other: `sigmoid(1.702 x)` in `x · sigmoid(1.702 x)`."""
    if len(factors) != 2 or factors[0] is factors[1] or factors[0].shape != factors[1].shape:
        return None
    for x, gate in (factors, factors[::-1]):
        if _is_function_of(call.tape, call.tracked[id(gate)], _unscaled(call.tape, call.tracked[id(x)])):
            return gate
    return None


def _unscaled(tape: Tape, node: int) -> int:
    """The node that this one is a multiple of."""
    entry = tape.nodes[node]
    while entry.operation in _SCALING and len(entry.parents) == 1:
        node = entry.parents[0]
        entry = tape.nodes[node]
    return node


def _is_function_of(tape: Tape, node: int, x: int) -> bool:
    """Whether a node is computed from `x` alone, element by element, and is not `x` itself or a multiple of it."""
    waiting, activations = [node], 0
    while waiting:
        k = waiting.pop()
        if k == x:
            continue
        entry = tape.nodes[k]
        if k < x or entry.operation not in _ELEMENTWISE or entry.tensor.shape != tape.nodes[x].tensor.shape:
            return False
        activations += entry.operation in ACTIVATIONS
        waiting += entry.parents
    return activations > 0
