"""How concepts of one layer act on those of the next and on classes: attributions, graphs, tests of both."""

import warnings
from typing import Any

from ierf.graph.analysis.attacks import Adversarial, attack, check_png
from ierf.graph.analysis.compare import (
    Change,
    Comparison,
    compare,
    compare_photographs,
    findings,
    save_comparison,
    sentence,
)
from ierf.graph.analysis.diagnosis import Culprit, Diagnosis, diagnose
from ierf.graph.analysis.interventions import (
    Claim,
    ClaimTest,
    Curves,
    Intervention,
    LayerTest,
    Strength,
    area,
    check_claims,
    claims,
    concepts_of,
    interlayer_curves,
    intervene,
    largest_cosine,
    largest_projection,
)
from ierf.graph.analysis.stability import Stability, stability
from ierf.graph.building.build import important_concepts
from ierf.graph.building.encoding import EncodedLayer, encode, values_of
from ierf.graph.building.nodes import NodeSelection, select_nodes
from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.elements import LOGITS, RESIDUAL, Cells, ConceptFacts, Edge, LayerAccount, Node
from ierf.graph.hierarchy import Hierarchy, LayerPair
from ierf.graph.influence.icat import METHODS, Between, Edges, gig, icat
from ierf.graph.influence.integrated_gradients import integrated_gradients, midpoints
from ierf.graph.influence.layer_objective import Attribution, LayerObjective, Reconstruction
from ierf.graph.influence.scores import Alignment, Logits, Probabilities, Projection, Score
from ierf.graph.picture.drawing import caused, jpeg, mosaic, png
from ierf.graph.picture.left_out import left_out
from ierf.graph.picture.page import SUFFIXES, Finding, page
from ierf.graph.schema import from_json, to_json, to_neuronpedia

__all__ = [
    "LOGITS",
    "METHODS",
    "RESIDUAL",
    "SUFFIXES",
    "Adversarial",
    "Alignment",
    "Attribution",
    "Between",
    "Cells",
    "Change",
    "Claim",
    "ClaimTest",
    "Comparison",
    "ConceptFacts",
    "ConceptGraph",
    "Culprit",
    "Curves",
    "Diagnosis",
    "Edge",
    "Edges",
    "EncodedLayer",
    "Finding",
    "Hierarchy",
    "Intervention",
    "LayerAccount",
    "LayerObjective",
    "LayerPair",
    "LayerTest",
    "Logits",
    "Node",
    "NodeSelection",
    "Probabilities",
    "Projection",
    "Reconstruction",
    "Score",
    "Stability",
    "Strength",
    "area",
    "attack",
    "caused",
    "check_claims",
    "check_png",
    "claims",
    "compare",
    "compare_photographs",
    "concepts_of",
    "diagnose",
    "encode",
    "findings",
    "from_json",
    "gig",
    "icat",
    "important_concepts",
    "integrated_gradients",
    "interlayer_curves",
    "intervene",
    "jpeg",
    "largest_cosine",
    "largest_projection",
    "left_out",
    "midpoints",
    "mosaic",
    "page",
    "png",
    "save_comparison",
    "select_nodes",
    "sentence",
    "stability",
    "to_json",
    "to_neuronpedia",
    "values_of",
]


def __getattr__(name: str) -> Any:
    """`Question`, as `LayerObjective` was called."""
    if name == "Question":
        warnings.warn("ierf.graph.Question is called LayerObjective now", DeprecationWarning, stacklevel=2)
        return LayerObjective
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
