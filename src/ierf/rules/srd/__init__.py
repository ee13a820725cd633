"""Sharing Ratio Decomposition as a table: operation -> rule (arXiv 2605.00474, Sec. IV-A and VII-A).

activation, written out too   the sharing-ratio rule
convolution, linear           own gradient; the bias is shared among the inputs; a batch-norm that follows folds in
constants that join a map     own gradient; what they put in stays on its own PFV
batch-norm alone, constants   own gradient; the shift stays on its own PFV (μ = 1)
layer-norm, RMS-norm          the standard deviation is a constant
group-norm, instance-norm     mean and standard deviation are constants
product of two activations    the gate is a constant, all relevance goes to what it gates
attention                     the weights are constants
pooling, adds, reshaping      own gradient
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ierf.errors import UnknownNameError
from ierf.operations import ACTIVATIONS, CONVOLUTIONS, JOINING, LINEAR, SELECTING, SIZES, TRANSPOSED
from ierf.rules.mode import Call, Rule
from ierf.rules.srd.activations import activation, larger_or_smaller
from ierf.rules.srd.affine import (
    BIAS_MODES,
    BiasMode,
    addmm,
    convolution,
    joined,
    linear,
    steered,
    sum_or_difference,
    transposed_convolution,
)
from ierf.rules.srd.norms import batch_norm, group_norm, instance_norm, layer_norm, normalize, rms_norm
from ierf.rules.srd.products import addcmul, attention, product, quotient
from ierf.rules.unknown import UNKNOWN, Unknown, fallback


@dataclass(frozen=True)
class SRDRules:
    """Options of the rules.

    bias: who inherits a bias's relevance, see `ierf.rules.bias`. unknown: see `ierf.rules.unknown`.
    """

    bias: BiasMode = "norm"
    unknown: Unknown = "raise"

    def __post_init__(self) -> None:
        for name, value, choices in (("bias", self.bias, BIAS_MODES), ("unknown", self.unknown, UNKNOWN)):
            if value not in choices:
                raise UnknownNameError(f"choice for {name}", str(value), choices)

    def table(self) -> Mapping[str, Rule]:
        """Operation name -> rule."""
        bias = self.bias
        return (
            dict.fromkeys(LINEAR | SELECTING | SIZES, Call.run)
            | dict.fromkeys(JOINING, partial(joined, bias))
            | dict.fromkeys(TRANSPOSED, partial(transposed_convolution, bias))
            | dict.fromkeys(ACTIVATIONS, partial(activation, self.fallback))
            | dict.fromkeys(CONVOLUTIONS, partial(convolution, bias))
            | {
                "linear": partial(linear, bias),
                "batch_norm": partial(batch_norm, bias),
                "layer_norm": partial(layer_norm, bias),
                "rms_norm": rms_norm,
                "group_norm": partial(group_norm, bias),
                "instance_norm": partial(instance_norm, bias),
                "add": partial(sum_or_difference, bias),
                "sub": partial(sum_or_difference, bias),
                "rsub": partial(sum_or_difference, bias),
                "addcmul": partial(addcmul, bias, self.fallback),
                "addmm": partial(addmm, bias, self.fallback),
                "mul": partial(product, self.fallback),
                "matmul": partial(product, self.fallback),
                "einsum": partial(product, self.fallback),
                "div": partial(quotient, self.fallback),
                "maximum": larger_or_smaller,
                "minimum": larger_or_smaller,
                "scaled_dot_product_attention": attention,
                "normalize": normalize,
                "grid_sample": steered,
            }
        )

    def fallback(self, call: Call) -> Any:
        """An operation without a rule."""
        return fallback(self.unknown, call)
