"""CAFE: latents of sparse autoencoders, and the pixels that drive them (arXiv 2605.00474, Sec. V)."""

from ierf.cafe import nonlocality
from ierf.cafe.curves import LatentCurves, latent_curves
from ierf.cafe.evidence import METHODS, evidence, ierfs
from ierf.cafe.index import Example, IndexedLayer, LatentIndex, build_index
from ierf.cafe.layer import KINDS, Kind, LatentLayer

__all__ = [
    "KINDS",
    "METHODS",
    "Example",
    "IndexedLayer",
    "Kind",
    "LatentCurves",
    "LatentIndex",
    "LatentLayer",
    "build_index",
    "evidence",
    "ierfs",
    "latent_curves",
    "nonlocality",
]
