"""Models by name: `bundled:`, `timm:`, `torchvision:`, `hf:`, `open_clip:` and `file:`."""

from ierf.model.loading.catalogue import Offer, available
from ierf.model.loading.catalogue import find as find_models
from ierf.model.loading.load import load

__all__ = ["Offer", "available", "find_models", "load"]
