"""Small transformers in plain operations, with any number of prefix tokens; and an untrained autoencoder of one."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from ierf.cafe import LatentLayer
from ierf.concepts import SAE
from ierf.model import Preprocess, VisionModel

Embedding = Literal["convolution", "unfold", "reshape"]
Head = Literal["class", "mean"]


class Attention(nn.Module):
    """Softmax attention of `heads` heads, by matrix products."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        mixed: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Float[Tensor, "N T C"]) -> Float[Tensor, "N T C"]:
        x = x + self.attention(self.norm1(x))
        mixed: Tensor = x + self.narrow(F.gelu(self.widen(self.norm2(x))))
        return mixed


class TinyTransformer(nn.Module):
    """Patches, `prefix` tokens of no patch in front of them and `suffix` behind, two blocks, five classes.

    Logits are read off the first token (head "class") or off the mean of all ("mean"). Position embeddings are for a
    `grid` of (rows, columns) patches; None leaves them out.
    """

    def __init__(
        self,
        prefix: int = 1,
        suffix: int = 0,
        embedding: Embedding = "convolution",
        head: Head = "class",
        grid: tuple[int, int] | None = None,
        patch: int = 4,
        width: int = 8,
        heads: int = 2,
    ) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.patch, self.embedding, self.read = patch, embedding, head
        self.embed = nn.Linear(3 * patch**2, width)
        self.prefix = nn.Parameter(torch.randn(1, prefix, width))
        self.suffix = nn.Parameter(torch.randn(1, suffix, width))
        self.places = None if grid is None else nn.Parameter(torch.randn(1, grid[0] * grid[1], width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(2))
        self.norm, self.classes = nn.LayerNorm(width), nn.Linear(width, 5)
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 5"]:
        return self.classify(self.blocks[1](self.entering(x)))

    def entering(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N T C"]:
        """What enters the last block."""
        tokens: Tensor = self.blocks[0](self.tokens(x))
        return tokens

    def classify(self, tokens: Float[Tensor, "N T C"]) -> Float[Tensor, "N 5"]:
        """From the last block's output to the logits."""
        tokens = self.norm(tokens)
        logits: Tensor = self.classes(tokens[:, 0] if self.read == "class" else tokens.mean(1))
        return logits

    def tokens(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N T C"]:
        tokens = self.patches(x)
        tokens = tokens if self.places is None else tokens + self.places
        others = [some.expand(len(x), -1, -1) for some in (self.prefix, self.suffix)]
        return torch.cat([others[0], tokens, others[1]], 1)

    def patches(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N P C"]:
        p = self.patch
        if self.embedding == "convolution":
            weight = self.embed.weight.unflatten(1, (3, p, p))
            return F.conv2d(x, weight, self.embed.bias, stride=p).flatten(2).mT
        if self.embedding == "unfold":
            cells = F.unfold(x, p, stride=p).mT
        else:
            cells = x.unflatten(3, (-1, p)).unflatten(2, (-1, p)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        embedded: Tensor = self.embed(cells)
        return embedded


LAYER = "blocks.1"


def model(prefix: int = 1) -> VisionModel:
    torch.manual_seed(5)
    net = TinyTransformer(prefix=prefix, head="mean").eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4)
    return VisionModel(net, Preprocess(size=(12, 12), resize=None))


def autoencoder(seed: int = 0) -> SAE:
    return SAE("topk", 8, 16, 3, seed=seed)


def latent_layer(prefix: int = 1) -> LatentLayer:
    return LatentLayer(model(prefix), LAYER, autoencoder())


def photographs(count: int = 11) -> list[Image.Image]:
    random = np.random.default_rng(1)
    return [Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)) for _ in range(count)]


def prepared(layer: LatentLayer, photos: list[Image.Image]) -> Tensor:
    return torch.cat([layer.model.prepare(photo) for photo in photos])


def codes_by_hook(layer: LatentLayer, x: Tensor) -> Tensor:
    """The codes of all tokens, one token at a time."""
    found: list[Tensor] = []
    handle = layer.model.net.get_submodule(layer.layer).register_forward_hook(lambda *call: found.append(call[2]))
    with torch.no_grad():
        layer.model.net(x)
        handle.remove()
        return torch.stack([torch.stack([layer.sae.encode(token[None])[0] for token in tokens]) for tokens in found[0]])
