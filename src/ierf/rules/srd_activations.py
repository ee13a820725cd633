"""The sharing-ratio rule at activation functions, those too that a network writes out (arXiv 2605.00474, Sec. IV-A).

Written out: `x · sigmoid(x)`, `x · (x > 0)`, `max(x, 0.1 x)` and their like.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.autograd import Function

from ierf.axes import isolated
from ierf.operations import ACTIVATIONS
from ierf.rules.call import Call, Rule
from ierf.rules.primitives import Axes, Backward, inner, inverse_square, through, unruled
from ierf.rules.sharing_ratio import sharing_ratio
from ierf.rules.tape import Node, Tape


def activation(fallback: Rule, call: Call) -> Any:
    """The sharing-ratio rule; `clamp` between computed bounds, say, has none."""
    v, kwargs = call.argument(0, "input"), {name: value for name, value in call.kwargs.items() if name != "input"}
    node = call.node_of(v)
    if node is None or len(call.activations()) > 1 or _no_activation(call):
        return fallback(call)
    return _shared(call, v, partial(_call_first, call.func, call.args[1:], kwargs), node)


def _no_activation(call: Call) -> bool:
    """`1 / x` and its like have no value at 0, so that nothing can be said of a PFV's part in it."""
    exponent = call.argument(1, "exponent") if call.name == "pow" else None
    return call.name == "pow" and (not isinstance(exponent, int | float) or exponent <= 0)


def larger_or_smaller(call: Call) -> Any:
    """Of two activations each position's winner; against a constant or a multiple, a function like ReLU."""
    activations = call.activations()
    if len(activations) != 1:
        found = written_out(call)
        return call.run() if found is None else found
    if activations[0].shape != call.run().shape:
        return call.run()
    (v,) = activations
    node = call.node_of(v)
    assert node is not None
    other = call.args[1] if call.args[0] is v else call.args[0]
    return _shared(call, v, partial(_call_first, call.func, (other,), {}), node)


def written_out(call: Call) -> Tensor | None:
    """An activation function of several operations, of which this is the last: the sharing-ratio rule from end to end.

    A mask alone, or two factors that are the same, make one as well: `x · (x > 0)`, `x · x`.
    """
    if len(call.nodes) + len(call.masks()) + len(call.activations()) < 3 or (v := argument_of(call)) is None:
        return None
    node, z = call.node_of(v), call.run()
    if node is None or node.lost or z.shape != v.shape:
        return None
    if node.plain:
        call.scalar = True
        return through(_WrittenOut, v, z, node.axis, call.backward)
    apart, axes = isolated(v, node.channels, node.merged)
    return through(_WrittenOut, apart, z.reshape(apart.shape), axes, call.backward).reshape(z.shape)


def _shared(call: Call, v: Tensor, function: Callable[[Tensor], Tensor], node: Node) -> Any:
    if node.lost:
        return unruled(
            call.run(), call.backward, call.place, "a mask has mixed the channels before it: use torch.where"
        )
    if node.plain:
        call.scalar = True
        a, call.port = sharing_ratio(v, function, node.axis, call.backward)
        return a
    apart, axes = isolated(v, node.channels, node.merged)
    a, _ = sharing_ratio(apart, lambda t: function(t.reshape(v.shape)).reshape(t.shape), axes, call.backward)
    return a.reshape(v.shape)


class _WrittenOut(Function):
    """`z = f(v)`, computed by operations of the network, which are the way back of the plain gradient.

    By the rule `R_j = ⟨z_j, g_j⟩` becomes the cotangent `v_j R_j / ‖v_j‖²`.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, z: Tensor, axis: Axes, backward: Backward) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(v, z)
        ctx.axis, ctx.switch = axis, backward
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None or ctx.switch.plain:
            return None, grad, None, None
        v, z = ctx.saved_tensors
        return v * (inner(z, grad, ctx.axis) * inverse_square(v, ctx.axis)), None, None, None


def _call_first(func: Callable[..., Tensor], rest: tuple[Any, ...], kwargs: dict[str, Any], v: Tensor) -> Tensor:
    return func(v, *rest, **kwargs)


_SCALING = frozenset("mul div neg clone contiguous to type type_as float double dropout".split())
_ELEMENTWISE = (
    ACTIVATIONS | _SCALING | frozenset("add sub rsub exp log where masked_fill maximum minimum reciprocal rdiv".split())
)


def argument_of(call: Call) -> Tensor | None:
    """The `x` of which an operation computes an elementwise function, by what its operands are; None: it does not.

    Every operand that depends on the pixels is a multiple of `x`, is computed from `x` alone element by element, or is
    a mask made by comparing such a one with a constant. `x` is among the operands, perhaps times a number.
    """
    operands = call.activations()
    masks = call.masks()
    for v in operands:
        x = _unscaled(call.tape, call.tracked[id(v)])
        if all(k == x or _is_function_of(call.tape, k, x) for k in (*call.nodes, *masks)):
            return v
    return None


def own_gate(call: Call, factors: list[Tensor]) -> Tensor | None:
    """The factor that is an elementwise function of the other: `sigmoid(1.702 x)` in `x · sigmoid(1.702 x)`."""
    if len(factors) != 2 or factors[0] is factors[1] or factors[0].shape != factors[1].shape:
        return None
    for x, gate in (factors, factors[::-1]):
        base = _unscaled(call.tape, call.tracked[id(x)])
        node = call.tracked[id(gate)]
        if _unscaled(call.tape, node) != base and _is_function_of(call.tape, node, base):
            return gate
    return None


def _unscaled(tape: Tape, node: int) -> int:
    """The node that this one is a multiple of."""
    entry = tape.nodes[node]
    while entry.operation in _SCALING and len(entry.parents) == 1 and not entry.masked:
        parent = tape.nodes[entry.parents[0]]
        if parent.tensor.shape != entry.tensor.shape:
            break
        node, entry = entry.parents[0], parent
    return node


def _is_function_of(tape: Tape, node: int, x: int) -> bool:
    """Whether a node is computed from `x` alone, element by element."""
    waiting, shape = [node], tape.nodes[x].tensor.shape
    while waiting:
        k = waiting.pop()
        if k == x:
            continue
        entry = tape.nodes[k]
        if k < x or entry.operation not in _ELEMENTWISE or entry.tensor.shape != shape:
            return False
        waiting += entry.parents
    return True
