"""Gradients of the score by the pixels: saliency, gradient × input, SmoothGrad, guided backpropagation."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from ierf.attribution.objective import Objective, explaining, portions, slope_of
from ierf.attribution.targets import Target
from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.operations import map_tensors
from ierf.rules.call import Call, replaced
from ierf.rules.primitives import through


def gradient(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Target = None, resolution: str = "input"
) -> Float[Tensor, "N H W"]:
    """Class saliency: the maximum over colour channels of |∂y/∂x| (Simonyan et al., arXiv 1312.6034, Sec. 3)."""
    with explaining(model, x, target, resolution) as y:
        return strongest_channel(slopes(y, y.pixels[:, None])[:, 0])


def gradient_x_input(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Target = None, resolution: str = "input"
) -> Float[Tensor, "N H W"]:
    """`Σ_channels x ⊙ ∂y/∂x` (Shrikumar et al., arXiv 1605.01713)."""
    with explaining(model, x, target, resolution) as y:
        return (y.pixels.detach() * slopes(y, y.pixels[:, None])[:, 0]).sum(1)


def slopes(
    y: Objective, images: Float[Tensor, "n S C H W"], samples: slice = slice(None)
) -> Float[Tensor, "n S C H W"]:
    """`∂y/∂x` at S variants of each of `samples`, in one forward and one backward pass."""
    points = images.detach().requires_grad_()
    return slope_of(y(points, samples).sum(), points)


def strongest_channel(slope: Float[Tensor, "N C H W"]) -> Float[Tensor, "N H W"]:
    """`max_c |slope_c|`: one number per pixel."""
    return slope.abs().amax(1)


@renamed(at_once="batch")
def smoothgrad(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    batch: int = 32,
) -> Float[Tensor, "N H W"]:
    """`max_channel |1/n Σ_s ∂y/∂x (x + σ ε_s)|`, ε_s ~ N(0, 1), σ = noise · (max x − min x) of each sample.

    Smilkov et al., arXiv 1706.03825, Sec. 3. The same `ε_s` for every sample, so that a map depends neither on batch
    mates nor, by chance, on small changes of the picture.

    Args:
        samples: n, how many noisy copies.
        noise: their standard deviation as a share of the sample's range.
        seed: of the noise.
        batch: most images in one pass.
    """
    if samples < 1:
        raise IerfError(f"SmoothGrad averages over at least one noisy copy, not {samples}")
    with explaining(model, x, target, resolution) as y:
        pixels = y.pixels.detach()
        low, high = pixels.flatten(1).aminmax(dim=1)
        sigma = (noise * (high - low)).view(-1, *[1] * pixels.ndim)
        seeds = torch.randint(1 << 32, (samples,), generator=torch.Generator().manual_seed(seed)).tolist()
        total = torch.zeros_like(pixels)
        for some, copies in portions(len(pixels), samples, batch):
            epsilon = torch.stack([_normal(pixels[0], one) for one in seeds[copies]])
            total[some] += slopes(y, pixels[some, None] + sigma[some] * epsilon, some).sum(1)
        return strongest_channel(total / samples)


def _normal(like: Tensor, seed: int) -> Tensor:
    """The noise of one copy, whatever else is drawn; made on the CPU, so that every device sees the same."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)


RECTIFIERS = frozenset("relu relu6 leaky_relu prelu rrelu threshold elu selu celu silu gelu mish hardswish".split())
"""ReLU and its kin. Sigmoids and their like are gates, not rectifiers; they keep their gradient."""
CLAMPS = frozenset("hardtanh clamp clamp_min clip".split())
"""Rectifiers if they cut off at zero, as ReLU6 does, which `nn.ReLU6` computes by `hardtanh`."""


def guided_backprop(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], target: Target = None, resolution: str = "input"
) -> Float[Tensor, "N H W"]:
    """`max_channel |g|`, where on the way back every rectifier `a = ReLU(z)` does `g_z = 1[z > 0] · max(g_a, 0)`.

    Springenberg et al., arXiv 1412.6806, Sec. 3.4. By operation, so `F.relu` in a forward counts as much as `nn.ReLU`.
    A smooth rectifier keeps its own derivative in place of `1[z > 0]`.

    Raises:
        IerfError: the network has no rectifier before the target, so that nothing would differ from the gradient.
    """
    met: list[str] = []

    def rectifier(call: Call) -> Tensor:
        if call.name in CLAMPS and not _cuts_off_at_zero(call):
            return call.run()  # type: ignore[no-any-return]
        met.append(call.name)
        return through(_PositiveGradient, call.run())

    with explaining(model, x, target, resolution, dict.fromkeys(RECTIFIERS | CLAMPS, rectifier)) as y:
        slope = slopes(y, y.pixels[:, None])[:, 0]
    if not met:
        raise IerfError(
            "guided backpropagation changes the gradient at ReLUs and their kin, and this network has none; "
            "use method 'gradient'"
        )
    return strongest_channel(slope)


def _cuts_off_at_zero(call: Call) -> bool:
    """Whether −1, in place of the activation, gives 0."""
    x = call.activations()[0]
    args, kwargs = map_tensors(partial(replaced, x, x.new_full((1,), -1.0)), (call.args, call.kwargs))
    return bool((call.func(*args, **kwargs) == 0).all())


class _PositiveGradient(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        return a.view_as(a)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.clamp_min(0)
