"""Models by name: `bundled:`, `timm:`, `torchvision:`, `hf:`, `open_clip:` and `file:`."""

from ierf.model.loading.load import Offer, available, find_models, load

__all__ = ["Offer", "available", "find_models", "load"]
