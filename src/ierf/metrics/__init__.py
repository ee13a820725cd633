"""Scores of explanations, as functions of tensors; no score depends on batch mates."""

from ierf.metrics.localization import attribution_localization, pointing_game
from ierf.metrics.sparseness import sparseness

__all__ = ["attribution_localization", "pointing_game", "sparseness"]
