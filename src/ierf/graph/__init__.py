"""How concepts of one layer act on those of the next and on classes: attributions, graphs, tests of both."""

from ierf.graph.account import LayerAccount
from ierf.graph.attacks import Adversarial, attack
from ierf.graph.attributions import METHODS, Attribution, Question
from ierf.graph.compare import Change, Comparison, compare
from ierf.graph.comparing import compare_photographs
from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.diagnosis import Culprit, Diagnosis, diagnose
from ierf.graph.edge import Edge
from ierf.graph.edges import Between, Edges
from ierf.graph.gig import gig
from ierf.graph.icat import icat
from ierf.graph.interlayer import Curves, interlayer_curves, largest_cosine, largest_projection
from ierf.graph.interventions import Claim, Intervention, claims, intervene
from ierf.graph.neuronpedia import to_neuronpedia
from ierf.graph.node import Node
from ierf.graph.reconstruction import Reconstruction
from ierf.graph.scores import Alignment, Logits, Probabilities, Projection, Score

__all__ = [
    "METHODS",
    "Adversarial",
    "Alignment",
    "Attribution",
    "Between",
    "Change",
    "Claim",
    "Comparison",
    "ConceptGraph",
    "Culprit",
    "Curves",
    "Diagnosis",
    "Edge",
    "Edges",
    "Intervention",
    "LayerAccount",
    "Logits",
    "Node",
    "Probabilities",
    "Projection",
    "Question",
    "Reconstruction",
    "Score",
    "attack",
    "claims",
    "compare",
    "compare_photographs",
    "diagnose",
    "gig",
    "icat",
    "interlayer_curves",
    "intervene",
    "largest_cosine",
    "largest_projection",
    "to_neuronpedia",
]
