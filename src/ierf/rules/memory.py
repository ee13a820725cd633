"""What tensors mean after in-place writes: who shares memory with whom, and what that memory holds now.

Under the function mode nothing is written: an in-place operation is computed out of place, and its result is noted as
what the written part of the memory means from now on. A tensor of the program is then a handle. What it stands for is
read off the writes to the memory in which it lies: those to itself, to a view of it, to what it is a view of, and to
another view that overlaps it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ierf.recorder import Geometry

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
