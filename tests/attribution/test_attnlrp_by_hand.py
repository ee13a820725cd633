"""AttnLRP and CP-LRP against an implementation that shares nothing with them: explicit contributions, no gradients."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from support.attnlrp_by_hand import (
    ByHand,
    Network,
    Node,
    Relevances,
    clip_attention_pool,
    hf_dinov2,
    hf_dinov3,
    hf_siglip,
    hf_vit,
    open_clip_vit,
    thirds,
    timm_eva,
    timm_swin,
    timm_vit,
    tokens_of,
    torchvision_vit,
)
from torch import Tensor, nn

import ierf

METHODS = ("attnlrp", "cp_lrp")
SMALL: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network in float64 with random weights, biases and scales, none of them near zero or one for all channels."""
    generator = torch.Generator().manual_seed(seed)
    net = net.double().eval().requires_grad_(False)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    for name, p in net.named_parameters():
        if p.ndim == 1:
            p.copy_(0.3 * normal(p) + (0.0 if "bias" in name or "embedding" in name else 1.0))
        else:
            p.copy_(normal(p) * (0.5 if p.ndim == 3 else 1.2 / math.sqrt(p[0].numel())))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.copy_(0.3 * normal(module.running_mean))
            module.running_var.copy_(0.5 + normal(module.running_var).square())
    return net


def pictures(side: int = 16, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def by_hand(network: Network, net: nn.Module, x: Tensor, index: int, **rules: Any) -> Relevances:
    hand = ByHand(**rules)
    return hand.relevances(network(hand, net, hand.picture(x)), index)


def check(network: Network, net: nn.Module, x: Tensor, method: str, tolerance: float = 1e-10, **gammas: float) -> None:
    """The forward pass by hand is the network's, and the maps agree, for another class per picture."""
    targets = [(3 + n) % 5 for n in range(len(x))]
    with torch.no_grad():
        logits = getattr(output := net(x), "logits", getattr(output, "pooler_output", output))
    gammas = {"conv_gamma": 0.0, **gammas}
    maps = ierf.attribute(net, x, target=targets, method=method, resolution="input", **gammas)
    for n, index in enumerate(targets):
        expected = by_hand(network, net, x[n], index, cp=method == "cp_lrp", **gammas)
        assert abs(expected.score - logits[n, index]) <= tolerance * logits[n].abs().max()
        unexplained = expected.score - expected.map.sum() - sum(expected.lost.values())
        assert abs(unexplained) <= 1e-10 * expected.map.abs().sum()
        assert expected.map.abs().max() > 1e-3
        difference = (maps[n] - expected.map).abs().max() / expected.map.abs().max()
        assert difference <= tolerance, f"differs by {difference:.1e} of the maximum"


# timm


def timm_network(**options: Any) -> nn.Module:
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    return randomised(vision_transformer.VisionTransformer(**SMALL | options))


TIMM: dict[str, dict[str, Any]] = {
    "class token": {},
    "registers": {"reg_tokens": 3, "no_embed_class": True},
    "norms of queries and keys": {"qk_norm": True, "img_size": (24, 16)},
    "layer scale": {"init_values": 0.1, "num_heads": 4},
    "norm before": {"pre_norm": True, "reg_tokens": 1},
    "average": {"global_pool": "avg"},
    "average without class token": {"global_pool": "avg", "class_token": False, "fc_norm": False},
    "attention pooling": {"global_pool": "map", "class_token": False},
    "inner norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "gate": {},
    "ReLU": {"act_layer": nn.ReLU},
    "SiLU": {"act_layer": nn.SiLU, "qkv_bias": False},
    "no positions": {"pos_embed": "none", "global_pool": "avg", "class_token": False},
}
ATTENDING = ("class token", "norms of queries and keys", "layer scale", "attention pooling", "inner norms", "gate")
"""Those that differ in the attention, which is written in two ways."""


def fuse(net: nn.Module, fused: bool) -> None:
    """Attention by `scaled_dot_product_attention`, or by products and a softmax."""
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("kind", "fused"),
    [*((kind, True) for kind in TIMM), *((kind, False) for kind in ATTENDING)],
    ids=[*TIMM, *(f"{kind}, plain" for kind in ATTENDING)],
)
def test_timm_vision_transformer(kind: str, fused: bool, method: str) -> None:
    net = timm_network(**TIMM[kind])
    if kind == "gate":
        for block in net.blocks:
            block.attn.gate = randomised(nn.Linear(16, 16))
    fuse(net, fused)
    height, width = TIMM[kind].get("img_size", (16, 16))
    check(timm_vit, net, pictures(24)[:, :, :height, :width], method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["SwiGLUPacked", "GluMlp", "SwiGLU"])
def test_gated_mlps(name: str, method: str) -> None:
    layers = pytest.importorskip("timm.layers")
    mlp = partial(layers.GluMlp, gate_last=True) if name == "GluMlp" else getattr(layers, name)
    check(
        timm_vit, timm_network(mlp_layer=mlp, act_layer=nn.Sigmoid if name == "GluMlp" else nn.SiLU), pictures(), method
    )


@pytest.mark.parametrize("method", METHODS)
def test_rms_norm(method: str) -> None:
    layers = pytest.importorskip("timm.layers")
    check(timm_vit, timm_network(norm_layer=layers.RmsNorm, qk_norm=True), pictures(), method)


EVA: dict[str, dict[str, Any]] = {
    "rotary": {"use_rot_pos_emb": True},
    "rotary by halves, registers": {
        "use_rot_pos_emb": True,
        "rope_type": "dinov3",
        "rope_rotate_half": True,
        "num_reg_tokens": 2,
        "use_abs_pos_emb": False,
        "init_values": 0.1,
    },
    "grouped heads": {
        "use_rot_pos_emb": True,
        "attn_type": "rope",
        "qkv_fused": False,
        "num_heads": 4,
        "num_kv_heads": 2,
        "qk_norm": True,
    },
    "packed gated MLP": {"use_rot_pos_emb": True, "swiglu_mlp": True},
    "EVA-02": {"use_rot_pos_emb": True, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", EVA)
def test_timm_eva(kind: str, method: str) -> None:
    eva = pytest.importorskip("timm.models.eva")
    check(timm_eva, randomised(eva.Eva(**SMALL | EVA[kind])), pictures(), method)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("method", METHODS)
def test_timm_swin(method: str, fused: bool) -> None:
    swin = pytest.importorskip("timm.models.swin_transformer")
    net = randomised(
        swin.SwinTransformer(
            img_size=16, patch_size=2, embed_dim=8, depths=(2, 1), num_heads=(2, 2), window_size=4, num_classes=5
        )
    )
    fuse(net, fused)
    check(timm_swin, net, pictures(), method)


# transformers

HF: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_labels": 5,
}


def hf_network(config: str, model: str, attention: str, **options: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    settings = getattr(transformers, config)(**HF | options)
    settings._attn_implementation = attention
    return randomised(getattr(transformers, model)(settings))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", ["ViTForImageClassification", "ViTModel"])
def test_hf_vit(model: str, method: str, attention: str) -> None:
    net = hf_network("ViTConfig", model, attention)
    check(hf_vit, net, pictures(), method, eager_tolerance(attention))


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("method", METHODS)
def test_hf_dinov2_with_registers(method: str, attention: str, gated: bool) -> None:
    names = "Dinov2WithRegistersConfig", "Dinov2WithRegistersForImageClassification"
    net = hf_network(*names, attention, num_register_tokens=2, use_swiglu_ffn=gated, mlp_ratio=2)
    check(hf_dinov2, net, pictures(), method)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("method", METHODS)
def test_hf_dinov3(method: str, attention: str) -> None:
    net = hf_network("DINOv3ViTConfig", "DINOv3ViTModel", attention, use_gated_mlp=True, num_register_tokens=2)
    check(hf_dinov3, net, pictures(), method)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("method", METHODS)
def test_hf_siglip(method: str, attention: str) -> None:
    net = hf_network("SiglipVisionConfig", "SiglipVisionModel", attention)
    check(hf_siglip, net, pictures(), method, eager_tolerance(attention))


def eager_tolerance(attention: str) -> float:
    """The library's plain attention takes some softmaxes in float32."""
    return 1e-6 if attention == "eager" else 1e-10


# open_clip and torchvision


@pytest.mark.parametrize("quick", [False, True], ids=["GELU", "QuickGELU"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "sequence first"])
@pytest.mark.parametrize("method", METHODS)
def test_open_clip(method: str, batch_first: bool, quick: bool) -> None:
    library = pytest.importorskip("open_clip.transformer")
    act_layer = library.QuickGELU if quick else nn.GELU
    net = library.VisionTransformer(16, 4, 16, 2, 2, 2.0, ls_init_value=0.1, output_dim=5, act_layer=act_layer)
    net.transformer = library.Transformer(16, 2, 2, 2.0, 0.1, act_layer, batch_first=batch_first)
    check(open_clip_vit, randomised(net), pictures(), method)


@pytest.mark.parametrize("method", METHODS)
def test_open_clip_with_attention_pooling(method: str) -> None:
    library = pytest.importorskip("open_clip.transformer")
    options = {"attentional_pool": True, "attn_pooler_queries": 3, "attn_pooler_heads": 2}
    net = library.VisionTransformer(16, 4, 16, 2, 2, 2.0, output_dim=12, **options)
    net.proj = nn.Parameter(torch.empty(12, 5))
    check(open_clip_vit, randomised(net), pictures(), method)


@pytest.mark.parametrize("method", METHODS)
def test_head_of_the_resnets_of_clip(method: str) -> None:
    library = pytest.importorskip("open_clip.modified_resnet")
    stem = nn.Conv2d(3, 16, 3, 4, 1), nn.BatchNorm2d(16), nn.ReLU()
    net = randomised(nn.Sequential(*stem, library.AttentionPool2d(4, 16, 2, 5)))

    def network(hand: ByHand, net: Any, x: Node) -> Node:
        return clip_attention_pool(hand, net[3], hand.activation(hand.conv(x, net[0], net[1]), torch.relu))

    check(network, net, pictures(), method)


@pytest.mark.parametrize("method", METHODS)
def test_torchvision(method: str) -> None:
    check(torchvision_vit, torchvision_network(representation_size=12), pictures(), method)


@pytest.mark.parametrize("method", METHODS)
def test_torchvision_with_a_stem_of_convolutions(method: str) -> None:
    check(torchvision_vit, stem_network(), pictures(), method)


def torchvision_network(**options: Any) -> nn.Module:
    library = pytest.importorskip("torchvision.models.vision_transformer")
    return randomised(library.VisionTransformer(16, 4, 2, 2, 16, 24, num_classes=5, **options))


def stem_network() -> nn.Module:
    library = pytest.importorskip("torchvision.models.vision_transformer")
    stem = [library.ConvStemConfig(out_channels=n, kernel_size=3, stride=2) for n in (4, 6)]
    return torchvision_network(conv_stem_configs=stem)


class TwoAttentions(nn.Module):
    """Multi-head attention of tokens (T, N, D) that also returns its weights, without and with biases."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.first = nn.MultiheadAttention(16, 4)
        self.second = nn.MultiheadAttention(16, 2, bias=False)
        self.head = nn.Linear(16, 5)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        t = self.patches(x).flatten(2).permute(2, 0, 1)
        t = t + self.first(t, t, t, need_weights=self.need_weights)[0]
        t = t + self.second(t, t, t, need_weights=self.need_weights, average_attn_weights=False)[0]
        logits: Tensor = self.head(t.mean(0))
        return logits


def two_attentions(hand: ByHand, net: Any, x: Node) -> Node:
    t = tokens_of(hand, hand.conv(x, net.patches))
    for attention in (net.first, net.second):
        t = hand.add(t, hand.multihead(attention, t, t))
    return hand.dense(hand.mean(t), net.head)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_multihead_attention_with_and_without_weights(method: str, need_weights: bool) -> None:
    check(two_attentions, randomised(TwoAttentions(need_weights)), pictures(), method)


class Cosine(nn.Module):
    """Attention by the cosine of queries and keys, as in Swin V2, after a batch-norm that follows no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.qkv = nn.Linear(16, 48)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patches(self.norm(x)).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(t).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        scores = nn.functional.normalize(q, dim=-1) @ nn.functional.normalize(k, dim=-1).mT * 5.0
        t = torch.tanh(t + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        logits: Tensor = self.head(t.mean(1))
        return logits


def cosine(hand: ByHand, net: Any, x: Node) -> Node:
    t = tokens_of(hand, hand.conv(hand.batch_norm(x, net.norm), net.patches))
    q, k, v = thirds(hand, hand.dense(t, net.qkv), 2)
    mixed = hand.attention(hand.unit(q), hand.unit(k), v, scale=5.0)
    return hand.dense(hand.mean(hand.activation(hand.add(t, mixed), torch.tanh)), net.head)


@pytest.mark.parametrize("method", METHODS)
def test_cosine_attention(method: str) -> None:
    check(cosine, randomised(Cosine()), pictures(), method)


# The same attention in many spellings

CAUSAL = torch.full((16, 16), -1e9, dtype=torch.float64).triu(1)
RANDOM = torch.randn(16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
sdpa = nn.functional.scaled_dot_product_attention


def through_baddbmm(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.baddbmm(RANDOM, q.flatten(0, 1), k.flatten(0, 1).mT, alpha=8**-0.5).unflatten(0, (-1, 2))
    return torch.bmm(scores.softmax(-1).flatten(0, 1), v.flatten(0, 1)).unflatten(0, (-1, 2))


def through_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.softmax(torch.einsum("nhtd,nhsd->nhts", q, k) / 8**0.5, -1)
    return torch.einsum("nhts,nhsd->nhtd", weights, v)


def by_keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Everything transposed, and the softmax on an inner axis."""
    weights = torch.matmul(k, q.mT).mul(8**-0.5).softmax(dim=-2)
    return torch.matmul(v.mT, weights).mT


SPELLINGS: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], dict[str, Any]]] = {
    "operators": (lambda q, k, v: (q / 8**0.5 @ k.mT).softmax(-1) @ v, {}),
    "einsum": (through_einsum, {}),
    "by keys": (by_keys, {}),
    "baddbmm": (through_baddbmm, {"bias": [RANDOM]}),
    "addition": (lambda q, k, v: torch.softmax(q @ k.mT + RANDOM, -1) @ v, {"scale": 1.0, "bias": [RANDOM]}),
    "masked": (
        lambda q, k, v: (q @ k.mT).masked_fill(CAUSAL < 0, -1e9).softmax(-1) @ v,
        {"scale": 1, "bias": [CAUSAL]},
    ),
    "fused": (sdpa, {}),
    "fused, scale": (partial(sdpa, scale=0.7), {"scale": 0.7}),
    "fused, bias": (partial(sdpa, attn_mask=RANDOM), {"bias": [RANDOM]}),
    "fused, mask": (partial(sdpa, attn_mask=CAUSAL == 0), {"bias": [CAUSAL]}),
    "fused, causal": (partial(sdpa, is_causal=True), {"bias": [CAUSAL]}),
    "fused, grouped": (lambda q, k, v: sdpa(q, k[:, :1], v[:, :1], enable_gqa=True), {"grouped": True}),
}


class Spelled(nn.Module):
    """One attention of 16 tokens with two heads, written in one of many ways."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.qkv = nn.Linear(16, 48)
        self.head = nn.Linear(16, 5)
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        t = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = (p.unflatten(-1, (2, 8)).transpose(1, 2) for p in self.qkv(t).chunk(3, -1))
        mixed = SPELLINGS[self.spelling][0](q, k, v)
        logits: Tensor = self.head(mixed.transpose(1, 2).flatten(2).mean(1))
        return logits


def spelled(hand: ByHand, net: Any, x: Node) -> Node:
    options = dict(SPELLINGS[net.spelling][1])
    q, k, v = thirds(hand, hand.dense(tokens_of(hand, hand.conv(x, net.patches)), net.qkv), 2)
    if options.pop("grouped", False):
        k, v = (hand.move(t, lambda u: u[:1].repeat(2, 1, 1)) for t in (k, v))
    return hand.dense(hand.mean(hand.attention(q, k, v, **options)), net.head)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_attention(spelling: str, method: str) -> None:
    check(spelled, randomised(Spelled(spelling)), pictures(), method)


# Gates and products


class Gated(nn.Module):
    """Patches times a gate: a function of their average, of a second projection, or of themselves."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.gate = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        t = self.patches(x).flatten(2).transpose(1, 2)
        if self.kind == "average":
            t = t * torch.sigmoid(self.gate(t.mean(1, keepdim=True)))
        elif self.kind == "projection":
            t = torch.mul(self.gate(t), t)
        else:
            t = t * torch.sigmoid(t)
        logits: Tensor = self.head(t.mean(1))
        return logits


def gated(hand: ByHand, net: Any, x: Node) -> Node:
    t = tokens_of(hand, hand.conv(x, net.patches))
    if net.kind == "average":
        gate = hand.activation(hand.dense(hand.mean(t), net.gate), torch.sigmoid)
        t = hand.gated(t, hand.move(gate, lambda g: g.expand(len(t.value), -1)))
    elif net.kind == "projection":
        t = hand.mul(hand.dense(t, net.gate), t)
    else:
        t = hand.activation(t, nn.functional.silu)
    return hand.dense(hand.mean(t), net.head)


@pytest.mark.parametrize("kind", ["average", "projection", "itself"])
def test_products(kind: str) -> None:
    check(gated, randomised(Gated(kind)), pictures(), "attnlrp")


# The γ-rule

GAMMAS = (
    {"conv_gamma": 0.25},
    {"linear_gamma": 0.05},
    {"conv_gamma": 0.25, "linear_gamma": 0.05},
    {"linear_gamma": 10.0},
)
GAMMA_NETWORKS: dict[str, tuple[Network, Callable[[], nn.Module]]] = {
    "timm": (timm_vit, partial(timm_network, init_values=0.1)),
    "convolutions and batch-norms": (torchvision_vit, stem_network),
    "lone batch-norm": (cosine, lambda: randomised(Cosine())),
    "packed projection": (two_attentions, lambda: randomised(TwoAttentions(False))),
}


@pytest.mark.parametrize("gammas", GAMMAS, ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", GAMMA_NETWORKS)
def test_gamma(kind: str, method: str, gammas: dict[str, float]) -> None:
    network, build = GAMMA_NETWORKS[kind]
    check(network, build(), pictures(), method, **gammas)


# Closed forms


class OneHead(nn.Module):
    """Two tokens of width 1, the channel sums of two pixels: `q = x ln 2`, `k = v = x`; the first token's output."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(3, 3, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.qkv.weight.copy_(torch.ones(3, 3) * torch.tensor([math.log(2), 1, 1], dtype=torch.float64)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.flatten(2).mT).split(1, -1)
        return torch.matmul((q @ k.mT).softmax(-1), v)[:, 0]


def one_head(hand: ByHand, net: Any, x: Node) -> Node:
    packed = hand.dense(tokens_of(hand, x), net.qkv)
    q, k, v = (hand.move(packed, lambda t, n=n: t[None, :, n : n + 1]) for n in range(3))  # type: ignore[misc]
    return hand.move(hand.attention(q, k, v), lambda t: t[0])


# Scores of the first token (ln 2, 2 ln 2), weights (1/3, 2/3), output 1/3 · 1 + 2/3 · 2 = 5/3. Half of its parts
# (1/3, 4/3) go to the weights, half to the values. The softmax keeps x (R − s ΣR) = ln 2 · (1/6 − 5/18, 4/3 − 10/9);
# of (−ln 2 / 9, 2 ln 2 / 9) half goes to the query at the first token and half to the keys.
ONE_HEAD = {
    "attnlrp": (1 / 6 + math.log(2) / 18 - math.log(2) / 18, 2 / 3 + math.log(2) / 9),
    "cp_lrp": (1 / 3, 4 / 3),
}


@pytest.mark.parametrize("method", METHODS)
def test_one_head_worked_out(method: str) -> None:
    net = OneHead().eval()
    x = torch.tensor([[0.5, 1.0], [0.25, 2.0], [0.25, -1.0]], dtype=torch.float64)[None, :, None]
    expected = torch.tensor(ONE_HEAD[method], dtype=torch.float64)
    result = by_hand(one_head, net, x[0], 0, cp=method == "cp_lrp")
    assert abs(result.score - 5 / 3) <= 1e-12
    assert torch.allclose(result.map[0], expected, rtol=0, atol=1e-11)
    assert result.lost.get("softmax", 0.0) == pytest.approx(0 if method == "cp_lrp" else 5 / 6 - math.log(2) / 9)
    assert torch.allclose(ierf.attribute(net, x, target=0, method=method)[0, 0], expected, rtol=0, atol=1e-11)


def test_gamma_worked_out() -> None:
    """`z = 2·1 − 1·3 + 0.5 = −0.5`: with γ = 1 the negative part counts twice, `(2, −6, 0.5) / −3.5` of the score."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 1)).double().eval().requires_grad_(False)
    net[1].weight.copy_(torch.tensor([[2.0, -1.0, 0.0]]))
    net[1].bias.copy_(torch.tensor([0.5]))
    x = torch.tensor([1.0, 3.0, 4.0], dtype=torch.float64)[None, :, None, None]
    hand = ByHand(linear_gamma=1.0)
    pixels = hand.picture(x[0])
    result = hand.relevances(hand.dense(hand.move(pixels, lambda t: t.reshape(-1)), net[1]), 0)
    expected = -0.5 * (2 - 6) / -3.5
    assert result.map.item() == pytest.approx(expected, rel=1e-10)
    assert result.lost["bias"] == pytest.approx(-0.5 * 0.5 / -3.5, rel=1e-10)
    assert ierf.attribute(net, x, target=0, method="attnlrp", linear_gamma=1.0).item() == pytest.approx(expected)


# Where the rules are gradients


def gradient(function: Callable[..., Tensor], *inputs: Tensor, relevance: Tensor) -> list[Tensor]:
    """Input times gradient, from `relevance / output`."""
    leaves = [t.clone().requires_grad_() for t in inputs]
    out = function(*leaves)
    return [
        leaf.detach() * g for leaf, g in zip(leaves, torch.autograd.grad(out, leaves, relevance / out), strict=True)
    ]


def shared(node: Node, relevance: Tensor) -> tuple[Tensor, ...]:
    assert node.share is not None
    return node.share(relevance)[0]


def test_rules_by_hand_are_gradients_where_they_should_be() -> None:
    hand = ByHand()
    a, b, w, r, s = (
        torch.randn(*shape, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        for n, shape in enumerate([(2, 4, 5), (2, 5, 3), (3, 5), (2, 4, 3), (2, 4, 5)])
    )
    bias = torch.tensor([0.3, -0.4, 0.1], dtype=torch.float64)
    at_a, at_b = Node(a), Node(b)

    def compare(node: Node, relevance: Tensor, expected: list[Tensor]) -> None:
        for got, want in zip(shared(node, relevance), expected, strict=True):
            assert torch.allclose(got, want, rtol=1e-9, atol=1e-10)

    compare(hand.linear(at_a, w, bias), r, gradient(lambda t: t @ w.T + bias, a, relevance=r))
    compare(hand.matmul(at_a, at_b), r, [g / 2 for g in gradient(torch.matmul, a, b, relevance=r)])
    compare(hand.softmax(at_a), s, gradient(lambda t: t.softmax(-1), a, relevance=s))
    compare(hand.add(at_a, Node(a.flip(0))), s, gradient(torch.add, a, a.flip(0), relevance=s))
    compare(hand.activation(at_a, nn.functional.silu), s, [s])


def with_gradients(net: Any, x: Tensor, index: int) -> Tensor:
    """AttnLRP of timm's transformer as input times a gradient through detached factors."""

    def norm(t: Tensor, layer: nn.LayerNorm) -> Tensor:
        deviation = (t.var(-1, correction=0, keepdim=True) + layer.eps).sqrt().detach()
        return (t - t.mean(-1, keepdim=True)) / deviation * layer.weight + layer.bias

    def half(product: Tensor) -> Tensor:
        return product / 2 + product.detach() / 2

    x = x.clone().requires_grad_()
    t = net.patch_embed.proj(x[None]).flatten(2).mT
    t = torch.cat([net.cls_token, t], 1) + net.pos_embed
    for block in net.blocks:
        packed = block.attn.qkv(norm(t, block.norm1))
        q, k, v = packed.unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (half(q @ k.mT) * q.shape[-1] ** -0.5).softmax(-1)
        t = t + block.attn.proj(half(weights @ v).transpose(1, 2).flatten(2))
        u = block.mlp.fc1(norm(t, block.norm2))
        t = t + block.mlp.fc2(u * (nn.functional.gelu(u) / u).detach())
    logit = net.head(norm(t, net.norm)[:, 0])[0, index]
    return (x * torch.autograd.grad(logit, x)[0]).sum(0).detach()


def test_a_whole_network_by_hand_is_a_gradient_through_detached_factors() -> None:
    net, x = timm_network(), pictures()[0]
    expected = with_gradients(net, x, 2)
    assert (by_hand(timm_vit, net, x, 2).map - expected).abs().max() <= 1e-9 * expected.abs().max()


# Conservation


def without_constants(net: nn.Module) -> nn.Module:
    for name, p in net.named_parameters():
        if "bias" in name:
            p.zero_()
    return net


def test_cp_lrp_conserves_without_biases_and_constants() -> None:
    """No biases, no positions, no class token: nothing that does not come from the pixels."""
    net = without_constants(timm_network(pos_embed="none", class_token=False, global_pool="avg"))
    x = pictures(count=1)
    result = by_hand(timm_vit, net, x[0], 1, cp=True)
    assert abs(result.map.sum() - result.score) <= 1e-9 * abs(result.score)
    relevance = ierf.attribute(net, x, target=1, method="cp_lrp")
    assert abs(relevance.sum() - result.score) <= 1e-9 * abs(result.score)


LEAKS: dict[str, tuple[Network, Callable[[], nn.Module], set[str]]] = {
    "only the softmax": (
        timm_vit,
        lambda: without_constants(timm_network(pos_embed="none", class_token=False, global_pool="avg")),
        {"softmax"},
    ),
    "biases and constants too": (timm_vit, timm_network, {"softmax", "bias", "constant"}),
    "sigmoids too": (
        timm_vit,
        lambda: timm_network(act_layer=nn.Sigmoid),
        {"softmax", "bias", "constant", "activation"},
    ),
}


@pytest.mark.parametrize("kind", LEAKS)
def test_what_is_lost_by_hand_is_the_sum_over_its_causes(kind: str) -> None:
    network, build, causes = LEAKS[kind]
    result = by_hand(network, build(), pictures()[0], 1)
    lost = result.score - result.map.sum()
    assert {cause for cause, amount in result.lost.items() if abs(amount) > 1e-6} == causes
    assert abs(sum(result.lost.values()) - lost) <= 1e-9 * abs(lost)


OPERATIONS = {
    "softmax": {"scaled_dot_product_attention"},
    "bias": {"linear", "conv2d"},
    "constant": {"add", "cat", "layer_norm"},
}


@pytest.mark.parametrize("method", METHODS)
def test_the_ledger_loses_what_is_lost_by_hand(method: str) -> None:
    """The shift of a layer norm counts as a constant by hand."""
    net, x = timm_network(), pictures(count=1)
    result = by_hand(timm_vit, net, x[0], 1, cp=method == "cp_lrp")
    ledger = ierf.check_conservation(net, x, method=method, target=1)
    leaks = [leak for entry in ledger.entries for leak in entry.leaks]
    for cause, operations in OPERATIONS.items():
        amount = sum(leak.amount for leak in leaks if leak.operation in operations)
        assert abs(amount - result.lost.get(cause, 0.0)) <= 1e-10
    assert abs(ledger.leaked - float(result.score - result.map.sum())) <= 1e-10


# which convolutions have the γ-rule by default


@pytest.mark.parametrize("method", METHODS)
def test_a_lone_patch_embedding_has_the_epsilon_rule_by_default(method: str) -> None:
    net, x = timm_network(), pictures()
    assert torch.equal(
        ierf.attribute(net, x, target=1, method=method), ierf.attribute(net, x, target=1, method=method, conv_gamma=0.0)
    )


@pytest.mark.parametrize("method", METHODS)
def test_convolutions_behind_another_have_gamma_by_default(method: str) -> None:
    """One channel lies between the two convolutions, so that its map tells its relevance; below, ε by hand."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 1, 2, stride=2).double(), nn.Conv2d(1, 4, 3).double()
    net = nn.Sequential(first, second, nn.Flatten(), nn.Linear(16, 5).double()).requires_grad_(False)
    x = pictures(8)
    between = ierf.attribute(net, x, 2, method, "0")
    assert torch.equal(between, ierf.attribute(net, x, 2, method, "0", conv_gamma=0.25))
    assert not torch.allclose(between, ierf.attribute(net, x, 2, method, "0", conv_gamma=0.0))
    by_hand = x * nn.functional.conv_transpose2d(between[:, None] / first(x), first.weight, stride=2)
    torch.testing.assert_close(ierf.attribute(net, x, 2, method), by_hand.sum(1), rtol=1e-10, atol=1e-12)
