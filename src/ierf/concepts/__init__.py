"""Concepts: directions in a layer's PFVs, how to find them and how to write PFVs with them."""

from ierf.concepts.bank import ConceptBank
from ierf.concepts.codes import Codes
from ierf.concepts.dictionary import DictionaryLearning
from ierf.concepts.extractor import EXTRACTORS, Extractor, make_extractor
from ierf.concepts.kmeans import BisectingSphericalKMeans
from ierf.concepts.lasso import LassoCodes, choose_lam, lasso, lasso_path
from ierf.concepts.layer_concepts import ClassShares, LayerConcepts
from ierf.concepts.nmf import NMF
from ierf.concepts.pca import PCA
from ierf.concepts.sae import SAE
from ierf.concepts.tree import ConceptTree

__all__ = [
    "EXTRACTORS",
    "NMF",
    "PCA",
    "SAE",
    "BisectingSphericalKMeans",
    "ClassShares",
    "Codes",
    "ConceptBank",
    "ConceptTree",
    "DictionaryLearning",
    "Extractor",
    "LassoCodes",
    "LayerConcepts",
    "choose_lam",
    "lasso",
    "lasso_path",
    "make_extractor",
]
