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

from torch import Tensor

from ierf.errors import UnknownNameError
from ierf.operations import ACTIVATIONS, CONVOLUTIONS, JOINING, LINEAR, SELECTING, SIZES, TRANSPOSED
from ierf.rules.attention import attention
from ierf.rules.call import UNKNOWN, Call, Rule, Unknown, fallback
from ierf.rules.srd_activations import activation, larger_or_smaller, written_out
from ierf.rules.srd_affine import (
    BIAS_MODES,
    BiasMode,
    addmm,
    batch_norm,
    convolution,
    group_norm,
    instance_norm,
    joined,
    layer_norm,
    linear,
    normalize,
    rms_norm,
    shifted,
    steered,
    sum_or_difference,
    transposed_convolution,
    value_at_zero,
)


@dataclass(frozen=True)
class SRDRules:
    """Options of the rules.

    bias: who inherits a bias's relevance, see `ierf.rules.bias`. unknown: see `ierf.rules.call`.
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


def product(fallback: Rule, call: Call) -> Any:
    """Linear in one activation; an activation function that is written out; of two, what looks like a gate is held."""
    if call.name == "mul" and (v := written_out(call)) is not None:
        return v
    activations = call.activations()
    if len(activations) == 1:
        return call.run()
    gates = gates_among(call, activations)
    return call.run(hold=gates) if gates else fallback(call)


def gates_among(call: Call, factors: list[Tensor]) -> list[Tensor]:
    """The factor that is broadcast over the other, else the one that comes from the more gate-like operation."""
    if len(factors) != 2 or factors[0] is factors[1]:
        return []
    for rank in (
        lambda t: -call.own_size(t) if call.name == "mul" else 0,
        lambda t: getattr(call.node_of(t), "gate", 0),
    ):
        first, second = map(rank, factors)
        if first != second:
            return [factors[0] if first > second else factors[1]]
    return []


def quotient(fallback: Rule, call: Call) -> Any:
    """An activation function that is written out, `x / (1 + exp(−x))`; else a denominator is a constant."""
    v = written_out(call)
    return with_constant_denominator(fallback, call) if v is None else v


def with_constant_denominator(fallback: Rule, call: Call) -> Any:
    """A denominator computed from the picture is a constant."""
    x, by = call.args[0], call.argument(1, "other")
    if call.node_of(by) is None:
        return call.run()
    return fallback(call) if call.node_of(x) is None or x is by else call.run(hold=[by])


def addcmul(mode: BiasMode, fallback: Rule, call: Call) -> Any:
    """`x + value · a · b`: a product and a sum."""
    x, *factors = call.args[:3]
    varying = [t for t in factors if call.node_of(t) is not None]
    gates = gates_among(call, varying) if len(varying) == 2 else []
    if len(varying) == 2 and not gates:
        return fallback(call)
    z = call.run(hold=gates)
    if call.node_of(x) is not None or not varying:
        return z if varying else shifted(mode, call, z, x, value_at_zero(call, x))
    (main,) = [t for t in varying if not any(t is gate for gate in gates)]
    return shifted(mode, call, z, main, x.detach())
