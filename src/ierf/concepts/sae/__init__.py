"""Sparse autoencoders (arXiv 2605.00474, Eq. 8–9): kinds, training, files."""

from ierf.concepts.sae.sae import SAE, saved_autoencoders, trained_values
from ierf.concepts.sae.sources import FromModel, FromStore, InMemory, Position, Source, mixed
from ierf.concepts.sae.training import CHECKPOINT, Metrics, Run, Training, train

__all__ = [
    "CHECKPOINT",
    "SAE",
    "FromModel",
    "FromStore",
    "InMemory",
    "Metrics",
    "Position",
    "Run",
    "Source",
    "Training",
    "mixed",
    "saved_autoencoders",
    "train",
    "trained_values",
]
