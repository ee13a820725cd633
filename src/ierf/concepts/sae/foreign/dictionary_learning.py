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

from ierf.concepts.sae.foreign.parts import Parts, assembled
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


def load(folder: Path) -> SAE:
    """The autoencoder in a folder. Raises `IerfError` for a class that has no counterpart, or a damaged file."""
    try:
        trainer = json.loads((folder / CONFIG).read_bytes())["trainer"]
        weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise IerfError(f"{str(folder)!r} is no complete checkpoint of dictionary_learning: {error}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise IerfError(f"{str(folder / WEIGHTS)!r} holds more than tensors and is not opened: {reason}") from None
    name = trainer.get("dict_class", "")
    if name not in _KINDS:
        raise UnknownNameError("class of dictionary_learning that can be read called", name, _KINDS)
    kind = _KINDS[name]
    try:
        parts = _parts(name, weights)
    except KeyError as error:
        raise IerfError(f"{str(folder / WEIGHTS)!r} is no {name}: it has no {error}") from None
    k = int(weights.get("k", trainer.get("k", K)))
    about = {"format": "dictionary_learning", **{n: trainer[n] for n in ("lm_name", "layer") if n in trainer}}
    return assembled(kind, parts, min(k, len(parts.encoder)), _options(kind, weights), about)


def _parts(name: str, weights: dict[str, Tensor]) -> Parts:
    if "W_enc" in weights:
        parts = Parts(
            weights["W_enc"].T,
            weights["b_enc"],
            weights["W_dec"],
            weights["b_dec"],
            subtracts=name != "JumpReluAutoEncoder",
            threshold=weights["threshold"],
        )
        return parts.at_norm_1() if name == "JumpReluAutoEncoder" else parts
    encoder, decoder = weights["encoder.weight"], weights["decoder.weight"].T
    if name == "GatedAutoEncoder":
        gate, gain, magnitude = (weights[key] for key in ("gate_bias", "r_mag", "mag_bias"))
        return Parts(encoder, gate, decoder, weights["decoder_bias"], True, gain, magnitude).at_norm_1()
    bias = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}.get(name, "b_dec")
    return Parts(
        encoder,
        weights["encoder.bias"],
        decoder,
        weights[bias],
        subtracts=name != "AutoEncoderNew",
        threshold=weights["threshold"] if name == "BatchTopKSAE" else None,
    )


def _options(kind: str, weights: dict[str, Tensor]) -> dict[str, Any]:
    if kind == "l1":
        return {"form": "gig"}
    if kind == "matryoshka" and "group_sizes" in weights:
        return {"prefixes": weights["group_sizes"].cumsum(0).tolist()}
    return {}
