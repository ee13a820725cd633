"""Which model, by what it computes."""

import hashlib

import torch
from torch import Tensor

from ierf.model import VisionModel


def model_fingerprint(model: VisionModel) -> str:
    """A digest of the network's class, its weights and its preprocessing."""
    digest = hashlib.sha256(f"{type(model.net).__qualname__} {model.preprocess}".encode())
    for name, tensor in model.net.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    content: bytes = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return content
