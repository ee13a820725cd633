"""Scaled dot-product attention, fused or in steps."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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
