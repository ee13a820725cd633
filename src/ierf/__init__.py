"""Where a vision model looks, what it has learnt, and how one becomes the other."""

from ierf import metrics
from ierf.attribution import attribute, check_conservation, effective_receptive_fields, targets
from ierf.errors import IerfError
from ierf.model import VisionModel, load

__version__ = "0.1.0"

__all__ = [
    "IerfError",
    "VisionModel",
    "attribute",
    "check_conservation",
    "effective_receptive_fields",
    "load",
    "metrics",
    "targets",
]
