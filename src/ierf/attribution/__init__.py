"""Explanations: from a target to a map, from a PFV to its pixels, and the account of what was conserved."""

from ierf.attribution import targets
from ierf.attribution.attribute import METHODS, attribute, usual_method
from ierf.attribution.conservation import Entry, Leak, Ledger, check_conservation
from ierf.attribution.fullgrad import FullGradients, full_gradients
from ierf.attribution.integrated_gradients import completeness_error
from ierf.attribution.one_pass import patch_grid
from ierf.attribution.receptive_fields import effective_receptive_fields

__all__ = [
    "METHODS",
    "Entry",
    "FullGradients",
    "Leak",
    "Ledger",
    "attribute",
    "check_conservation",
    "completeness_error",
    "effective_receptive_fields",
    "full_gradients",
    "patch_grid",
    "targets",
    "usual_method",
]
