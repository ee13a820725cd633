"""What a file of another library holds, as the parts of an autoencoder (Eq. 8) with what differs folded into them."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError

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
