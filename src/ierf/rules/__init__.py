"""Backward rules by operation: run any network once, go back by the rules of a method."""

from ierf.rules.attnlrp import AttnLRPRules
from ierf.rules.bias import injected
from ierf.rules.primitives import Backward, Place
from ierf.rules.recording import record
from ierf.rules.sharing_ratio import as_cotangent, as_relevance
from ierf.rules.srd import SRDRules
from ierf.rules.tape import Node, Tape

__all__ = [
    "AttnLRPRules",
    "Backward",
    "Node",
    "Place",
    "SRDRules",
    "Tape",
    "as_cotangent",
    "as_relevance",
    "injected",
    "record",
]
