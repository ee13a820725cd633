"""Checkpoints of SAELens: `cfg.json` beside `sae_weights.safetensors`.

Weights are W_enc (C, K), W_dec (K, C), b_dec and, by architecture: b_enc (standard, topk), b_enc and threshold
(jumprelu; BatchTopK and Matryoshka autoencoders are saved as such), b_gate, b_mag and r_mag (gated).
`apply_b_dec_to_input` says whether b_dec is subtracted from the input.
"""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ierf.concepts.sae.foreign.parts import Parts, assembled, number_kept, only, rescaled
from ierf.concepts.sae.sae import SAE, K
from ierf.errors import IerfError, UnknownNameError

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
_KINDS = {"standard": "l1", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}


_WEIGHTS = ("W_enc", "W_dec", "b_dec")
_OF_KIND = {
    "l1": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
_ACTIVATIONS = {"l1": "relu", "topk": "topk", "jumprelu": "relu", "gated": "relu"}
_PLAIN = {
    "normalize_activations": ("none",),
    "finetuning_scaling_factor": (False,),
    "reshape_activations": ("none",),
    "hook_head_index": (),
}
"""Settings that change codes and are not computed here: the values that change nothing (None as well)."""


def load(folder: Path) -> SAE:
    """The autoencoder in a folder. Raises `IerfError` for whatever changes the codes and has no counterpart."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG} holds no object")
        given = safetensors.torch.load_file(folder / WEIGHTS)
        kind = _kind(config)
        known = (*_WEIGHTS, *_OF_KIND[kind])
        if missing := [name for name in known if name not in given]:
            raise KeyError(missing[0])
        weights = only(_without_ones(given), known, folder / WEIGHTS)
        parts = Parts(
            encoder=weights["W_enc"].T,
            encoder_bias=weights["b_gate" if kind == "gated" else "b_enc"],
            decoder=weights["W_dec"],
            decoder_bias=weights["b_dec"],
            subtracts=bool(config.get("apply_b_dec_to_input", True)),
            log_gain=weights["r_mag"] if kind == "gated" else None,
            magnitude_bias=weights["b_mag"] if kind == "gated" else None,
            threshold=weights["threshold"] if kind == "jumprelu" else None,
        )
    except (OSError, ValueError, KeyError, RecursionError, safetensors.SafetensorError) as error:
        raise IerfError(f"{str(folder)!r} is no complete checkpoint of SAELens: {error}") from None
    parts.check(folder / WEIGHTS)
    sizes = {"d_in": parts.decoder.shape[1], "d_sae": parts.decoder.shape[0]}
    for name, size in sizes.items():
        if config.get(name, size) != size:
            raise IerfError(f"{str(folder)!r} is damaged: {CONFIG} says {name}={config[name]!r}, the weights {size}")
    about = {"format": "SAELens", **_origin(config)}
    k = number_kept(_k(config), len(parts.decoder), folder / CONFIG) if kind == "topk" else min(K, len(parts.decoder))
    if config.get("rescale_acts_by_decoder_norm"):
        parts, about = rescaled(parts, about, folder)
    options = {"form": "gig"} if kind == "l1" else {}
    return assembled(kind, parts, k, options, about)


def _kind(config: dict[str, Any]) -> str:
    for name, plain in _PLAIN.items():
        value = config.get(name)
        if value is not None and value not in plain:
            raise IerfError(
                f"this SAELens autoencoder has {name}={value!r}, which normalises activations or changes codes in "
                "another way that ierf has no counterpart for; fold that into its weights first"
            )
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn_str") or config.get("activation_fn") or config.get("activation")
    if architecture == "standard" and activation == "topk":
        architecture = "topk"
    if architecture not in _KINDS:
        raise UnknownNameError("SAELens architecture that can be read called", str(architecture), _KINDS)
    kind = _KINDS[architecture]
    if activation is not None and activation not in (_ACTIVATIONS[kind], kind):
        raise UnknownNameError(
            f"activation of a SAELens {architecture} autoencoder", str(activation), {_ACTIVATIONS[kind]}
        )
    return kind


def _without_ones(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the scaling factors of fine-tuning where they are all 1."""
    factor = weights.get("scaling_factor")
    plain = factor is not None and bool((factor == 1).all())
    return {name: tensor for name, tensor in weights.items() if not (plain and name == "scaling_factor")}


def _k(config: dict[str, Any]) -> Any:
    return config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k")


def _origin(config: dict[str, Any]) -> dict[str, Any]:
    metadata = config.get("metadata")
    found = {**config, **(metadata if isinstance(metadata, dict) else {})}
    return {name: found[name] for name in ("model_name", "hook_name") if name in found}
