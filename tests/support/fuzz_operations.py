"""The words of random networks: what each operation writes, in the spelling that is drawn and in its twin.

`y` is the map (N, C, H, W) before and after every operation; `s3` is a map that the word 3 has kept. Where the rules
leave no doubt about what is right, an operation says it once more in the words of the oracles: `hand` is one of
`fuzz_oracles`, and `y` its state.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

CHANGED = "# what shares memory with y is changed here"
"""In a twin: the place where maps that the in-place operation reaches get their new values."""


@dataclass(frozen=True)
class Draw:
    """What an operation is drawn from: its place in the program, its choices, the map's shape, earlier maps."""

    k: int
    rng: random.Random
    shape: tuple[int, int, int, int]
    saved: Mapping[str, tuple[int, ...]]

    def pick(self, choices: Sequence[Any]) -> Any:
        return self.rng.choice(choices)

    def __format__(self, spec: str) -> str:
        """A name of its own: `f"{d:m}"` is `m3`."""
        return f"{spec}{self.k}"


@dataclass(frozen=True)
class Lines:
    """One operation as source."""

    lines: tuple[str, ...]
    twin: tuple[str, ...] | None = None
    """The same function without in-place operations; None: these very lines, unless they mutate."""
    members: Mapping[str, str] = field(default_factory=dict)
    mutates: bool = False
    """Whether the map that enters is changed in place."""
    saves: tuple[str, ...] = ()
    by_hand: tuple[str, ...] | None = None


Operation = Callable[[Draw], Lines | None]


def one(line: str, twin: str | None = None, mutates: bool = False, by_hand: str | None = None, **members: str) -> Lines:
    """An operation of a line, whose lines are separated by semicolons."""
    split = partial(str.split, sep="; ")
    return Lines(
        tuple(split(line)),
        None if twin is None else tuple(split(twin)),
        members,
        mutates,
        (),
        None if by_hand is None else tuple(split(by_hand)),
    )


# Activations: the first spelling is the twin of all others; those with an exclamation mark change `y` in place.

ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "relu": (
        "F.relu(y)", "nn.ReLU()(y)", "!nn.ReLU(inplace=True)(y)", "torch.relu(y)", "y.relu()", "!y.relu_()",
        "!F.relu(y, inplace=True)", "!torch.relu_(y)", "torch.max(y, torch.zeros_like(y))", "y.clamp(min=0)",
        "torch.maximum(y, y.new_zeros(()))", "torch.clamp_min(y, 0)", "F.threshold(y, 0.0, 0.0)", "!y.clamp_(min=0)",
        "torch.where(y > 0, y, torch.zeros_like(y))", "y * (y > 0)", "y.masked_fill(y < 0, 0.0)",
        "!y.masked_fill_(y < 0, 0.0)", "torch.clip(y, min=0)", "F.hardtanh(y, 0.0, 1e9)", "F.leaky_relu(y, 0.0)",
    ),
    "silu": (
        "F.silu(y)", "nn.SiLU()(y)", "!nn.SiLU(inplace=True)(y)", "y * torch.sigmoid(y)", "torch.sigmoid(y) * y",
        "y.mul(y.sigmoid())", "!y.mul_(y.sigmoid())", "y / (1 + torch.exp(-y))", "torch.mul(y, y.sigmoid())",
        "y * y.clone().sigmoid_()",
    ),
    "gelu": ("F.gelu(y)", "nn.GELU()(y)", "0.5 * y * (1.0 + torch.erf(y / 1.4142135623730951))"),
    "gelu_tanh": (
        "F.gelu(y, approximate='tanh')",
        "0.5 * y * (1 + torch.tanh(0.7978845608028654 * (y + 0.044715 * torch.pow(y, 3))))",
    ),
    "quick_gelu": ("y * torch.sigmoid(1.702 * y)", "y * (1.702 * y).sigmoid()", "(1.702 * y).sigmoid().mul(y)"),
    "hardswish": (
        "F.hardswish(y)", "nn.Hardswish()(y)", "!nn.Hardswish(inplace=True)(y)", "y * F.relu6(y + 3) / 6",
        "y * F.hardsigmoid(y)", "y * (F.relu6(y + 3.0) / 6.0)",
    ),
    "mish": ("F.mish(y)", "nn.Mish()(y)", "y * torch.tanh(F.softplus(y))", "y.mul(F.softplus(y).tanh())"),
    "leaky_relu": (
        "F.leaky_relu(y, 0.1)", "nn.LeakyReLU(0.1)(y)", "!nn.LeakyReLU(0.1, inplace=True)(y)", "torch.max(y, 0.1 * y)",
        "torch.where(y > 0, y, 0.1 * y)", "torch.maximum(0.1 * y, y)", "!F.leaky_relu_(y, 0.1)",
    ),
    "elu": ("F.elu(y)", "nn.ELU()(y)", "!F.elu(y, 1.0, True)", "!F.elu_(y)", "torch.where(y > 0, y, torch.expm1(y))"),
    "tanh": ("torch.tanh(y)", "nn.Tanh()(y)", "y.tanh()", "!y.tanh_()", "F.tanh(y)", "2 * torch.sigmoid(2 * y) - 1"),
    "sigmoid": ("torch.sigmoid(y)", "nn.Sigmoid()(y)", "y.sigmoid()", "!y.sigmoid_()", "1 / (1 + torch.exp(-y))"),
    "relu6": (
        "F.relu6(y)", "nn.ReLU6()(y)", "!nn.ReLU6(inplace=True)(y)", "y.clamp(0, 6)", "torch.clamp(y, 0, 6)",
        "F.hardtanh(y, 0.0, 6.0)", "torch.relu(y).clamp(max=6)", "!y.clamp_(0, 6)",
    ),
    "softplus": ("F.softplus(y)", "nn.Softplus()(y)", "torch.log1p(torch.exp(y))"),
    "square": ("torch.square(y)", "y ** 2", "y * y", "y.pow(2)", "torch.pow(y, 2)", "y.square()", "!y.pow_(2)"),
    "square_relu": ("F.relu(y) ** 2", "torch.square(F.relu(y))", "F.relu(y) * F.relu(y)", "torch.relu(y).pow(2)"),
    "softsign": ("F.softsign(y)", "nn.Softsign()(y)", "y / (1 + y.abs())"),
    "selu": ("F.selu(y)", "nn.SELU()(y)", "!nn.SELU(inplace=True)(y)", "!torch.selu_(y)"),
    "celu": ("F.celu(y)", "nn.CELU()(y)", "!torch.celu_(y)"),
    "softshrink": ("F.softshrink(y, 0.1)", "nn.Softshrink(0.1)(y)"),
    "tanhshrink": ("F.tanhshrink(y)", "nn.Tanhshrink()(y)", "y - torch.tanh(y)"),
    "hardsigmoid": ("F.hardsigmoid(y)", "nn.Hardsigmoid()(y)", "!nn.Hardsigmoid(inplace=True)(y)"),
}  # fmt: skip


def activation(name: str, d: Draw) -> Lines:
    spelling = d.pick(ACTIVATIONS[name])
    twin = ACTIVATIONS[name][0]
    return one(
        f"y = {spelling.lstrip('!')}",
        f"y = {twin}",
        spelling.startswith("!"),
        f"y = hand.activation(y, lambda y: {twin})",
    )


def prelu(d: Draw) -> Lines:
    slope = f"self.{d:w}"
    spelling = d.pick([f"F.prelu(y, {slope})", f"torch.prelu(y, {slope})"])
    return one(
        f"y = {spelling}", by_hand=f"y = hand.activation(y, lambda y: F.prelu(y[None], self.{d:w})[0])",
        **{f"{d:w}": f"nn.Parameter(torch.rand({d.shape[1]}))"},
    )  # fmt: skip


# Operations with weights


def convolution(d: Draw) -> Lines:
    """Kernels, strides, dilation, groups, padding in every mode."""
    c, kernel, groups = d.shape[1], d.pick([1, 2, 3, (1, 3), (3, 2)]), 1
    out = d.pick([2, 3, 4, 6])
    if d.rng.random() < 0.3:
        groups, out = c, c * d.pick([1, 2])
    settings = f"{c}, {out}, {kernel}, stride={d.pick([1, 1, 1, 2, (2, 1)])}, padding={d.pick([0, 1, 1, 1, (1, 0)])}"
    settings += f", dilation={d.pick([1, 1, 1, 2])}, groups={groups}, bias={d.rng.random() < 0.7}"
    mode = d.pick(["zeros"] * 4 + ["reflect", "replicate", "circular"])
    if any(_size(side, settings) < 2 for side in d.shape[2:]):
        return None  # type: ignore[return-value]
    name = f"{d:conv}"
    hand = f"y = hand.affine(y, lambda y: bare(self.{name})(y), self.{name}.bias)" if mode == "zeros" else None
    lines = one(f"y = self.{name}(y)", by_hand=hand, **{name: f"nn.Conv2d({settings}, padding_mode='{mode}')"})
    if mode == "zeros" and d.rng.random() < 0.3:
        m = f"self.{name}"
        call = f"F.conv2d(y, {m}.weight, {m}.bias, {m}.stride, {m}.padding, {m}.dilation, {m}.groups)"
        return Lines((f"y = {call}",), lines.lines, lines.members, by_hand=lines.by_hand)
    return lines


def _size(side: int, settings: str) -> int:
    """A lower bound of the side that a convolution leaves, whatever the direction."""
    read = dict(part.split("=") for part in settings.replace("(", "").replace(")", "").split(", ") if "=" in part)
    stride, dilation = int(read["stride"][0]), int(read["dilation"])
    return (side - dilation * 2 - 1) // stride + 1


def transposed_convolution(d: Draw) -> Lines | None:
    c, (h, w) = d.shape[1], d.shape[2:]
    if h * w > 100:
        return None
    kernel, stride = d.pick([(2, 2), (3, 2), (3, 1), (4, 2), (3, 3)])
    settings = f"{c}, {d.pick([2, 3, 4])}, {kernel}, stride={stride}, padding={d.pick([0, 1])}, bias={d.pick([0, 1, 1])}"
    name = f"{d:up}"
    return one(
        f"y = self.{name}(y)", by_hand=f"y = hand.affine(y, lambda y: bare(self.{name})(y), self.{name}.bias)",
        **{name: f"nn.ConvTranspose2d({settings})"},
    )  # fmt: skip


def pointwise(d: Draw) -> Lines:
    """A linear layer at each position, in the spellings of channels-last code."""
    c, out, w, b = d.shape[1], d.pick([2, 3, 4]), f"self.{d:w}", f"self.{d:b}"
    conv = f"y = F.conv2d(y, {w}[:, :, None, None], {b})"
    last = "y.permute(0, 2, 3, 1)"
    spelling = d.pick([
        conv,
        f"y = F.linear({last}, {w}, {b}).permute(0, 3, 1, 2)",
        f"y = F.linear(y.movedim(1, -1), {w}, {b}).movedim(-1, 1).contiguous()",
        f"y = ({last} @ {w}.T + {b}).permute(0, 3, 1, 2)",
        f"y = torch.einsum('nchw,dc->ndhw', y, {w}) + {b}[:, None, None]",
        f"y = torch.einsum('dc,nchw->nhwd', {w}, y).permute(0, 3, 1, 2) + {b}.view(1, -1, 1, 1)",
        f"y = torch.tensordot({last}, {w}, dims=([3], [1])).add({b}).permute(0, 3, 1, 2)",
        f"y = torch.tensordot({w}, y, dims=([1], [1])).transpose(0, 1) + {b}.view(-1, 1, 1)",
        f"y = (torch.matmul({w}, y.flatten(2)) + {b}[:, None]).view(len(y), -1, *y.shape[2:])",
        f"y = F.conv1d(y.flatten(2), {w}[:, :, None], {b}).unflatten(2, y.shape[2:])",
        f"t = torch.addmm({b}, {last}.reshape(-1, {c}), {w}.t()); "
        f"y = t.view(len(y), *y.shape[2:], -1).permute(0, 3, 1, 2)",
        f"y = torch.baddbmm({b}[None, :, None], {w}.expand(len(y), -1, -1), y.flatten(2)).unflatten(2, y.shape[2:])",
        f"y = torch.stack([F.linear(z.permute(1, 2, 0), {w}, {b}).permute(2, 0, 1) for z in y])",
    ])  # fmt: skip
    hand = f"y = hand.affine(y, lambda y: F.conv2d(y, {w}[:, :, None, None]), {b})"
    return one(spelling, conv, by_hand=hand, **{f"{d:w}": f"torch.randn({out}, {c})", f"{d:b}": f"torch.randn({out})"})


def unfolded_convolution(d: Draw) -> Lines:
    """A convolution as a product with the patches."""
    c, w, conv = d.shape[1], f"self.{d:w}", f"self.{d:w}.unflatten(1, (-1, 3, 3))"
    spelling = d.pick([
        f"y = ({w} @ F.unfold(y, 3, padding=1)).unflatten(2, y.shape[2:])",
        f"y = torch.einsum('dk,nkl->ndl', {w}, F.unfold(y, 3, padding=1)).view(len(y), -1, *y.shape[2:])",
        f"y = torch.einsum('ncijxy,dcxy->ndij', F.pad(y, (1,) * 4).unfold(2, 3, 1).unfold(3, 3, 1), {conv})",
    ])  # fmt: skip
    return one(
        spelling, f"y = F.conv2d(y, {conv}, padding=1)",
        by_hand=f"y = hand.plain(y, lambda y: F.conv2d(y, {conv}, padding=1))",
        **{f"{d:w}": f"torch.randn({d.pick([2, 3])}, {9 * c}) / 4"},
    )  # fmt: skip


def batch_norm(d: Draw) -> Lines:
    m = f"self.{d:bn}"
    spelling = d.pick([
        f"y = {m}(y)", f"y = {m}(y)",
        f"y = F.batch_norm(y, {m}.running_mean, {m}.running_var, {m}.weight, {m}.bias, False, 0.0, {m}.eps)",
    ])  # fmt: skip
    return one(
        spelling, f"y = {m}(y)", by_hand=f"y = hand.batch_norm(y, {m})", **{f"{d:bn}": f"nn.BatchNorm2d({d.shape[1]})"}
    )


def layer_norm(d: Draw) -> Lines:
    c, m = d.shape[1], f"self.{d:ln}"
    mean, scale = "y.mean(1, keepdim=True)", f"{m}.weight[:, None, None]"
    shift, var = f"{m}.bias[:, None, None]", "y.var(1, correction=0, keepdim=True)"
    twin, hand = f"y = {m}(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)", f"y = hand.layer_norm(y, {m})"
    spelling = d.pick([
        twin, f"y = F.layer_norm(y.permute(0, 2, 3, 1), ({c},), {m}.weight, {m}.bias, {m}.eps).permute(0, 3, 1, 2)",
        f"y = torch.stack([{m}(z.movedim(0, -1)) for z in y]).movedim(-1, 1)",
    ])  # fmt: skip
    if d.rng.random() < 0.5:  # written out, the shift is an operation of its own
        twin, hand = f"y = (y - {mean}) / torch.sqrt({var} + {m}.eps) * {scale} + {shift}", ""
        spelling = d.pick([
            twin,
            f"u = {mean}; t = (y - u).pow(2).mean(1, keepdim=True); "
            f"y = {scale} * ((y - u) / torch.sqrt(t + {m}.eps)) + {shift}",
            f"t = torch.var_mean(y, 1, correction=0, keepdim=True); "
            f"y = (y - t[1]) * torch.rsqrt(t[0] + {m}.eps) * {scale} + {shift}",
        ])  # fmt: skip
    return one(spelling, twin, by_hand=hand or None, **{f"{d:ln}": f"nn.LayerNorm({c})"})


def rms_norm(d: Draw) -> Lines:
    c, g = d.shape[1], f"self.{d:g}"
    twin = f"y = F.rms_norm(y.movedim(1, -1), ({c},), {g}, 1e-6).movedim(-1, 1)"
    spelling = d.pick([
        twin,
        f"y = y * torch.rsqrt(y.pow(2).mean(1, keepdim=True) + 1e-6) * {g}[:, None, None]",
        f"y = {g}.view(-1, 1, 1) * (y / (y.square().mean(1, keepdim=True) + 1e-6).sqrt())",
    ])  # fmt: skip
    hand = f"y = hand.scale(y, (y.square().mean(0, keepdim=True) + 1e-6).rsqrt() * {g}[:, None, None])"
    return one(spelling, twin, by_hand=hand.replace("(y.square", "(y.value.square"), **{f"{d:g}": f"torch.rand({c}) + 0.5"})


def unit_norm(d: Draw) -> Lines:
    twin = "y = F.normalize(y, dim=1)"
    spelling = d.pick([
        twin, "y = y / y.norm(dim=1, keepdim=True)", "y = y / torch.linalg.vector_norm(y, dim=1, keepdim=True)",
        "y = y / y.norm(p=2, dim=1, keepdim=True).clamp_min(1e-12)", "y = y / y.pow(2).sum(1, keepdim=True).sqrt()",
    ])  # fmt: skip
    return one(spelling, twin, by_hand="y = hand.scale(y, 1 / y.value.norm(dim=0, keepdim=True))")


def group_norm(d: Draw) -> Lines:
    c, m = d.shape[1], f"self.{d:gn}"
    made = d.pick([f"nn.GroupNorm(1, {c})", f"nn.GroupNorm({c}, {c})", f"nn.InstanceNorm2d({c}, affine=True)",
                   f"nn.InstanceNorm2d({c})", f"nn.LocalResponseNorm(3)"])  # fmt: skip
    return one(f"y = {m}(y)", **{f"{d:gn}": made})


def response_norm(d: Draw) -> Lines:
    """Global response normalisation of ConvNeXt V2."""
    g, b = f"self.{d:g}[:, None, None]", f"self.{d:b}[:, None, None]"
    c = d.shape[1]
    return one(
        f"g = torch.norm(y, p=2, dim=(2, 3), keepdim=True); y = y + {g} * (y * (g / (g.mean(1, keepdim=True) + 1e-6))) + {b}",
        **{f"{d:g}": f"torch.randn({c})", f"{d:b}": f"torch.randn({c})"},
    )


# Moving, choosing, averaging

SAME = (
    "y.view(len(y), y.shape[1], -1).view(y.shape)", "y.flatten(2).unflatten(2, y.shape[2:])",
    "y.permute(0, 2, 3, 1).permute(0, 3, 1, 2)", "y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)",
    "y.transpose(1, 2).transpose(1, 2)", "torch.cat(y.chunk(2, 1), 1)", "torch.cat(torch.split(y, 1, 1), dim=1)",
    "torch.stack(y.unbind(1), 1)", "torch.stack([z for z in y])", "torch.cat([z[None] for z in y])",
    "torch.stack([y[i] for i in range(len(y))])", "y[:, torch.arange(y.shape[1])]", "y.expand(y.shape)", "y[...]",
    "y.clone()", "y.contiguous()", "F.dropout(y, 0.3, training=False)", "nn.Dropout(0.5).eval()(y)",
    "nn.Dropout2d(0.5, inplace=True).eval()(y)", "y.reshape(-1, *y.shape[2:]).reshape(y.shape)",
    "y.movedim(1, -1).movedim(-1, 1)", "y.mT.mT", "y.swapaxes(2, 3).swapaxes(2, 3)", "y.unsqueeze(2).squeeze(2)",
    "y.flip(3).flip(3)", "torch.roll(torch.roll(y, 1, 2), -1, 2)", "F.fold(F.unfold(y, 1), y.shape[2:], 1)",
    "y.type_as(x)", "y.to(x.dtype)", "y.to(x)", "y.double()", "y.view_as(y)", "y.expand_as(y)", "y.cpu()",
    "torch.broadcast_tensors(y, x.new_zeros(1))[0]", "nn.Identity()(y)", "torch.concat([y[:, :1], y[:, 1:]], 1)",
    "torch.hstack([y[:, :1], y[:, 1:]])", "torch.cat([y[:, :, :2], y[:, :, 2:]], 2)", "y.narrow(2, 0, y.shape[2])",
    "y.flatten().view(y.shape)", "torch.atleast_3d(y)", "y.reshape_as(y)", "torch.stack([y, y]).mean(0)", "y.mul(1)",
    "torch.vstack(y.split(1))", "y.index_select(1, torch.arange(y.shape[1]))", "y.positive()", "+y", "-(-y)",
    "torch.stack((y, y * 2), -1).select(-1, 0)", "torch.unflatten(y.ravel(), 0, y.shape)", "y.squeeze(-5 + 4 - 1)",
    "torch.gather(y, 1, torch.arange(y.shape[1]).view(1, -1, 1, 1).expand(y.shape))", "y.as_strided(y.shape, y.stride())",
    "y.view(y.dtype)", "torch.Tensor.contiguous(y, memory_format=torch.channels_last)", "y.masked_select(y == y).view(y.shape)",
    "y[y == y].view(y.shape)", "torch.einsum('nchw->nhwc', y).permute(0, 3, 1, 2)", "torch.dstack(y.split(1, 2))",
    "torch.block_diag(y.flatten())[0].view(y.shape)", "y.repeat(1, 2, 1, 1)[:, : y.shape[1]]", "torch.moveaxis(torch.moveaxis(y, 1, 3), 3, 1)",
    "torch.index_add(torch.zeros_like(y), 1, torch.arange(y.shape[1]), y)", "torch.zeros_like(y).index_copy(1, torch.arange(y.shape[1]), y)",
    "torch.zeros_like(y).scatter_add(0, torch.arange(len(y)).view(-1, 1, 1, 1).expand(y.shape), y)",
    "y + 0", "torch.add(0, y)", "y.where(y == y, 0)", "torch.take_along_dim(y, torch.arange(len(y)).view(-1, 1, 1, 1), 0)",
    "torch.nan_to_num(y)", "y.diff(dim=2, prepend=torch.zeros_like(y[:, :, :1])).cumsum(2)",
)  # fmt: skip
"""Spellings of the identity."""


def same(d: Draw) -> Lines | None:
    spelling = d.pick(SAME)
    return one(f"y = {spelling}", "y = y * 1.0", by_hand="y = hand.plain(y, lambda y: y * 1.0)")


MOVES = (
    "y[:, :, ::2]", "y[..., 1:]", "y[:, :, 1:-1, 1:]", "y.flip(3)", "torch.flip(y, (2, 3))", "torch.roll(y, 1, 3)",
    "torch.roll(y, (1, 2), (2, 3))", "y.transpose(2, 3)", "y.mT", "y.rot90(1, (2, 3))", "y.repeat(1, 2, 1, 1)", "y[:, [1, 0]]",
    "y.tile((1, 1, 1, 2))", "y.repeat_interleave(2, 1)", "y.index_select(1, torch.tensor([1, 0]))", "y[:, -1:]",
    "F.interpolate(y, scale_factor=2)", "F.pad(y, (1, 0, 2, 1))", "F.pad(y, (1, 1, 1, 1), mode='reflect')",
    "F.pad(y, (1, 1, 0, 0), mode='circular')", "F.pad(y, (1, 1, 1, 1), mode='replicate')", "nn.ReflectionPad2d(1)(y)",
    "F.channel_shuffle(y, y.shape[1])", "torch.cat([y, y.flip(1)], 1)", "y.select(1, 0).unsqueeze(1)", "y[:, 0][:, None]",
    "y[:, None, 0]", "torch.stack([y[:, 0], y[:, 1]], 1)", "y.unbind(1)[0][:, None]", "torch.cat([y[..., ::2], y[..., 1::2]], -1)",
    "nn.ZeroPad2d(1)(y)", "y.unfold(2, 2, 2).select(-1, 0)", "y[:, :, torch.arange(2)]", "y.narrow(3, 1, 3)", "torch.tril(y)",
    "y[:, (0,)]", "y.swapdims(2, 3)", "y.chunk(2, 3)[1]", "y.split([1, y.shape[1] - 1], 1)[1]", "y.tensor_split(2, 2)[0]",
)  # fmt: skip
"""Elements that are moved, copied or left out."""


def move(d: Draw) -> Lines | None:
    spelling = d.pick(MOVES)
    if "[1, 0]" in spelling and d.shape[1] < 2 or d.shape[1] < 2 or d.shape[2] * d.shape[3] > 220 or min(d.shape[2:]) < 4:
        return None
    return one(f"y = {spelling}", by_hand=f"y = hand.plain(y, lambda y: {spelling})")


AVERAGES = (
    "F.avg_pool2d(y, 2)", "F.avg_pool2d(y, 3, 1, 1)", "F.avg_pool2d(y, 3, 2, 1, count_include_pad=False)",
    "nn.AvgPool2d(2, ceil_mode=True)(y)", "F.adaptive_avg_pool2d(y, (3, 2))", "nn.AdaptiveAvgPool2d(3)(y)",
    "F.interpolate(y, size=(5, 4), mode='bilinear', align_corners=False)", "F.interpolate(y, (4, 5), mode='bicubic')",
    "F.interpolate(y, scale_factor=1.5, mode='bilinear', align_corners=True)", "F.interpolate(y, (6, 4), mode='area')",
    "y.mean(1, keepdim=True).expand_as(y)", "y - y.mean((2, 3), keepdim=True)", "y.sum(1, keepdim=True).repeat(1, 2, 1, 1)",
    "F.fold(F.unfold(y, 2), y.shape[2:], 2)", "y.cumsum(2)", "y[:, :, :-1] - y[:, :, 1:]", "y.diff(dim=3)", "2 * y",
    "y / 3", "y - y.roll(1, 2)", "y * torch.tensor([0.5, 2.0]).to(y)[torch.arange(y.shape[1]) % 2].view(-1, 1, 1)",
    "torch.einsum('nchw,hg->ncgw', y, torch.eye(y.shape[2]).to(y).flip(0))", "y @ torch.ones(y.shape[3], 3).to(y)",
    "torch.ones(3, y.shape[2]).to(y) @ y", "F.conv2d(y, torch.ones(y.shape[1], 1, 2, 2).to(y), groups=y.shape[1])",
    "torch.lerp(y, y.flip(2), 0.3)", "torch.addcmul(y, torch.full_like(y, 0.5), y.flip(3))", "torch.sub(y, y.flip(2), alpha=0.5)",
    "torch.add(y, y.roll(1, 3), alpha=2)", "y.flip(1).add(y)", "torch.fft.ifft2(torch.fft.fft2(y)).real",
    "F.grid_sample(y, F.affine_grid(torch.eye(2, 3).to(y).expand(len(y), 2, 3) * 0.8, y.shape, False), align_corners=False)",
    "(y.unflatten(2, (1, -1)).mean(2))", "sum(y.unbind(1)).unsqueeze(1)", "torch.stack(y.split(1, 1)).mean(0).expand_as(y)",
    "torch.sum(torch.stack([y, y.flip(2)]), 0)", "F.lp_pool2d(F.relu(y), 1, 2)",
)  # fmt: skip
"""Linear maps without weights."""


def average(d: Draw) -> Lines | None:
    if min(d.shape[2:]) < 4 or d.shape[2] * d.shape[3] > 200:
        return None
    spelling = d.pick(AVERAGES)
    if "flip(1)" in spelling and d.shape[1] < 2:
        return None
    return one(f"y = {spelling}", by_hand=f"y = hand.plain(y, lambda y: {spelling})")


def maximum(d: Draw) -> Lines | None:
    if min(d.shape[2:]) < 5:
        return None
    spelling = d.pick([
        "F.max_pool2d(y, 2)", "nn.MaxPool2d(3, 2, 1)(y)", "F.max_pool2d(y, 3, 1, 1)", "F.adaptive_max_pool2d(y, (3, 4))",
        "F.max_pool2d(y, 2, return_indices=True)[0]", "nn.MaxPool2d(2, ceil_mode=True)(y)", "F.max_pool2d(y, 2, 1, dilation=2)",
        "y.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))", "y.unfold(2, 2, 1).max(-1).values", "y.unfold(3, 2, 2).max(-1)[0]",
        "F.max_unpool2d(*F.max_pool2d(y[..., :4, :4], 2, return_indices=True), 2)",
    ])  # fmt: skip
    return one(f"y = {spelling}", by_hand=f"y = hand.chosen(y, lambda y: {spelling})")


def shuffle(d: Draw) -> Lines | None:
    _, c, h, w = d.shape
    if c % 4 == 0 and h * w < 30:
        spelling = d.pick(["F.pixel_shuffle(y, 2)", "nn.PixelShuffle(2)(y)"])
    elif h % 2 == w % 2 == 0 and c < 4:
        spelling = d.pick([
            "F.pixel_unshuffle(y, 2)", "nn.PixelUnshuffle(2)(y)",
            "torch.cat([y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]], 1)",
            "y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)",
        ])  # fmt: skip
    else:
        return None
    return one(f"y = {spelling}", by_hand=f"y = hand.plain(y, lambda y: {spelling.replace('0, 1, 3, 5, 2, 4', '0, 1, 3, 5, 2, 4')})")


# Changes in place

MUTATIONS: tuple[tuple[str, str], ...] = (
    ("z = y[:, :1]; z.mul_(0.5)", "y = torch.cat([y[:, :1] * 0.5, y[:, 1:]], 1)"),
    ("y[:, :1] *= 0.5", "y = torch.cat([y[:, :1] * 0.5, y[:, 1:]], 1)"),
    ("y[:, :1] += y[:, 1:2]", "y = torch.cat([y[:, :1] + y[:, 1:2], y[:, 1:]], 1)"),
    ("z = y[:, :1]; y.mul_(0.5); y = torch.cat([y, z], 1)", f"y = y * 0.5; {CHANGED}; y = torch.cat([y, y[:, :1]], 1)"),
    ("z = y.view(len(y), -1); z.mul_(3.0)", "y = y * 3.0"),
    ("z = y.flatten(2); y.mul_(3.0); y = z.unflatten(2, y.shape[2:])", f"y = y * 3.0; {CHANGED}"),
    ("z = y.permute(0, 2, 3, 1); z.add_(z.flip(3))", "y = y + y.flip(1)"),
    ("z, t = y[:, :1], y[:, 1:2]; z.add_(t)", "y = torch.cat([y[:, :1] + y[:, 1:2], y[:, 1:]], 1)"),
    ("z, t = y[:, :2], y[:, 1:]; z.mul_(2.0); y = torch.cat([z, t], 1)",
     f"y = torch.cat([y[:, :2] * 2.0, y[:, 2:]], 1); {CHANGED}; y = torch.cat([y[:, :2], y[:, 1:]], 1)"),
    ("z, t = y.chunk(2, 2)[:2]; z.mul_(2.0)", "t = (y.shape[2] + 1) // 2; y = torch.cat([y[:, :, :t] * 2.0, y[:, :, t:]], 2)"),
    ("y.mul_(0.5)", "y = y * 0.5"), ("y *= 0.5", "y = y * 0.5"), ("y /= 2", "y = y / 2"), ("y.neg_()", "y = -y"),
    ("y += y.flip(3)", "y = y + y.flip(3)"), ("y -= y.mean(1, keepdim=True)", "y = y - y.mean(1, keepdim=True)"),
    ("y.sub_(y.flip(2), alpha=0.5)", "y = y - 0.5 * y.flip(2)"), ("y.add_(1.0)", "y = y + 1.0"),
    ("y[:, :, 0] = 0", "y = torch.cat([torch.zeros_like(y[:, :, :1]), y[:, :, 1:]], 2)"),
    ("y[..., -1].zero_()", "y = torch.cat([y[..., :-1], torch.zeros_like(y[..., -1:])], -1)"),
    ("y[:, 0].mul_(2.0)", "y = torch.cat([y[:, :1] * 2.0, y[:, 1:]], 1)"),
    ("z = y.unbind(1)[0]; z *= 2.0", "y = torch.cat([y[:, :1] * 2.0, y[:, 1:]], 1)"),
    ("for z in y: z.mul_(2.0)", "y = y * 2.0"), ("z = y.detach(); z.mul_(2.0)", "y = y * 2.0"),
    ("y.data.mul_(2.0)", "y = y * 2.0"), ("z = y.T; z.mul_(2.0)", "y = y * 2.0"),
    ("z = y[0]; z.copy_(z.flip(1))", "y = torch.cat([y[:1].flip(2), y[1:]])"),
    ("y.copy_(y.flip(3).clone())", "y = y.flip(3)"), ("y[:] = y.flip(2).clone()", "y = y.flip(2)"),
    ("y[:, 1:2] = y[:, :1] * 2", "y = torch.cat([y[:, :1], y[:, :1] * 2, y[:, 2:]], 1)"),
    ("y[:, [0, 1]] = y[:, [1, 0]]", "y = torch.cat([y[:, 1:2], y[:, :1], y[:, 2:]], 1)"),
    ("y.unsqueeze_(2); y.squeeze_(2)", "y = y * 1.0"), ("y.transpose_(2, 3)", "y = y.transpose(2, 3)"),
    ("y.index_add_(1, torch.tensor([0]), y[:, 1:2].clone())", "y = torch.cat([y[:, :1] + y[:, 1:2], y[:, 1:]], 1)"),
    ("torch.mul(y, 2.0, out=y)", "y = y * 2.0"), ("z = y; z += 1; z.mul_(2)", "y = (y + 1) * 2"),
    ("z = y[:, :1]; t = z[:, :, 1:]; t.mul_(3.0); y.mul_(0.5); y = y * t.shape[1]",
     f"t = torch.cat([y[:, :1, :1], y[:, :1, 1:] * 3.0], 2); y = torch.cat([t, y[:, 1:]], 1) * 0.5; {CHANGED}; y = y * 1"),
    ("z = y[:, :1]; y[:, :1].mul_(3.0); y = y + z", f"y = torch.cat([y[:, :1] * 3.0, y[:, 1:]], 1); {CHANGED}; y = y + y[:, :1]"),
    ("z = y[:, :1].expand(-1, 2, -1, -1); y.mul_(3.0); y = torch.cat([y, z], 1)",
     f"y = y * 3.0; {CHANGED}; y = torch.cat([y, y[:, :1], y[:, :1]], 1)"),
    ("y[:, :1].add_(y[:, 1:2].flip(2))", "y = torch.cat([y[:, :1] + y[:, 1:2].flip(2), y[:, 1:]], 1)"),
    ("z = y[:, :, :1]; y[:, :, 1:2] += z; y[:, :, 2:3] += y[:, :, 1:2]",
     "a = y[:, :, :1]; b = y[:, :, 1:2] + a; y = torch.cat([a, b, y[:, :, 2:3] + b, y[:, :, 3:]], 2)"),
    ("y.masked_fill_(torch.ones_like(y[..., :1]).cumsum(2) > 2, 0.0)", "y = y * (torch.ones_like(y[..., :1]).cumsum(2) <= 2)"),
    ("y.clamp_(min=-1).clamp_(max=1)", "y = y.clamp(min=-1).clamp(max=1)"),
    ("y.view(-1)[::2].mul_(2.0)", "t = torch.ones_like(y).view(-1); t[::2] = 2.0; y = y * t.view(y.shape)"),
)  # fmt: skip


def mutation(d: Draw) -> Lines | None:
    """`y`, a view of it, or another view of what it is a view of, changed in place."""
    if d.shape[1] < 2 or d.shape[2] < 3:
        return None
    return one(*d.pick(MUTATIONS), mutates=True)


WRITES: tuple[tuple[str, str], ...] = (
    ("z = torch.zeros_like(y); z[:] = y; y = z", "y = y * 1.0"),
    ("z = torch.empty_like(y); z.copy_(y); y = z", "y = y * 1.0"),
    ("z = y.new_zeros(y.shape); z[:, :1] = y[:, :1]; z[:, 1:] = y[:, 1:]; y = z", "y = torch.cat([y[:, :1], y[:, 1:]], 1)"),
    ("z = torch.zeros(y.shape).to(y); t = z[:, :1]; t.copy_(y[:, :1]); z[:, 1:] = y[:, 1:]; y = z", "y = torch.cat([y[:, :1], y[:, 1:]], 1)"),
    ("z = torch.zeros_like(y); z += y; y = z", "y = y * 1.0"), ("z = torch.zeros_like(y); z.add_(y); y = z", "y = y * 1.0"),
    ("z = torch.zeros_like(y); z.view(-1)[:] = y.reshape(-1); y = z", "y = y * 1.0"),
    ("z = torch.zeros_like(y); z.permute(0, 2, 3, 1).copy_(y.permute(0, 2, 3, 1)); y = z", "y = y * 1.0"),
    ("z = torch.zeros_like(y); z[:, :, 1:] += y[:, :, :-1]; y = z", "y = F.pad(y[:, :, :-1], (0, 0, 1, 0))"),
    ("z = y.new_zeros(len(y), y.shape[1], 12, 12)[:, :, : y.shape[2], : y.shape[3]]; z[:] = y; y = z", "y = y * 1.0"),
    ("z = y.new_zeros(len(y), y.shape[1], y.shape[2] + 2, y.shape[3] + 2); z[:, :, 1:-1, 1:-1] = y; y = z", "y = F.pad(y, (1,) * 4)"),
    ("z = y.new_zeros(len(y), y.shape[1], y.shape[2] + 2, y.shape[3]); t = z[:, :, 1:-1]; t.copy_(y); y = z", "y = F.pad(y, (0, 0, 1, 1))"),
    ("z = torch.zeros_like(y); t = z[:, :1]; z.copy_(y); y = torch.cat([z, t], 1)", "y = torch.cat([y, y[:, :1]], 1)"),
    ("z = torch.ones_like(y); z.mul_(y); y = z", "y = y * 1.0"), ("z = torch.ones_like(y); z *= y; y = z", "y = y * 1.0"),
    ("z = y.new_empty(y.shape); torch.mul(y, 0.5, out=z); y = z", "y = y * 0.5"),
    ("z = [torch.zeros_like(y[0]) for _ in y]; [t.copy_(u) for t, u in zip(z, y)]; y = torch.stack(z)", "y = torch.stack([y[i] for i in range(len(y))])"),
    ("z = torch.zeros_like(y); z.index_add_(1, torch.arange(y.shape[1]), y); y = z", "y = y * 1.0"),
    ("z = torch.zeros_like(y); z.scatter_(1, torch.arange(y.shape[1]).view(1, -1, 1, 1).expand(y.shape), y); y = z", "y = y * 1.0"),
    ("z = torch.zeros_like(y); z[y > 0] = y[y > 0]; y = z", "y = y * (y > 0)"),
    ("z = y.new_zeros(2, *y.shape); z[0] = y; z[1] = y.flip(2); y = z.mean(0)", "y = torch.stack([y, y.flip(2)]).mean(0)"),
    ("z = y.new_zeros(2, *y.shape); a, b = z; a.copy_(y); b.copy_(y * 2); y = z.sum(0)", "y = torch.stack([y, y * 2]).sum(0)"),
    ("z = y.detach().clone(); z.copy_(y); y = z", "y = y * 1.0"), ("z = torch.zeros_like(y); z.data.copy_(y); y = z", "y = y * 1.0"),
    ("z = y.clone(); z[:, :1] = 0.3; y = z", "y = torch.cat([torch.full_like(y[:, :1], 0.3), y[:, 1:]], 1)"),
    ("z = torch.zeros_like(y); torch.add(y, y.flip(2), out=z); y = z", "y = y + y.flip(2)"),
    ("z = y.new_zeros(y.shape); z.select(1, 0).copy_(y[:, 0]); z.narrow(1, 1, y.shape[1] - 1).add_(y[:, 1:]); y = z", "y = torch.cat([y[:, :1], y[:, 1:]], 1)"),
    ("z = torch.full_like(y, 0.5); z.addcmul_(y, torch.ones_like(y)); y = z", "y = y + 0.5"),
    ("z = torch.zeros_like(y); z.lerp_(y, 0.5); y = z", "y = y * 0.5"), ("z = torch.zeros_like(y); z.index_put_((torch.arange(len(y)),), y); y = z", "y = y * 1.0"),
)  # fmt: skip


def write(d: Draw) -> Lines | None:
    """`y` written into a buffer, or into a view of one."""
    if d.shape[1] < 2:
        return None
    return one(*d.pick(WRITES))


# Products


def gate(d: Draw) -> Lines:
    """Squeeze-excite and its like: what multiplies the map is computed from the map and is no map of it."""
    c, (a, b) = d.shape[1], (f"self.{d:squeeze}", f"self.{d:excite}")
    pooled = d.pick(["y.mean((2, 3), keepdim=True)", "F.adaptive_avg_pool2d(y, 1)", "y.mean(3, keepdim=True).mean(2, keepdim=True)"])
    hidden = f"{b}(F.relu({a}({pooled})))"
    bounded = d.pick(["torch.sigmoid({})", "F.hardsigmoid({})", "{}.sigmoid()", "(torch.tanh({}) * 0.5 + 0.5)", "F.softmax({}, 1)"])
    bounded = bounded.format(hidden)
    spelling, mutates = d.pick([
        (f"y = y * {bounded}", False), (f"y = {bounded} * y", False), (f"y = y.mul({bounded})", False),
        (f"g = {bounded}; y.mul_(g)", True), (f"g = {bounded}; y *= g", True), (f"y = y * {bounded}.expand_as(y)", False),
        (f"g = {bounded}; y = torch.einsum('nchw,nc->nchw', y, g[..., 0, 0])", False),
    ])  # fmt: skip
    twin = f"y = y * {bounded}"
    members = {f"{d:squeeze}": f"nn.Conv2d({c}, 2, 1)", f"{d:excite}": f"nn.Conv2d(2, {c}, 1)"}
    by_hand = f"y = hand.gated(y, {bounded.replace('(y', '(y.value[None]').replace('y.mean', 'y.value[None].mean')}[0])"
    return one(spelling, twin, mutates, by_hand if "mean(3" not in pooled else None, **members)


def spatial_gate(d: Draw) -> Lines:
    """A gate for each position."""
    m = f"self.{d:gate}"
    twin = f"y = y * torch.sigmoid({m}(y))"
    spelling, mutates = d.pick([(twin, False), (f"y = torch.sigmoid({m}(y)) * y", False), (f"y.mul_({m}(y).sigmoid_())", True)])
    made = d.pick([f"nn.Conv2d({d.shape[1]}, 1, 1)", f"nn.Conv2d({d.shape[1]}, {d.shape[1]}, 3, padding=1)"])
    return one(spelling, twin, mutates, **{f"{d:gate}": made})


def glu(d: Draw) -> Lines:
    m, c = f"self.{d:glu}", d.shape[1]
    act = d.pick(["torch.sigmoid", "F.silu", "F.gelu"])
    twin = f"z, t = {m}(y).chunk(2, 1); y = z * {act}(t)"
    spelling = d.pick([
        twin, f"z = {m}(y); y = z[:, :{c}] * {act}(z[:, {c}:])", f"z, t = {m}(y).split({c}, 1); y = {act}(t) * z",
        *([f"y = F.glu({m}(y), 1)", f"y = nn.GLU(1)({m}(y))"] if act == "torch.sigmoid" else []),
    ])  # fmt: skip
    return one(spelling, twin, **{f"{d:glu}": f"nn.Conv2d({c}, {2 * c}, 1)"})


def selective(d: Draw) -> Lines:
    """Two branches, weighted by a softmax over both (SKNet)."""
    a, b, m, c = f"self.{d:near}", f"self.{d:far}", f"self.{d:weigh}", d.shape[1]
    return one(
        f"z, t = {a}(y), {b}(y); g = {m}((z + t).mean((2, 3))).view(len(y), 2, {c}, 1, 1).softmax(1); y = z * g[:, 0] + t * g[:, 1]",
        **{f"{d:near}": f"nn.Conv2d({c}, {c}, 1)", f"{d:far}": f"nn.Conv2d({c}, {c}, 3, padding=1)",
           f"{d:weigh}": f"nn.Linear({c}, {2 * c})"},
    )  # fmt: skip


def layer_scale(d: Draw) -> Lines:
    g = f"self.{d:g}"
    twin = f"y = y * {g}"
    spelling, mutates = d.pick([(twin, False), (f"y = {g} * y", False), (f"y.mul_({g})", True), (f"y = y.mul({g})", False), (f"y *= {g}", True)])
    return one(spelling, twin, mutates, f"y = hand.scale(y, {g})", **{f"{d:g}": f"nn.Parameter(torch.randn({d.shape[1]}, 1, 1))"})


def constant(d: Draw) -> Lines:
    """A position map, a shift for each channel, or a number."""
    _, c, h, w = d.shape
    p = f"self.{d:p}"
    shape = d.pick([f"1, {c}, {h}, {w}", f"{c}, 1, 1", f"{c}, {h}, {w}"])
    spelling, twin, mutates = d.pick([
        (f"y = y + {p}", f"y = y + {p}", False), (f"y += {p}", f"y = y + {p}", True), (f"y = {p} + y", f"y = y + {p}", False),
        (f"y = torch.add(y, {p}, alpha=2)", f"y = y + 2 * {p}", False), (f"y = y - {p}", f"y = y - {p}", False),
        (f"y.add_({p})", f"y = y + {p}", True), (f"y = {p} - y", f"y = -y + {p}", False), (f"y = y + {p}.type_as(y)", f"y = y + {p}", False),
        (f"y = y + {p}.expand_as(y)", f"y = y + {p}", False), (f"y = torch.stack([z + {p}.view({shape})[-{c}:].reshape(-1, *{p}.shape[-2:]) for z in y])", f"y = y + {p}", False),
        (f"y = torch.sub(y, {p})", f"y = y - {p}", False), (f"y = torch.rsub(y, {p})", f"y = -y + {p}", False),
        (f"z = {p}.expand_as(y).clone(); z += y; y = z", f"y = y + {p}", False), (f"y = {p}.add(y)", f"y = y + {p}", False),
        (f"y = sum([y, {p}])", f"y = y + {p}", False), (f"y = torch.stack([y, {p}.expand_as(y)]).sum(0)", f"y = y + {p}", False),
        (f"y = y + {p}.to(y.device, y.dtype)", f"y = y + {p}", False), (f"y = torch.addcmul(y, {p}, torch.ones_like(y))", f"y = y + {p}", False),
        (f"y = 1 - y * 0.5 + {p} * 0", "y = y * -0.5 + 1", False), (f"y = (y + {p} + 1.0) / 2", f"y = ((y + {p}) + 1.0) * 0.5", False),
    ])  # fmt: skip
    first, _, rest = twin.removeprefix("y = ").partition(" ")
    hand = {f"y + {p}": f"y = hand.shift(y, {p})", f"y - {p}": f"y = hand.shift(y, -{p})"}.get(twin.removeprefix("y = "))
    return one(spelling, twin, mutates, hand, **{f"{d:p}": f"nn.Parameter(torch.randn({shape}))"})


def coordinates(d: Draw) -> Lines:
    """Constant channels beside the map."""
    _, _, h, w = d.shape
    spelling = d.pick([
        f"y = torch.cat([y, self.{d:grid}.expand(len(y), -1, -1, -1)], 1)", f"y = torch.cat([self.{d:grid}.repeat(len(y), 1, 1, 1), y], 1)",
        f"z = y.new_ones(len(y), 1, *y.shape[2:]) * torch.linspace(-1, 1, {w}).to(y); y = torch.cat([y, z], 1)",
        f"z = torch.linspace(-1, 1, {h}).type_as(y)[:, None].expand(len(y), 1, {h}, {w}); y = torch.cat([z, y], 1)",
        "y = torch.cat([y, torch.ones_like(y[:, :1])], 1)",
    ])  # fmt: skip
    return one(spelling, **{f"{d:grid}": f"torch.randn(1, 1, {h}, {w})"})


# Branches


def save(d: Draw) -> Lines:
    """The map under another name: not a copy."""
    name = f"{d:s}"
    return Lines((f"{name} = y",), (f"{name} = y",), saves=(name,), by_hand=(f"{name} = y",))


def join(d: Draw) -> Lines | None:
    """An earlier map of the same size added, subtracted, put beside or multiplied."""
    fitting = [name for name, shape in d.saved.items() if shape[2:] == d.shape[2:]]
    if not fitting:
        return None
    s = d.pick(fitting)
    if d.saved[s] != d.shape:
        beside = d.pick([f"y = torch.cat([y, {s}], 1)", f"y = torch.cat(({s}, y), dim=1)", f"y = torch.hstack([y, {s}])"])
        order = f"[{s}, y]" if f"({s}, y)" in beside else f"[y, {s}]"
        return one(beside, f"y = torch.cat({order}, 1)", by_hand=f"y = hand.beside({order})")
    line, twin, mutates, hand = d.pick([
        (f"y = y + {s}", f"y = y + {s}", False, f"y = hand.add(y, {s})"), (f"y += {s}", f"y = y + {s}", True, f"y = hand.add(y, {s})"),
        (f"y = torch.add({s}, y)", f"y = y + {s}", False, f"y = hand.add(y, {s})"), (f"y = y - {s}", f"y = y - {s}", False, None),
        (f"y = torch.stack([y, {s}]).sum(0)", f"y = y + {s}", False, f"y = hand.add(y, {s})"), (f"y.add_({s})", f"y = y + {s}", True, f"y = hand.add(y, {s})"),
        (f"y = torch.cat([y, {s}], 1)", f"y = torch.cat([y, {s}], 1)", False, f"y = hand.beside([y, {s}])"),
        (f"y = 0.7 * y + 0.3 * {s}", f"y = y * 0.7 + {s} * 0.3", False, None), (f"y = y * {s}", f"y = y * {s}", False, None),
        (f"y = torch.lerp(y, {s}, 0.3)", f"y = y * 0.7 + {s} * 0.3", False, None), (f"y = torch.maximum(y, {s})", f"y = torch.maximum(y, {s})", False, None),
        (f"{s}.add_(y); y = {s}", f"y = y + {s}; {s} = y", True, f"y = hand.add(y, {s}); {s} = y"), (f"y = y * torch.sigmoid({s})", f"y = y * torch.sigmoid({s})", False, None),
    ])  # fmt: skip
    return one(line, twin, mutates, hand)


def shared(d: Draw) -> Lines:
    """One module twice."""
    m, c = f"self.{d:twice}", d.shape[1]
    act = d.pick(["F.relu", "torch.tanh", "F.gelu"])
    return one(
        f"y = {act}({m}({act}({m}(y))))",
        by_hand="; ".join([f"y = hand.affine(y, bare({m}), {m}.bias); y = hand.activation(y, {act})"] * 2),
        **{f"{d:twice}": f"nn.Conv2d({c}, {c}, 3, padding=1)"},
    )


def attention(d: Draw) -> Lines | None:
    """Self-attention over the positions, added to the map."""
    _, c, h, w = d.shape
    if h * w > 100:
        return None
    m, o = f"self.{d:qkv}", f"self.{d:out}"
    tokens = f"t = y.flatten(2).transpose(1, 2); q, k, v = {m}(t).chunk(3, -1); "
    back = "y = y + z.transpose(1, 2).view(y.shape)"
    products = [
        f"z = {o}(F.scaled_dot_product_attention(q, k, v)); ", f"z = {o}((q @ k.transpose(-2, -1) * {c**-0.5!r}).softmax(-1) @ v); ",
        f"z = {o}(torch.bmm(F.softmax(torch.bmm(q * {c**-0.5!r}, k.mT), dim=-1), v)); ",
        f"z = {o}(torch.einsum('nij,njc->nic', torch.softmax(torch.einsum('nic,njc->nij', q, k) * {c**-0.5!r}, -1), v)); ",
        f"z = {o}(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]); ",
        f"z = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.mT, beta=0, alpha={c**-0.5!r}); z = {o}(z.softmax(-1) @ v); ",
    ]  # fmt: skip
    if d.rng.random() < 0.3:
        need = d.pick(["need_weights=False", ""])
        line = f"t = y.flatten(2).transpose(1, 2); z = {m}(t, t, t, {need})[0]; {back}"
        return one(line, **{f"{d:qkv}": f"nn.MultiheadAttention({c}, 1, batch_first=True)"})
    return one(
        tokens + d.pick(products) + back, tokens + products[0] + back,
        **{f"{d:qkv}": f"nn.Linear({c}, {3 * c})", f"{d:out}": f"nn.Linear({c}, {c})"},
    )  # fmt: skip


# Heads


def _classifier(d: Draw, features: int, **members: str) -> dict[str, str]:
    return {f"{d:head}": f"nn.Linear({features}, {d.pick([1, 5, 5, 5])})", **members}


def pooled(d: Draw) -> Lines:
    m, c = f"self.{d:head}", d.shape[1]
    twin = f"y = {m}(y.mean((2, 3)))"
    spelling = d.pick([
        twin, f"y = {m}(F.adaptive_avg_pool2d(y, 1).flatten(1))", f"y = {m}(torch.flatten(nn.AdaptiveAvgPool2d(1)(y), 1))",
        f"y = {m}(y.flatten(2).mean(-1))", f"y = {m}(y.mean(3).mean(2))", f"y = F.linear(y.mean([2, 3]), {m}.weight, {m}.bias)",
        f"y = y.mean((2, 3)) @ {m}.weight.T + {m}.bias", f"y = torch.addmm({m}.bias, y.mean((2, 3)), {m}.weight.t())",
        f"y = {m}(torch.mean(y, dim=(-2, -1)))", f"y = {m}(F.avg_pool2d(y, y.shape[2:]).squeeze(-1).squeeze(-1))",
    ])  # fmt: skip
    whole = "mean(3)" not in spelling
    return one(spelling, twin if whole else None, by_hand=f"y = hand.pooled(y, {m})" if whole else None, **_classifier(d, c))


def flattened(d: Draw) -> Lines:
    _, c, h, w = d.shape
    m = f"self.{d:head}"
    twin = f"y = {m}(y.flatten(1))"
    spelling = d.pick([twin, f"y = {m}(y.reshape(len(y), -1))", f"y = {m}(nn.Flatten()(y))", f"y = {m}(torch.flatten(y, 1))"])
    return one(spelling, twin, **_classifier(d, c * h * w))


def convolved(d: Draw) -> Lines:
    m = f"self.{d:head}"
    return one(f"y = {m}(y).mean((2, 3))", **{f"{d:head}": f"nn.Conv2d({d.shape[1]}, {d.pick([1, 5, 5])}, 1)"})


def generalised_mean(d: Draw) -> Lines:
    m, c = f"self.{d:head}", d.shape[1]
    spelling = d.pick([
        f"y = {m}(y.clamp(min=1e-6).pow(3.0).mean((2, 3)).pow(1 / 3))",
        f"y = {m}(F.avg_pool2d(y.clamp(min=1e-6).pow(self.{d:p}), y.shape[2:]).pow(1.0 / self.{d:p}).flatten(1))",
    ])  # fmt: skip
    return one(spelling, **_classifier(d, c, **{f"{d:p}": "nn.Parameter(torch.full((1,), 3.0))"}))


def strongest(d: Draw) -> Lines:
    m, c = f"self.{d:head}", d.shape[1]
    twin = f"y = {m}(y.amax((2, 3)))"
    spelling = d.pick([
        twin, f"y = {m}(F.adaptive_max_pool2d(y, 1).flatten(1))", f"y = {m}(y.flatten(2).max(-1).values)", f"y = {m}(y.flatten(2).max(2)[0])",
    ])  # fmt: skip
    return one(spelling, twin if "flatten(2)" not in spelling else None, **_classifier(d, c))


def hidden(d: Draw) -> Lines:
    m, c = f"self.{d:head}", d.shape[1]
    act = d.pick(["F.relu", "torch.tanh"])
    return one(f"y = {m}({act}(self.{d:fc}(y.mean((2, 3)))))", **_classifier(d, 4, **{f"{d:fc}": f"nn.Linear({c}, 4)"}))


def class_token(d: Draw) -> Lines | None:
    _, c, h, w = d.shape
    if h * w > 100:
        return None
    m, cls, qkv = f"self.{d:head}", f"self.{d:cls}", f"self.{d:qkv}"
    return one(
        f"t = torch.cat([{cls}.expand(len(y), 1, -1), y.flatten(2).mT], 1); q, k, v = {qkv}(t).chunk(3, -1); "
        f"t = t + F.scaled_dot_product_attention(q, k, v); y = {m}({d.pick(['t[:, 0]', 't.select(1, 0)', 't[:, :1].squeeze(1)'])})",
        **_classifier(d, c, **{f"{d:cls}": f"nn.Parameter(torch.randn(1, 1, {c}))", f"{d:qkv}": f"nn.Linear({c}, {3 * c})"}),
    )  # fmt: skip


_FREQUENT = (convolution, batch_norm, mutation, write, same, save, join, move, average, gate, constant)
_OTHERS = (
    transposed_convolution, pointwise, unfolded_convolution, layer_norm, rms_norm, unit_norm, group_norm, response_norm,
    maximum, shuffle, spatial_gate, glu, selective, layer_scale, coordinates, shared, attention, prelu,
)  # fmt: skip
OPERATIONS: dict[str, Operation] = (
    {f.__name__: f for f in (*_FREQUENT, *_OTHERS)} | {name: partial(activation, name) for name in ACTIVATIONS}
)  # fmt: skip
HEADS: dict[str, Operation] = {
    f.__name__: f
    for f in (pooled, flattened, convolved, generalised_mean, strongest, hidden, class_token)
}
WEIGHTS: dict[str, int] = {name: 5 if f in _FREQUENT else 2 if f in _OTHERS else 1 for name, f in OPERATIONS.items()}
