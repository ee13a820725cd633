"""Where a vision model looks, what it has learnt, and how one becomes the other."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ierf import metrics
from ierf.attribution import attribute, check_conservation, effective_receptive_fields, targets
from ierf.errors import IerfError
from ierf.model import VisionModel, load
from ierf.report import Explanation, explain

if TYPE_CHECKING:
    from ierf import cafe, concepts, graph, world
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
    "cafe",
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


_ROOMS = ("cafe", "concepts", "graph", "world")
_FROM = {"PFVStore": "store", "ConceptBank": "concepts", "ConceptGraph": "graph"}


def __getattr__(name: str) -> Any:
    """What takes long to import, imported when it is asked for."""
    if name in _ROOMS:
        return import_module(f"ierf.{name}")
    if name in _FROM:
        return getattr(import_module(f"ierf.{_FROM[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
