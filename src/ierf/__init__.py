"""Where a vision model looks, what it has learnt, and how one becomes the other."""

from ierf import metrics
from ierf.attribution import attribute, check_conservation, effective_receptive_fields, targets
from ierf.errors import IerfError
from ierf.model import VisionModel, load
from ierf.report import Explanation, explain

__version__ = "0.1.0"

__all__ = [
    "Explanation",
    "IerfError",
    "VisionModel",
    "attribute",
    "check_conservation",
    "effective_receptive_fields",
    "explain",
    "load",
    "metrics",
    "targets",
]
