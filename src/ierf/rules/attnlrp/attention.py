"""Attention: products of activations around a softmax, whose own gradient is its rule (AttnLRP, Prop. 3.1)."""

from typing import Any, Literal

from torch import Tensor

from ierf.rules.attention import ARGUMENTS, attend
from ierf.rules.attnlrp.norms import statistic
from ierf.rules.attnlrp.products import part, varying
from ierf.rules.mode import Call

Attention = Literal["lrp", "cp"]


def attention_weights(attention: Attention, call: Call) -> Any:
    """softmax: `R_x = x ⊙ (R − s Σ R)`, or the weights as constants."""
    return statistic(call) if attention == "cp" else call.run()


def attention_product(attention: Attention, call: Call) -> Tensor:
    """softmax(query keyᵀ / √d + mask) value: half of the relevance for the values, a quarter for queries and keys each.

    With only one of query and key an activation, it gets both quarters; with constant values the weights get all.
    """
    given = call.given(*ARGUMENTS)
    names = [name for name in ("query", "key", "value", "attn_mask") if call.node_of(given.get(name)) is not None]
    if attention == "cp":
        return attend(given | {name: call.hold(given[name]) for name in names if name != "value"}, call.backward)
    flowing = {name for name in names if varying(call, [given[name]])}
    of_weights = 0.5 if "value" in flowing else 1.0
    shares = {
        "query": of_weights * (0.5 if "key" in flowing else 1.0),
        "key": of_weights * (0.5 if "query" in flowing else 1.0),
        "value": 0.5 if flowing - {"value"} else 1.0,
        "attn_mask": of_weights,
    }
    return attend(given | {name: part(given[name], shares[name], call.backward) for name in flowing}, call.backward)
