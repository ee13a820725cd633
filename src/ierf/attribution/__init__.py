"""Explanations: from a target to a map, from a PFV to its pixels, and the account of what was conserved."""

from ierf.attribution import targets
from ierf.attribution.attribute import (
    METHODS,
    RULES,
    RelevancePass,
    attribute,
    checked_options,
    relevance_pass,
    usual_method,
)
from ierf.attribution.conservation import Entry, Leak, Ledger, check_conservation
from ierf.attribution.fullgrad import FullGradients, full_gradients
from ierf.attribution.integrated_gradients import completeness_error
from ierf.attribution.one_pass import RESOLUTIONS, LayerGrid, PFVField, layer_grids, only, patch_grid, told_by_one_pass
from ierf.attribution.receptive_fields import effective_receptive_fields, joint_fields
from ierf.attribution.token_grid import TokenGrid

__all__ = [
    "METHODS",
    "RESOLUTIONS",
    "RULES",
    "Entry",
    "FullGradients",
    "LayerGrid",
    "Leak",
    "Ledger",
    "PFVField",
    "RelevancePass",
    "TokenGrid",
    "attribute",
    "check_conservation",
    "checked_options",
    "completeness_error",
    "effective_receptive_fields",
    "full_gradients",
    "joint_fields",
    "layer_grids",
    "only",
    "patch_grid",
    "relevance_pass",
    "targets",
    "told_by_one_pass",
    "usual_method",
]
