"""Running a user's network for an explanation: with the channels where it wants them, and leaving it as it was."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from ierf.errors import IerfError
from ierf.model import VisionModel, evaluating, logits_of
from ierf.model.forward import FullPrecision, PlainPass, is_lowered
from ierf.operations import CONVOLUTIONS, TRANSPOSED, operation_name, tensors_in

_BORROWED: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()
"""Networks whose weights are replaced by copies while they run: one thread at a time."""


@dataclass(frozen=True, eq=False)
class Forward:
    """A network as a function from pictures (N, C, …) to its output (N, …), in one precision throughout."""

    net: nn.Module
    dtype: torch.dtype
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Copies that take the place of the network's own."""
    axis: int = 1
    """Where the network wants the channels."""
    verify: bool = True
    """Whether recorded passes are compared with plain ones."""

    @property
    def plain(self) -> "Forward | None":
        """What a recorded pass is compared with."""
        return self if self.verify else None

    def __call__(self, images: Float[Tensor, "N C H W"]) -> Tensor:
        """The plain pass; a network that changes its input in place changes a copy."""
        try:
            with PlainPass(self.dtype):
                return self._run(images.clone())
        except RuntimeError as error:
            if any(word in str(error) for word in ("inplace", "in-place", "out=...")):
                reason = " ".join(str(error).split()).partition(". ")[0]
                raise IerfError(f"torch cannot differentiate what this network does in place: {reason}") from error
            raise

    def recorded(self, images: Float[Tensor, "N C H W"]) -> Tensor:
        """The same under a function mode, which writes nothing in place."""
        with FullPrecision(self.dtype):
            return self._run(images)

    def _run(self, images: Tensor) -> Tensor:
        given = images if self.axis == 1 else images.movedim(1, self.axis)
        output = logits_of(functional_call(self.net, self.weights, (given,)) if self.weights else self.net(given))
        if output.ndim == 0 or len(output) != len(images):
            raise IerfError(
                f"the network returns {tuple(output.shape)} for {len(images)} pictures, where one prediction for each "
                "was expected; wrap a network that takes a bag of pictures in a module that takes the bag as one sample"
            )
        return output.unsqueeze(1) if output.ndim == 1 else output


@contextmanager
def running(model: VisionModel, x: Float[Tensor, "N 3 H W"]) -> Iterator[tuple[Forward, Float[Tensor, "N C H W"]]]:
    """The network as a function from pixels to its output, and the pixels as a leaf that collects gradients.

    Inside: evaluation mode, gradients recorded and autocast off whatever surrounds the call, `x` on the model's device,
    its channels in front of the positions. A network in half precision runs on float32 copies of its weights, because
    relevance divides by squared norms.

    Raises:
        IerfError: `x` is no batch of pictures; the network is quantised, or has lazy modules that never ran.
    """
    x = as_batch(model, x)
    with ExitStack() as stack:
        for context in (torch.inference_mode(False), torch.enable_grad(), evaluating(model.net)):
            stack.enter_context(context)
        for device in set() if is_lowered() else {"cpu", model.device.type}:
            if torch.amp.is_autocast_available(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        weights = _usable_weights(model)
        if weights:
            stack.enter_context(_BORROWED.setdefault(model.net, RLock()))
        dtype = torch.promote_types(model.dtype_for(x), torch.float32)
        pixels = x.detach().to(model.device, dtype, copy=x.is_inference())
        axis = channels_of_pixels(model.net, Forward(model.net, dtype, weights).recorded, pixels)
        verify = model.verify and not is_lowered()
        yield Forward(model.net, dtype, weights, axis, verify), pixels.movedim(axis, 1).requires_grad_()


def as_batch(model: VisionModel, x: Tensor) -> Float[Tensor, "N 3 H W"]:
    """`x` with a batch axis: a single picture (C, H, W) gets one, as does a video for a network that convolves videos.

    Raises `IerfError` for what is no batch of finite pixels, and for a network that cannot be explained.
    """
    check_network(model.net)
    if not isinstance(x, Tensor) or x.ndim < 3 or not x.is_floating_point():
        got = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise IerfError(
            f"expected a float tensor of pixels (N, C, H, W), got {got}; VisionModel.prepare makes one of a photograph"
        )
    if not len(x):
        raise IerfError("there are no pictures in this batch")
    if not bool((finite := x.isfinite().flatten(1).all(1)).all()):
        wrong = ", ".join(map(str, (~finite).nonzero()[:, 0].tolist()))
        raise IerfError(f"pixels are NaN or infinite in sample {wrong}" if x.ndim > 3 else "pixels are NaN or infinite")
    kinds = {type(module) for module in model.net.modules()}
    axes = next((n for n, kind in ((2, nn.Conv2d), (3, nn.Conv3d), (1, nn.Conv1d)) if kind in kinds), 2)
    return x[None] if x.ndim == axes + 1 and x.ndim >= 3 else x


def check_network(net: nn.Module) -> None:
    """Raise `IerfError` for a network that no method can explain: in eight bits, or never run."""
    for name, module in net.named_modules():
        where = f" ({name or 'the network itself'!r})"
        if ".quantized" in type(module).__module__:
            raise IerfError(
                f"the network is quantised to integers{where}, which have no gradients: explain the network in "
                "floating point that it was made from"
            )
        if any(is_lazy(p) for p in module.parameters(recurse=False)):
            raise IerfError(
                f"the network has a lazy module that has never run{where}, so it has no weights yet: run it once on a "
                "batch of pictures"
            )


def not_finite(model: VisionModel, x: Tensor) -> IerfError:
    """What to say of a network that yields NaN or infinity: the first module whose output is not finite."""
    met: list[str] = []
    names = {id(module): name for name, module in model.net.named_modules()}

    def look(module: nn.Module, args: object, output: object) -> None:
        if id(module) in names and any(t.is_floating_point() and not t.isfinite().all() for t in tensors_in(output)):
            met.append(names[id(module)] or type(module).__name__)

    handle = register_module_forward_hook(look)
    try:
        with running(model, x) as (forward, pixels), torch.no_grad():
            output = forward(pixels)
    finally:
        handle.remove()
    if met:
        return IerfError(f"the network yields NaN or infinity, first in the module {met[0]!r}: look at its weights")
    if not bool(output.isfinite().all()):
        return IerfError("the network yields NaN or infinity, in an operation of its own forward")
    return IerfError("the map holds NaN or infinity, though the network's output does not; method='gradient' may help")


def _usable_weights(model: VisionModel) -> dict[str, Tensor]:
    """Copies of weights that autograd cannot use well (half precision, made under inference mode); else nothing."""
    state = dict(model.net.named_parameters()) | dict(model.net.named_buffers())
    floating = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    if all(t.dtype.itemsize >= 4 and not t.is_inference() for t in floating.values()):
        return {}
    return {
        name: t.detach().to(torch.float32 if t.dtype.itemsize < 4 else t.dtype, copy=True)
        for name, t in floating.items()
    }


_FEW = 4
"""Pictures have at most this many channels where nothing else tells them from rows and columns."""
_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], int]] = WeakKeyDictionary()


def channels_of_pixels(net: nn.Module, forward: Callable[[Tensor], Any], x: Tensor) -> int:
    """The axis of `x` that arrives at the channels of the first convolution; found once for each network and shape.

    forward: the network as a function. What happens to the pixels before the first layer (permuted, reshaped, padded,
    normalised, resized) is followed by its gradient: two values that differ in the channel alone come from pixels that
    do. Where a single axis is short enough for channels that is it, without a pass; a network that begins with a linear
    layer says nothing: then it is the first of 1, the last, and 2 that is short enough.
    """
    short = [i for i in range(1, x.ndim) if x.shape[i] <= _FEW]
    if len(short) == 1:
        return short[0]
    known = _KNOWN.setdefault(net, {})
    shape = tuple(x.shape[1:])
    if shape not in known:
        known[shape] = _followed(forward, x[:1]) or _guessed(shape)
    return known[shape]


def _guessed(shape: tuple[int, ...]) -> int:
    """The axis, of a sample's shape, that is short enough."""
    few = [i for i in (0, len(shape) - 1, 1) if shape[i] <= _FEW]
    return few[0] + 1 if few else 1


_POOLINGS = frozenset(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3))
_NORMS = frozenset(["batch_norm", "group_norm", "instance_norm"])
_FIRST = CONVOLUTIONS | TRANSPOSED | _POOLINGS | _NORMS | {"linear", "addmm", "matmul", "einsum", "tensordot"}
"""What a pass is followed to. All but the last few say where the channels of their input are."""


class _FirstLayer(Exception):  # noqa: N818
    """Carries what enters the first layer out of a forward pass that need not go on."""

    def __init__(self, entered: Tensor, operation: str) -> None:
        super().__init__(operation)
        self.entered, self.operation = entered, operation


class _UntilFirstLayer(TorchFunctionMode):
    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        self._of_pixels = {id(pixels): pixels}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = operation_name(func), kwargs or {}
        entered = next((t for t in tensors_in(args, kwargs) if id(t) in self._of_pixels), None)
        if name in _FIRST and entered is not None:
            raise _FirstLayer(entered, name)
        output = func(*args, **kwargs)
        if entered is not None:
            self._of_pixels |= {id(t): t for t in tensors_in(output)}
        return output


def _followed(forward: Callable[[Tensor], Any], x: Tensor) -> int | None:
    pixels = x.detach().clone().requires_grad_()
    try:
        with torch.enable_grad(), _UntilFirstLayer(pixels):
            forward(pixels)
    except _FirstLayer as first:
        behind = 0 if first.operation not in CONVOLUTIONS | TRANSPOSED | _POOLINGS else int(first.operation[-2])
        channels = first.entered.ndim - 1 - behind if behind else 1
        if behind or first.operation in _NORMS:
            with suppress(RuntimeError):  # torch cannot go back through what the network does in place
                return _origin(first.entered, channels, pixels)
    except Exception:  # the pass itself will say what is wrong with the network
        return None
    return None


def _origin(entered: Tensor, channels: int, pixels: Tensor) -> int | None:
    """The axis of the pixels along which the axis `channels` of what enters a layer runs."""
    varied = _varied(entered, channels, pixels)
    if varied:
        return varied.pop() if len(varied) == 1 else None
    others = [_varied(entered, i, pixels) for i in range(channels + 1, entered.ndim)]
    left = set(range(1, pixels.ndim)).difference(*others)
    return left.pop() if len(left) == 1 else None


def _varied(entered: Tensor, axis: int, pixels: Tensor) -> set[int]:
    """The axes of the pixels in which two neighbours along an axis differ by where they come from."""
    if entered.shape[axis] < 2:
        return set()
    here = [size // 2 for size in entered.shape]
    places = []
    for step in (0, 1):
        here[axis] = entered.shape[axis] // 2 - 1 + step
        (slope,) = torch.autograd.grad(entered[tuple(here)], pixels, retain_graph=True)
        size = slope.abs()
        if int((size > size.max() / 2).sum()) > max(16, size.numel() // 20):
            return set()
        places.append(torch.unravel_index(size.argmax(), size.shape))
    return {i for i, (one, other) in enumerate(zip(*places, strict=True)) if i > 0 and int(one) != int(other)}
