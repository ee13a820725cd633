"""Sharing Ratio Decomposition as a table: operation -> rule (arXiv 2605.00474, Sec. IV-A and VII-A).

activation                    the sharing-ratio rule
convolution, linear           own gradient; the bias is shared among the inputs; a batch-norm that follows folds in
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
from typing import Any, Literal, get_args

from ierf.errors import UnknownNameError
from ierf.rules.mode import Call, Rule
from ierf.rules.operations import ACTIVATIONS, CONVOLUTIONS, LINEAR, SELECTING, map_tensors
from ierf.rules.primitives import unruled
from ierf.rules.srd.activations import activation, larger_or_smaller
from ierf.rules.srd.affine import BIAS_MODES, BiasMode, addmm, convolution, linear, sum_or_difference
from ierf.rules.srd.norms import batch_norm, group_norm, instance_norm, layer_norm, normalize, rms_norm
from ierf.rules.srd.products import addcmul, attention, product, quotient

Unknown = Literal["raise", "gradient"]
UNKNOWN: tuple[str, ...] = get_args(Unknown)


@dataclass(frozen=True)
class SRDRules:
    """Options of the rules.

    bias: who inherits a bias's relevance, see `ierf.rules.bias`. unknown: what an operation without a rule does once
    relevance reaches it: "raise", or "gradient" to pass it by its plain gradient (the ledger shows what that leaks).
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
            dict.fromkeys(LINEAR | SELECTING, Call.run)
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
                "__setitem__": Call.run,
            }
        )

    def fallback(self, call: Call) -> Any:
        """An operation without a rule: computed as it is, an error once relevance wants to pass through it."""
        output = call.run()
        if self.unknown == "gradient":
            call.place.operation += " (plain gradient)"
            return output
        way_out = (
            'pass unknown="gradient" to let relevance through it by the plain gradient (the ledger shows what leaks)'
        )
        return map_tensors(lambda t: unruled(t, call.backward, call.place, way_out) if t.requires_grad else t, output)
