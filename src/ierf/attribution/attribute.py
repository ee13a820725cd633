"""Every explainer behind one signature, and the methods that carry relevance by rules behind one door."""

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Any
from warnings import warn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.attribution.attnlrp import AttnLRPPass, attnlrp, cp_lrp, lrp_zplus
from ierf.attribution.cam import ablationcam, gradcam, gradcam_pp, layercam, scorecam, xgradcam
from ierf.attribution.fullgrad import fullgrad
from ierf.attribution.gradients import gradient, gradient_x_input, guided_backprop, smoothgrad
from ierf.attribution.integrated_gradients import integrated_gradients
from ierf.attribution.kernel_shap import kernel_shap
from ierf.attribution.model_context import as_batch, not_finite, running
from ierf.attribution.objective import only_pixels
from ierf.attribution.recorded import Rules
from ierf.attribution.srd import SRDPass, srd
from ierf.attribution.targets import Target
from ierf.deprecated import by_present_names
from ierf.errors import IerfError, UnknownNameError
from ierf.model import VisionModel, as_vision_model
from ierf.rules import AttnLRPRules, Backward, SRDRules


def random_map(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    seed: int = 0,
) -> Float[Tensor, "N H W"]:
    """Independent standard normal numbers, one per pixel, whatever the target.

    The generator of a sample is seeded by `seed` and the sample's own pixels: another picture gets another map, and
    the same picture the same one in any batch.
    """
    only_pixels(resolution)
    with running(model, x) as (_, pixels):
        return torch.stack([_noise(sample, seed) for sample in pixels.detach()])


def _noise(pixels: Float[Tensor, "C H W"], seed: int) -> Float[Tensor, "H W"]:
    content = pixels.cpu().contiguous().numpy().tobytes()
    digest = hashlib.blake2b(content, digest_size=4, salt=seed.to_bytes(8, "little", signed=True)).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return torch.randn(pixels.shape[1:], generator=generator).to(pixels)


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


RelevancePass = SRDPass | AttnLRPPass

RULES: Mapping[str, Callable[..., Rules]] = {
    "srd": SRDRules,
    "attnlrp": partial(AttnLRPRules, "lrp"),
    "cp_lrp": partial(AttnLRPRules, "cp"),
}
"""Method -> its rules, from their options."""


def usual_method(model: VisionModel) -> str:
    """The papers' choice: AttnLRP for networks with attention modules, SRD for all others."""
    names = {type(module).__name__.lower() for module in model.net.modules()}
    return "attnlrp" if any("attention" in name or "attn" in name for name in names) else "srd"


@contextmanager
def relevance_pass(
    model: VisionModel,
    x: Tensor,
    method: str,
    options: Mapping[str, Any],
    encoder: str | None = None,
    backward: Backward | None = None,
) -> Iterator[RelevancePass]:
    """The forward pass of `model` on `x` under the rules of a method. Raises `UnknownNameError` for other options."""
    if method not in RULES:
        raise UnknownNameError("method that carries relevance", method, RULES)
    kind: type[RelevancePass] = SRDPass if method == "srd" else AttnLRPPass
    known = [f.name for f in fields(SRDRules if method == "srd" else AttnLRPRules) if f.name != "attention"]
    for name in options:
        if name not in known:
            raise UnknownNameError(f"option of the rules of {method!r}", name, known)
    with kind.of(model, x, RULES[method](**options), encoder, backward) as run:
        yield run
