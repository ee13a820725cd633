"""The window of a convolution: moving scalars along it, and how much each input contributes, `‖v̂_ij‖ = ‖W_ij a_i‖`.

The norms are the work of one more convolution: `taps · C_in · C_out` products per position, as matrix products with the
positions in rows, so that the norm runs over contiguous numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

CONVOLUTION: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Window:
    """A sliding window, one number for each spatial axis. A tap is one cell of the kernel."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def pointwise(self) -> bool:
        """Every output position sees the one input position at the same place."""
        return self.taps == 1 and not any(self.padding) and set(self.stride) == {1}

    def pad(self, x: Tensor) -> Tensor:
        """`x` with the zeros that the convolution adds around its spatial axes, which come last."""
        return F.pad(x, [p for p in reversed(self.padding) for _ in range(2)]) if any(self.padding) else x

    def output_size(self, padded: tuple[int, ...]) -> tuple[int, ...]:
        geometry = zip(padded, self.kernel, self.stride, self.dilation, strict=True)
        return tuple((side - d * (k - 1) - 1) // s + 1 for side, k, s, d in geometry)

    def gather(self, maps: Tensor) -> Tensor:
        """`(N, taps, *in)` -> `(N, taps, *out)`: for output j and tap k, the k-th map at the input that j sees by k."""
        padded = self.pad(maps)
        padded = padded.reshape(len(maps), *self.kernel, *padded.shape[2:]).contiguous()
        n = len(self.kernel)
        batch, *strides = padded.stride()
        taps, spatial = strides[:n], strides[n:]
        size = (*self.kernel, *self.output_size(padded.shape[-n:]))
        steps = [t + d * s for t, d, s in zip(taps, self.dilation, spatial, strict=True)]
        steps += [s * stride for s, stride in zip(spatial, self.stride, strict=True)]
        view: Tensor = padded.as_strided((len(maps), *size), (batch, *steps))
        return view.flatten(1, n)

    def patches(self, x: Tensor) -> Tensor:
        """`(N, C, *in)` -> `(taps, N · out, C)`: the PFV that each output position sees by each tap."""
        n = len(self.kernel)
        padded = self.pad(x).movedim(1, -1).contiguous()
        batch, *spatial, channel = padded.stride()
        size = (*self.kernel, len(x), *self.output_size(padded.shape[1:-1]), x.shape[1])
        steps = [d * s for d, s in zip(self.dilation, spatial, strict=True)]
        steps += [batch, *(s * stride for s, stride in zip(spatial, self.stride, strict=True)), channel]
        return padded.as_strided(size, steps).flatten(0, n - 1).flatten(1, n + 1)

    def scatter(self, shares: Tensor, size: tuple[int, ...]) -> Tensor:
        """`(N, taps, *out)` -> `(N, 1, *in)`: every share goes back to the input that it came from and is summed."""
        n = len(self.kernel)
        if n == 3:
            return self._scatter_3d(shares, size)
        one = (1,) * (2 - n)
        none = (0,) * (2 - n)
        summed = F.fold(
            shares.flatten(2),
            (*one, *size),
            (*one, *self.kernel),
            (*one, *self.dilation),
            (*none, *self.padding),
            (*one, *self.stride),
        )
        return summed.reshape(len(shares), 1, *size)

    def _scatter_3d(self, shares: Tensor, size: tuple[int, ...]) -> Tensor:
        one_hot = torch.eye(self.taps, dtype=shares.dtype, device=shares.device).view(self.taps, 1, *self.kernel)
        geometry = zip(size, shares.shape[2:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        rest = [i - ((o - 1) * s - 2 * p + d * (k - 1) + 1) for i, o, k, s, p, d in geometry]
        return F.conv_transpose3d(shares, one_hot, None, self.stride, self.padding, rest, 1, self.dilation)


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
