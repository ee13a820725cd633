"""AttnLRP straight from its propositions, one operation at a time: in float64, without any gradient.

A network is run on one picture as a chain of `Node`s. Every operation lists what each of its inputs contributed to each
of its outputs, and shares the relevance of the outputs in that proportion, `R_i = Σ_j part_ij R_j / Σ_i part_ij`. What
no input receives is lost, and `Relevances.lost` says where: at biases, at constants, in the softmax, at activations
that are not zero at zero.

The second half of the file writes the transformers of timm, transformers, open_clip and torchvision in these terms.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Shares = tuple[tuple[Tensor, ...], dict[str, Tensor]]
"""The relevance of every input, and what was lost and why."""


@dataclass(eq=False)
class Node:
    """The value of one operation, what it came from, and how the relevance of the value is shared among that."""

    value: Tensor
    sources: tuple["Node", ...] = ()
    share: Callable[[Tensor], Shares] | None = None
    fixed: bool = False
    """Does not depend on the picture."""


@dataclass(frozen=True)
class Relevances:
    """The map of a picture (H, W), the score that it explains, and what was lost by cause."""

    score: Tensor
    map: Tensor
    lost: dict[str, float]


def stabilised(z: Tensor, eps: float) -> Tensor:
    """`z + eps sign z`, with a sign of 1 at 0."""
    return z + eps * torch.where(z < 0, -1.0, 1.0)


def same_sign(parts: Tensor, z: Tensor) -> Tensor:
    """The parts that have the sign of `z`, zero elsewhere."""
    return torch.where(z > 0, parts.clamp(min=0), parts.clamp(max=0))


@dataclass(eq=False)
class ByHand:
    """The rules.

    `cp` holds attention weights constant; `conv_gamma` and `linear_gamma` are the γ of the γ-rule, 0 for the ε-rule.
    """

    cp: bool = False
    conv_gamma: float = 0.0
    linear_gamma: float = 0.0
    eps: float = 1e-18
    nodes: list[Node] = field(default_factory=list)

    def _record(self, value: Tensor, sources: Sequence[Node], share: Callable[[Tensor], Shares]) -> Node:
        node = Node(value, tuple(sources), share, all(s.fixed for s in sources))
        self.nodes.append(node)
        return node

    def picture(self, x: Tensor) -> Node:
        """The pixels (3, H, W)."""
        self.nodes = [Node(x.double())]
        return self.nodes[0]

    def constant(self, value: Tensor | float, like: Node | None = None) -> Node:
        """A value that does not depend on the picture, as large as `like`."""
        value = torch.as_tensor(value, dtype=torch.float64).detach()
        return Node(value if like is None else value.expand_as(like.value), fixed=True)

    def relevances(self, logits: Node, index: int) -> Relevances:
        """Start from the value of one logit and share it back to the pixels."""
        pixels = self.nodes[0]
        score = logits.value.reshape(-1)[index]
        at: defaultdict[Node, Tensor | float] = defaultdict(float)
        start = torch.zeros(logits.value.numel(), dtype=torch.float64)
        start[index] = score
        at[logits] = start.reshape(logits.value.shape)
        lost: defaultdict[str, float] = defaultdict(float)
        for node in reversed(self.nodes):
            if node.share is None or node not in at:
                continue
            if node.fixed:
                lost["constant"] += float(torch.as_tensor(at[node]).sum())
                continue
            shares, causes = node.share(torch.as_tensor(at[node]))
            for cause, amount in causes.items():
                lost[cause] += float(amount.sum())
            for source, share in zip(node.sources, shares, strict=True):
                assert share.shape == source.value.shape
                if source.share is None and source is not pixels:
                    lost["constant"] += float(share.sum())
                else:
                    at[source] = at[source] + share
        return Relevances(score, torch.as_tensor(at[pixels]).sum(0), dict(lost))

    # Operations with weights

    def linear(self, x: Node, weight: Tensor, bias: Tensor | None = None, gamma: float | None = None) -> Node:
        """`z_j = Σ_i w_ji x_i + b_j` on the last axis; parts `w_ji x_i`, the bias keeps its own."""
        gamma = self.linear_gamma if gamma is None else gamma
        weight = weight.detach().double()
        shift = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.detach().double()
        parts = x.value[..., None, :] * weight
        z = parts.sum(-1) + shift

        def share(r: Tensor) -> Shares:
            inputs, own = parts, shift.expand_as(z)
            if gamma:
                inputs = inputs + gamma * same_sign(inputs, z[..., None])
                own = own + gamma * same_sign(own, z)
            ratio = r / stabilised(inputs.sum(-1) + own, self.eps)
            return ((inputs * ratio[..., None]).sum(-2),), {"bias": own * ratio}

        return self._record(z, [x], share)

    def affine(
        self, x: Node, function: Callable[[Tensor], Tensor], bias: Tensor | None = None, gamma: float = 0.0
    ) -> Node:
        """Any linear map (C, H, W) -> (C', H', W') as its matrix, column by column; one bias per channel C'."""
        size = x.value.numel()
        columns = torch.eye(size, dtype=torch.float64).reshape(size, *x.value.shape)
        images = function(columns)
        shape = images.shape[1:]
        shift = torch.zeros(shape[0]) if bias is None else bias.detach()
        flat = self.move(x, lambda t: t.reshape(-1))
        every = shift.double()[:, None].expand(-1, shape[1:].numel()).reshape(-1)
        out = self.linear(flat, images.reshape(size, -1).T, every, gamma)
        return self.move(out, lambda t: t.reshape(shape))

    def conv(self, x: Node, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> Node:
        """A convolution; the batch-norm after it is a map of its own for the ε-rule and part of it for the γ-rule."""
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias
        scale, shift = (torch.ones(1), torch.zeros(1)) if norm is None or not self.conv_gamma else scale_and_shift(norm)
        weight = conv.weight * scale.reshape(-1, 1, 1, 1)

        def function(t: Tensor) -> Tensor:
            return nn.functional.conv2d(t, weight.detach(), None, conv.stride, conv.padding, conv.dilation, conv.groups)

        out = self.affine(x, function, bias * scale + shift, self.conv_gamma)
        return out if norm is None or self.conv_gamma else self.batch_norm(out, norm)

    def batch_norm(self, x: Node, norm: nn.BatchNorm2d) -> Node:
        """A scale and a shift per channel."""
        scale, shift = (t.reshape(-1, 1, 1) for t in scale_and_shift(norm))
        return self.shift(self.scale(x, scale), shift)

    # Operations on two values

    def matmul(self, a: Node, b: Node) -> Node:
        """`O_ij = Σ_k A_ik B_kj`: parts `A_ik B_kj`, half to either factor; all to one where the other is fixed."""
        parts = a.value[..., :, :, None] * b.value[..., None, :, :]
        out = parts.sum(-2)
        to_a, to_b = _halves(a, b)

        def share(r: Tensor) -> Shares:
            each = parts * (r / stabilised(out, self.eps))[..., :, None, :]
            return (to_a * each.sum(-1), to_b * each.sum(-3)), {}

        return self._record(out, [a, b], share)

    def mul(self, a: Node, b: Node) -> Node:
        """Element by element: half to either factor; all to one where the other is fixed."""
        to_a, to_b = _halves(a, b)
        return self._record(a.value * b.value, [a, b], lambda r: ((to_a * r, to_b * r), {}))

    def gated(self, x: Node, gate: Node) -> Node:
        """`x` times a bounded or pooled gate, which is a constant."""
        return self.mul(x, self.constant(gate.value, like=x))

    def add(self, a: Node, b: Node) -> Node:
        """Parts `a` and `b`."""
        out = a.value + b.value

        def share(r: Tensor) -> Shares:
            ratio = r / stabilised(out, self.eps)
            return (a.value * ratio, b.value * ratio), {}

        return self._record(out, [a, b], share)

    def scale(self, x: Node, by: Tensor | float) -> Node:
        return self.mul(x, self.constant(by, like=x))

    def shift(self, x: Node, by: Tensor | float) -> Node:
        return self.add(x, self.constant(by, like=x))

    # Operations on one value

    def softmax(self, x: Node) -> Node:
        """`R_i = x_i (R_i - s_i Σ_j R_j)` (Taylor expansion at x), so `ΣR - Σ_i R_i` is lost; a constant in CP-LRP."""
        exponentials = (x.value - x.value.amax(-1, keepdim=True)).exp()
        s = exponentials / exponentials.sum(-1, keepdim=True)
        if self.cp:
            return self.constant(s)

        def share(r: Tensor) -> Shares:
            total = r.sum(-1, keepdim=True)
            return (x.value * (r - s * total),), {"softmax": r - x.value * r + x.value * s * total}

        return self._record(s, [x], share)

    def activation(self, x: Node, function: Callable[[Tensor], Tensor]) -> Node:
        """Parts `f(0)`, which is lost, and `f(x) - f(0)`."""
        out = function(x.value)
        offset = function(torch.zeros_like(x.value))

        def share(r: Tensor) -> Shares:
            if not offset.any():
                return (r,), {}
            ratio = r / stabilised(out, self.eps)
            return ((out - offset) * ratio,), {"activation": offset * ratio}

        return self._record(out, [x], share)

    def layer_norm(self, x: Node, norm: nn.LayerNorm) -> Node:
        """`(x - mean x) / σ`, linear since the standard deviation `σ` is a constant; then scale and shift."""
        width = x.value.shape[-1]
        deviation = (x.value.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
        centred = self.linear(x, torch.eye(width) - torch.full((width, width), 1 / width, dtype=torch.float64), gamma=0)
        out = self.scale(self.scale(centred, 1 / deviation), norm.weight)
        return out if norm.bias is None else self.shift(out, norm.bias)

    def rms_norm(self, x: Node, weight: Tensor, eps: float) -> Node:
        """`w x / sqrt(mean x²)` with the root as a constant."""
        return self.scale(self.scale(x, 1 / (x.value.square().mean(-1, keepdim=True) + eps).sqrt()), weight)

    def unit(self, x: Node) -> Node:
        """`x / |x|` on the last axis with the norm as a constant."""
        return self.scale(x, 1 / x.value.norm(dim=-1, keepdim=True))

    def mean(self, x: Node) -> Node:
        """Over the first axis: parts `x_i / n`."""
        weight = torch.full((1, len(x.value)), 1 / len(x.value), dtype=torch.float64)
        return self.move(self.linear(self.move(x, lambda t: t.movedim(0, -1)), weight, gamma=0), lambda t: t[..., 0])

    def move(self, x: Node, function: Callable[[Tensor], Tensor]) -> Node:
        """A function that only moves, copies or leaves out elements: relevance goes back to where they came from."""
        origin = function(torch.arange(x.value.numel()).reshape(x.value.shape))

        def share(r: Tensor) -> Shares:
            back = torch.zeros(x.value.numel(), dtype=torch.float64)
            return (back.index_add(0, origin.reshape(-1), r.reshape(-1)).reshape(x.value.shape),), {}

        return self._record(x.value.reshape(-1)[origin], [x], share)

    def cat(self, nodes: Sequence[Node], axis: int = 0) -> Node:
        """Side by side."""
        lengths = [n.value.shape[axis] for n in nodes]
        return self._record(torch.cat([n.value for n in nodes], axis), nodes, lambda r: (r.split(lengths, axis), {}))

    # What transformers are made of

    def attention(self, q: Node, k: Node, v: Node, scale: float | None = None, bias: Sequence[Tensor] = ()) -> Node:
        """`softmax(scale q kᵀ + Σ bias) v` on (…, heads, tokens, d), as (…, tokens, heads · d)."""
        products = self.matmul(q, self.move(k, lambda t: t.transpose(-2, -1)))
        scores = self.scale(products, q.value.shape[-1] ** -0.5 if scale is None else scale)
        for constant in bias:
            scores = self.shift(scores, constant)
        out = self.matmul(self.softmax(scores), v)
        return self.move(out, lambda t: t.transpose(-3, -2).flatten(-2))

    def heads(self, x: Node, count: int) -> Node:
        """(…, tokens, heads · d) as (…, heads, tokens, d)."""
        return self.move(x, lambda t: t.unflatten(-1, (count, -1)).transpose(-3, -2))

    def rotate(self, x: Node, cos: Tensor, sin: Tensor, interleaved: bool) -> Node:
        """`x cos + turned(x) sin`, where `turned` maps a pair (a, b) to (-b, a): neighbours, or i and i + d/2."""
        width = x.value.shape[-1]
        columns = torch.arange(width)
        if interleaved:
            partner, signs = columns ^ 1, torch.where(columns % 2 == 0, -1.0, 1.0)
        else:
            partner, signs = (columns + width // 2) % width, torch.where(columns < width // 2, -1.0, 1.0)
        turned = self.move(x, lambda t: t[..., partner])
        return self.add(self.scale(x, cos), self.scale(turned, sin.double() * signs))

    def rotate_patches(self, x: Node, cos: Tensor, sin: Tensor, interleaved: bool) -> Node:
        """The last tokens rotated, the prefix left as it is."""
        prefix = x.value.shape[-2] - cos.shape[-2]
        patches = self.rotate(self.move(x, lambda t: t[..., prefix:, :]), cos, sin, interleaved)
        return self.cat([self.move(x, lambda t: t[..., :prefix, :]), patches], -2)

    def dense(self, x: Node, layer: nn.Linear) -> Node:
        return self.linear(x, layer.weight, layer.bias)

    def norm(self, x: Node, module: nn.Module | None) -> Node:
        """A layer norm, an RMS norm, or nothing."""
        if module is None or isinstance(module, nn.Identity):
            return x
        if isinstance(module, nn.LayerNorm):
            return self.layer_norm(x, module)
        assert type(module).__name__ in ("RmsNorm", "RMSNorm")
        eps: Any = module.eps
        return self.rms_norm(x, module.get_parameter("weight"), torch.finfo(torch.float64).eps if eps is None else eps)

    def nonlinearity(self, x: Node, module: nn.Module) -> Node:
        """An activation module; one that is a product `x · g(x)`, such as QuickGELU, counts as one function of x."""
        return self.activation(x, lambda t: module(t).detach())

    def multihead(self, module: nn.MultiheadAttention, query: Node, memory: Node) -> Node:
        """torch's multi-head attention, with one packed projection or three, on (tokens, D)."""
        weights: Any = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        if module.in_proj_weight is not None:
            weights = module.in_proj_weight.chunk(3)
        biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
        q, k, v = (
            self.heads(self.linear(x, w, b), module.num_heads)
            for x, w, b in zip((query, memory, memory), weights, biases, strict=True)
        )
        return self.dense(self.attention(q, k, v), module.out_proj)


def _halves(a: Node, b: Node) -> tuple[float, float]:
    """The shares of two factors."""
    return 0.5 + 0.5 * b.fixed - 0.5 * a.fixed, 0.5 + 0.5 * a.fixed - 0.5 * b.fixed


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch-norm in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias.detach() - norm.running_mean * scale


Network = Callable[[ByHand, Any, Node], Node]
"""The logits of a module on a picture, operation by operation."""


def tokens_of(hand: ByHand, x: Node) -> Node:
    """(D, h, w) as (h · w, D)."""
    return hand.move(x, lambda t: t.flatten(1).T)


def token(hand: ByHand, x: Node, index: int = 0) -> Node:
    return hand.move(x, lambda t: t[index])


# timm


def timm_vit(hand: ByHand, net: Any, x: Node) -> Node:
    """`timm.models.vision_transformer.VisionTransformer`."""
    t = timm_tokens(hand, net, x)
    for block in net.blocks:
        mixed = timm_attention(hand, block.attn, hand.norm(t, block.norm1))
        t = hand.add(t, timm_scaled(hand, mixed, block.ls1))
        t = hand.add(t, timm_scaled(hand, timm_mlp(hand, block.mlp, hand.norm(t, block.norm2)), block.ls2))
    return timm_head(hand, net, hand.norm(t, net.norm))


def timm_tokens(hand: ByHand, net: Any, x: Node) -> Node:
    """Patches with prefix tokens and position embeddings."""
    t = tokens_of(hand, hand.conv(x, net.patch_embed.proj))
    prefix = [hand.constant(p[0]) for p in (net.cls_token, net.reg_token) if p is not None]
    positions = net.pos_embed
    if positions is not None and net.no_embed_class:
        t = hand.shift(t, positions[0])
    t = hand.cat([*prefix, t])
    if positions is not None and not net.no_embed_class:
        t = hand.shift(t, positions[0])
    return hand.norm(t, net.norm_pre)


def timm_scaled(hand: ByHand, x: Node, layer_scale: nn.Module) -> Node:
    return x if isinstance(layer_scale, nn.Identity) else hand.scale(x, layer_scale.get_parameter("gamma"))


def timm_attention(
    hand: ByHand, attn: Any, x: Node, rope: tuple[Tensor, Tensor] | None = None, bias: Sequence[Tensor] = ()
) -> Node:
    """Norms of queries and keys, rotary positions, grouped heads, biases of the scores, an inner norm, a gate."""
    q, k, v = _timm_projections(hand, attn, x)
    q, k = (hand.norm(t, getattr(attn, name, None)) for t, name in ((q, "q_norm"), (k, "k_norm")))
    if rope is not None:
        q, k = (hand.rotate_patches(t, *rope, not attn.rotate_half) for t in (q, k))
    groups = len(q.value) // len(k.value) if q.value.ndim == 3 else 1
    k, v = (hand.move(t, lambda u: u.repeat_interleave(groups, 0)) if groups > 1 else t for t in (k, v))
    out = hand.norm(hand.attention(q, k, v, bias=bias), getattr(attn, "norm", None))
    if getattr(attn, "gate", None) is not None:
        out = hand.gated(out, hand.activation(hand.dense(x, attn.gate), torch.sigmoid))
    return hand.dense(out, attn.proj)


def _timm_projections(hand: ByHand, attn: Any, x: Node) -> tuple[Node, Node, Node]:
    """Queries, keys and values (…, heads, tokens, d) of three projections, or of one whose bias may lie elsewhere."""
    if attn.qkv is None:
        q = hand.heads(hand.dense(x, attn.q_proj), attn.num_heads)
        k, v = (hand.heads(hand.dense(x, p), attn.num_kv_heads) for p in (attn.k_proj, attn.v_proj))
        return q, k, v
    shift = attn.qkv.bias
    if getattr(attn, "q_bias", None) is not None:
        shift = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    return thirds(hand, hand.linear(x, attn.qkv.weight, shift), attn.num_heads)


def thirds(hand: ByHand, packed: Node, heads: int) -> tuple[Node, Node, Node]:
    """Queries, keys and values (…, heads, tokens, d) side by side on the last axis."""
    width = packed.value.shape[-1] // 3
    q, k, v = (
        hand.heads(hand.move(packed, lambda t, n=n: t[..., n * width : (n + 1) * width]), heads) for n in range(3)
    )
    return q, k, v


def timm_mlp(hand: ByHand, mlp: Any, x: Node) -> Node:
    """`Mlp`, `GluMlp` (one packed projection), `SwiGLU` (two projections)."""
    if hasattr(mlp, "fc1_g"):
        hidden = hand.mul(hand.nonlinearity(hand.dense(x, mlp.fc1_g), mlp.act), hand.dense(x, mlp.fc1_x))
    elif hasattr(mlp, "gate_last"):
        packed = hand.dense(x, mlp.fc1)
        half = packed.value.shape[-1] // 2
        first, second = hand.move(packed, lambda t: t[..., :half]), hand.move(packed, lambda t: t[..., half:])
        kept, gate = (first, second) if mlp.gate_last else (second, first)
        through = hand.gated if isinstance(mlp.act, nn.Sigmoid) else hand.mul
        hidden = through(kept, hand.nonlinearity(gate, mlp.act))
    else:
        hidden = hand.nonlinearity(hand.dense(x, mlp.fc1), mlp.act)
    return hand.dense(hand.norm(hidden, mlp.norm), mlp.fc2)


def timm_head(hand: ByHand, net: Any, t: Node) -> Node:
    """The class token, the average of the patches, or attention pooling; then norm and classifier."""
    if net.global_pool == "avg":
        pooled = hand.mean(hand.move(t, lambda v: v[net.num_prefix_tokens :]))
    elif net.global_pool == "map":
        pooled = timm_attention_pool(hand, net.attn_pool, t)
    else:
        pooled = token(hand, t)
    return hand.dense(hand.norm(pooled, net.fc_norm), net.head)


def timm_attention_pool(hand: ByHand, pool: Any, t: Node) -> Node:
    """A learnt query, which does not depend on the picture, over all tokens."""
    q = hand.heads(hand.dense(hand.constant(pool.latent[0]), pool.q), pool.num_heads)
    packed = hand.dense(t, pool.kv)
    width = packed.value.shape[-1] // 2
    k = hand.heads(hand.move(packed, lambda v: v[:, :width]), pool.num_heads)
    v = hand.heads(hand.move(packed, lambda v: v[:, width:]), pool.num_heads)
    q, k = hand.norm(q, pool.q_norm), hand.norm(k, pool.k_norm)
    out = hand.dense(hand.attention(q, k, v), pool.proj)
    return token(hand, hand.add(out, timm_mlp(hand, pool.mlp, hand.norm(out, pool.norm))))


def timm_eva(hand: ByHand, net: Any, x: Node) -> Node:
    """`timm.models.eva.Eva`: rotary positions, gated MLPs."""
    t = timm_tokens(hand, net, x)
    rope = None
    if net.rope is not None:
        sin, cos = net.rope.get_embed().double().chunk(2, -1)
        rope = (cos, sin)
    for block in net.blocks:
        mixed = timm_attention(hand, block.attn, hand.norm(t, block.norm1), rope)
        t = hand.add(t, mixed if block.gamma_1 is None else hand.scale(mixed, block.gamma_1))
        hidden = timm_mlp(hand, block.mlp, hand.norm(t, block.norm2))
        t = hand.add(t, hidden if block.gamma_2 is None else hand.scale(hidden, block.gamma_2))
    return timm_head(hand, net, hand.norm(t, net.norm))


def timm_swin(hand: ByHand, net: Any, x: Node) -> Node:
    """`timm.models.swin_transformer.SwinTransformer`, for sides that the windows divide."""
    t = hand.move(hand.conv(x, net.patch_embed.proj), lambda v: v.permute(1, 2, 0))
    t = hand.norm(t, net.patch_embed.norm)
    for stage in net.layers:
        if not isinstance(stage.downsample, nn.Identity):
            quarters = hand.move(t, lambda v: torch.cat([v[i::2, j::2] for j in (0, 1) for i in (0, 1)], -1))
            t = hand.dense(hand.norm(quarters, stage.downsample.norm), stage.downsample.reduction)
        for block in stage.blocks:
            t = hand.add(t, _swin_windows(hand, block, hand.norm(t, block.norm1)))
            t = hand.add(t, timm_mlp(hand, block.mlp, hand.norm(t, block.norm2)))
    pooled = hand.mean(hand.move(hand.norm(t, net.norm), lambda v: v.flatten(0, 1)))
    return hand.dense(pooled, net.head.fc)


def _swin_windows(hand: ByHand, block: Any, x: Node) -> Node:
    """Attention within windows (h, w) of a rolled map, with a bias by relative position and a mask at the seams."""
    rows, columns, _ = x.value.shape
    (h, w), (down, right) = block.window_size, block.shift_size
    places = torch.arange(rows * columns).reshape(rows, columns).roll((-down, -right), (0, 1))
    windows = torch.stack(
        [places[i : i + h, j : j + w].reshape(-1) for i in range(0, rows, h) for j in range(0, columns, w)]
    )
    offsets = [(a // w - b // w + h - 1, a % w - b % w + w - 1) for a in range(h * w) for b in range(h * w)]
    table = block.attn.relative_position_bias_table
    relative = torch.stack([table[i * (2 * w - 1) + j] for i, j in offsets]).T.reshape(-1, h * w, h * w)
    bias = [relative] if block.attn_mask is None else [relative, block.attn_mask[:, None]]
    inside = hand.move(x, lambda t: t.flatten(0, 1)[windows])
    mixed = timm_attention(hand, block.attn, inside, bias=bias)
    back = windows.reshape(-1).argsort()
    return hand.move(mixed, lambda t: t.flatten(0, 1)[back].reshape(rows, columns, -1))


# transformers


def hf_vit(hand: ByHand, net: Any, x: Node) -> Node:
    """`ViTForImageClassification`, or `ViTModel` with its pooler."""
    body = getattr(net, "vit", net)
    t = tokens_of(hand, hand.conv(x, body.embeddings.patch_embeddings.projection))
    t = hand.cat([hand.constant(body.embeddings.cls_token[0]), t])
    t = hand.shift(t, body.embeddings.position_embeddings[0])
    for layer in body.layers:
        t = hand.add(t, hf_attention(hand, layer.attention, hand.norm(t, layer.layernorm_before), net.config))
        t = hand.add(t, hf_mlp(hand, layer.mlp, hand.norm(t, layer.layernorm_after)))
    t = token(hand, hand.norm(t, body.layernorm))
    if body is net:
        return hand.nonlinearity(hand.dense(t, net.pooler.dense), net.pooler.activation)
    return hand.dense(t, net.classifier)


def hf_dinov2(hand: ByHand, net: Any, x: Node) -> Node:
    """`Dinov2WithRegistersForImageClassification`: the class token beside the average of the patches."""
    body, embeddings = net.dinov2_with_registers, net.dinov2_with_registers.embeddings
    t = tokens_of(hand, hand.conv(x, embeddings.patch_embeddings.projection))
    t = hand.shift(hand.cat([hand.constant(embeddings.cls_token[0]), t]), embeddings.position_embeddings[0])
    registers = hand.constant(embeddings.register_tokens[0])
    t = hand.cat([hand.move(t, lambda v: v[:1]), registers, hand.move(t, lambda v: v[1:])])
    t = hand.norm(_dino_layers(hand, body.encoder.layer, t, net.config), body.layernorm)
    patches = hand.move(t, lambda v: v[1 + net.config.num_register_tokens :])
    return hand.dense(hand.cat([token(hand, t), hand.mean(patches)]), net.classifier)


def hf_dinov3(hand: ByHand, net: Any, x: Node) -> Node:
    """`DINOv3ViTModel`: rotary positions, a gated MLP; the features of the class token."""
    embeddings = net.embeddings
    t = tokens_of(hand, hand.conv(x, embeddings.patch_embeddings))
    t = hand.cat([hand.constant(embeddings.cls_token[0]), hand.constant(embeddings.register_tokens[0]), t])
    rope = net.rope_embeddings(x.value[None])
    return token(hand, hand.norm(_dino_layers(hand, net.model.layer, t, net.config, rope), net.norm))


def _dino_layers(
    hand: ByHand, layers: Sequence[Any], t: Node, config: Any, rope: tuple[Tensor, Tensor] | None = None
) -> Node:
    for layer in layers:
        mixed = hf_attention(hand, layer.attention, hand.norm(t, layer.norm1), config, rope)
        t = hand.add(hand.scale(mixed, layer.layer_scale1.lambda1), t)
        hidden = hf_mlp(hand, layer.mlp, hand.norm(t, layer.norm2))
        t = hand.add(hand.scale(hidden, layer.layer_scale2.lambda1), t)
    return t


def hf_siglip(hand: ByHand, net: Any, x: Node) -> Node:
    """`SiglipVisionModel`: its pooled features, by attention from a learnt probe."""
    body = getattr(net, "vision_model", net)
    t = tokens_of(hand, hand.conv(x, body.embeddings.patch_embedding))
    t = hand.shift(t, body.embeddings.position_embedding.weight)
    for layer in body.encoder.layers:
        t = hand.add(t, hf_attention(hand, layer.self_attn, hand.norm(t, layer.layer_norm1), net.config))
        t = hand.add(t, hf_mlp(hand, layer.mlp, hand.norm(t, layer.layer_norm2)))
    t, head = hand.norm(t, body.post_layernorm), body.head
    pooled = hand.multihead(head.attention, hand.constant(head.probe[0]), t)
    return token(hand, hand.add(pooled, hf_mlp(hand, head.mlp, hand.norm(pooled, head.layernorm))))


def hf_attention(hand: ByHand, attn: Any, x: Node, config: Any, rope: tuple[Tensor, Tensor] | None = None) -> Node:
    """Three projections; rotary positions of the patches by halves."""
    q, k, v = (
        hand.heads(hand.dense(x, p), config.num_attention_heads) for p in (attn.q_proj, attn.k_proj, attn.v_proj)
    )
    if rope is not None:
        q, k = (hand.rotate_patches(t, *rope, interleaved=False) for t in (q, k))
    return hand.dense(hand.attention(q, k, v), attn.o_proj if hasattr(attn, "o_proj") else attn.out_proj)


def hf_mlp(hand: ByHand, mlp: Any, x: Node) -> Node:
    """Two layers, or a gated one."""
    if hasattr(mlp, "gate_proj"):
        gate = hand.nonlinearity(hand.dense(x, mlp.gate_proj), mlp.act_fn)
        return hand.dense(hand.mul(gate, hand.dense(x, mlp.up_proj)), mlp.down_proj)
    return hand.dense(hand.nonlinearity(hand.dense(x, mlp.fc1), mlp.activation_fn), mlp.fc2)


# open_clip and torchvision


def open_clip_vit(hand: ByHand, net: Any, x: Node) -> Node:
    """`open_clip.transformer.VisionTransformer`: its features, the class token or a pooled one times a projection."""
    t = tokens_of(hand, hand.conv(x, net.conv1))
    t = hand.shift(hand.cat([hand.constant(net.class_embedding[None]), t]), net.positional_embedding)
    t = hand.norm(t, net.ln_pre)
    for block in net.transformer.resblocks:
        inside = hand.norm(t, block.ln_1)
        t = hand.add(t, timm_scaled(hand, hand.multihead(block.attn, inside, inside), block.ls_1))
        hidden = hand.nonlinearity(hand.dense(hand.norm(t, block.ln_2), block.mlp.c_fc), block.mlp.gelu)
        t = hand.add(t, timm_scaled(hand, hand.dense(hidden, block.mlp.c_proj), block.ls_2))
    if net.attn_pool is not None:
        query = hand.norm(hand.constant(net.attn_pool.query), net.attn_pool.ln_q)
        t = hand.multihead(net.attn_pool.attn, query, hand.norm(t, net.attn_pool.ln_k))
    return hand.linear(token(hand, hand.norm(t, net.ln_post)), net.proj.T)


def clip_attention_pool(hand: ByHand, pool: Any, x: Node) -> Node:
    """The head of CLIP's ResNets: the average of all positions attends to itself and to them."""
    t = tokens_of(hand, x)
    average = hand.move(hand.mean(t), lambda v: v[None])
    t = hand.shift(hand.cat([average, t]), pool.positional_embedding)
    q, k, v = (hand.heads(hand.dense(t, p), pool.num_heads) for p in (pool.q_proj, pool.k_proj, pool.v_proj))
    return token(hand, hand.dense(hand.attention(q, k, v), pool.c_proj))


def torchvision_vit(hand: ByHand, net: Any, x: Node) -> Node:
    """`torchvision.models.VisionTransformer`, also with a stem of convolutions, batch-norms and ReLUs."""
    if isinstance(net.conv_proj, nn.Conv2d):
        t = hand.conv(x, net.conv_proj)
    else:
        *stem, last = net.conv_proj
        t = x
        for conv, norm, _ in stem:
            t = hand.activation(hand.conv(t, conv, norm), torch.relu)
        t = hand.conv(t, last)
    t = hand.cat([hand.constant(net.class_token[0]), tokens_of(hand, t)])
    t = hand.shift(t, net.encoder.pos_embedding[0])
    for block in net.encoder.layers:
        inside = hand.norm(t, block.ln_1)
        t = hand.add(hand.multihead(block.self_attention, inside, inside), t)
        first, activation, _, second, _ = block.mlp
        hidden = hand.nonlinearity(hand.dense(hand.norm(t, block.ln_2), first), activation)
        t = hand.add(t, hand.dense(hidden, second))
    t = token(hand, hand.norm(t, net.encoder.ln))
    if hasattr(net.heads, "pre_logits"):
        t = hand.activation(hand.dense(t, net.heads.pre_logits), torch.tanh)
    return hand.dense(t, net.heads.head)
