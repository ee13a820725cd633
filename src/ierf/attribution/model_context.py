"""Running a user's network for an explanation, and leaving it as it was."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import RLock
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.parameter import is_lazy

from ierf.errors import IerfError
from ierf.model import VisionModel, evaluating, logits_of
from ierf.model.forward import FullPrecision, PlainPass, is_lowered
from ierf.model.layout import channels_of_pixels
from ierf.operations import tensors_in

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
