"""μ_BN: the constant that a layer's last batch-norm adds to every PFV (GIG paper, Eq. 9)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.model.following import Following, Operation, Values, check_values
from ierf.model.forward import evaluating
from ierf.model.vision_model import VisionModel, as_vision_model
from ierf.operations import CONVOLUTIONS, LAYERS

_KEEPING = frozenset(
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout contiguous clone to "
    "type float double half bfloat16".split()
)
"""Operations that return what they get, in evaluation mode."""


def shift_of(
    model: VisionModel | nn.Module, layer: str, values: Values = "pre-activation"
) -> Float[Tensor, " C"] | None:
    """What stands in front of a layer's PFVs whatever the photograph (GIG paper, Eq. 9, where it is called β):

        μ_BN = β − γ · mean / √(var + ε)   of the batch-norm that ends at the layer's PFVs,

    or the bias of the convolution that ends there, as where a batch-norm was folded into it. None where neither does:
    after an activation function (values="output"), another norm, a linear layer, a convolution without bias.

    Where branches are added, as at the end of a residual block, the one counts that ran through most layers: `bn3` of
    a bottleneck, not the batch-norm of its shortcut; of two equally long ones the last to run.
    Raises an `IerfError` for a layer that does not exist or does not run.
    """
    return shifts_of(model, [layer], values)[layer]


def shifts_of(
    model: VisionModel | nn.Module, layers: Sequence[str], values: Values = "pre-activation"
) -> dict[str, Float[Tensor, " C"] | None]:
    """`shift_of` for several layers, from one forward pass on noise."""
    model = as_vision_model(model)
    check_values(values)
    for layer in layers:
        model.module(layer)
    noise = torch.randn(1, *model.preprocess.shape, generator=torch.Generator().manual_seed(0))
    watch = _Shifts(values)
    with torch.no_grad(), evaluating(model.net), watch.on(model.net):
        model.net(watch.start(noise.to(model.device, model.dtype)))
    for layer in layers:
        if layer not in watch.found:
            raise IerfError(f"the layer {layer!r} returns nothing that depends on the pixels in a forward pass")
    shifts = {layer: watch.found[layer] for layer in layers}
    return {layer: None if shift is None else shift.detach().clone() for layer, shift in shifts.items()}


@dataclass(frozen=True, eq=False)
class _Origin:
    """Where a tensor comes from."""

    depth: int
    """Convolutions, linear layers and batch-norms on the longest way from the pixels."""
    shift: Float[Tensor, " C"] | None = None
    activated: bool = False
    """Whether an activation function returned it."""
    entered: Float[Tensor, " C"] | None = None
    """The shift of what entered that."""


class _Shifts(Following[_Origin]):
    """The shift at the end of every layer."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self._before_activation = values == "pre-activation"
        self._last = _Origin(0)
        self.found: dict[str, Float[Tensor, " C"] | None] = {}

    def _first(self, x: Tensor) -> _Origin:
        return _Origin(0)

    def _run(self, operation: Operation) -> Any:
        self._last = _origin(operation, [self._marks[t] for t in operation.followed])
        if operation.entering is not None:
            entered = self._marks[operation.entering.tensor].shift
            self._last = replace(self._last, activated=True, entered=entered)
        return operation.run()

    def _note(self, operation: Operation, tensor: Tensor) -> None:
        self._marks[tensor] = self._last

    def _changed(self, mark: _Origin) -> _Origin:
        return _Origin(mark.depth)

    def _returned(self, layer: str, call: int, tensor: Tensor) -> Tensor:
        origin = self._marks[tensor]
        self.found[layer] = origin.entered if self._before_activation and origin.activated else origin.shift
        return tensor


def _origin(operation: Operation, sources: Sequence[_Origin]) -> _Origin:
    deepest = max(reversed(sources), key=lambda source: source.depth)
    if operation.name == "batch_norm":
        return _Origin(deepest.depth + 1, _batch_norm_shift(*operation.args, **operation.kwargs))
    if operation.name in LAYERS:
        bias = operation.args[2:3] or (operation.kwargs.get("bias"),)
        return _Origin(deepest.depth + 1, bias[0] if operation.name in CONVOLUTIONS else None)
    deepest = replace(deepest, activated=False, entered=None)
    keeps = operation.name in _KEEPING or (operation.name == "add" and len(sources) > 1)
    return deepest if keeps else _Origin(deepest.depth)


def _batch_norm_shift(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Float[Tensor, " C"] | None:
    """β − γ · mean / √(var + ε), with the arguments of `F.batch_norm`; None where it normalises by the batch."""
    if training or running_mean is None or running_var is None:
        return None
    scaled = running_mean * (running_var + eps).rsqrt() * (1 if weight is None else weight)
    return -scaled if bias is None else bias - scaled
