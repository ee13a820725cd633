"""Where a vision model looks, what it has learnt, and how one becomes the other."""

from typing import TYPE_CHECKING, Any

from ierf import metrics
from ierf.attribution import attribute, check_conservation, effective_receptive_fields, targets
from ierf.errors import IerfError
from ierf.model import VisionModel, load
from ierf.report import Explanation, explain

if TYPE_CHECKING:
    from ierf.store import PFVStore

__version__ = "0.1.0"

__all__ = [
    "Explanation",
    "IerfError",
    "PFVStore",
    "VisionModel",
    "attribute",
    "check_conservation",
    "effective_receptive_fields",
    "explain",
    "load",
    "metrics",
    "targets",
]


def __getattr__(name: str) -> Any:
    """The store, imported when it is asked for."""
    if name == "PFVStore":
        from ierf.store import PFVStore

        return PFVStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
