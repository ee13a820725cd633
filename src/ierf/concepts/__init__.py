"""Concepts: directions in a layer's PFVs, how to find them and how to write PFVs with them."""

from ierf.concepts.bank import ConceptBank, crops, webp
from ierf.concepts.bank_fitting import L0_RATIO, PER_CHANNEL, concept_count, usual_shift
from ierf.concepts.codes import Codes, LassoCodes
from ierf.concepts.extractor import Extractor, Shift, shift_vector
from ierf.concepts.extractors import EXTRACTORS, make_extractor
from ierf.concepts.kmeans import BisectingSphericalKMeans
from ierf.concepts.layer_concepts import ClassShares, LayerConcepts, Matching, match_concepts
from ierf.concepts.matrix_factors import NMF, PCA, DictionaryLearning
from ierf.concepts.relaxed_lasso import RefitCodes, refit
from ierf.concepts.sae import SAE
from ierf.concepts.sparse_coding import choose_lam, lasso, lasso_path
from ierf.concepts.tree import ConceptTree

__all__ = [
    "EXTRACTORS",
    "L0_RATIO",
    "NMF",
    "PCA",
    "PER_CHANNEL",
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
    "Matching",
    "RefitCodes",
    "Shift",
    "choose_lam",
    "concept_count",
    "crops",
    "lasso",
    "lasso_path",
    "make_extractor",
    "match_concepts",
    "refit",
    "shift_vector",
    "usual_shift",
    "webp",
]
