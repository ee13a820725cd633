"""Scores of explanations, as functions of tensors; no score depends on batch mates."""

from ierf.metrics.curves import Curve, deletion, insertion
from ierf.metrics.fidelity import fidelity, l0_ratio, relative_error
from ierf.metrics.localization import attribution_localization, pointing_game, sparseness
from ierf.metrics.scoring import Preset, at_pixels, normalise_map
from ierf.metrics.stability import stability

__all__ = [
    "Curve",
    "Preset",
    "at_pixels",
    "attribution_localization",
    "deletion",
    "fidelity",
    "insertion",
    "l0_ratio",
    "normalise_map",
    "pointing_game",
    "relative_error",
    "sparseness",
    "stability",
]
