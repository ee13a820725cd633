"""The sharing ratios of one convolution as numbers: the paper's forward formula (arXiv 2605.00474, Eq. 3)."""

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.rules.bias import Affine, projected
from ierf.rules.primitives import inverse_square
from ierf.rules.window import Window

_NUMBERS = 1 << 26
"""At most this many numbers at once (256 MiB in float32), or one sample."""


def sharing_ratios(affine: Affine, v: Float[Tensor, "N C *out"]) -> Float[Tensor, "N taps *out"]:
    """`μ_ij = (⟨W_ij a_i, v_j⟩ + share_ij ⟨b, v_j⟩) / ‖v_j‖²` of the input that each output position sees by each tap.

    v: what the convolution, with the batch-norm folded into it, gave for `affine.a`.
    `⟨W_ij a_i, v_j⟩ = ⟨a_i, W_ijᵀ v_j⟩` takes the products of one backward pass, for all taps. Inputs outside the
    picture have the ratio 0, and vectors that are 0 neither give nor take.
    """
    window, a = affine.window, affine.a
    assert window is not None
    at_once = max(1, _NUMBERS // (window.taps * a.shape[1] * v[0, 0].numel()))
    parts = zip(torch.split(a, at_once), torch.split(v, at_once), strict=True)
    ratios = torch.cat([_products(some, out, affine.kernel, window) for some, out in parts])
    if affine.bias is not None and affine.changes_gradient:
        speaks = (inverse_square(a, 1) > 0).to(a).expand(-1, window.taps, *a.shape[2:])
        shares = 1 if window.pointwise else affine.shares
        ratios = ratios + shares * window.gather(speaks) * projected(v, affine.bias, 1)
    return ratios * inverse_square(v, 1)


def _products(
    a: Float[Tensor, "N C *in"], v: Float[Tensor, "N D *out"], kernel: Float[Tensor, "D c *kernel"], window: Window
) -> Float[Tensor, "N taps *out"]:
    """`⟨a_i, W_ijᵀ v_j⟩`."""
    groups, taps = window.groups, window.taps
    seen = window.patches(a)
    rows = v.movedim(1, -1).reshape(seen.shape[1], groups, -1).transpose(0, 1)
    kernels = kernel.flatten(2).permute(2, 0, 1).reshape(taps, groups, -1, kernel.shape[1])
    back = rows @ kernels
    seen = seen.reshape(taps, -1, groups, kernel.shape[1]).transpose(1, 2)
    return (back * seen).sum((1, 3)).reshape(taps, len(a), *v.shape[2:]).transpose(0, 1)
