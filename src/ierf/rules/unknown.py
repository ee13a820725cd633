"""What happens at an operation that a method has no rule for."""

from typing import Any, Literal, get_args

from ierf.operations import map_tensors
from ierf.rules.mode import Call
from ierf.rules.primitives import unruled

Unknown = Literal["raise", "gradient"]
UNKNOWN: tuple[str, ...] = get_args(Unknown)
"""What an operation without a rule does once relevance reaches it: "raise", or "gradient" to pass it by its plain
gradient (the ledger shows what that leaks)."""


def fallback(unknown: Unknown, call: Call) -> Any:
    """An operation without a rule: computed as it is, an error once relevance wants to pass through it."""
    output = call.run()
    if unknown == "gradient":
        call.place.operation += " (plain gradient)"
        return output
    way_out = 'pass unknown="gradient" to let relevance through it by the plain gradient (the ledger shows what leaks)'
    return map_tensors(lambda t: unruled(t, call.backward, call.place, way_out) if t.requires_grad else t, output)
