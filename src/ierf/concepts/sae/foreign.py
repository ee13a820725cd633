"""Autoencoders that other libraries wrote, recognised by their files: SAELens, dictionary_learning, sparsify.

What a file holds becomes the parts of an autoencoder (Eq. 8) with what differs folded into them.
"""

import json
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError

CODES = "codes"
"""What `SAE.about` calls what the codes were multiplied by."""


@dataclass(frozen=True)
class Parts:
    """π = W_e (x − subtracted) + b_e, x̂ = z W_d + b_d, latents as rows."""

    encoder: Float[Tensor, "K C"]
    encoder_bias: Float[Tensor, " K"]
    decoder: Float[Tensor, "K C"]
    decoder_bias: Float[Tensor, " C"]
    subtracts: bool
    """Whether b_d is subtracted from the input."""
    log_gain: Float[Tensor, " K"] | None = None
    magnitude_bias: Float[Tensor, " K"] | None = None
    threshold: Float[Tensor, "*K"] | None = None

    def at_norm_1(self) -> "Parts":
        """The same reconstruction with decoder columns of norm 1 and codes that much larger."""
        norm = self.decoder.norm(dim=1)
        return replace(
            self,
            encoder=self.encoder * norm[:, None],
            encoder_bias=self.encoder_bias * norm,
            decoder=self.decoder / norm[:, None],
            magnitude_bias=None if self.magnitude_bias is None else self.magnitude_bias * norm,
            threshold=None if self.threshold is None else self.threshold * norm,
        )

    def check(self, path: Path) -> None:
        """Raise `IerfError` unless all shapes fit those of the decoder, and all numbers are finite."""
        if self.decoder.ndim != 2 or not self.decoder.numel():
            raise IerfError(f"{str(path)!r} is damaged: its decoder has the shape {tuple(self.decoder.shape)}")
        latents, channels = self.decoder.shape
        wanted: dict[str, tuple[tuple[int, ...], ...]] = {
            "encoder": ((latents, channels),),
            "encoder_bias": ((latents,),),
            "decoder_bias": ((channels,),),
            "log_gain": ((latents,),),
            "magnitude_bias": ((latents,),),
            "threshold": ((), (latents,)),
        }
        for name, shapes in wanted.items():
            part = getattr(self, name)
            if part is not None and tuple(part.shape) not in shapes:
                raise IerfError(
                    f"{str(path)!r} is damaged: with {latents} latents of {channels} channels the {named(name)} has "
                    f"the shape {' or '.join(map(str, shapes))}, not {tuple(part.shape)}"
                )
        for name in ("decoder", *wanted):
            part = getattr(self, name)
            if part is not None and not bool(torch.isfinite(part).all()):
                raise IerfError(f"{str(path)!r} is damaged: the {named(name)} holds NaN or infinity")


@dataclass(frozen=True)
class Foreign:
    """An autoencoder that another library wrote."""

    kind: str
    parts: Parts
    k: int | None
    """Active latents; None where the kind goes by something else."""
    options: Mapping[str, Any]
    about: Mapping[str, Any]


def named(part: str) -> str:
    """A part in words."""
    return part.replace("_", " ")


def only(weights: Mapping[str, Tensor], known: Collection[str], path: Path) -> dict[str, Tensor]:
    """The weights in float32. Raises `IerfError` for one that is not known: it would be left out of the codes."""
    if unknown := sorted(set(weights) - set(known)):
        raise IerfError(
            f"{str(path)!r} holds {', '.join(map(repr, unknown))}, which ierf has no counterpart for; "
            "codes without it would be others"
        )
    return {name: tensor.float() for name, tensor in weights.items()}


def number_kept(given: Any, latents: int, path: Path) -> int:
    """k. Raises `IerfError` where a configuration does not say it, or says what can't be."""
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= latents:
        raise IerfError(f"{str(path)!r} keeps the k largest latents of {latents} and does not say a k: {given!r}")
    return given


def rescaled(parts: Parts, about: Mapping[str, Any], path: Path) -> tuple[Parts, dict[str, Any]]:
    """`parts.at_norm_1()`, with a warning and an entry in `about` where that changes the codes."""
    norms = parts.decoder.norm(dim=1)
    if not bool((norms > 0).all()):
        raise IerfError(f"{str(path)!r} has {int((norms == 0).sum())} decoder columns of norm 0 and multiplies by it")
    if bool(((norms - 1).abs() < 1e-3).all()):
        return parts.at_norm_1(), dict(about)
    said = f"times the norm of the decoder's column, {float(norms.min()):.3g} to {float(norms.max()):.3g}"
    warnings.warn(
        f"{str(path)!r}: decoder columns are not of norm 1; codes are those of the file's encoder {said}", stacklevel=2
    )
    return parts.at_norm_1(), {**about, CODES: said}


def load_foreign(folder: Path) -> Foreign:
    """An autoencoder of SAELens, dictionary_learning or sparsify. Raises `IerfError` for anything else."""
    if (folder / SPARSIFY_WEIGHTS).exists() and (folder / SPARSIFY_CONFIG).exists():
        return sparsify(folder)
    libraries = {SAELENS_WEIGHTS: saelens, DICTIONARY_WEIGHTS: dictionary_learning}
    for name, load in libraries.items():
        if (folder / name).exists():
            return load(folder)
    raise IerfError(
        f"there is no autoencoder in {str(folder)!r}: none of sae.safetensors, {', '.join(libraries)} lies there"
    )


@contextmanager
def understood(folder: Path) -> Iterator[None]:
    """Inside: whatever a foreign file makes fail becomes an `IerfError`."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        if isinstance(error, IerfError):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise IerfError(f"the autoencoder in {str(folder)!r} is damaged: {reason}") from None


SAELENS_WEIGHTS, SAELENS_CONFIG = "sae_weights.safetensors", "cfg.json"
_SAELENS_KINDS = {"standard": "l1", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}


_SAELENS_TENSORS = ("W_enc", "W_dec", "b_dec")
_SAELENS_OF_KIND = {
    "l1": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
_SAELENS_ACTIVATIONS = {"l1": "relu", "topk": "topk", "jumprelu": "relu", "gated": "relu"}
_SAELENS_PLAIN = {
    "normalize_activations": ("none",),
    "finetuning_scaling_factor": (False,),
    "reshape_activations": ("none",),
    "hook_head_index": (),
}
"""Settings that change codes and are not computed here: the values that change nothing (None as well)."""


def saelens(folder: Path) -> Foreign:
    """A checkpoint of SAELens: `cfg.json` beside `sae_weights.safetensors`.

    Weights are W_enc (C, K), W_dec (K, C), b_dec and, by architecture: b_enc (standard, topk), b_enc and threshold
    (jumprelu; BatchTopK and Matryoshka autoencoders are saved as such), b_gate, b_mag and r_mag (gated).
    `apply_b_dec_to_input` says whether b_dec is subtracted from the input.

    Raises `IerfError` for whatever changes the codes and has no counterpart.
    """
    try:
        config = json.loads((folder / SAELENS_CONFIG).read_bytes())
        if not isinstance(config, dict):
            raise ValueError(f"{SAELENS_CONFIG} holds no object")
        given = safetensors.torch.load_file(folder / SAELENS_WEIGHTS)
        kind = _saelens_kind(config)
        known = (*_SAELENS_TENSORS, *_SAELENS_OF_KIND[kind])
        if missing := [name for name in known if name not in given]:
            raise KeyError(missing[0])
        weights = only(_saelens_without_ones(given), known, folder / SAELENS_WEIGHTS)
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
    parts.check(folder / SAELENS_WEIGHTS)
    sizes = {"d_in": parts.decoder.shape[1], "d_sae": parts.decoder.shape[0]}
    for name, size in sizes.items():
        if config.get(name, size) != size:
            raise IerfError(
                f"{str(folder)!r} is damaged: {SAELENS_CONFIG} says {name}={config[name]!r}, the weights {size}"
            )
    about = {"format": "SAELens", **_saelens_origin(config)}
    k = number_kept(_saelens_k(config), len(parts.decoder), folder / SAELENS_CONFIG) if kind == "topk" else None
    if config.get("rescale_acts_by_decoder_norm"):
        parts, about = rescaled(parts, about, folder)
    options = {"form": "gig"} if kind == "l1" else {}
    return Foreign(kind, parts, k, options, about)


def _saelens_kind(config: dict[str, Any]) -> str:
    for name, plain in _SAELENS_PLAIN.items():
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
    if architecture not in _SAELENS_KINDS:
        raise UnknownNameError("SAELens architecture that can be read called", str(architecture), _SAELENS_KINDS)
    kind = _SAELENS_KINDS[architecture]
    if activation is not None and activation not in (_SAELENS_ACTIVATIONS[kind], kind):
        raise UnknownNameError(
            f"activation of a SAELens {architecture} autoencoder", str(activation), {_SAELENS_ACTIVATIONS[kind]}
        )
    return kind


def _saelens_without_ones(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the scaling factors of fine-tuning where they are all 1."""
    factor = weights.get("scaling_factor")
    plain = factor is not None and bool((factor == 1).all())
    return {name: tensor for name, tensor in weights.items() if not (plain and name == "scaling_factor")}


def _saelens_k(config: dict[str, Any]) -> Any:
    return config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k")


def _saelens_origin(config: dict[str, Any]) -> dict[str, Any]:
    metadata = config.get("metadata")
    found = {**config, **(metadata if isinstance(metadata, dict) else {})}
    return {name: found[name] for name in ("model_name", "hook_name") if name in found}


DICTIONARY_WEIGHTS, DICTIONARY_CONFIG = "ae.pt", "config.json"
_DICTIONARY_KINDS = {
    "AutoEncoder": "l1",
    "AutoEncoderNew": "l1",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
    "JumpReluAutoEncoder": "jumprelu",
    "GatedAutoEncoder": "gated",
}


_DICTIONARY_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_DICTIONARY_MATRICES = ("W_enc", "b_enc", "W_dec", "b_dec")
_DICTIONARY_TENSORS = {
    "AutoEncoder": (*_DICTIONARY_LINEAR, "bias"),
    "AutoEncoderNew": (*_DICTIONARY_LINEAR, "decoder.bias"),
    "AutoEncoderTopK": (*_DICTIONARY_LINEAR, "b_dec", "k", "threshold"),
    "BatchTopKSAE": (*_DICTIONARY_LINEAR, "b_dec", "k", "threshold"),
    "MatryoshkaBatchTopKSAE": (*_DICTIONARY_MATRICES, "k", "threshold", "group_sizes"),
    "JumpReluAutoEncoder": (*_DICTIONARY_MATRICES, "threshold"),
    "GatedAutoEncoder": ("encoder.weight", "decoder.weight", "gate_bias", "mag_bias", "r_mag", "decoder_bias"),
}
_DICTIONARY_RESCALED = ("JumpReluAutoEncoder", "GatedAutoEncoder")


def dictionary_learning(folder: Path) -> Foreign:
    """A checkpoint of dictionary_learning: `config.json` beside `ae.pt`, a state dict.

    | class | weights | codes |
    |---|---|---|
    | AutoEncoder | encoder (K, C), decoder (C, K), `bias` | ReLU, `bias` is subtracted first |
    | AutoEncoderNew | encoder, decoder, each with a bias | ReLU |
    | AutoEncoderTopK, BatchTopKSAE | encoder, decoder, `b_dec`, `k`, `threshold` | `b_dec` is subtracted first |
    | MatryoshkaBatchTopKSAE | `W_enc` (C, K), `W_dec` (K, C), the rest alike, `group_sizes` | the same |
    | JumpReluAutoEncoder | `W_enc`, `b_enc`, `W_dec`, `b_dec`, `threshold` | times the norm of the decoder's column |
    | GatedAutoEncoder | encoder, `gate_bias`, `mag_bias`, `r_mag`, decoder, `decoder_bias` | times that norm |

    Raises `IerfError` for a class that has no counterpart, or a damaged file.
    """
    try:
        trainer = json.loads((folder / DICTIONARY_CONFIG).read_bytes())["trainer"]
        given = torch.load(folder / DICTIONARY_WEIGHTS, map_location="cpu", weights_only=True)
        name = trainer.get("dict_class", "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise IerfError(f"{str(folder)!r} is no complete checkpoint of dictionary_learning: {error}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise IerfError(
            f"{str(folder / DICTIONARY_WEIGHTS)!r} holds more than tensors and is not opened: {reason}"
        ) from None
    if name not in _DICTIONARY_KINDS:
        raise UnknownNameError("class of dictionary_learning that can be read called", str(name), _DICTIONARY_KINDS)
    if not isinstance(given, dict) or not all(isinstance(tensor, Tensor) for tensor in given.values()):
        raise IerfError(f"{str(folder / DICTIONARY_WEIGHTS)!r} is no {name}: it holds no tensors by name")
    kind, path = _DICTIONARY_KINDS[name], folder / DICTIONARY_WEIGHTS
    weights = only(given, _DICTIONARY_TENSORS[name], path)
    try:
        parts = _dictionary_parts(name, weights)
    except KeyError as error:
        raise IerfError(f"{str(path)!r} is no {name}: it has no {error}") from None
    parts.check(path)
    k = None
    if kind in ("topk", "batchtopk", "matryoshka"):
        k = number_kept(given["k"].item() if "k" in given else trainer.get("k"), len(parts.decoder), path)
    about = {"format": "dictionary_learning", **{n: trainer[n] for n in ("lm_name", "layer") if n in trainer}}
    if name in _DICTIONARY_RESCALED:
        parts, about = rescaled(parts, about, folder)
    return Foreign(kind, parts, k, _dictionary_options(kind, weights, path), about)


def _dictionary_parts(name: str, weights: dict[str, Tensor]) -> Parts:
    if "W_enc" in _DICTIONARY_TENSORS[name]:
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


def _dictionary_options(kind: str, weights: dict[str, Tensor], path: Path) -> dict[str, Any]:
    if kind == "l1":
        return {"form": "gig"}
    if kind == "matryoshka" and "group_sizes" in weights:
        prefixes = weights["group_sizes"].long().cumsum(0).tolist()
        if not prefixes or prefixes[-1] != len(weights["W_dec"]) or min(weights["group_sizes"].tolist()) < 1:
            raise IerfError(f"{str(path)!r} is damaged: its group sizes do not add up to its latents")
        return {"prefixes": prefixes}
    return {}


SPARSIFY_WEIGHTS, SPARSIFY_CONFIG = "sae.safetensors", "cfg.json"
_SPARSIFY_DEFAULT_K = 32
_SPARSIFY_TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
_SPARSIFY_REFUSED = ("transcode", "skip_connection", "signed")


def sparsify(folder: Path) -> Foreign:
    """A checkpoint of sparsify: `cfg.json` beside `sae.safetensors`.

    Weights are encoder.weight (K, C), encoder.bias, W_dec (K, C) and b_dec, which is subtracted from the input; codes
    are the `k` largest of ReLU(π). `multi_topk` changes the loss alone. What writes another vector than it reads
    (`transcode`, `skip_connection`), `activation="groupmax"` and `signed` codes have no counterpart.

    Raises `IerfError` for whatever changes the codes and has no counterpart.
    """
    path = folder / SPARSIFY_WEIGHTS
    try:
        config = json.loads((folder / SPARSIFY_CONFIG).read_bytes())
        if not isinstance(config, dict):
            raise ValueError(f"{SPARSIFY_CONFIG} holds no object")
        given = safetensors.torch.load_file(path)
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise IerfError(f"{str(folder)!r} is no complete checkpoint of sparsify: {error}") from None
    for name in _SPARSIFY_REFUSED:
        if config.get(name):
            raise IerfError(f"this sparsify checkpoint has {name}={config[name]!r}, which ierf has no counterpart for")
    if config.get("activation", "topk") != "topk":
        raise UnknownNameError("activation of sparsify that can be read called", str(config["activation"]), ["topk"])
    weights = only(given, _SPARSIFY_TENSORS, path)
    try:
        parts = Parts(
            weights["encoder.weight"], weights["encoder.bias"], weights["W_dec"], weights["b_dec"], subtracts=True
        )
    except KeyError as error:
        raise IerfError(f"{str(path)!r} is no autoencoder of sparsify: it has no {error}") from None
    parts.check(path)
    if config.get("d_in", parts.decoder.shape[1]) != parts.decoder.shape[1]:
        said = f"{SPARSIFY_CONFIG} says d_in={config['d_in']!r}"
        raise IerfError(f"{str(folder)!r} is damaged: {said}, the weights {parts.decoder.shape[1]}")
    k = number_kept(config.get("k", _SPARSIFY_DEFAULT_K), len(parts.decoder), folder / SPARSIFY_CONFIG)
    return Foreign("topk", parts, k, {}, {"format": "sparsify"})
