"""Transposed convolutions: the bias of an output position is shared among the inputs that reach it.

Input i reaches output `j = s·i + d·k − p` by tap k with `v̂_ij = W_k a_i`. The norms `‖W_k a_i‖` are known at the
inputs, so that the sum over those that reach j is a transposed convolution of them with a one-hot kernel, and going
back to the inputs is the convolution with the same kernel. An output that no tap reaches (a stride wider than the
kernel) has no one to leave its bias to: that part leaks.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ierf.rules.bias import Affine
from ierf.rules.contributions import norms_of_taps
from ierf.rules.window import CONVOLUTION

_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class TransposedAffine(Affine):
    """A transposed convolution as it ran on `a`; `weight` is `(C_in, C_out / groups, *kernel)`."""

    output_padding: tuple[int, ...] = ()

    @property
    def kernel(self) -> Tensor:
        if self.scale is None:
            return self.weight
        per_group = self.scale.view(self._groups, 1, -1)
        weight = self.weight.reshape(self._groups, -1, *self.weight.shape[1:])
        return (weight * per_group.view(*per_group.shape, *[1] * (weight.ndim - 3))).view(self.weight.shape)

    def inherit(self, e: Tensor) -> Tensor:
        assert self.window is not None
        w, n = self.window, len(self.window.kernel)
        one_hot = torch.eye(w.taps, dtype=e.dtype, device=e.device).view(w.taps, 1, *w.kernel)
        size = self.a.shape[2:]
        if self.mode == "norm":
            norms = norms_of_taps(self.a, self._tap_by_tap(), w.groups)
        else:
            norms = torch.ones_like(self.a[:, :1]).expand(-1, w.taps, *size)
        reached = _TRANSPOSED[n](norms, one_hot, None, w.stride, w.padding, self.output_padding, 1, w.dilation)
        due = e / reached.masked_fill(reached == 0, torch.inf)
        back = CONVOLUTION[n](due, one_hot, None, w.stride, w.padding, w.dilation)
        for axis, side in enumerate(size, 2):
            back = back.narrow(axis, 0, side)
        return (norms * back).sum(1, keepdim=True)

    def _tap_by_tap(self) -> Tensor:
        """(taps, C_out, C_in / groups)."""
        weight = self.kernel.reshape(self._groups, -1, self.weight.shape[1], self.weight.shape[2:].numel())
        return weight.permute(3, 0, 2, 1).flatten(1, 2)

    @property
    def _groups(self) -> int:
        assert self.window is not None
        return self.window.groups
