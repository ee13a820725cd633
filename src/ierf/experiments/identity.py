"""Which model, by what it computes."""

import hashlib
import re

import torch
from torch import Tensor

from ierf.model import VisionModel


def model_fingerprint(model: VisionModel) -> str:
    """A digest of the network's class and its modules' settings, its weights and its preprocessing.

    Two networks may have the same weights and differ in what their modules say of themselves: an activation, a stride.
    """
    modules = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model.net))
    digest = hashlib.sha256(f"{type(model.net).__qualname__} {model.preprocess} {modules}".encode())
    for name, tensor in {**dict(model.net.named_buffers()), **model.net.state_dict()}.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    content: bytes = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return content
