"""From the parts that a foreign file holds to an autoencoder, with what differs folded into the biases."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.concepts.sae.sae import SAE


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


def assembled(kind: str, parts: Parts, k: int, options: Mapping[str, Any], about: Mapping[str, Any]) -> SAE:
    """The autoencoder with these parts."""
    n_latents, n_features = parts.encoder.shape
    sae = SAE(kind, n_features, n_latents, k, **options)
    with torch.no_grad():
        shifted = parts.encoder @ parts.decoder_bias
        own = sae.rule.input_bias == "decoder"
        correction = shifted * (own - parts.subtracts)
        sae.encoder.copy_(parts.encoder)
        sae.encoder_bias.copy_(parts.encoder_bias + correction)
        sae.decoder.copy_(parts.decoder)
        sae.decoder_bias.copy_(parts.decoder_bias)
        if kind == "jumprelu" and parts.threshold is not None:
            sae.get_parameter("rule.log_threshold").copy_(parts.threshold.clamp_min(0).log())
        elif kind in ("batchtopk", "matryoshka") and parts.threshold is not None:
            sae.get_buffer("rule.threshold").copy_(parts.threshold.clamp_min(0))
        if parts.log_gain is not None and parts.magnitude_bias is not None:
            sae.get_parameter("rule.log_gain").copy_(parts.log_gain)
            sae.get_parameter("rule.magnitude_bias").copy_(parts.magnitude_bias + correction * parts.log_gain.exp())
    sae.about = dict(about)
    return sae
