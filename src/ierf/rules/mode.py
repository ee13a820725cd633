"""Run any network with other backward rules: the function mode that sees every operation of a forward pass."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode

from ierf.axes import INDEXED_AWAY, channel_axis, default_axis
from ierf.errors import IerfError, UnsupportedOperationError
from ierf.operations import (
    ACTIVATIONS,
    BOUNDED,
    COMPOSED,
    LINEAR,
    in_place,
    map_tensors,
    opened,
    operation_name,
    out_of_place,
    tensors_in,
    without_inplace_flag,
)
from ierf.rules.bias import Affine
from ierf.rules.primitives import Backward, Place, constant, metered
from ierf.rules.tape import Made, Node, Tape

_QUERIES = frozenset(
    "size dim ndim shape dtype device layout stride numel nelement element_size is_contiguous "
    "is_floating_point is_complex requires_grad is_leaf grad_fn data_ptr storage_offset is_cuda __len__ "
    "__repr__ __format__ get_device is_sparse is_quantized names has_names result_type __hash__ _version "
    "is_nested is_meta zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full "
    "new_empty new_tensor detach data item tolist".split()
)
"""Ask about a tensor, or make a constant from it: what they return does not carry relevance."""
_VIEWS = frozenset(
    "view reshape flatten unflatten transpose permute swapaxes movedim T mT squeeze unsqueeze expand expand_as "
    "chunk split tensor_split unbind select narrow __getitem__ diagonal view_as ravel contiguous".split()
)
_SHAPED_LIKE = frozenset(["expand_as", "view_as", "reshape_as", "type_as"])
"""Take only the shape or type of their second tensor."""
_KEEPS_GATE = LINEAR | {"add", "sub", "rsub", "mul", "div"}


@dataclass(slots=True)
class Call:
    """One intercepted operation, ready for its rule: `func(*args, **kwargs)` computes what the network asked for."""

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tracked: dict[int, int]
    """Identity of an argument -> its node on the tape."""
    tape: Tape
    backward: Backward
    place: Place
    scalar: bool = False
    """Whether the rule reduces relevance to one number per position."""
    port: Tensor | None = None
    """Where relevance can be sent to the positions of the output, see `ierf.rules.sharing_ratio`."""
    constant: bool = False
    """Whether the rule passes no relevance on."""
    held: list[int] = field(default_factory=list)
    """Nodes that this operation uses as constants."""
    affine: Affine | None = None
    """What the rule leaves open for a batch-norm to fold."""
    whole: Affine | None = None
    """The affine operation that the output is of, with what the rule has folded."""
    folds: int | None = None
    """The node that the rule has folded into its output."""

    @property
    def nodes(self) -> list[int]:
        """The nodes of the arguments that depend on the pixels, each once."""
        return list(dict.fromkeys(self.tracked.values()))

    def port_of(self, tensor: Tensor) -> Tensor | None:
        """The port of an argument; none where a ledger wants to see what comes back to the tensor itself."""
        node = self.node_of(tensor)
        return None if node is None or self.backward.metered else node.port

    def node_of(self, tensor: Any) -> Node | None:
        """The tape's entry of an argument; None for weights and other constants."""
        k = self.tracked.get(id(tensor))
        return None if k is None else self.tape.nodes[k]

    def hold(self, tensor: Tensor) -> Tensor:
        """The same values as a constant: no relevance flows back through them."""
        self.held.append(self.tracked[id(tensor)])
        return constant(tensor, self.backward)

    def activations(self) -> list[Tensor]:
        """The arguments that depend on the pixels, as often as they are given."""
        return [t for t in tensors_in(self.args, self.kwargs) if id(t) in self.tracked]

    def given(self, *names: str) -> dict[str, Any]:
        """The arguments by name, however they were passed; `names` are the function's first parameters."""
        return dict(zip(names, self.args, strict=False)) | self.kwargs

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def run(self, hold: Sequence[Tensor] = ()) -> Any:
        """The operation itself, with the activations in `hold` as constants."""
        args, kwargs = self.args, self.kwargs
        for tensor in hold:
            held = self.hold(tensor)
            args, kwargs = map_tensors(partial(replaced, tensor, held), (args, kwargs))
        return self.func(*args, **kwargs)


Rule = Callable[[Call], Any]
"""What an operation does under the mode: computes its output such that autograd takes the method's way back."""


class RuleMode(TorchFunctionMode):
    """Inside this context every operation on an activation goes through its rule, and is written on the tape.

    Operations on weights alone run untouched. In-place operations are computed out of place, so that what a rule has
    kept stays as it was. The network is not changed: rules are chosen by the function that runs.
    """

    def __init__(self, rules: Mapping[str, Rule], fallback: Rule, backward: Backward) -> None:
        super().__init__()
        self.tape = Tape()
        self._rules, self._fallback, self._backward = rules, fallback, backward
        self._index: dict[int, int] = {}
        self._stale: set[int] = set()
        self._keep: list[Any] = []
        self._modules: list[str] = []

    def start(self, x: Tensor) -> None:
        self._write(x, Node(x, Place(0, "input", ""), (), 1))

    def entered(self, name: str) -> None:
        self._modules.append(name)

    def left(self, output: Any) -> None:
        name = self._modules.pop()
        if name and (k := self.find(output)) is not None:
            self.tape.layers[name] = k

    def find(self, output: Any) -> int | None:
        """The node of a module's output (of its first tensor, if it returns several)."""
        return next((self._index[id(t)] for t in tensors_in(output) if id(t) in self._index), None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        originals = [t for t in tensors_in(args, kwargs) if id(t) in self._index]
        if not originals:
            return func(*args, **kwargs)
        name = operation_name(func)
        if name in _QUERIES:
            return func(*args, **kwargs)
        if name in COMPOSED:
            with self:
                return opened(func)(*args, **kwargs)
        args, kwargs, flagged = without_inplace_flag(func, args, kwargs)
        target = args[0] if flagged or in_place(name) or name == "__setitem__" else None
        if name == "__setitem__":
            func = _with_item
        elif in_place(name):
            func, name = out_of_place(name), name[:-1]
        output = self._apply(name, func, args, kwargs)
        if target is not None:
            self._stands_for(target, output)
        return output

    def _apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = map_tensors(partial(self._current, name), (args, kwargs))
        used = args[:1] if name in _SHAPED_LIKE else args
        tracked = {id(t): self._index[id(t)] for t in tensors_in(used, kwargs) if id(t) in self._index}
        place = Place(len(self.tape.nodes), name, next((m for m in reversed(self._modules) if m), ""))
        if self._backward.metered:
            args, kwargs, tracked = self._metered(args, kwargs, tracked, place)
        call = Call(name, func, args, kwargs, tracked, self.tape, self._backward, place)
        output = self._rules.get(name, self._fallback)(call)
        if self._backward.metered:
            output = map_tensors(partial(_meter, self._backward, place), output)
        for tensor in tensors_in(output):
            if (tensor.is_floating_point() or tensor.is_complex()) and id(tensor) not in self._index:
                self._write(tensor, self._node(call, tensor))
        if call.folds is not None and (k := self.find(output)) is not None:
            self.tape.nodes[call.folds].folded_into = k
        return output

    def _metered(
        self, args: Any, kwargs: Any, tracked: dict[int, int], place: Place
    ) -> tuple[Any, Any, dict[int, int]]:
        """The arguments, each with a meter for the relevance that leaves the operation by it."""
        metered_as: dict[int, int] = {}

        def meter(tensor: Tensor) -> Tensor:
            if id(tensor) not in tracked or not tensor.requires_grad:
                return tensor
            copy = metered(tensor, self._backward, place, -1.0)
            metered_as[id(copy)] = tracked[id(tensor)]
            return copy

        args, kwargs = map_tensors(meter, (args, kwargs))
        return args, kwargs, tracked | metered_as

    def _current(self, operation: str, tensor: Tensor) -> Tensor:
        """What a tensor stands for now: after in-place operations, and with its bias shared.

        A batch-norm gets the bias still open, to fold it.
        """
        k = self._index.get(id(tensor))
        if k is None:
            return tensor
        if k in self._stale:
            raise UnsupportedOperationError(
                f"the output of {self.tape.describe(k)!r} was changed in place through a view and is used again; "
                "write the change out of place"
            )
        affine = self.tape.nodes[k].affine
        if operation == "batch_norm" and affine is not None and affine.axis == 1:
            return self.tape.nodes[k].tensor
        settled = self.tape.settle(k)
        self._index[id(settled)] = k
        return settled

    def _stands_for(self, target: Tensor, output: Tensor) -> None:
        """After an in-place operation every use of `target` means `output`; what shares its memory is out of date."""
        base = self._index.get(id(target))
        while base is not None and (base := self.tape.nodes[base].view_of) is not None:
            self._stale.add(base)
        self._keep.append(target)
        self._index[id(target)] = self._index[id(output)]

    def _node(self, call: Call, tensor: Tensor) -> Node:
        sources = [k for k in call.nodes if k not in call.held] or call.nodes
        main = self.tape.nodes[sources[0]]
        known = INDEXED_AWAY if main.channel_taken else main.axis
        axis = channel_axis(call.name, call.args, call.kwargs, main.tensor, known, tensor)
        return Node(
            tensor,
            call.place,
            tuple(call.nodes),
            default_axis(tensor) if axis == INDEXED_AWAY else axis,
            Made(call.name, call.args, call.kwargs, tuple(sources)),
            call.scalar,
            call.port,
            _gate_strength(call),
            call.affine,
            call.whole,
            constant=call.constant or all(self.tape.nodes[k].constant for k in sources),
            channel_taken=axis == INDEXED_AWAY,
            view_of=sources[0] if call.name in _VIEWS and _same_memory(tensor, main.tensor) else None,
        )

    def _write(self, tensor: Tensor, node: Node) -> None:
        self._index[id(tensor)] = len(self.tape.nodes)
        self._keep.append(tensor)
        self.tape.nodes.append(node)


def replaced(old: Tensor, new: Tensor, tensor: Tensor) -> Tensor:
    """`new` for `old`, anything else as it is."""
    return new if tensor is old else tensor


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _meter(backward: Backward, place: Place, tensor: Tensor) -> Tensor:
    return metered(tensor, backward, place, 1.0) if tensor.requires_grad else tensor


def _with_item(x: Tensor, index: Any, value: Any) -> Tensor:
    copy = x.clone()
    copy[index] = value
    return copy


def _gate_strength(call: Call) -> int:
    """See `Node.gate`; kept by operations that only rescale or rearrange one gate."""
    if call.name in BOUNDED:
        return 2
    if call.name in ACTIVATIONS:
        return 1
    sources = [call.tape.nodes[k].gate for k in call.nodes]
    return sources[0] if len(sources) == 1 and call.name in _KEEPS_GATE else 0


def record(
    net: nn.Module,
    x: Tensor,
    rules: Mapping[str, Rule],
    fallback: Rule,
    backward: Backward,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Tape:
    """One forward pass of `net` on `x` under `rules`; `forward` names another entry than `net(x)`.

    The names of running modules come from torch's global module hooks, which are gone on return; `net` has none.
    """
    mode = RuleMode(rules, fallback, backward)
    names = {id(module): name for name, module in net.named_modules()}
    thread = get_ident()

    def enter(module: nn.Module, args: Any) -> None:
        if get_ident() == thread:
            mode.entered(names.get(id(module), ""))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if get_ident() == thread:
            mode.left(output)

    with ExitStack() as stack:
        for handle in (
            torch_module.register_module_forward_pre_hook(enter),
            torch_module.register_module_forward_hook(leave),
        ):
            stack.callback(handle.remove)
        stack.enter_context(torch.enable_grad())
        stack.enter_context(mode)
        mode.start(x)
        output = (forward or net)(x)
        found = mode.find(output)
    if found is None:
        raise IerfError(
            "the network's output does not depend on its input by operations that can be followed; "
            "a scripted or traced network hides them: explain the module that it was made from"
        )
    mode.tape.output = found
    return mode.tape
