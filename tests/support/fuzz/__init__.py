"""Random networks that are their own description, and what must hold for each of them."""

from support.fuzz.network import Built, Program, build, programs, shrunk, usable
from support.fuzz.properties import METHODS, PROPERTIES, complaint, refusal

__all__ = [
    "METHODS",
    "PROPERTIES",
    "Built",
    "Program",
    "build",
    "complaint",
    "programs",
    "refusal",
    "shrunk",
    "usable",
]
