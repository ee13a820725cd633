"""Running a user's network for an explanation, and leaving it as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from ierf.errors import IerfError
from ierf.model import VisionModel, evaluating, logits_of

Forward = Callable[[Tensor], Tensor]


@contextmanager
def running(model: VisionModel, x: Float[Tensor, "N 3 H W"]) -> Iterator[tuple[Forward, Tensor]]:
    """The network as a function from pixels to its output, and the pixels as a leaf that collects gradients.

    Inside: evaluation mode, gradients recorded whatever surrounds the call, `x` on the model's device. A network in
    half precision runs on float32 copies of its weights, because relevance divides by squared norms.
    """
    x = as_batch(model, x)
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model.net):
        weights = _usable_weights(model)
        dtype = torch.promote_types(model.dtype_for(x), torch.float32)
        pixels = x.detach().to(model.device, dtype, copy=x.is_inference()).requires_grad_()

        def forward(images: Tensor) -> Tensor:
            return logits_of(functional_call(model.net, weights, (images,)) if weights else model.net(images))

        yield forward, pixels


def as_batch(model: VisionModel, x: Tensor) -> Float[Tensor, "N 3 H W"]:
    """`x` with a batch axis: a single picture (C, H, W) gets one, unless the network's convolutions are all 1-D."""
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
    if x.ndim > 3:
        return x
    kinds = {type(module) for module in model.net.modules()}
    return x if nn.Conv1d in kinds and nn.Conv2d not in kinds else x[None]


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
