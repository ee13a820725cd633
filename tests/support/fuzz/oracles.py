"""What the maps of a random network must be, by its program: two implementations that share nothing with the library.

Both answer to the words in which `operations` says an operation `by_hand`, on one picture (C, H, W):

* `SharingRatios` carries the part of each pixel in every PFV forwards: `P_pj = Σ_i v̂_ij iERF_i(p)`, and at an
  activation `iERF_j(p) = ⟨P_pj, v_j⟩ / ‖v_j‖²`. No gradient is taken.
* `Propositions` are AttnLRP's (`attnlrp_by_hand`): explicit shares of each operation's parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from support.attnlrp_by_hand import ByHand, Node, scale_and_shift
from support.fuzz.network import Built
from torch import Tensor, nn
from torch.nn import functional as F

Map = Callable[[Tensor], Tensor]


class LeavesOpenError(Exception):
    """The oracle has no unambiguous rule for a word."""


@dataclass(frozen=True, eq=False)
class Parts:
    """A map (C, H, W), and the part of every pixel in it (P, C, H, W)."""

    value: Tensor
    parts: Tensor
    opened: tuple[Map, Tensor | None, "Parts"] | None = None
    """The convolution that made the map, its bias and its input: a batch-norm that follows folds into it."""

    @property
    def fields(self) -> Tensor:
        """`iERF_j(p)` of every PFV, (P, H, W); zero where the PFV is."""
        square = self.value.square().sum(0)
        alive = square > square.max() * torch.finfo(square.dtype).eps ** 2
        return torch.where(alive, (self.parts * self.value).sum(1) / torch.where(alive, square, 1), 0)


class SharingRatios:
    """Sharing Ratio Decomposition, forwards."""

    def start(self, picture: Tensor) -> Parts:
        places = torch.eye(picture[0].numel(), dtype=torch.float64).view(-1, 1, *picture.shape[1:])
        return Parts(picture, picture * places)

    def plain(self, y: Parts, function: Map) -> Parts:
        return Parts(function(y.value[None])[0], function(y.parts))

    def affine(self, y: Parts, function: Map, bias: Tensor | None) -> Parts:
        """The bias at each output position goes to the inputs by the norms of their contributions."""
        value, parts = function(y.value[None])[0], function(y.parts)
        if bias is not None:
            places = torch.eye(y.value[0].numel(), dtype=torch.float64).view(-1, 1, *y.value.shape[1:])
            norms = function(y.value * places).norm(dim=1)
            total = norms.sum(0)
            shares = torch.where(total > 0, norms / torch.where(total > 0, total, 1), 0)
            field = torch.einsum("pi,ihw->phw", y.fields.flatten(1), shares)
            bias = bias.view(-1, 1, 1)
            value, parts = value + bias, parts + bias * field[:, None]
        return Parts(value, parts, (function, bias, y))

    def batch_norm(self, y: Parts, norm: nn.BatchNorm2d) -> Parts:
        scale, shift = scale_and_shift(norm)
        if y.opened is None:
            return self.shift(self.scale(y, scale[:, None, None]), shift[:, None, None], y.fields)
        function, bias, source = y.opened
        folded = shift if bias is None else shift + scale * bias.flatten()
        return replace(self.affine(source, lambda t: function(t) * scale[:, None, None], folded), opened=None)

    def activation(self, y: Parts, function: Map) -> Parts:
        value = function(y.value)
        return Parts(value, value * y.fields[:, None])

    def chosen(self, y: Parts, function: Map) -> Parts:
        origin = _origin(y.value, function)
        shape = function(y.value[None])[0].shape
        return Parts(y.value.flatten()[origin].view(shape), y.parts.flatten(1)[:, origin].view(-1, *shape))

    def scale(self, y: Parts, by: Tensor) -> Parts:
        return Parts(y.value * by, y.parts * by)

    gated = scale

    def shift(self, y: Parts, by: Tensor, fields: Tensor | None = None) -> Parts:
        """A shift stays on its own PFV: that which entered the operation."""
        by = (by[0] if by.ndim == 4 else by).expand_as(y.value)
        return Parts(y.value + by, y.parts + by * (y.fields if fields is None else fields)[:, None])

    def layer_norm(self, y: Parts, norm: nn.LayerNorm) -> Parts:
        centred = self.plain(y, lambda t: t - t.mean(1, keepdim=True))
        deviation = (y.value.var(0, correction=0, keepdim=True) + norm.eps).sqrt()
        scaled = self.scale(centred, norm.weight[:, None, None] / deviation)
        return self.shift(scaled, norm.bias[:, None, None], y.fields)

    def add(self, y: Parts, z: Parts) -> Parts:
        return Parts(y.value + z.value, y.parts + z.parts)

    def beside(self, maps: Sequence[Parts]) -> Parts:
        return Parts(torch.cat([m.value for m in maps]), torch.cat([m.parts for m in maps], 1))

    def pooled(self, y: Parts, head: nn.Linear) -> Tensor:
        """The map of class 0, (P,): Φ_i = ⟨w, A_i⟩ / HW (Eq. 6)."""
        phi = torch.einsum("c,chw->hw", head.weight[0], y.value) / y.value[0].numel()
        return torch.einsum("phw,hw->p", y.fields, phi)


class Propositions:
    """AttnLRP with the ε-rule everywhere."""

    def start(self, picture: Tensor) -> Node:
        self.hand = ByHand()
        return self.hand.picture(picture)

    def plain(self, y: Node, function: Map) -> Node:
        return self.affine(y, function, None)

    def affine(self, y: Node, function: Map, bias: Tensor | None) -> Node:
        return self.hand.affine(y, function, bias)

    def batch_norm(self, y: Node, norm: nn.BatchNorm2d) -> Node:
        return self.hand.batch_norm(y, norm)

    def activation(self, y: Node, function: Map) -> Node:
        out = self.hand.activation(y, function)
        if function(torch.zeros_like(y.value)).any() and (out.value == 0).any():
            raise LeavesOpenError  # the parts f(0) and f(x) − f(0) of an output of 0
        return out

    def chosen(self, y: Node, function: Map) -> Node:
        origin, shape = _origin(y.value, function), function(y.value[None])[0].shape
        return self.hand.move(y, lambda t: t.flatten()[origin].view(shape))

    def scale(self, y: Node, by: Tensor) -> Node:
        return self.hand.scale(y, by.detach())

    def gated(self, y: Node, by: Tensor) -> Node:
        raise LeavesOpenError

    def shift(self, y: Node, by: Tensor) -> Node:
        return self.hand.shift(y, by.detach()[0] if by.ndim == 4 else by.detach())

    def layer_norm(self, y: Node, norm: nn.LayerNorm) -> Node:
        last = self.hand.move(y, lambda t: t.movedim(0, -1))
        return self.hand.move(self.hand.layer_norm(last, norm), lambda t: t.movedim(-1, 0))

    def add(self, y: Node, z: Node) -> Node:
        return self.hand.add(y, z)

    def beside(self, maps: Sequence[Node]) -> Node:
        return self.hand.cat(maps)

    def pooled(self, y: Node, head: nn.Linear) -> Tensor:
        average = self.hand.mean(self.hand.move(y, lambda t: t.flatten(1).T))
        return self.hand.relevances(self.hand.dense(average, head), 0).map.flatten()


def by_hand(built: Built, oracle: SharingRatios | Propositions, sample: int) -> Tensor | None:
    """The map of class 0 for one picture, (H, W); None where the program has a word that leaves it open."""
    if built.by_hand is None:
        return None
    state: dict[str, Any] = {"hand": oracle, "y": oracle.start(built.x[sample]), "self": built.net}
    with torch.no_grad():
        try:
            exec("\n".join(built.by_hand), state | {"torch": torch, "nn": nn, "F": F, "bare": bare}, state)
        except LeavesOpenError:
            return None
    result: Tensor = state["y"]
    return result.view(built.x.shape[2:])


def bare(module: nn.Module) -> Map:
    """A convolution without its bias, on a batch or one map."""

    def function(t: Tensor) -> Tensor:
        weight = module.get_parameter("weight")
        if isinstance(module, nn.ConvTranspose2d):
            return F.conv_transpose2d(
                t, weight, None, module.stride, module.padding, module.output_padding, module.groups
            )
        assert isinstance(module, nn.Conv2d)
        return F.conv2d(t, weight, None, module.stride, module.padding, module.dilation, module.groups)  # type: ignore[arg-type]

    return function


def _origin(value: Tensor, function: Map) -> Tensor:
    """Where each element of `function(value)` comes from, by value; the values are all different."""
    out = function(value[None])[0].flatten()
    return (value.flatten() == out[:, None]).to(torch.int8).argmax(1)
