"""Explanations: from a target to a map, from a PFV to its pixels, and the account of what was conserved."""

from ierf.attribution import targets
from ierf.attribution.attribute import METHODS, attribute
from ierf.attribution.conservation import Entry, Leak, Ledger, check_conservation
from ierf.attribution.receptive_fields import effective_receptive_fields

__all__ = [
    "METHODS",
    "Entry",
    "Leak",
    "Ledger",
    "attribute",
    "check_conservation",
    "effective_receptive_fields",
    "targets",
]
