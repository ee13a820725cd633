"""Where a vision model looks, what it has learnt, and how one becomes the other."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ierf import metrics
from ierf.attribution import attribute, check_conservation, effective_receptive_fields, targets
from ierf.errors import IerfError
from ierf.model import VisionModel, load
from ierf.report import Explanation, explain

if TYPE_CHECKING:
    from ierf import concepts, graph, world
    from ierf.concepts import ConceptBank
    from ierf.graph import ConceptGraph
    from ierf.store import PFVStore

__version__ = "0.1.0"

__all__ = [
    "ConceptBank",
    "ConceptGraph",
    "Explanation",
    "IerfError",
    "PFVStore",
    "VisionModel",
    "attribute",
    "check_conservation",
    "concepts",
    "effective_receptive_fields",
    "explain",
    "graph",
    "load",
    "metrics",
    "targets",
    "world",
]


def __getattr__(name: str) -> Any:
    """The store, the concepts, the graph and the world of scenes, imported when they are asked for."""
    if name == "PFVStore":
        from ierf.store import PFVStore

        return PFVStore
    if name == "ConceptBank":
        from ierf.concepts import ConceptBank

        return ConceptBank
    if name == "ConceptGraph":
        from ierf.graph import ConceptGraph

        return ConceptGraph
    if name in ("concepts", "graph", "world"):
        return import_module(f"ierf.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
