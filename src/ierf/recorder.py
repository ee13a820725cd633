"""Watching a forward pass: which module runs, each operation under one name, and what is known of which memory.

The base of what applies rules (`ierf.rules.mode`) and of what reads, replaces and cuts (`ierf.model.following`). The
network itself stays as it is: operations are seen by torch's function mode, modules by its global hooks.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any, Generic, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode

from ierf.operations import operation_name

Mark = TypeVar("Mark")


class Recorder(TorchFunctionMode):
    """Inside this context `_seen` gets every operation by its canonical name, iterating over a tensor as `unbind`."""

    def __init__(self) -> None:
        super().__init__()
        self._modules: list[str] = []
        self._aside = 0

    @contextmanager
    def on(self, net: nn.Module) -> Iterator[Self]:
        """The context in which `net` runs."""
        with named_modules(net, self._entered, self._left_module), self:
            yield self

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, what runs is none of the network's: neither operations nor modules are seen."""
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._aside:
            return func(*args, **kwargs)
        name = operation_name(func, len(args) > 1 and isinstance(args[1], Tensor))
        if name == "__iter__" and isinstance(args[0], Tensor) and args[0].ndim:
            return iter(self._seen("unbind", torch.unbind, args, kwargs))
        return self._seen(name, func, args, kwargs)

    def _seen(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operation of the network."""
        return func(*args, **kwargs)

    def _left(self, name: str, output: Any) -> Any:
        """A module ("" for one that is none of the network's) has returned; what it returns instead, None: the same."""
        return None

    def _entered(self, name: str) -> None:
        if not self._aside:
            self._modules.append(name)

    def _left_module(self, output: Any) -> Any:
        if self._aside:
            return None
        with self.aside():
            return self._left(self._modules.pop(), output)

    @property
    def _module(self) -> str:
        """The innermost module that runs, "" outside of all."""
        return next((name for name in reversed(self._modules) if name), "")

    @property
    def _where(self) -> str:
        """Where the pass is, for messages."""
        return f" in the module {self._module!r}" if self._module else ""


@contextmanager
def named_modules(net: nn.Module, entered: Callable[[str], Any], left: Callable[[Any], Any]) -> Iterator[None]:
    """Inside, modules that start and end in this thread are told: by their names in `net` ("" for others), and by what
    they return, for which another may be given. The hooks are torch's global ones, which are gone on exit."""
    names = {id(module): name for name, module in net.named_modules()}
    thread = get_ident()

    def enter(module: nn.Module, args: Any) -> None:
        if get_ident() == thread:
            entered(names.get(id(module), ""))

    def leave(module: nn.Module, args: Any, output: Any) -> Any:
        return left(output) if get_ident() == thread else None

    with ExitStack() as stack:
        for handle in (
            torch_module.register_module_forward_pre_hook(enter),
            torch_module.register_module_forward_hook(leave),
        ):
            stack.callback(handle.remove)
        yield


class Geometry(NamedTuple):
    """Which cells of a storage a tensor shows."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor) -> "Geometry":
        return cls(tuple(tensor.shape), tensor.stride(), tensor.storage_offset())  # type: ignore[arg-type]


def axis_along(tensor: Tensor, step: int) -> int | None:
    """The one axis of `tensor` that goes through memory by this step."""
    found = [i for i in range(tensor.ndim) if tensor.stride(i) == step and tensor.shape[i] > 1]
    return found[0] if len(found) == 1 else None


def axis_across(tensor: Tensor, written: Geometry) -> int | None:
    """The one axis of `tensor` that a written part, of which one index was taken, does not have."""
    found = [i for i in range(1, tensor.ndim) if tensor.stride(i) not in written.stride and tensor.shape[i] > 1]
    return found[0] if len(found) == 1 else None


class _Region(Generic[Mark]):
    """One storage: what is known of the tensors that show it, the last noted last."""

    def __init__(self, tensor: Tensor) -> None:
        self._storage = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        self.marks: dict[Geometry, Mark] = {}

    @property
    def gone(self) -> bool:
        """Whether no tensor has this storage any more."""
        return bool(self._storage.expired())  # type: ignore[no-untyped-call]


class Marks(Generic[Mark]):
    """What is known of tensors, by the memory that they show: a tensor that shows the same cells is the same tensor.

    So an alias, a view, and the copy that a full backward hook puts into a tensor's place are known as well. No tensor
    is kept; what is known of a storage goes with it. Of one without a storage (sparse) nothing is known.

    shown: what is known of a tensor by another that shows other cells of the same storage (its mark and cells).
    changed: what is left of a mark where something else was written to the storage.
    """

    def __init__(self, shown: Callable[[Mark, Geometry, Tensor], Mark], changed: Callable[[Mark], Mark]) -> None:
        self._regions: dict[int, _Region[Mark]] = {}
        self._shown, self._changed = shown, changed

    def __contains__(self, tensor: Tensor) -> bool:
        return self._region(tensor) is not None

    def __getitem__(self, tensor: Tensor) -> Mark:
        region = self._region(tensor)
        if region is None:
            raise KeyError("nothing is known of this tensor")
        here = Geometry.of(tensor)
        if here not in region.marks:
            cells, mark = next(reversed(region.marks.items()))
            return self._shown(mark, cells, tensor)
        return region.marks[here]

    def __setitem__(self, tensor: Tensor, mark: Mark) -> None:
        if not storage_of(tensor):
            return
        region = self._region(tensor)
        if region is None:
            self._regions = {k: kept for k, kept in self._regions.items() if not kept.gone}
            region = _Region(tensor)
            self._regions[storage_of(tensor)] = region
        here = Geometry.of(tensor)
        region.marks.pop(here, None)
        region.marks[here] = mark

    def exactly(self, tensor: Tensor) -> Mark | None:
        """What is known of just these cells."""
        region = self._region(tensor)
        return None if region is None else region.marks.get(Geometry.of(tensor))

    def written(self, tensor: Tensor) -> None:
        """The values of a tensor were changed in place, and so were those of what shares its memory."""
        if (region := self._region(tensor)) is not None:
            region.marks = {cells: self._changed(mark) for cells, mark in region.marks.items()}

    def replace(self, function: Callable[[Mark], Mark]) -> None:
        """`function` of everything that is known."""
        for region in self._regions.values():
            region.marks = {cells: function(mark) for cells, mark in region.marks.items()}

    def _region(self, tensor: Tensor) -> _Region[Mark] | None:
        region = self._regions.get(storage_of(tensor))
        return None if region is None or region.gone else region


def storage_of(tensor: Tensor) -> int:
    """The identity of a tensor's storage, with or without values; 0 where it has none that could be shared."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return 0
