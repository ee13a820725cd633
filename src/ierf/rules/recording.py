"""A recorded forward pass, whose output is compared with that of one plain pass: it must be the network's.

Once for each network, kind of rules, and shape, type and device of the input.
"""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any
from warnings import warn
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ierf.errors import IerfError, UnsupportedOperationError
from ierf.operations import COMPOSED, opened, tensors_in
from ierf.recorder import Recorder
from ierf.rules.call import Rule, Trace, Value
from ierf.rules.mode import PASSED_OVER, RuleMode
from ierf.rules.primitives import Backward
from ierf.rules.tape import Tape


def record(
    net: nn.Module,
    x: Tensor,
    rules: Mapping[str, Rule],
    fallback: Rule,
    backward: Backward,
    forward: Callable[[Tensor], Tensor] | None = None,
    plain: Callable[[Tensor], Tensor] | None = None,
) -> Tape:
    """One forward pass of `net` on `x` under `rules`; `forward` names another entry than `net(x)`.

    The names of running modules come from torch's global module hooks, which are gone on return; `net` has none.

    plain: the network without rules, whose output the pass is compared with, once for inputs of this kind.

    Raises:
        UnsupportedOperationError: the network computes in a way that cannot be followed.
        IerfError: its output does not depend on `x`.
    """
    mode = RuleMode(rules, fallback, backward)
    _run(mode, net, x, forward or net)
    tape = mode.tape
    if plain is not None and not verified(net, kind_of(rules, fallback), x):
        try:
            verify(
                tape.settle(tape.output),
                lambda: plain(x.detach()),
                lambda: _trace_recorded(RuleMode(rules, fallback, Backward()), net, x, forward or net),
                lambda: _trace_plain(net, x, plain),
            )
        except BaseException:
            forget(net)
            raise
    return tape


def _trace_recorded(mode: RuleMode, net: nn.Module, x: Tensor, forward: Callable[[Tensor], Tensor]) -> Trace:
    mode.trace = []
    _run(mode, net, x, forward)
    return mode.trace


def _trace_plain(net: nn.Module, x: Tensor, plain: Callable[[Tensor], Tensor]) -> Trace:
    witness = Witness(PASSED_OVER)
    with torch.no_grad(), witness.on(net):
        plain(x.detach())
    return witness.trace[1:] if witness.trace[:1] and witness.trace[0].operation == "clone" else witness.trace


def _run(mode: RuleMode, net: nn.Module, x: Tensor, forward: Callable[[Tensor], Tensor]) -> None:
    with torch.enable_grad(), mode.on(net):
        mode.start(x)
        output = forward(x)
    found = mode.find(output)
    if found is None:
        raise cut_off(mode.stops)
    mode.tape.output = found


def cut_off(stops: Sequence[str]) -> IerfError:
    """What to say of an output that no relevance can leave."""
    if stops:
        return IerfError(
            f"the network's output does not depend on its input: {' and '.join(dict.fromkeys(stops))} makes what comes "
            "before a constant; explain a network without that"
        )
    return IerfError(
        "the network's output does not depend on its input by operations that can be followed; "
        "a scripted or traced network hides them: explain the module that it was made from"
    )


TOLERANCE = {torch.float64: 1e-8}
"""Largest difference of an output, over the largest output."""
TOLERANCE_ELSEWHERE = 1e-4
_VERIFIED: WeakKeyDictionary[nn.Module, set[Any]] = WeakKeyDictionary()
_LOOKING = Lock()


def verified(net: nn.Module, rules: str, x: Tensor) -> bool:
    """Whether the network's passes on inputs like `x` by these rules were compared; from now on they count as such."""
    key = rules, len(x) > 1, tuple(x.shape[1:]), x.dtype, str(x.device)
    with _LOOKING:
        known = _VERIFIED.setdefault(net, set())
        if key in known:
            return True
        known.add(key)
        return False


def forget(net: nn.Module) -> None:
    """Compare the next passes of a network again."""
    with _LOOKING:
        _VERIFIED.pop(net, None)


def difference(recorded: Tensor, plain: Tensor) -> float:
    """The largest difference over the largest number, 0 if both are alike where they are not finite."""
    if recorded.shape != plain.shape:
        return float("inf")
    scale = plain.abs().nan_to_num(0, 0, 0).amax().clamp_min(torch.finfo(plain.dtype).tiny)
    return float(((recorded - plain).abs().nan_to_num(0, 0, 0).amax() / scale).nan_to_num(0))


def tolerance(dtype: torch.dtype) -> float:
    return TOLERANCE.get(dtype, TOLERANCE_ELSEWHERE)


def verify(
    recorded: Tensor, plain: Callable[[], Tensor], again: Callable[[], Trace], trace: Callable[[], Trace]
) -> None:
    """Compare a recorded output with the network's.

    again, trace: the values of all operations of a recorded and of a plain pass, to find the first that differs.
    Raises `UnsupportedOperationError`; a network whose plain passes differ among themselves gets a warning.
    """
    with torch.no_grad():
        expected = plain()
    off = difference(recorded.detach(), expected)
    if off <= tolerance(expected.dtype):
        return
    with torch.no_grad():
        spread = difference(plain(), expected)
    if spread > tolerance(expected.dtype):
        warn(
            "the network returns other values each time it runs (dropout that is always on?): so do its maps",
            stacklevel=2,
        )
        return
    raise UnsupportedOperationError(
        f"the recorded pass is not the network's: the outputs differ by {off:.1%} of the largest"
        f"{_first(again(), trace())}; please report this network. VisionModel(net, verify=False) goes on all the same"
    )


def _first(recorded: Trace, plain: Trace) -> str:
    for mine, other in zip(recorded, plain, strict=False):
        if mine.operation != other.operation:
            break
        if difference(mine.tensor, other.tensor) > tolerance(other.tensor.dtype):
            where = f" in the module {other.module!r}" if other.module else ""
            return f", first behind the operation {other.operation!r}{where}"
    return ""


class Witness(Recorder):
    """Keeps what each operation of a plain pass returns."""

    def __init__(self, passed_over: frozenset[str]) -> None:
        super().__init__()
        self.trace: Trace = []
        self._passed_over = passed_over

    def _seen(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in COMPOSED:
            with self:
                return opened(func)(*args, **kwargs)
        output = func(*args, **kwargs)
        if name not in self._passed_over:
            shown = args[0] if name == "__setitem__" else output
            self.trace += [
                Value(name.rstrip("_"), self._module, t.detach().clone())
                for t in tensors_in(shown)
                if t.is_floating_point()
            ]
        return output


def kind_of(rules: Mapping[str, Any], fallback: Callable[..., Any]) -> str:
    """A name for a table of rules: that of the options that made it."""
    owner = getattr(fallback, "__self__", None)
    return repr(owner) if owner is not None else f"{getattr(fallback, '__qualname__', fallback)} {len(rules)}"
