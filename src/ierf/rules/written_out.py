"""Activation functions that a network writes out: `x · sigmoid(x)`, `x · (x > 0)`, `max(x, 0.1 x)` and their like."""

from torch import Tensor

from ierf.operations import ACTIVATIONS
from ierf.rules.mode import Call
from ierf.rules.tape import Tape

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
