"""Sparse autoencoders: kinds, training, files."""

from ierf.concepts.sae.mixing import Position, mixed
from ierf.concepts.sae.sae import SAE
from ierf.concepts.sae.settings import Training
from ierf.concepts.sae.sources import FromModel, FromStore, InMemory, Source
from ierf.concepts.sae.training import Metrics, train

__all__ = [
    "SAE",
    "FromModel",
    "FromStore",
    "InMemory",
    "Metrics",
    "Position",
    "Source",
    "Training",
    "mixed",
    "train",
]
