"""Which patches drive a latent: attributions of one activation to the photograph, each a score for each patch."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.attribution import attribute, targets
from ierf.cafe.layer import LatentLayer
from ierf.errors import UnknownNameError

Attribution = Callable[
    [LatentLayer, Float[Tensor, "N 3 H W"], Int[Tensor, " N"], Int[Tensor, " N"]], Float[Tensor, "N h w"]
]
"""Layer, photographs, a latent and a position for each -> a score for each patch, or for each pixel."""


def ierfs(
    layer: LatentLayer,
    x: Float[Tensor, "N 3 H W"],
    latents: Int[Tensor, " N"],
    positions: Int[Tensor, " N"],
    method: str = "attnlrp",
    **options: Any,
) -> Float[Tensor, "N H W"]:
    """The pixels behind one latent at one position of each sample (arXiv 2605.00474, Eq. 10), in one pass of all.

    Relevance begins as the latent's pre-activation and passes the encoder as it passes a linear layer; `method` and
    options as in `ierf.attribute`.
    """
    target = targets.Latent(layer.layer, layer.sae, latents.tolist(), layer.address(positions))
    return attribute(layer.model, x, target, method=method, **options)


def activation(
    layer: LatentLayer, x: Float[Tensor, "N 3 H W"], latents: Int[Tensor, " N"], positions: Int[Tensor, " N"]
) -> Float[Tensor, "N h w"]:
    """The latent's own activations: the ranking that takes where a latent fires for what drives it."""
    return layer.maps(x, latents)


def kernel_shap(
    layer: LatentLayer, x: Float[Tensor, "N 3 H W"], latents: Int[Tensor, " N"], positions: Int[Tensor, " N"]
) -> Float[Tensor, "N H W"]:
    """Shapley values of the patches, from four coalitions for each."""
    return ierfs(layer, x, latents, positions, "kernel_shap", samples=4 * layer.grid.patches)


METHODS: Mapping[str, Attribution] = {
    "attnlrp": ierfs,
    "cp_lrp": partial(ierfs, method="cp_lrp"),
    "integrated_gradients": partial(ierfs, method="integrated_gradients", steps=16),
    "gradient": partial(ierfs, method="gradient"),
    "gradient_x_input": partial(ierfs, method="gradient_x_input"),
    "kernel_shap": kernel_shap,
    "srd": partial(ierfs, method="srd"),
    "activation": activation,
    "random": partial(ierfs, method="random"),
}
"""Name -> attribution."""


def evidence(
    layer: LatentLayer,
    x: Float[Tensor, "N 3 H W"],
    latents: Int[Tensor, " N"],
    positions: Int[Tensor, " N"],
    method: str = "attnlrp",
) -> Float[Tensor, "N rows columns"]:
    """The attribution of each patch of the layer's grid: the sum of its pixels.

    Raises `UnknownNameError` for another method.
    """
    if method not in METHODS:
        raise UnknownNameError("attribution of latents", method, METHODS)
    found = METHODS[method](layer, x, latents, positions)
    return on_grid(found, (layer.grid.rows, layer.grid.columns))


def on_grid(scores: Float[Tensor, "N h w"], grid: tuple[int, int]) -> Float[Tensor, "N rows columns"]:
    """Sums over the cells of a grid; scores that are on it already stay."""
    if scores.shape[1:] == grid:
        return scores
    area = scores.shape[1] * scores.shape[2] / (grid[0] * grid[1])
    return F.adaptive_avg_pool2d(scores[:, None], grid)[:, 0] * area
