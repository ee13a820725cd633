"""Paths that the function mode cannot see: tensors that depend on the pixels and were made by no operation on the tape.

A custom `autograd.Function`, a scripted, traced or compiled part compute out of sight. Autograd knows all the same:
the graph behind such a tensor leads to the pixels. A full backward hook puts a copy of a tensor into the place of a
module's inputs and outputs, which is known by its name and stands for the original.
"""

from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from ierf.errors import UnsupportedOperationError
from ierf.rules.tape import Tape

_HOOKED = "BackwardHookFunctionBackward"


class HiddenPaths:
    """What the autograd graph tells of tensors that are not on the tape."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._edges: dict[tuple[Any, int], int] = {}
        self._known = 0
        self._made: set[Any] = set()
        self._clean: set[Any] = set()

    def original(self, tensor: Tensor) -> int | None:
        """The node that a backward hook's copy stands for; None: it is no such copy."""
        function, number = tensor.grad_fn, tensor.output_nr
        while function is not None and function.name() == _HOOKED:
            function, number = function.next_functions[number]
        if function is tensor.grad_fn or function is None:
            return None
        if hasattr(function, "variable"):
            return 0 if function.variable is self._tape.nodes[0].tensor else None
        self._learn()
        return self._edges.get((function, number))

    def depends(self, tensor: Tensor) -> bool:
        """Whether the pixels are behind a tensor. What was computed from weights alone is remembered."""
        if tensor.grad_fn in self._clean:
            return False
        self._learn()
        waiting, seen = [tensor.grad_fn], set()
        while waiting:
            function = waiting.pop()
            if function is None or function in seen or function in self._clean:
                continue
            if function in self._made or getattr(function, "variable", None) is self._tape.nodes[0].tensor:
                return True
            seen.add(function)
            waiting += [following for following, _ in function.next_functions]
        self._clean |= seen
        return False

    def _learn(self) -> None:
        """The edges of the nodes that were written since the last time."""
        for k, node in enumerate(self._tape.nodes[self._known :], self._known):
            for tensor in (node.tensor, node.settled):
                if tensor is not None and tensor.grad_fn is not None:
                    self._edges.setdefault((tensor.grad_fn, tensor.output_nr), k)
                    self._made.add(tensor.grad_fn)
        self._known = len(self._tape.nodes)


def refusal(tensor: Tensor, module: str) -> UnsupportedOperationError:
    """What to say of a tensor that depends on the pixels by a way that cannot be followed."""
    where = f" in the module {module!r}" if module else ""
    function: Any = tensor.grad_fn
    if issubclass(type(function), BackwardCFunction):
        made_by = f"the custom autograd function {function.name().removesuffix('Backward')!r}{where}"
        way_out = "write its forward with torch's operations"
    else:
        made_by = f"a scripted, traced or compiled part{where}"
        way_out = "use the module that it was made from"
    return UnsupportedOperationError(
        f"{made_by} computes from the pixels out of sight, so no rule can pass relevance through it; {way_out}, or "
        "explain by a method that needs gradients alone, such as method='integrated_gradients'"
    )
