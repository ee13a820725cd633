"""The words of random networks: what each operation writes, in the spelling that is drawn and in its twin.

`y` is the map (N, C, H, W) before and after every operation; `s3` is a map that the word 3 has kept. Where the rules
leave no doubt about what is right, an operation says it once more in the words of the oracles: `hand` is one of
`support.fuzz.oracles`, and `y` its state.
"""

from support.fuzz.lines import Draw, Lines, one
from support.fuzz.spellings import ACTIVATIONS, AVERAGES, ELSEWHERE, MOVES, MUTATIONS, SAME, WRITES

# Activations


def activation(name: str, d: Draw) -> Lines:
    twin, *others = ACTIVATIONS[name]
    spelling = d.pick([twin, *others])
    if d.rng.random() < 0.25:
        spelling = d.pick(ELSEWHERE).format(twin)
    if spelling.startswith("~"):
        return one(f"y = {spelling[1:]}")
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
        f"y = {spelling}",
        by_hand=f"y = hand.activation(y, lambda y: F.prelu(y[None], self.{d:w})[0])",
        **{f"{d:w}": f"nn.Parameter(torch.rand({d.shape[1]}))"},
    )


# Operations with weights

APART = "; y = y * 1.0"
"""Behind a linear operation: a batch-norm does not fold into it, in none of its spellings."""


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
    settings = (
        f"{c}, {d.pick([2, 3, 4])}, {kernel}, stride={stride}, padding={d.pick([0, 1])}, bias={d.pick([0, 1, 1])}"
    )
    name = f"{d:up}"
    return one(
        f"y = self.{name}(y)",
        by_hand=f"y = hand.affine(y, lambda y: bare(self.{name})(y), self.{name}.bias)",
        **{name: f"nn.ConvTranspose2d({settings})"},
    )


def pointwise(d: Draw) -> Lines:
    """A linear layer at each position, in the spellings of channels-last code; its bias within, or added to it."""
    c, out, w, b = d.shape[1], d.pick([2, 3, 4]), f"self.{d:w}", f"self.{d:b}"
    last = "y.permute(0, 2, 3, 1)"
    within, added = (
        f"y = F.conv2d(y, {w}[:, :, None, None], {b})",
        f"y = F.conv2d(y, {w}[:, :, None, None]) + {b}[:, None, None]",
    )
    spellings = {
        within: (
            within,
            f"y = F.linear({last}, {w}, {b}).permute(0, 3, 1, 2)",
            f"y = F.linear(y.movedim(1, -1), {w}, {b}).movedim(-1, 1).contiguous()",
            f"y = F.conv1d(y.flatten(2), {w}[:, :, None], {b}).unflatten(2, y.shape[2:])",
            f"t = torch.addmm({b}, {last}.reshape(-1, {c}), {w}.t()); "
            "y = t.view(len(y), *y.shape[2:], -1).permute(0, 3, 1, 2)",
            f"y = torch.stack([F.linear(z.permute(1, 2, 0), {w}, {b}).permute(2, 0, 1) for z in y])",
        ),
        added: (
            added,
            f"y = ({last} @ {w}.T + {b}).permute(0, 3, 1, 2)",
            f"y = torch.einsum('nchw,dc->ndhw', y, {w}) + {b}[:, None, None]",
            f"y = torch.einsum('dc,nchw->nhwd', {w}, y).permute(0, 3, 1, 2) + {b}.view(1, -1, 1, 1)",
            f"y = torch.tensordot({last}, {w}, dims=([3], [1])).add({b}).permute(0, 3, 1, 2)",
            f"y = torch.tensordot({w}, y, dims=([1], [1])).transpose(0, 1) + {b}.view(-1, 1, 1)",
            f"y = (torch.matmul({w}, y.flatten(2)) + {b}[:, None]).view(len(y), -1, *y.shape[2:])",
            f"t = torch.baddbmm({b}[None, :, None], {w}.expand(len(y), -1, -1), y.flatten(2)); "
            "y = t.unflatten(2, y.shape[2:])",
        ),
    }
    twin = d.pick([within, added])
    bare = f"lambda y: F.conv2d(y, {w}[:, :, None, None])"
    hands = {
        within: f"y = hand.affine(y, {bare}, {b}); y = hand.plain(y, lambda y: y * 1.0)",
        added: f"y = hand.plain(y, {bare}); y = hand.shift(y, {b}[:, None, None])",
    }
    members = {f"{d:w}": f"torch.randn({out}, {c})", f"{d:b}": f"torch.randn({out})"}
    return one(d.pick(spellings[twin]) + APART, twin + APART, by_hand=hands[twin], **members)


def unfolded_convolution(d: Draw) -> Lines:
    """A convolution as a product with the patches."""
    c, w, conv = d.shape[1], f"self.{d:w}", f"self.{d:w}.unflatten(1, (-1, 3, 3))"
    spelling = d.pick(
        [
            f"y = ({w} @ F.unfold(y, 3, padding=1)).unflatten(2, y.shape[2:])",
            f"y = torch.einsum('dk,nkl->ndl', {w}, F.unfold(y, 3, padding=1)).view(len(y), -1, *y.shape[2:])",
            f"y = torch.einsum('ncijxy,dcxy->ndij', F.pad(y, (1,) * 4).unfold(2, 3, 1).unfold(3, 3, 1), {conv})",
        ]
    )
    return one(
        spelling + APART,
        f"y = F.conv2d(y, {conv}, padding=1)" + APART,
        by_hand=f"y = hand.plain(y, lambda y: F.conv2d(y, {conv}, padding=1))",
        **{f"{d:w}": f"torch.randn({d.pick([2, 3])}, {9 * c}) / 4"},
    )


def batch_norm(d: Draw) -> Lines:
    m = f"self.{d:bn}"
    spelling = d.pick(
        [
            f"y = {m}(y)",
            f"y = {m}(y)",
            f"y = F.batch_norm(y, {m}.running_mean, {m}.running_var, {m}.weight, {m}.bias, False, 0.0, {m}.eps)",
        ]
    )
    return one(
        spelling, f"y = {m}(y)", by_hand=f"y = hand.batch_norm(y, {m})", **{f"{d:bn}": f"nn.BatchNorm2d({d.shape[1]})"}
    )


def layer_norm(d: Draw) -> Lines:
    c, m = d.shape[1], f"self.{d:ln}"
    mean, scale = "y.mean(1, keepdim=True)", f"{m}.weight[:, None, None]"
    shift, var = f"{m}.bias[:, None, None]", "y.var(1, correction=0, keepdim=True)"
    twin, hand = f"y = {m}(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)", f"y = hand.layer_norm(y, {m})"
    spelling = d.pick(
        [
            twin,
            f"y = F.layer_norm(y.permute(0, 2, 3, 1), ({c},), {m}.weight, {m}.bias, {m}.eps).permute(0, 3, 1, 2)",
            f"y = torch.stack([{m}(z.movedim(0, -1)) for z in y]).movedim(-1, 1)",
        ]
    )
    if d.rng.random() < 0.5:  # written out, the shift is an operation of its own
        twin, hand = f"y = (y - {mean}) / torch.sqrt({var} + {m}.eps) * {scale} + {shift}", ""
        spelling = d.pick(
            [
                twin,
                f"u = {mean}; t = (y - u).pow(2).mean(1, keepdim=True); "
                f"y = {scale} * ((y - u) / torch.sqrt(t + {m}.eps)) + {shift}",
                f"t = torch.var_mean(y, 1, correction=0, keepdim=True); "
                f"y = (y - t[1]) * torch.rsqrt(t[0] + {m}.eps) * {scale} + {shift}",
            ]
        )
    return one(spelling, twin, by_hand=hand or None, **{f"{d:ln}": f"nn.LayerNorm({c})"})


def rms_norm(d: Draw) -> Lines:
    c, g = d.shape[1], f"self.{d:g}"
    twin = f"y = F.rms_norm(y.movedim(1, -1), ({c},), {g}, 1e-6).movedim(-1, 1)"
    spelling = d.pick(
        [
            twin,
            f"y = y * torch.rsqrt(y.pow(2).mean(1, keepdim=True) + 1e-6) * {g}[:, None, None]",
            f"y = {g}.view(-1, 1, 1) * (y / (y.square().mean(1, keepdim=True) + 1e-6).sqrt())",
        ]
    )
    hand = f"y = hand.scale(y, (y.square().mean(0, keepdim=True) + 1e-6).rsqrt() * {g}[:, None, None])"
    return one(
        spelling, twin, by_hand=hand.replace("(y.square", "(y.value.square"), **{f"{d:g}": f"torch.rand({c}) + 0.5"}
    )


def unit_norm(d: Draw) -> Lines:
    twin = "y = F.normalize(y, dim=1)"
    spelling = d.pick(
        [
            twin,
            "y = y / y.norm(dim=1, keepdim=True)",
            "y = y / torch.linalg.vector_norm(y, dim=1, keepdim=True)",
            "y = y / y.norm(p=2, dim=1, keepdim=True).clamp_min(1e-12)",
            "y = y / y.pow(2).sum(1, keepdim=True).sqrt()",
        ]
    )
    return one(spelling, twin, by_hand="y = hand.scale(y, 1 / y.value.norm(dim=0, keepdim=True).clamp_min(1e-12))")


def group_norm(d: Draw) -> Lines:
    c, m = d.shape[1], f"self.{d:gn}"
    made = d.pick(
        [
            f"nn.GroupNorm(1, {c})",
            f"nn.GroupNorm({c}, {c})",
            f"nn.InstanceNorm2d({c}, affine=True)",
            f"nn.InstanceNorm2d({c})",
            "nn.LocalResponseNorm(3)",
        ]
    )
    return one(f"y = {m}(y)", **{f"{d:gn}": made})


def response_norm(d: Draw) -> Lines:
    """Global response normalisation of ConvNeXt V2."""
    c, scale, shift = d.shape[1], f"self.{d:g}[:, None, None]", f"self.{d:b}[:, None, None]"
    norm = "g = torch.norm(y, p=2, dim=(2, 3), keepdim=True); g = g / (g.mean(1, keepdim=True) + 1e-6); "
    members = {f"{d:g}": f"torch.randn({c})", f"{d:b}": f"torch.randn({c})"}
    return one(norm + f"y = y + {scale} * (y * g) + {shift}", **members)


# Moving, choosing, averaging


def same(d: Draw) -> Lines | None:
    spelling = d.pick(SAME)
    return one(f"y = {spelling}", "y = y * 1.0", by_hand="y = hand.plain(y, lambda y: y * 1.0)")


def move(d: Draw) -> Lines | None:
    _, c, h, w = d.shape
    if c < 2 or h * w > 220 or min(h, w) < 4:
        return None
    spelling = d.pick(MOVES)
    return one(f"y = {spelling}", by_hand=f"y = hand.plain(y, lambda y: {spelling})")


def average(d: Draw) -> Lines | None:
    if min(d.shape[2:]) < 4 or d.shape[2] * d.shape[3] > 200:
        return None
    spelling = d.pick(AVERAGES)
    if "flip(1)" in spelling and d.shape[1] < 2:
        return None
    # An adaptive pooling may be the head's own, and then is no map of the encoder.
    hand = None if "daptive" in spelling else f"y = hand.plain(y, lambda y: {spelling})"
    return one(f"y = {spelling}", by_hand=hand)


def maximum(d: Draw) -> Lines | None:
    if min(d.shape[2:]) < 5:
        return None
    spelling = d.pick(
        [
            "F.max_pool2d(y, 2)",
            "nn.MaxPool2d(3, 2, 1)(y)",
            "F.max_pool2d(y, 3, 1, 1)",
            "F.adaptive_max_pool2d(y, (3, 4))",
            "F.max_pool2d(y, 2, return_indices=True)[0]",
            "nn.MaxPool2d(2, ceil_mode=True)(y)",
            "F.max_pool2d(y, 2, 1, dilation=2)",
            "y.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))",
            "y.unfold(2, 2, 1).max(-1).values",
            "y.unfold(3, 2, 2).max(-1)[0]",
            "F.max_unpool2d(*F.max_pool2d(y[..., :4, :4], 2, return_indices=True), 2)",
        ]
    )
    hand = None if "unpool" in spelling or "daptive" in spelling else f"y = hand.chosen(y, lambda y: {spelling})"
    return one(f"y = {spelling}", by_hand=hand)


def shuffle(d: Draw) -> Lines | None:
    _, c, h, w = d.shape
    if c % 4 == 0 and h * w < 30:
        spelling = d.pick(["F.pixel_shuffle(y, 2)", "nn.PixelShuffle(2)(y)"])
    elif h % 2 == w % 2 == 0 and c < 4:
        spelling = d.pick(
            [
                "F.pixel_unshuffle(y, 2)",
                "nn.PixelUnshuffle(2)(y)",
                "torch.cat([y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]], 1)",
                "y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)",
            ]
        )
    else:
        return None
    return one(
        f"y = {spelling}",
        by_hand=f"y = hand.plain(y, lambda y: {spelling})",
    )


# Changes in place


def mutation(d: Draw) -> Lines | None:
    """`y`, a view of it, or another view of what it is a view of, changed in place."""
    if d.shape[1] < 2 or d.shape[2] < 3:
        return None
    return one(*d.pick(MUTATIONS), mutates=True)


def write(d: Draw) -> Lines | None:
    """`y` written into a buffer, or into a view of one."""
    if d.shape[1] < 2:
        return None
    return one(*d.pick(WRITES))
