"""Sharing Ratio Decomposition straight from its formulas, forwards, by loops: slow, in float64, without autograd.

A network is a list of steps. For every PFV `v_j` the part that each PFV `i` of an earlier activation put into it is
carried along as an explicit vector `v̂_ij`, and so is the part of every bias. From these come, without any gradient,

    μ_ij = ⟨v̂_ij, v_j⟩ / ‖v_j‖²        iERF_j = Σ_i μ_ij iERF_i

with one-hot maps at the pixels, and for a bias the share `⟨b̂_j, v_j⟩ / ‖v_j‖²`, split among the inputs of its
operation. A PFV that is zero holds no relevance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Step:
    """One operation: a module, "add" or "cat", and the names of the steps that it takes ("x" is the picture)."""

    name: str
    what: nn.Module | str
    sources: tuple[str, ...]


class Wired(nn.Module):
    """A network made of steps; the last one is a map whose positions are averaged and classified by `head`."""

    def __init__(self, steps: Sequence[Step], head: nn.Linear) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.head = head
        for step in steps:
            self.add_module(step.name, step.what if isinstance(step.what, nn.Module) else _JOINS[step.what]())

    def forward(self, x: Tensor) -> Tensor:
        values = {"x": x}
        for step in self.steps:
            values[step.name] = getattr(self, step.name)(*(values[s] for s in step.sources))
        logits: Tensor = self.head(values[self.steps[-1].name].mean((2, 3)))
        return logits


class _Add(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class _Cat(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], 1)


_JOINS = {"add": _Add, "cat": _Cat}
_ACTIVATIONS: dict[type[nn.Module], Callable[[Array], Array]] = {
    nn.ReLU: lambda v: np.maximum(v, 0),
    nn.LeakyReLU: lambda v: np.where(v > 0, v, 0.01 * v),
    nn.Tanh: np.tanh,
    nn.SiLU: lambda v: v / (1 + np.exp(-v)),
    nn.ELU: lambda v: np.where(v > 0, v, np.exp(np.minimum(v, 0)) - 1),
}


@dataclass
class BiasPart:
    """What one operation's bias contributes to a map, and who inherits it."""

    operation_input: str
    shares: Array
    """(positions of the operation's output, positions of its input); rows sum to 1, or 0 where no input acts."""
    parts: Array
    """(positions of the operation's output, C, H, W): the part of the bias at that position in the present map."""


@dataclass
class Map:
    """The values of a step (C, H, W) and who contributed what to them since the last activations."""

    values: Array
    parts: dict[str, Array] = field(default_factory=dict)
    """Earlier activation -> (its positions, C, H, W): `v̂_ij` for every i (first axis) and j (last two)."""
    biases: list[BiasPart] = field(default_factory=list)

    def sharing_ratios(self, parts: Array) -> Array:
        """`⟨part, v_j⟩ / ‖v_j‖²` as (number of parts, positions), 0 at positions that are silent."""
        v = self.values.reshape(len(self.values), -1)
        square = (v**2).sum(0)
        along = (parts.reshape(len(parts), *v.shape) * v).sum(1)
        return np.divide(along, square, out=np.zeros_like(along), where=square > 0)


def _positions(values: Array) -> int:
    return int(np.prod(values.shape[1:]))


def _identity_parts(values: Array) -> Array:
    """Every PFV as the part of itself: (P, C, H, W) with position p's vector at p and zeros elsewhere."""
    c, h, w = values.shape
    parts = np.zeros((h * w, c, h, w))
    for p, (i, j) in enumerate(product(range(h), range(w))):
        parts[p, :, i, j] = values[:, i, j]
    return parts


def _array(tensor: Tensor | None, size: int = 0) -> Array:
    return np.zeros(size) if tensor is None else tensor.detach().double().numpy()


def _dense_kernel(conv: nn.Conv2d) -> Array:
    """The kernel (C_out, C_in, kh, kw) of a grouped convolution, with zeros between groups."""
    w = _array(conv.weight)
    out, inner = w.shape[0] // conv.groups, w.shape[1]
    dense = np.zeros((w.shape[0], inner * conv.groups, *w.shape[2:]))
    for g in range(conv.groups):
        dense[g * out : (g + 1) * out, g * inner : (g + 1) * inner] = w[g * out : (g + 1) * out]
    return dense


def _taps(conv: nn.Conv2d, size: tuple[int, ...]) -> tuple[int, int, list[tuple[int, int, int, int, int, int]]]:
    """Height and width of the output, and (y, x, ky, kx, i, j): output position (y, x) sees input (i, j) by (ky, kx).

    Only inputs inside the picture are listed.
    """
    (kh, kw), (sh, sw), (dh, dw) = conv.kernel_size, conv.stride, conv.dilation
    ph, pw = conv.padding  # type: ignore[misc]
    height = (size[0] + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    width = (size[1] + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    found = []
    for y, x, ky, kx in product(range(height), range(width), range(kh), range(kw)):
        i, j = y * sh - ph + ky * dh, x * sw - pw + kx * dw
        if 0 <= i < size[0] and 0 <= j < size[1]:
            found.append((y, x, ky, kx, i, j))
    return height, width, found


def _norm_of(module: nn.Module) -> tuple[Array, Array]:
    """A batch-norm in evaluation mode as scale and shift."""
    assert isinstance(module, nn.BatchNorm2d)
    mean, var = _array(module.running_mean), _array(module.running_var)
    scale = _array(module.weight) / np.sqrt(var + module.eps)
    return scale, _array(module.bias) - mean * scale


def _linearly(source: Map, function: Callable[[Array], Array]) -> Map:
    """A map through a function that is linear and works on (…, C, H, W)."""
    return Map(
        function(source.values),
        {name: function(parts) for name, parts in source.parts.items()},
        [BiasPart(b.operation_input, b.shares, function(b.parts)) for b in source.biases],
    )


def _with_bias(out: Map, bias: Array, source_name: str, shares: Array) -> Map:
    if bias.any():
        everywhere = np.broadcast_to(bias[:, None, None], out.values.shape)
        out.values = out.values + everywhere
        out.biases = [*out.biases, BiasPart(source_name, shares, _identity_parts(everywhere))]
    return out


def _convolve(conv: nn.Conv2d, scale: Array, shift: Array, name: str, source: Map, bias_mode: str) -> Map:
    """The convolution, multiplied by `scale` and shifted, with its bias shared among its own inputs."""
    kernel = _dense_kernel(conv) * scale[:, None, None, None]
    bias = shift + scale * _array(conv.bias, len(kernel))
    height, width, taps = _taps(conv, source.values.shape[1:])

    def function(a: Array) -> Array:
        out = np.zeros((*a.shape[:-3], len(kernel), height, width))
        for y, x, ky, kx, i, j in taps:
            out[..., y, x] += a[..., i, j] @ kernel[:, :, ky, kx].T
        return out

    weights = np.zeros((height * width, _positions(source.values)))
    for y, x, ky, kx, i, j in taps:
        contribution = kernel[:, :, ky, kx] @ source.values[:, i, j]
        weight = {"norm": float(np.linalg.norm(contribution)), "uniform": 1.0, "drop": 0.0}[bias_mode]
        weights[y * width + x, i * source.values.shape[2] + j] += weight
    total = weights.sum(1, keepdims=True)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return _with_bias(_linearly(source, function), bias, name, shares)


def _pool(module: nn.AvgPool2d | nn.MaxPool2d, source: Map) -> Map:
    """Average, or the winners of the values, also for every part."""
    kernel, stride, padding = (
        int(n if isinstance(n, int) else n[0]) for n in (module.kernel_size, module.stride, module.padding)
    )
    _, h, w = source.values.shape
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (h, w))

    def cells(y: int, x: int) -> list[tuple[int, int]]:
        window = product(range(kernel), range(kernel))
        places = [(y * stride - padding + i, x * stride - padding + j) for i, j in window]
        return [(i, j) for i, j in places if 0 <= i < h and 0 <= j < w]

    def function(a: Array) -> Array:
        out = np.zeros((*a.shape[:-2], height, width))
        for y, x in product(range(height), range(width)):
            for c in range(a.shape[-3]):
                if isinstance(module, nn.AvgPool2d):
                    out[..., c, y, x] = sum(a[..., c, i, j] for i, j in cells(y, x)) / kernel**2
                else:
                    i, j = max(cells(y, x), key=lambda place: source.values[c, place[0], place[1]])
                    out[..., c, y, x] = a[..., c, i, j]
        return out

    return _linearly(source, function)


def _joined(first: Map, second: Map, how: str) -> Map:
    """Two maps added, or put side by side on the channel axis."""
    if how == "cat":
        before, after = len(first.values), len(second.values)
        first = _linearly(first, lambda a: np.concatenate([a, np.zeros((*a.shape[:-3], after, *a.shape[-2:]))], -3))
        second = _linearly(second, lambda a: np.concatenate([np.zeros((*a.shape[:-3], before, *a.shape[-2:])), a], -3))
    parts = dict(first.parts)
    for name, more in second.parts.items():
        parts[name] = parts[name] + more if name in parts else more
    return Map(first.values + second.values, parts, first.biases + second.biases)


class BruteForce:
    """All maps of one picture (3, H, W), and the iERFs of all their PFVs, by the formulas."""

    def __init__(self, net: Wired, picture: Tensor, bias: str = "norm") -> None:
        self.net, self.bias = net, bias
        pixels = _array(picture)
        self.maps = {"x": Map(pixels, {"x": _identity_parts(pixels)})}
        self._folded: dict[str, tuple[nn.Conv2d, str]] = {}
        for step in net.steps:
            self.maps[step.name] = self._run(step)

    def _run(self, step: Step) -> Map:
        what, sources = step.what, [self.maps[s] for s in step.sources]
        name, source = step.sources[0], sources[0]
        if isinstance(what, str):
            return _joined(source, sources[1], what)
        if isinstance(what, nn.Conv2d):
            self._folded[step.name] = (what, name)
            return _convolve(what, np.ones(what.out_channels), np.zeros(what.out_channels), name, source, self.bias)
        if isinstance(what, nn.BatchNorm2d):
            scale, shift = _norm_of(what)
            if name in self._folded:
                conv, before = self._folded[name]
                return _convolve(conv, scale, shift, before, self.maps[before], self.bias)
            own = np.eye(_positions(source.values)) * (self.bias != "drop")
            return _with_bias(_linearly(source, lambda a: a * scale[:, None, None]), shift, name, own)
        if isinstance(what, nn.AvgPool2d | nn.MaxPool2d):
            return _pool(what, source)
        values = _ACTIVATIONS[type(what)](source.values)
        return Map(values, {step.name: _identity_parts(values)})

    def sharing(self, layer: str, base: str = "x") -> Array:
        """`iERF_j` of every PFV of `layer` in terms of the PFVs of `base`: (P of base, P of layer), Eq. 2."""
        known: dict[str, Array] = {}
        count = _positions(self.maps[base].values)

        def ratios(name: str) -> Array:
            if name not in known:
                alive = (self.maps[name].values ** 2).sum(0).reshape(-1) > 0
                known[name] = (np.eye(count) if name == base else within(name)) * alive
            return known[name]

        def within(name: str) -> Array:
            here = self.maps[name]
            activation = next((s for s in self.net.steps if s.name == name and name in here.parts), None)
            if activation is not None:
                return ratios(activation.sources[0])
            if name == "x":
                return np.zeros((count, _positions(here.values)))
            total = np.zeros((count, _positions(here.values)))
            for source, parts in here.parts.items():
                total += ratios(source) @ here.sharing_ratios(parts)
            for part in here.biases:
                total += ratios(part.operation_input) @ part.shares.T @ here.sharing_ratios(part.parts)
            return total

        return ratios(layer)

    def ierfs(self, layer: str) -> Array:
        """(P, H, W): the iERF of every PFV of a layer."""
        return self.sharing(layer).T.reshape(-1, *self.maps["x"].values.shape[1:])

    def carried(self, layer: str, relevance: Array, base: str = "x") -> Array:
        """Relevance (H, W) at a layer as it arrives at `base`: `Σ_j R_j iERF_j`."""
        return (self.sharing(layer, base) @ relevance.reshape(-1)).reshape(self.maps[base].values.shape[1:])

    def bias_relevance(self, layer: str, relevance: Array) -> float:
        """What the biases between the pixels and a layer take from a relevance map; what `drop` loses."""
        return float(relevance.sum() - self.carried(layer, relevance).sum())

    def final_ratio(self, index: int, head: str) -> Array:
        """Eq. 5–6 with global average pooling and one linear layer: `α_k^c = w_ck / HW`."""
        encoder = self.maps[self.net.steps[-1].name].values
        phi = np.einsum("kc,chw->khw", _array(self.net.head.weight), encoder) / _positions(encoder)
        if head == "raw":
            return np.asarray(phi[index])
        centred = phi[index] - phi.mean(0)
        return np.maximum(centred, 0) if head == "clamped" else np.asarray(centred)
