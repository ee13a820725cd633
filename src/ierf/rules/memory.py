"""What a tensor of the program stands for: after in-place writes, and where operations ran out of sight.

Under the function mode nothing is written: an in-place operation is computed out of place, and its result is noted as
what the written part of the memory means from now on. A tensor of the program is then a handle. What it stands for is
read off the writes to the memory in which it lies: those to itself, to a view of it, to what it is a view of, and to
another view that overlaps it.

A custom `autograd.Function`, a scripted, traced or compiled part make tensors that no operation on the tape has made.
Autograd knows all the same: the graph behind such a tensor leads to the pixels. A full backward hook puts a copy of a
tensor into the place of a module's inputs and outputs, which is known by its name and stands for the original.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from ierf.errors import UnsupportedOperationError
from ierf.recorder import Geometry
from ierf.rules.tape import Tape

Meaning = int | Tensor
"""A node of the tape, or a constant."""


@dataclass(slots=True, eq=False)
class Memory:
    """One storage, and what was written to it, oldest first."""

    handle: Tensor
    """A tensor that lies there and keeps the storage, whose contents stay what they were before the first write."""
    root: int | None
    """The node whose values the storage had before; None: a constant."""
    writes: list[tuple[Geometry, Meaning]] = field(default_factory=list)
    version: int = 0

    def write(self, target: Tensor, meaning: Meaning) -> None:
        geometry = Geometry.of(target)
        if target.numel() * target.element_size() == target.untyped_storage().nbytes():
            self.writes.clear()
        self.writes.append((geometry, meaning))
        self.version += 1

    def exactly(self, geometry: Geometry) -> Meaning | None:
        """What a tensor of this geometry stands for, where the last write was to just these cells."""
        return self.writes[-1][1] if self.writes[-1][0] == geometry else None


class Memories:
    """All storages that were written to in one pass, by address."""

    def __init__(self) -> None:
        self._of: dict[int, Memory] = {}
        self._seen: dict[int, int] = {}
        self._owners: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def own(self, tensor: Tensor, node: int) -> None:
        """A node's values lie in the storage of `tensor`: the first to do so is what the rest are views of."""
        if (place := address(tensor)) != 0:
            self._owners.setdefault(place, node)

    def owner(self, tensor: Tensor) -> int | None:
        return self._owners.get(address(tensor))

    def of(self, tensor: Tensor) -> Memory | None:
        return self._of.get(address(tensor)) if self._of else None

    def outdated(self, tensor: Tensor) -> Memory | None:
        """The memory of a tensor that something was written to since its meaning was noted."""
        memory = self.of(tensor)
        return memory if memory is not None and self._seen.get(id(tensor), 0) < memory.version else None

    def write(self, target: Tensor, meaning: Meaning) -> None:
        place = address(target)
        if place == 0:
            return
        if place not in self._of:
            self._of[place] = Memory(target, self._owners.get(place))
        self._of[place].write(target, meaning)
        self.note(target)

    def note(self, tensor: Tensor) -> None:
        """What `tensor` stands for is known as of now."""
        if (memory := self.of(tensor)) is not None:
            self._seen[id(tensor)] = memory.version


def address(tensor: Tensor) -> int:
    """Of the storage. 0: of no use (no elements, no values)."""
    return tensor.untyped_storage().data_ptr()


def overlay(handle: Tensor, shown: Geometry, written: Sequence[Geometry]) -> Callable[..., Tensor]:
    """The function from the values written to the storage of `handle`, in order, to what a view of it shows."""
    cells = [_cells(geometry, handle).reshape(-1) for geometry in written]
    visible = _cells(shown, handle)

    def read(*values: Tensor) -> Tensor:
        flat = handle.detach().as_strided((_count(handle),), (1,), 0).clone()
        for where, geometry, value in zip(cells, written, values, strict=True):
            flat = flat.index_copy(0, where, value.to(flat.dtype).expand(geometry.size).reshape(-1))
        return flat[visible]

    return read


def _count(tensor: Tensor) -> int:
    """Elements in the whole storage."""
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _cells(shown: Geometry, tensor: Tensor) -> Tensor:
    """The index of each element of a view in the storage of `tensor`, (*size)."""
    return torch.arange(_count(tensor), device=tensor.device).as_strided(shown.size, shown.stride, shown.offset)


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
