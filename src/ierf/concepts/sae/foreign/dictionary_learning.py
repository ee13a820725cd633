"""Checkpoints of dictionary_learning: `config.json` beside `ae.pt`, a state dict.

| class | weights | codes |
|---|---|---|
| AutoEncoder | encoder (K, C), decoder (C, K), `bias` | ReLU, `bias` is subtracted first |
| AutoEncoderNew | encoder, decoder, each with a bias | ReLU |
| AutoEncoderTopK, BatchTopKSAE | encoder, decoder, `b_dec`, buffers `k` and `threshold` | `b_dec` is subtracted first |
| MatryoshkaBatchTopKSAE | `W_enc` (C, K), `W_dec` (K, C), the rest alike, `group_sizes` | the same |
| JumpReluAutoEncoder | `W_enc`, `b_enc`, `W_dec`, `b_dec`, `threshold` | times the norm of the decoder's column |
| GatedAutoEncoder | encoder, `gate_bias`, `mag_bias`, `r_mag`, decoder, `decoder_bias` | times that norm |
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ierf.concepts.sae.foreign.parts import Parts, assembled, number_kept, only, rescaled
from ierf.concepts.sae.sae import SAE, K
from ierf.errors import IerfError, UnknownNameError

WEIGHTS, CONFIG = "ae.pt", "config.json"
_KINDS = {
    "AutoEncoder": "l1",
    "AutoEncoderNew": "l1",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
    "JumpReluAutoEncoder": "jumprelu",
    "GatedAutoEncoder": "gated",
}


_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_MATRICES = ("W_enc", "b_enc", "W_dec", "b_dec")
_WEIGHTS = {
    "AutoEncoder": (*_LINEAR, "bias"),
    "AutoEncoderNew": (*_LINEAR, "decoder.bias"),
    "AutoEncoderTopK": (*_LINEAR, "b_dec", "k", "threshold"),
    "BatchTopKSAE": (*_LINEAR, "b_dec", "k", "threshold"),
    "MatryoshkaBatchTopKSAE": (*_MATRICES, "k", "threshold", "group_sizes"),
    "JumpReluAutoEncoder": (*_MATRICES, "threshold"),
    "GatedAutoEncoder": ("encoder.weight", "decoder.weight", "gate_bias", "mag_bias", "r_mag", "decoder_bias"),
}
_RESCALED = ("JumpReluAutoEncoder", "GatedAutoEncoder")


def load(folder: Path) -> SAE:
    """The autoencoder in a folder. Raises `IerfError` for a class that has no counterpart, or a damaged file."""
    try:
        trainer = json.loads((folder / CONFIG).read_bytes())["trainer"]
        given = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
        name = trainer.get("dict_class", "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise IerfError(f"{str(folder)!r} is no complete checkpoint of dictionary_learning: {error}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise IerfError(f"{str(folder / WEIGHTS)!r} holds more than tensors and is not opened: {reason}") from None
    if name not in _KINDS:
        raise UnknownNameError("class of dictionary_learning that can be read called", str(name), _KINDS)
    if not isinstance(given, dict) or not all(isinstance(tensor, Tensor) for tensor in given.values()):
        raise IerfError(f"{str(folder / WEIGHTS)!r} is no {name}: it holds no tensors by name")
    kind, path = _KINDS[name], folder / WEIGHTS
    weights = only(given, _WEIGHTS[name], path)
    try:
        parts = _parts(name, weights)
    except KeyError as error:
        raise IerfError(f"{str(path)!r} is no {name}: it has no {error}") from None
    parts.check(path)
    k = min(K, len(parts.decoder))
    if kind in ("topk", "batchtopk", "matryoshka"):
        k = number_kept(given["k"].item() if "k" in given else trainer.get("k"), len(parts.decoder), path)
    about = {"format": "dictionary_learning", **{n: trainer[n] for n in ("lm_name", "layer") if n in trainer}}
    if name in _RESCALED:
        parts, about = rescaled(parts, about, folder)
    return assembled(kind, parts, k, _options(kind, weights, path), about)


def _parts(name: str, weights: dict[str, Tensor]) -> Parts:
    if "W_enc" in _WEIGHTS[name]:
        return Parts(
            weights["W_enc"].T,
            weights["b_enc"],
            weights["W_dec"],
            weights["b_dec"],
            subtracts=name != "JumpReluAutoEncoder",
            threshold=weights["threshold"],
        )
    encoder, decoder = weights["encoder.weight"], weights["decoder.weight"].T
    if name == "GatedAutoEncoder":
        gate, gain, magnitude = (weights[key] for key in ("gate_bias", "r_mag", "mag_bias"))
        return Parts(encoder, gate, decoder, weights["decoder_bias"], True, gain, magnitude)
    bias = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}.get(name, "b_dec")
    return Parts(
        encoder,
        weights["encoder.bias"],
        decoder,
        weights[bias],
        subtracts=name != "AutoEncoderNew",
        threshold=weights["threshold"] if name == "BatchTopKSAE" else None,
    )


def _options(kind: str, weights: dict[str, Tensor], path: Path) -> dict[str, Any]:
    if kind == "l1":
        return {"form": "gig"}
    if kind == "matryoshka" and "group_sizes" in weights:
        prefixes = weights["group_sizes"].long().cumsum(0).tolist()
        if not prefixes or prefixes[-1] != len(weights["W_dec"]) or min(weights["group_sizes"].tolist()) < 1:
            raise IerfError(f"{str(path)!r} is damaged: its group sizes do not add up to its latents")
        return {"prefixes": prefixes}
    return {}
