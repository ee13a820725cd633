"""Guided backpropagation: the gradient, of which every rectifier lets the positive part through."""

from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from ierf.attribution.gradients import slopes, strongest_channel
from ierf.attribution.objective import explaining
from ierf.attribution.targets import Target
from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.operations import map_tensors
from ierf.rules.call import Call, replaced
from ierf.rules.primitives import through

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
