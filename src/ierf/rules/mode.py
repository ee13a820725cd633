"""Run any network with other backward rules: the function mode that sees every operation of a forward pass."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import CheckpointFunction

from ierf.axes import RESHAPES, Channels, Layout, layout_of, sample_axis, selects_by_mask
from ierf.errors import UnsupportedOperationError
from ierf.operations import (
    ACTIVATIONS,
    BOUNDED,
    COMPOSED,
    INVERSES,
    LAYERS,
    LINEAR,
    SIZES,
    Unified,
    map_tensors,
    opened,
    tensors_in,
    unified,
    written_to,
)
from ierf.recorder import Geometry, Recorder, axis_across, axis_along
from ierf.rules.call import Call, Rule, Trace, Value
from ierf.rules.memory import HiddenPaths, Meaning, Memories, Memory, address, overlay, refusal
from ierf.rules.primitives import Backward, Place, metered
from ierf.rules.tape import Made, Node, Tape

_METADATA = frozenset(
    "size dim ndim shape dtype device layout stride numel nelement element_size is_contiguous is_floating_point "
    "is_complex requires_grad requires_grad_ retain_grad register_hook is_leaf grad_fn grad output_nr data_ptr "
    "storage_offset is_cuda is_cpu is_mps __len__ get_device is_sparse is_quantized names has_names result_type "
    "__hash__ _version is_nested is_meta is_same_size zeros_like ones_like full_like empty_like rand_like randn_like "
    "new_zeros new_ones new_full new_empty new_tensor untyped_storage storage _base is_inference can_cast "
    "promote_types is_tensor broadcast_shapes".split()
)
"""Ask about a tensor, or make a constant of its shape and type: relevance has nothing to do with them."""
_VALUES = frozenset(
    "detach data item tolist __repr__ __format__ __bool__ __int__ __float__ __index__ __contains__ equal allclose "
    "is_nonzero eq ne lt le gt ge greater less greater_equal less_equal not_equal isnan isinf isfinite signbit "
    "logical_and logical_or logical_not argmax argmin argsort nonzero count_nonzero bucketize any all".split()
)
"""Read values, and give what is no longer differentiable: a constant."""
PASSED_OVER = _METADATA | _VALUES
"""What no rule is asked for."""
_COMPARISONS = frozenset("lt le gt ge greater less greater_equal less_equal".split())
_CASTS = frozenset("to type type_as float double half bfloat16 logical_not".split())
"""Leave a mask a mask."""
_STOPS = frozenset(["detach", "data", "detach_"])
_VIEWS = frozenset(
    "view reshape reshape_as flatten unflatten transpose permute swapaxes swapdims movedim moveaxis T mT H mH adjoint "
    "t squeeze unsqueeze expand expand_as broadcast_to broadcast_tensors chunk split split_with_sizes tensor_split "
    "hsplit vsplit dsplit unsafe_chunk unsafe_split unbind select narrow __getitem__ diagonal view_as ravel contiguous "
    "as_strided real imag to float double type type_as cpu cuda dropout alias".split()
)
"""May return a view of their first argument."""
_SHAPED_LIKE = frozenset(["expand_as", "view_as", "reshape_as", "type_as", "to"])
"""Take only the shape, type or device of their second tensor."""
_RENAMES = frozenset("squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_ resize_ resize_as_ as_strided_".split())
"""Change in place how a tensor shows its memory."""
_KEEPS_GATE = LINEAR | {"add", "sub", "rsub", "mul", "div"}


class RuleMode(Recorder):
    """Inside this context every operation on an activation goes through its rule, and is written on the tape.

    Operations on weights alone run untouched. In-place operations are computed out of place, so that what a rule has
    kept stays as it was; `ierf.rules.memory` knows what each tensor of the program means since. The network is not
    changed: rules are chosen by the function that runs.
    """

    def __init__(self, rules: Mapping[str, Rule], fallback: Rule, backward: Backward) -> None:
        super().__init__()
        self.tape = Tape()
        self.stops: list[str] = []
        """Where the network itself cut values off from the pixels."""
        self._rules, self._fallback, self._backward = rules, fallback, backward
        self._index: dict[int, int] = {}
        self._constants: dict[int, Tensor] = {}
        self._memories = Memories()
        self._hidden = HiddenPaths(self.tape)
        self._keep: list[Any] = []
        self._makers: dict[int, str] = {}
        self._samples = 0
        self.trace: Trace | None = None
        """What each operation returned, if that is wanted."""

    def start(self, x: Tensor, axis: int = 1) -> None:
        self._samples = len(x)
        whole = Channels(axis, 1, x.shape[axis])
        self._write(x, Node(x, Place(0, "input", ""), (), axis, channels=(whole,)))

    def _left(self, name: str, output: Any) -> None:
        with torch._C.DisableTorchFunction():  # a section of the network may be watched at the same time
            for tensor in tensors_in(output):
                if not tensor.is_leaf and id(tensor) not in self._index and id(tensor) not in self._makers:
                    self._makers[id(tensor)] = name
                    self._keep.append(tensor)
            if name and (k := self.find(output)) is not None:
                self.tape.note(name, k)

    def find(self, output: Any) -> int | None:
        """The node of a module's output (of its first tensor, if it returns several)."""
        nodes = (self.node_of(tensor) for tensor in tensors_in(output))
        return next((k for k in nodes if k is not None), None)

    def node_of(self, tensor: Tensor) -> int | None:
        """The node that a tensor of the program stands for now; None: it does not depend on the pixels.

        Raises `UnsupportedOperationError` where it does, by a way that no operation on the tape has gone.
        """
        if (memory := self._memories.outdated(tensor)) is not None:
            self._read(memory, tensor)
        k = self._index.get(id(tensor))
        if k is None and not tensor.is_leaf and id(tensor) not in self._constants:
            k = self._hidden.original(tensor)
            if k is not None:
                self._stands_for(tensor, k)
            elif self._hidden.depends(tensor):
                raise refusal(tensor, self._makers.get(id(tensor), ""))
        return k

    def _seen(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in _METADATA:
            return func(*args, **kwargs)
        tracked = {id(t): k for t in tensors_in(args, kwargs) if (k := self.node_of(t)) is not None}
        if name in _VALUES:
            return self._values(name, func, args, kwargs, bool(tracked))
        if name in COMPOSED and tracked:
            with self:
                return opened(func)(*args, **kwargs)
        target = written_to(name, func, args, kwargs)
        if not tracked and (target is None or not self._shared(target)):
            output = func(*map_tensors(self._value, args), **map_tensors(self._value, kwargs))
            self._witness(name, output)
            if name in _CASTS and args and id(args[0]) in self.tape.masks:
                self._masks(output, self.tape.masks[id(args[0])])
            return output
        call = unified(name, func, args, kwargs)
        if torch.is_grad_enabled():
            return self._followed(call)
        if inside_checkpoint():
            with torch.enable_grad():
                return map_tensors(self._handle, self._followed(call))
        return self._without_gradient(call)

    def _followed(self, call: Unified) -> Any:
        if call.name + "_" in _RENAMES and call.target is not None:
            raise UnsupportedOperationError(
                f"{call.name + '_'!r}{self._where} changes the shape of a tensor in place; write it out of place"
            )
        with open_blocks():
            output = self._apply(call.name, call.func, call.args, call.kwargs)
        self._witness(call.name, output)
        return output if call.target is None else self._write_to(call.target, output)

    def _values(self, name: str, func: Callable[..., Any], args: Any, kwargs: Any, tracked: bool) -> Any:
        """What reads values, out of what its arguments stand for."""
        if tracked and name in _STOPS:
            self.stops.append(f"{name}(){self._where}")
        output = func(*map_tensors(self._value, args), **map_tensors(self._value, kwargs))
        sources = {k for t in tensors_in(args, kwargs) if (k := self.node_of(t)) is not None}
        if name in _COMPARISONS and len(sources) == 1 and isinstance(output, Tensor):
            self._masks(output, sources.pop())
        return output

    def _witness(self, name: str, output: Any) -> None:
        if self.trace is not None:
            values = [self._value(t).detach() for t in tensors_in(output) if t.is_floating_point()]
            self.trace += [Value(name.rstrip("_"), self._module, t) for t in values]

    def _masks(self, mask: Tensor, node: int) -> None:
        self._keep.append(mask)
        self.tape.masks[id(mask)] = node

    def _without_gradient(self, call: Unified) -> Any:
        """What the network computes with gradients switched off: a constant, as it is for every gradient."""
        target = call.target
        if target is not None and (id(target) in self._index or self._memories.owner(target) is not None):
            raise UnsupportedOperationError(
                f"{call.name!r}{self._where} changes values in place where gradients are off (no_grad), so what they "
                "stand for is lost; do it out of place, or with gradients"
            )
        self.stops.append(f"torch.no_grad(){self._where}")
        output = call.func(*map_tensors(self._value, call.args), **map_tensors(self._value, call.kwargs))
        return output if target is None else self._write_to(target, output)

    def _apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tracked: dict[int, int] = {}

        def value(tensor: Tensor) -> Tensor:
            found = self._value(tensor, name)
            if (k := self._index.get(id(tensor))) is not None:
                tracked[id(found)] = k
            return found

        if name in _SHAPED_LIKE:
            given, named = (*map_tensors(value, args[:1]), *map_tensors(self._value, args[1:])), kwargs
        else:
            given, named = map_tensors(value, (args, kwargs))
        if not tracked:
            return func(*given, **named)
        output = self._perform(name, func, given, named, tracked)
        handle = next(iter(tensors_in(args, kwargs)), None)
        if self._memories and name in _VIEWS and handle is not None and self._memories.of(handle) is not None:
            return self._views(handle, func, args, kwargs, output)
        return output

    def _perform(
        self,
        name: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tracked: dict[int, int],
        axis: int | None = None,
    ) -> Any:
        """The operation by its rule, on tensors as they are; `axis`: of the output's channels, where it is known."""
        place = Place(len(self.tape.nodes), name, self._module)
        if self._backward.metered:
            args, kwargs, tracked = self._metered(name, args, kwargs, tracked, place)
        call = Call(name, func, args, kwargs, tracked, self.tape, self._backward, place, self._samples, axis)
        output = self._rules.get(name, self._fallback)(call)
        if self._backward.metered and call.affine is None:
            output = map_tensors(partial(_meter, self._backward, place), output)
        output = map_tensors(partial(self._noted, call, axis), output)
        if call.folds is not None and (k := self.find(output)) is not None:
            self.tape.nodes[call.folds].folded_into = k
        return output

    def _noted(self, call: Call, axis: int | None, tensor: Tensor) -> Tensor:
        """An output, entered on the tape; an argument that was returned as it is stands for its node again."""
        same = call.tracked.get(id(tensor))
        if same is not None and self._index.get(id(tensor), same) != same:
            return self._handle(tensor, same)
        if same is not None:
            self._stands_for(tensor, same)
        elif (tensor.is_floating_point() or tensor.is_complex()) and id(tensor) not in self._index:
            self._write(tensor, self._node(call, tensor, axis))
        return tensor

    def _metered(
        self, name: str, args: Any, kwargs: Any, tracked: dict[int, int], place: Place
    ) -> tuple[Any, Any, dict[int, int]]:
        """The arguments, each with a meter for the relevance that leaves the operation by it.

        What a batch-norm folds in has none: the two are one operation.
        """
        metered_as: dict[int, int] = {}

        def meter(tensor: Tensor) -> Tensor:
            if id(tensor) not in tracked or not tensor.requires_grad:
                return tensor
            if self.tape.nodes[tracked[id(tensor)]].open and name == "batch_norm":
                return tensor
            copy = metered(tensor, self._backward, place, -1.0)
            metered_as[id(copy)] = tracked[id(tensor)]
            return copy

        args, kwargs = map_tensors(meter, (args, kwargs))
        return args, kwargs, tracked | metered_as

    def _value(self, tensor: Tensor, operation: str = "") -> Tensor:
        """What a tensor stands for now: after in-place operations, and with its bias shared.

        A batch-norm gets the bias still open, to fold it.
        """
        k = self._index.get(id(tensor))
        if k is None:
            return self._constants.get(id(tensor), tensor)
        entry = self.tape.nodes[k]
        return entry.tensor if operation == "batch_norm" and entry.open else self.tape.settle(k)

    def _shared(self, tensor: Tensor) -> bool:
        """Whether something that depends on the pixels lies, or was written, in the memory of a tensor."""
        return self._memories.of(tensor) is not None or self._memories.owner(tensor) is not None

    def _write_to(self, target: Tensor, output: Tensor) -> Tensor:
        """After an in-place operation `target` means `output`, and so does what shares its memory."""
        if id(target) not in self._index and self._memories.owner(target) is not None and not self._memories.of(target):
            raise UnsupportedOperationError(
                f"values that depend on the pixels are changed in place through .data or .detach(){self._where}, "
                "which no gradient knows of; write the change out of place"
            )
        if output.dtype != target.dtype:
            output = self._apply("to", Tensor.to, (output, target.dtype), {})
        k = self._index.get(id(output))
        self._memories.write(target, output if k is None else k)
        self._stands_for(target, output if k is None else k)
        return target

    def _read(self, memory: Memory, tensor: Tensor) -> None:
        """Find out what a tensor stands for since something else wrote to its memory."""
        geometry, known = Geometry.of(tensor), self._index.get(id(tensor))
        meaning = memory.exactly(geometry)
        if meaning is None:
            meaning = self._overlaid(memory, tensor, geometry, known)
        if known is None and memory.root is not None and not tensor.requires_grad:
            meaning = meaning if isinstance(meaning, Tensor) else self.tape.settle(meaning).detach()
        self._stands_for(tensor, meaning)

    def _overlaid(self, memory: Memory, tensor: Tensor, geometry: Geometry, known: int | None) -> Meaning:
        """What a view of a storage shows: what the storage held, and over it what was written, in order."""
        parts = list(memory.writes)
        if memory.root is not None:
            parts.insert(0, (Geometry.of(self.tape.nodes[memory.root].tensor), memory.root))
        values = [part if isinstance(part, Tensor) else self.tape.settle(part) for _, part in parts]
        read = overlay(memory.handle, geometry, [shown for shown, _ in parts])
        tracked = {id(v): k for v, (_, k) in zip(values, parts, strict=True) if isinstance(k, int)}
        if not tracked:
            return read(*values)
        written, k = next((shown, k) for shown, k in reversed(parts) if isinstance(k, int))
        entry = self.tape.nodes[k]
        place = entry.channels[0] if entry.channels else Channels(entry.axis, 1, 1)
        step = written.stride[place.axis] * place.inner
        along = axis_across(tensor, written) if entry.channel_taken else axis_along(tensor, step)
        axis = along if known is None else self.tape.nodes[known].axis
        output = self._perform("__setitem__", read, tuple(values), {}, tracked, axis)
        return self._index[id(output)]

    def _stands_for(self, tensor: Tensor, meaning: Meaning) -> None:
        self._keep.append(tensor)
        for table in (self._index, self._constants):
            table.pop(id(tensor), None)
        if isinstance(meaning, Tensor):
            self._constants[id(tensor)] = meaning
        else:
            self._index[id(tensor)] = meaning
        self._memories.note(tensor)

    def _views(self, handle: Tensor, func: Callable[..., Any], args: Any, kwargs: Any, output: Any) -> Any:
        """What the program is given for a view of memory that was written to: a view of the same memory."""
        with torch.no_grad():
            views = tensors_in(func(*args, **kwargs))
        values = tensors_in(output)
        if any(address(view) != address(handle) for view in views) or len(views) != len(values):
            return output
        stands = {id(value): view for value, view in zip(values, views, strict=True)}
        for value, view in zip(values, views, strict=True):
            if view is not handle:
                self._stands_for(view, self._index[id(value)])
        return map_tensors(lambda value: stands[id(value)], output)

    def _handle(self, value: Tensor, node: int | None = None) -> Tensor:
        """Another tensor that stands for `value`, for somebody who changes what the tensor itself does."""
        k = self._index.get(id(value)) if node is None else node
        if k is None:
            return value
        handle = value.detach()
        self._stands_for(handle, k)
        return handle

    def _node(self, call: Call, tensor: Tensor, axis: int | None) -> Node:
        sources = [k for k in call.nodes if k not in call.held] or call.nodes
        main = self.tape.nodes[sources[0]]
        parent = next(t for t in call.activations() if call.tracked[id(t)] == sources[0])
        if axis is None:
            known = Layout(main.axis, main.channels, main.channel_taken)
            back = self._axis_before(sources[0], tensor) if call.name in RESHAPES else None
            layout = layout_of(call.name, call.args, call.kwargs, parent, known, tensor, back)
        else:
            layout = Layout.along(axis, tensor)
        return Node(
            tensor,
            call.place,
            tuple(call.nodes),
            layout.axis,
            Made(call.name, call.args, call.kwargs, tuple(sources)),
            call.scalar,
            call.port,
            _gate_strength(call),
            call.affine,
            call.whole,
            constant=call.constant or all(self.tape.nodes[k].constant for k in sources),
            channel_taken=layout.taken,
            channels=layout.channels,
            sample_axis=sample_axis(call.name, call.args, call.kwargs, parent, main.sample_axis, tensor),
            merged=tensor.ndim > 1 and layout.axis > 0 and len(tensor) < self._samples,
            lost=call.name not in LAYERS and (main.lost or selects_by_mask(call.name, call.args)),
            masked=bool(call.masks()),
        )

    def _axis_before(self, node: int, tensor: Tensor) -> int | None:
        """The channel axis where a chain of reshapes comes back to a shape that it had."""
        entry = self.tape.nodes[node]
        while entry.made is not None and entry.operation in RESHAPES:
            entry = self.tape.nodes[entry.made.sources[0]]
            if entry.tensor.shape == tensor.shape:
                return entry.axis
        return None

    def _write(self, tensor: Tensor, node: Node) -> None:
        k = len(self.tape.nodes)
        self.tape.nodes.append(node)
        self._memories.own(tensor, k)
        self._stands_for(tensor, k)


def _meter(backward: Backward, place: Place, tensor: Tensor) -> Tensor:
    return metered(tensor, backward, place, 1.0) if tensor.requires_grad else tensor


def inside_checkpoint() -> bool:
    """Whether a re-entrant `torch.utils.checkpoint` runs its block, with gradients off until it is run again."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            return True
        frame = frame.f_back
    return False


def open_blocks() -> AbstractContextManager[Any]:
    """Inside, autograd keeps what it needs, where a checkpointed block would compute it again without the mode."""
    hooked = torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
    return saved_tensors_hooks(_as_it_is, _as_it_is) if hooked else nullcontext()


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _gate_strength(call: Call) -> int:
    """See `Node.gate`; kept by operations that only rescale or rearrange one gate."""
    if call.name in SIZES or call.name in INVERSES or call.name in ("var", "var_mean", "std_mean"):
        return 3
    if call.name == "pow" and not (isinstance(exponent := call.argument(1, "exponent"), int | float) and exponent > 0):
        return 3
    if call.name in BOUNDED:
        return 2
    sources = [call.tape.nodes[k].gate for k in call.nodes if k not in call.held]
    inherited = sources[0] if len(sources) == 1 else 0
    if call.name in ACTIVATIONS:
        return inherited if inherited == 3 else 1
    return inherited if call.name in _KEEPS_GATE else 0
