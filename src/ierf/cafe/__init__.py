"""CAFE: latents of sparse autoencoders, and the pixels that drive them (arXiv 2605.00474, Sec. V)."""

from ierf.cafe import nonlocality
from ierf.cafe.building import add_batch, build_index, empty
from ierf.cafe.index import Example, IndexedLayer, LatentIndex
from ierf.cafe.latents import KINDS, METHODS, Kind, LatentLayer, evidence, ierfs, on_grid
from ierf.cafe.nonlocality import LatentCurves, latent_curves

__all__ = [
    "KINDS",
    "METHODS",
    "Example",
    "IndexedLayer",
    "Kind",
    "LatentCurves",
    "LatentIndex",
    "LatentLayer",
    "add_batch",
    "build_index",
    "empty",
    "evidence",
    "ierfs",
    "latent_curves",
    "nonlocality",
    "on_grid",
]
