"""The geometry of a convolution, and moving scalars along it."""

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
