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

from ierf.errors import IerfError
from ierf.rules.bias import Affine
from ierf.rules.layout import channel_axis, pixel_fields, receptive_fields
from ierf.rules.operations import (
    ACTIVATIONS,
    BOUNDED,
    LINEAR,
    in_place,
    map_tensors,
    operation_name,
    out_of_place,
    tensors_in,
    without_inplace_flag,
)
from ierf.rules.primitives import Backward, Place, constant
from ierf.rules.tape import Node, Tape

_QUERIES = frozenset(
    "size dim ndim shape dtype device layout stride numel nelement element_size is_contiguous "
    "is_floating_point is_complex requires_grad is_leaf grad_fn data_ptr storage_offset is_cuda __len__ "
    "__repr__ __format__ get_device is_sparse is_quantized names has_names result_type __hash__ _version "
    "is_nested is_meta".split()
)
_KEEPS_GATE = LINEAR | {"add", "sub", "rsub", "mul", "div"}


@dataclass(slots=True)
class Call:
    """One intercepted operation, ready for its rule: `func(*args, **kwargs)` computes what the network asked for."""

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    nodes: list[int]
    tape: Tape
    backward: Backward
    module: str
    held: list[int] = field(default_factory=list)
    """Nodes that this operation uses as constants."""
    affine: Affine | None = None
    """What the rule leaves open for a batch-norm to fold."""
    folds: int | None = None
    """The node that the rule has folded into its output."""

    @property
    def place(self) -> Place:
        """What to call this operation, and the node that its output will be."""
        return Place(len(self.tape.nodes), self.name, self.module)

    def node_of(self, tensor: Any) -> Node | None:
        """The tape's entry of an argument; None for weights and other constants."""
        return next((self.tape.nodes[k] for k in self._find(tensor)), None)

    def hold(self, tensor: Tensor) -> Tensor:
        """The same values as a constant: no relevance flows back through them."""
        self.held += self._find(tensor)
        return constant(tensor, self.backward)

    def _find(self, tensor: Any) -> list[int]:
        nodes = self.tape.nodes
        return [k for k in self.nodes if nodes[k].tensor is tensor or nodes[k].settled is tensor]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def run(self, hold: Sequence[Tensor] = ()) -> Any:
        """The operation itself, with the activations in `hold` as constants."""
        args, kwargs = self.args, self.kwargs
        for tensor in hold:
            held = self.hold(tensor)
            args, kwargs = map_tensors(partial(_replaced, tensor, held), (args, kwargs))
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
        self._keep: list[Any] = []
        self._modules: list[str] = []

    def start(self, x: Tensor) -> None:
        self._write(x, Node(x, "input", "", (), 1, pixel_fields(x)))

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
        folds_bias = name == "batch_norm"
        args, kwargs = map_tensors(lambda t: self._current(t, not folds_bias), (args, kwargs))
        nodes = list(dict.fromkeys(self._index[id(t)] for t in tensors_in(args, kwargs) if id(t) in self._index))
        module = next((m for m in reversed(self._modules) if m), "")
        call = Call(name, func, args, kwargs, nodes, self.tape, self._backward, module)
        output = self._rules.get(name, self._fallback)(call)
        for tensor in tensors_in(output):
            if tensor.is_floating_point() and id(tensor) not in self._index:
                self._write(tensor, self._node(call, tensor))
        if call.folds is not None and (k := self.find(output)) is not None:
            self.tape.nodes[call.folds].folded_into = k
        return output

    def _current(self, tensor: Tensor, settle: bool) -> Tensor:
        """What a tensor stands for now: after in-place operations, and with its bias shared."""
        k = self._index.get(id(tensor))
        if k is None:
            return tensor
        if not settle:
            return self.tape.nodes[k].tensor
        settled = self.tape.settle(k)
        self._index[id(settled)] = k
        return settled

    def _stands_for(self, target: Tensor, output: Tensor) -> None:
        """After an in-place operation every use of `target` means `output`."""
        self._keep.append(target)
        self._index[id(target)] = self._index[id(output)]

    def _node(self, call: Call, tensor: Tensor) -> Node:
        sources = [k for k in call.nodes if k not in call.held] or call.nodes
        main = self.tape.nodes[sources[0]]
        parents = [(self.tape.nodes[k].tensor, self.tape.nodes[k].fields) for k in sources]
        return Node(
            tensor,
            call.name,
            call.module,
            tuple(call.nodes),
            channel_axis(call.name, main.tensor, main.axis, tensor),
            receptive_fields(call.name, call.args, call.kwargs, parents, tensor),
            _gate_strength(call),
            call.affine,
        )

    def _write(self, tensor: Tensor, node: Node) -> None:
        self._index[id(tensor)] = len(self.tape.nodes)
        self._keep.append(tensor)
        self.tape.nodes.append(node)


def _replaced(old: Tensor, new: Tensor, tensor: Tensor) -> Tensor:
    return new if tensor is old else tensor


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
        raise IerfError("the network's output does not depend on its input, so there is nothing to explain")
    mode.tape.output = found
    return mode.tape
