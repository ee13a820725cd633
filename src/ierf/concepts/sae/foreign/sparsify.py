"""Checkpoints of sparsify: `cfg.json` beside `sae.safetensors`.

Weights are encoder.weight (K, C), encoder.bias, W_dec (K, C) and b_dec, which is subtracted from the input; codes are
the `k` largest of ReLU(π). `multi_topk` changes the loss alone. What writes another vector than the one it reads
(`transcode`, `skip_connection`), `activation="groupmax"` and `signed` codes have no counterpart.
"""

import json
from pathlib import Path

import safetensors
import safetensors.torch

from ierf.concepts.sae.foreign.parts import Parts, assembled, number_kept, only
from ierf.concepts.sae.sae import SAE
from ierf.errors import IerfError, UnknownNameError

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
_DEFAULT_K = 32
_WEIGHTS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
_REFUSED = ("transcode", "skip_connection", "signed")


def load(folder: Path) -> SAE:
    """The autoencoder in a folder. Raises `IerfError` for whatever changes the codes and has no counterpart."""
    path = folder / WEIGHTS
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG} holds no object")
        given = safetensors.torch.load_file(path)
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise IerfError(f"{str(folder)!r} is no complete checkpoint of sparsify: {error}") from None
    for name in _REFUSED:
        if config.get(name):
            raise IerfError(f"this sparsify checkpoint has {name}={config[name]!r}, which ierf has no counterpart for")
    if config.get("activation", "topk") != "topk":
        raise UnknownNameError("activation of sparsify that can be read called", str(config["activation"]), ["topk"])
    weights = only(given, _WEIGHTS, path)
    try:
        parts = Parts(
            weights["encoder.weight"], weights["encoder.bias"], weights["W_dec"], weights["b_dec"], subtracts=True
        )
    except KeyError as error:
        raise IerfError(f"{str(path)!r} is no autoencoder of sparsify: it has no {error}") from None
    parts.check(path)
    if config.get("d_in", parts.decoder.shape[1]) != parts.decoder.shape[1]:
        raise IerfError(
            f"{str(folder)!r} is damaged: {CONFIG} says d_in={config['d_in']!r}, the weights {parts.decoder.shape[1]}"
        )
    k = number_kept(config.get("k", _DEFAULT_K), len(parts.decoder), folder / CONFIG)
    return assembled("topk", parts, k, {}, {"format": "sparsify"})
