"""Layer-wise relevance propagation for attention as a table: operation -> rule (AttnLRP, arXiv 2402.05602).

Relevance is carried as the gradient `g` with `R = x ⊙ g`, so that most rules are gradients (ε → 0 throughout):

linear, convolution           ε-rule: own gradient; with γ > 0 see `ierf.rules.attnlrp.gamma`
softmax                       R_x = x ⊙ (R − s Σ R): own gradient (attention="cp": the weights are constants)
product of n activations      an n-th of the gradient each
activation f                  R stays: (f(x) − f(0)) / x; f(0), of a sigmoid say, is a bias
x · s(x) written out          an activation
gate times map                the gate is a constant: pooled, bounded (a sigmoid, a softmax), or a normaliser
norm, deviation, root         as a feature: own gradient, for which R is conserved; as a divisor a constant
layer-norm, RMS-norm, …       the standard deviation is a constant
quotient                      the denominator is a constant
sums, pooling, reshaping      own gradient

A bias, an added constant or a class token keeps its part of the relevance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from ierf.errors import IerfError, UnknownNameError
from ierf.operations import ACTIVATIONS, CONVOLUTIONS, LINEAR, SELECTING, SIZES
from ierf.rules.attnlrp.activations import activation
from ierf.rules.attnlrp.attention import attention_product, attention_weights
from ierf.rules.attnlrp.gamma import with_gamma
from ierf.rules.attnlrp.norms import group_norm, half, instance_norm, layer_norm
from ierf.rules.attnlrp.products import addcmul, elementwise_product, product, sum_and_product
from ierf.rules.mode import Call, Rule
from ierf.rules.srd.affine import addmm, convolution, linear, steered
from ierf.rules.srd.norms import batch_norm, normalize, rms_norm
from ierf.rules.srd.products import with_constant_denominator
from ierf.rules.unknown import UNKNOWN, Unknown, fallback

Attention = Literal["lrp", "cp"]
ATTENTION: tuple[str, ...] = get_args(Attention)


@dataclass(frozen=True)
class AttnLRPRules:
    """Options of the rules.

    attention: "lrp" passes relevance through the softmax to queries and keys, "cp" holds the attention weights constant
    (CP-LRP, arXiv 2202.07304). conv_gamma, linear_gamma: how much more what agrees with an output's sign counts; None:
    0.25 in convolutions behind another layer, 0 (the ε-rule) at the pixels.
    unknown: see `ierf.rules.unknown`.
    """

    attention: Attention = "lrp"
    conv_gamma: float | None = None
    linear_gamma: float = 0.0
    unknown: Unknown = "raise"

    def __post_init__(self) -> None:
        for name, value, choices in (("attention", self.attention, ATTENTION), ("unknown", self.unknown, UNKNOWN)):
            if value not in choices:
                raise UnknownNameError(f"choice for {name}", str(value), choices)
        for name, gamma in (("conv_gamma", self.conv_gamma or 0.0), ("linear_gamma", self.linear_gamma)):
            if not 0 <= gamma < float("inf"):
                raise IerfError(f"{name} is a number from 0 up, not {gamma}")

    def table(self) -> Mapping[str, Rule]:
        """Operation name -> rule."""
        own_gradient = LINEAR | SELECTING | {"add", "sub", "rsub", "maximum", "minimum"}
        return (
            dict.fromkeys(own_gradient, Call.run)
            | dict.fromkeys(ACTIVATIONS, partial(activation, self.fallback))
            | dict.fromkeys(CONVOLUTIONS, with_gamma(self.conv_gamma, partial(convolution, "drop")))
            | dict.fromkeys(SIZES, Call.run)
            | {
                "var": half,
                "grid_sample": steered,
                "linear": with_gamma(self.linear_gamma, partial(linear, "drop")),
                "addmm": with_gamma(self.linear_gamma, partial(addmm, "drop", sum_and_product)),
                "baddbmm": sum_and_product,
                "batch_norm": partial(batch_norm, "drop"),
                "layer_norm": layer_norm,
                "rms_norm": rms_norm,
                "group_norm": group_norm,
                "instance_norm": instance_norm,
                "normalize": normalize,
                "mul": elementwise_product,
                "matmul": product,
                "einsum": product,
                "addcmul": addcmul,
                "div": partial(with_constant_denominator, self.fallback),
                "softmax": partial(attention_weights, self.attention),
                "scaled_dot_product_attention": partial(attention_product, self.attention),
            }
        )

    def fallback(self, call: Call) -> Any:
        """An operation without a rule."""
        return fallback(self.unknown, call)
