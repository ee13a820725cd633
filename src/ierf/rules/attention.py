"""Scaled dot-product attention, fused or in steps, and its rules: those of SRD, of AttnLRP and of CP-LRP.

In AttnLRP attention is products of activations around a softmax, whose own gradient is its rule (Prop. 3.1).
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ierf.rules.attnlrp_products import part, statistic, varying
from ierf.rules.call import Call
from ierf.rules.primitives import Backward

ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
"""Those that may be given by position."""


def attend(given: dict[str, Any], backward: Backward) -> Tensor:
    """softmax(query keyᵀ / √d + mask) value, as `F.scaled_dot_product_attention` takes its arguments.

    torch's fused kernels cannot go back for many relevances at once; a pass that has to is computed step by step.
    """
    return _in_steps(**given) if backward.many else F.scaled_dot_product_attention(**given)


def _in_steps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return F.dropout(scores.softmax(-1), dropout_p) @ value


def attention(call: Call) -> Tensor:
    """In SRD query and key, hence the weights, are constants."""
    given = call.given(*ARGUMENTS)
    varying = [name for name in ("query", "key", "attn_mask") if call.node_of(given.get(name)) is not None]
    return attend(given | {name: call.hold(given[name]) for name in varying}, call.backward)


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
