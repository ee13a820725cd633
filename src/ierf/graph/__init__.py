"""How concepts of one layer act on those of the next and on classes: attributions, graphs, tests of both."""

from ierf.graph.files.neuronpedia import to_neuronpedia
from ierf.graph.influence.attributions import METHODS, Attribution, Question
from ierf.graph.influence.edges import Between, Edges
from ierf.graph.influence.gig import gig
from ierf.graph.influence.icat import icat
from ierf.graph.influence.interlayer import Curves, interlayer_curves, largest_cosine, largest_projection
from ierf.graph.influence.reconstruction import Reconstruction
from ierf.graph.influence.scores import Alignment, Logits, Probabilities, Projection, Score
from ierf.graph.structure.account import LayerAccount
from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.edge import Edge
from ierf.graph.structure.node import Node
from ierf.graph.uses.attacks import Adversarial, attack
from ierf.graph.uses.compare import Change, Comparison, compare
from ierf.graph.uses.compare_photographs import compare_photographs
from ierf.graph.uses.diagnosis import Culprit, Diagnosis, diagnose
from ierf.graph.uses.interventions import Claim, Intervention, claims, intervene

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
