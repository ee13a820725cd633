"""A small transformer, an untrained autoencoder of its last block, and photographs of noise."""

import numpy as np
import torch
from PIL import Image
from token_networks import TinyTransformer
from torch import Tensor, nn

from ierf.cafe import LatentLayer
from ierf.concepts import SAE
from ierf.model import Preprocess, VisionModel

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
