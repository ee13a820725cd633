"""A small vision transformer for the scenes of `ierf.world`."""

from torch import nn

from ierf.model.bundled.vit import VisionTransformer


def world_vit(n_classes: int = 9) -> nn.Module:
    """The bundled transformer with a width of 64: 3 blocks of 4 heads (0.26 M parameters)."""
    return VisionTransformer(width=64, depth=3, heads=4, n_classes=n_classes)
