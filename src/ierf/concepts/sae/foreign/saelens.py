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

from ierf.concepts.sae.foreign.parts import Parts, assembled
from ierf.concepts.sae.sae import SAE, K
from ierf.errors import IerfError, UnknownNameError

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
_KINDS = {"standard": "l1", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}


def load(folder: Path) -> SAE:
    """The autoencoder in a folder. Raises `IerfError` for an architecture or normalisation without counterpart."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        weights = safetensors.torch.load_file(folder / WEIGHTS)
        kind = _kind(config)
        parts = Parts(
            encoder=weights["W_enc"].T,
            encoder_bias=weights["b_gate" if kind == "gated" else "b_enc"],
            decoder=weights["W_dec"],
            decoder_bias=weights["b_dec"],
            subtracts=bool(config.get("apply_b_dec_to_input", True)),
            log_gain=weights.get("r_mag"),
            magnitude_bias=weights.get("b_mag"),
            threshold=weights.get("threshold"),
        )
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise IerfError(f"{str(folder)!r} is no complete checkpoint of SAELens: {error}") from None
    if config.get("rescale_acts_by_decoder_norm"):
        parts = parts.at_norm_1()
    options = {"form": "gig"} if kind == "l1" else {}
    return assembled(kind, parts, _k(config), options, {"format": "SAELens", **_origin(config)})


def _kind(config: dict[str, Any]) -> str:
    if config.get("normalize_activations", "none") not in ("none", None) or config.get("finetuning_scaling_factor"):
        raise IerfError(
            f"this SAELens autoencoder normalises activations ({config.get('normalize_activations')}) or rescales them "
            "after fine-tuning; fold that into its weights first"
        )
    architecture = config.get("architecture", "standard")
    if architecture == "standard" and (config.get("activation_fn_str") or config.get("activation_fn")) == "topk":
        architecture = "topk"
    if architecture not in _KINDS:
        raise UnknownNameError("SAELens architecture that can be read called", architecture, _KINDS)
    return _KINDS[architecture]


def _k(config: dict[str, Any]) -> int:
    given = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k") or K
    return min(int(given), int(config["d_sae"])) if "d_sae" in config else int(given)


def _origin(config: dict[str, Any]) -> dict[str, Any]:
    found = {**config, **(config.get("metadata") or {})}
    return {name: found[name] for name in ("model_name", "hook_name") if name in found}
