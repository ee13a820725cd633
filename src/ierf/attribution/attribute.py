"""Every explainer behind one signature."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from warnings import warn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.attribution.attnlrp import attnlrp, cp_lrp
from ierf.attribution.cam import gradcam, gradcam_pp, layercam, xgradcam
from ierf.attribution.channel_cam import ablationcam, scorecam
from ierf.attribution.fullgrad import fullgrad
from ierf.attribution.gradients import gradient, gradient_x_input, smoothgrad
from ierf.attribution.guided_backprop import guided_backprop
from ierf.attribution.integrated_gradients import integrated_gradients
from ierf.attribution.kernel_shap import kernel_shap
from ierf.attribution.lrp_zplus import lrp_zplus
from ierf.attribution.model_context import as_batch, not_finite
from ierf.attribution.random_map import random_map
from ierf.attribution.srd import srd
from ierf.attribution.targets import Target
from ierf.deprecated import by_present_names
from ierf.errors import IerfError, UnknownNameError
from ierf.model import VisionModel, as_vision_model

Method = Callable[..., Tensor]

METHODS: Mapping[str, Method] = {
    "srd": srd,
    "attnlrp": attnlrp,
    "cp_lrp": cp_lrp,
    "gradient": gradient,
    "gradient_x_input": gradient_x_input,
    "guided_backprop": guided_backprop,
    "integrated_gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "fullgrad": fullgrad,
    "lrp_zplus": lrp_zplus,
    "gradcam": gradcam,
    "gradcam_pp": gradcam_pp,
    "scorecam": scorecam,
    "ablationcam": ablationcam,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "kernel_shap": kernel_shap,
    "random": random_map,
}
"""Name -> explainer `(model, x, target, resolution, **options)`."""


def attribute(
    model: VisionModel | nn.Module,
    x: Float[Tensor, "N 3 H W"],
    target: Target | str | Sequence[Target | str] = None,
    method: str = "srd",
    resolution: str = "input",
    **options: Any,
) -> Float[Tensor, "N h w"]:
    """Where in `x` the evidence for `target` is: a signed map per sample, on the model's device, not normalised.

    Args:
        model: a `VisionModel`, or any `torch.nn.Module`; comes back exactly as it was.
        x: prepared pixels; a single picture may come without its batch axis.
        target: None (the predicted class), a class by index or name, a list with one per sample, one of `ierf.targets`,
            a list with one of those per sample, or a function from logits (N, K) to one number per sample.
        method: one of `ierf.attribution.METHODS`.
        resolution: "low" (encoder output), "high" (first map of at least 1/8 of the side), "input" (pixels), or the
            name of a layer whose relevance map to return.
        options: of the method, as its function in `METHODS` describes them.

    Raises:
        UnknownNameError: no such method, option, layer or class; the nearest names are suggested.
        UnsupportedOperationError: the network uses an operation without a rule, and relevance needs to pass it.
    """
    vision_model = as_vision_model(model)
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    explain = METHODS[method]
    options = checked_options(method, explain, options)
    x = as_batch(vision_model, x)
    target = vision_model.indexed(target)
    if target is None and vision_model.outputs == "features":
        warn(
            "the network returns an embedding, not classes: the map explains its norm; ask for another target, as in "
            "target=lambda z: z @ text",
            stacklevel=2,
        )
    if isinstance(target, list | tuple) and not all(isinstance(t, int) for t in target):
        if len(target) != len(x):
            raise IerfError(f"{len(target)} targets for {len(x)} samples; give one, or one per sample")
        maps = [explain(vision_model, x[i : i + 1], one, resolution, **options) for i, one in enumerate(target)]
        return _finite(vision_model, x, torch.cat(maps))
    return _finite(vision_model, x, explain(vision_model, x, target, resolution, **options))


def _finite(model: VisionModel, x: Tensor, maps: Tensor) -> Tensor:
    if not bool(maps.isfinite().all()):
        raise not_finite(model, x)
    return maps


def checked_options(method: str, explain: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by their present names. Raises `UnknownNameError` for one that the method does not take."""
    found = by_present_names(explain, options, stacklevel=3)
    known = [p.name for p in inspect.signature(explain).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in found:
        if name not in known:
            raise UnknownNameError(f"option of method {method!r}", name, known)
    return found
