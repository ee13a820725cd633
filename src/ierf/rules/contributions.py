"""How much each input position contributes to each output position of a convolution: `‖v̂_ij‖ = ‖W_ij a_i‖`.

The work of one more convolution: `taps · C_in · C_out` products per position, as matrix products with the positions in
rows, so that the norm runs over contiguous numbers.
"""

from math import prod

import torch
from torch import Tensor

from ierf.rules.window import CONVOLUTION, Window

_CHUNK = {"cpu": 1 << 20}
_CHUNK_ELSEWHERE = 1 << 26
"""At most this many numbers of `v̂` at once: 4 MiB of float32 stay in a CPU's cache, 256 MiB keep a GPU busy."""


def contribution_norms(a: Tensor, weight: Tensor, window: Window) -> Tensor:
    """`‖v̂_ij‖` over the output channels, `(N, taps, *out)`; inputs outside the picture contribute 0.

    a: (N, C_in, *in). weight: (C_out, C_in / groups, *kernel).
    """
    n, channels, *size = a.shape
    if channels // window.groups <= 4:
        return window.gather(_root(_squares_by_gram(a, weight, window)))
    if set(window.stride) == {1}:
        return window.gather(norms_of_taps(a, _kernels(weight, window), window.groups))
    norms = _norms(window.patches(a), _kernels(weight, window), window.groups, 1)
    out = window.output_size(tuple(s + 2 * p for s, p in zip(size, window.padding, strict=True)))
    return norms.view(window.taps, n, *out).transpose(0, 1)


def norms_of_taps(a: Tensor, kernels: Tensor, groups: int) -> Tensor:
    """`‖W_k a_i‖` at each input position for each tap, `(N, taps, *in)`; kernels: (taps, C_out, C_in / groups)."""
    n, channels, *size = a.shape
    rows = a.flatten(2).transpose(1, 2).reshape(1, -1, channels)
    norms = _norms(rows, kernels.flatten(0, 1).unsqueeze(0), groups, len(kernels))
    return norms.view(n, prod(size), len(kernels)).mT.reshape(n, len(kernels), *size)


def _kernels(weight: Tensor, window: Window) -> Tensor:
    """(taps, C_out, C_in / groups)."""
    return weight.flatten(2).permute(2, 0, 1)


def _norms(rows: Tensor, kernels: Tensor, groups: int, taps: int) -> Tensor:
    """`‖W a‖` over all output channels, with the positions in rows.

    rows: (B, M, C_in). kernels: (B, taps · C_out, C_in / groups), tap by tap. Returns (B, M, taps).
    """
    b = len(rows)
    per_group = kernels.reshape(b, taps, groups, -1, kernels.shape[-1]).transpose(1, 2)
    matrices = per_group.reshape(b, groups, -1, kernels.shape[-1]).mT
    at_once = max(1, _CHUNK.get(rows.device.type, _CHUNK_ELSEWHERE) // (b * kernels.shape[1]))
    norms = []
    for some in torch.split(rows, at_once, 1):
        grouped = some.reshape(b, some.shape[1], groups, -1).transpose(1, 2)
        products = (grouped @ matrices).reshape(b, groups, some.shape[1], taps, -1)
        norms.append(torch.linalg.vector_norm(torch.linalg.vector_norm(products, dim=-1), dim=1))
    return torch.cat(norms, 1)


def _squares_by_gram(a: Tensor, weight: Tensor, window: Window) -> Tensor:
    """For few channels in a group (a stem, a depthwise convolution): `‖W_k a‖² = aᵀ (W_kᵀ W_k) a`, `(N, taps, *in)`.

    That is linear in the products of channels, so it is one 1×1 convolution with `taps` outputs.
    """
    n, c, *size = a.shape
    g, channels, taps = window.groups, c // window.groups, window.taps
    w = weight.reshape(g, -1, channels, taps)
    gram = torch.einsum("goit,gojt->tgij", w, w).reshape(taps, g * channels**2, *[1] * len(size))
    grouped = a.reshape(n, g, channels, *size)
    products = (grouped.unsqueeze(3) * grouped.unsqueeze(2)).reshape(n, g * channels**2, *size)
    return CONVOLUTION[len(size)](products, gram).clamp_min(0)


def _root(squares: Tensor) -> Tensor:
    """The square root with derivative 0, not ∞, at 0."""
    zero = squares == 0
    return squares.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)
