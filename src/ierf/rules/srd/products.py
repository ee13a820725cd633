"""Products of two activations: the gate is a constant, all relevance goes to what it gates."""

from typing import Any

from torch import Tensor

from ierf.rules.attention import ARGUMENTS, attend
from ierf.rules.mode import Call, Rule
from ierf.rules.srd.activations import written_out
from ierf.rules.srd.affine import BiasMode, shifted, value_at_zero


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


def attention(call: Call) -> Tensor:
    """Query and key, hence the weights, are constants."""
    given = call.given(*ARGUMENTS)
    varying = [name for name in ("query", "key", "attn_mask") if call.node_of(given.get(name)) is not None]
    return attend(given | {name: call.hold(given[name]) for name in varying}, call.backward)


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
