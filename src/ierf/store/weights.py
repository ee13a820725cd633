"""What makes a model the same model."""

import hashlib
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

Glance = tuple[tuple[object, ...], ...]
_KNOWN: WeakKeyDictionary[nn.Module, tuple[Glance, str]] = WeakKeyDictionary()


def weights_hash(net: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of all parameters and buffers.

    That of a network is kept as long as its tensors are the same ones in the same versions and have the same sums,
    which are much quicker.
    """
    glance = tuple((name, *_glance(tensor)) for name, tensor in sorted(net.state_dict().items()))
    known = _KNOWN.get(net)
    if known is None or known[0] != glance:
        _KNOWN[net] = known = glance, _hashed(net)
    return known[1]


def _glance(tensor: Tensor) -> tuple[object, ...]:
    """What changes with a tensor's values, whether they are written by an operation or behind autograd's back."""
    version = 0 if tensor.is_inference() else tensor._version
    numbers = tensor.detach()
    numbers = numbers if numbers.is_floating_point() else numbers.to(torch.float64)
    sums = [float(part.sum(dtype=torch.float64)) for part in (numbers, numbers.flatten()[::2], numbers.flatten()[::3])]
    return (tensor.data_ptr(), version, tensor.dtype, tuple(tensor.shape), *map(str, sums))


def _hashed(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
