"""Methods as tables name them: `srd@high`, `srd?head=raw`, `integrated_gradients?steps=16`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ierf.attribution import METHODS, attribute
from ierf.errors import IerfError, UnknownNameError
from ierf.metrics import at_pixels
from ierf.model import VisionModel

PAPER = (
    *("gradient", "guided_backprop", "gradient_x_input", "integrated_gradients", "lrp_zplus", "smoothgrad", "fullgrad"),
    *("gradcam", "gradcam_pp", "scorecam", "ablationcam", "xgradcam", "layercam@low", "layercam@high"),
    *("srd@low", "srd@high", "srd"),
)
"""The rows of Table I."""
ABLATION = ("srd?head=raw", "srd?head=mean", "srd")
"""The rows of Table IV."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "paper": PAPER,
    "ablation": ABLATION,
    "all": (*PAPER, *ABLATION[:2], "attnlrp", "cp_lrp", "kernel_shap", "random"),
}


@dataclass(frozen=True)
class Method:
    """A method with its resolution and options; `text` is what tables call it."""

    text: str
    name: str
    resolution: str = "input"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: VisionModel, x: Float[Tensor, "N 3 H W"], target: list[int]) -> Float[Tensor, "N H W"]:
        """Maps at the pixels: coarser ones are scaled up bilinearly (arXiv 2605.00474, IV-B)."""
        height, width = x.shape[2:]
        maps = attribute(model, x, target, self.name, self.resolution, **self.options)
        return at_pixels(maps, (height, width))


def parse_method(text: str) -> Method:
    """`NAME[@RESOLUTION][?OPTION=VALUE[&…]]`. Raises `IerfError` for a method that does not exist."""
    address, _, query = text.strip().partition("?")
    name, _, resolution = address.partition("@")
    if name not in METHODS:
        raise UnknownNameError("method", name, [*METHODS, *GROUPS])
    pairs = [option.partition("=") for option in query.split("&") if option]
    if any(not value for _, _, value in pairs):
        raise IerfError(f"an option of a method is given as ?name=value, which {text!r} does not do")
    return Method(text.strip(), name, resolution or "input", {key: _value(value) for key, _, value in pairs})


def parse_methods(texts: Sequence[str]) -> list[Method]:
    """Methods and groups of them (`GROUPS`), each row once; commas separate as well."""
    single = [name for text in texts for part in text.split(",") for name in GROUPS.get(part.strip(), (part,))]
    return [parse_method(name) for name in dict.fromkeys(name.strip() for name in single)]


def _value(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
