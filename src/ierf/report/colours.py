"""Signed numbers as colours: warm for evidence, cool against, transparent for nothing."""

import numpy as np
from jaxtyping import Float

WARM = ((1.0, 0.78, 0.25), (0.96, 0.42, 0.06), (0.72, 0.05, 0.10))
COOL = ((0.55, 0.85, 1.0), (0.16, 0.52, 0.90), (0.12, 0.17, 0.62))
"""From weak to strong, RGB in [0, 1]: amber to crimson, sky to navy. Told apart with any colour vision."""

OPACITY = 0.82
"""Of the strongest colour."""


def diverging(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 4"]:
    """RGBA in [0, 1] for values in [−1, 1]: hue by sign, darker and more opaque with size, 0 fully transparent."""
    strength = np.clip(np.abs(values), 0, 1)
    warm, cool = _along(WARM, strength), _along(COOL, strength)
    colour = np.where(values[..., None] > 0, warm, cool)
    return np.concatenate([colour, OPACITY * strength[..., None]], -1)


def _along(stops: tuple[tuple[float, ...], ...], where: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(where, at, channel) for channel in zip(*stops, strict=True)], -1)
