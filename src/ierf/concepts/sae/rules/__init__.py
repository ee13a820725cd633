"""What sets the kinds of sparse autoencoders apart: how pre-activations become codes, and the loss."""

from collections.abc import Mapping

from ierf.concepts.sae.rules.batchtopk import BatchTopK
from ierf.concepts.sae.rules.gated import Gated
from ierf.concepts.sae.rules.jumprelu import JumpReLU
from ierf.concepts.sae.rules.l1 import L1
from ierf.concepts.sae.rules.matryoshka import Matryoshka
from ierf.concepts.sae.rules.rule import Objective, Rule, Stage, Weights
from ierf.concepts.sae.rules.topk import TopK

RULES: Mapping[str, type[Rule]] = {
    "l1": L1,
    "topk": TopK,
    "batchtopk": BatchTopK,
    "jumprelu": JumpReLU,
    "gated": Gated,
    "matryoshka": Matryoshka,
}

__all__ = ["RULES", "Objective", "Rule", "Stage", "Weights"]
