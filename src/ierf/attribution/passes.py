"""The methods that carry relevance by rules, behind one door: what ledgers, iERFs and reports walk back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Any

from torch import Tensor

from ierf.attribution.attnlrp import AttnLRPPass
from ierf.attribution.recorded import Rules
from ierf.attribution.srd import SRDPass
from ierf.errors import UnknownNameError
from ierf.model import VisionModel
from ierf.rules import AttnLRPRules, Backward, SRDRules

RelevancePass = SRDPass | AttnLRPPass

RULES: Mapping[str, Callable[..., Rules]] = {
    "srd": SRDRules,
    "attnlrp": partial(AttnLRPRules, "lrp"),
    "cp_lrp": partial(AttnLRPRules, "cp"),
}
"""Method -> its rules, from their options."""


def usual_method(model: VisionModel) -> str:
    """The papers' choice: AttnLRP for networks with attention modules, SRD for all others."""
    names = {type(module).__name__.lower() for module in model.net.modules()}
    return "attnlrp" if any("attention" in name or "attn" in name for name in names) else "srd"


@contextmanager
def relevance_pass(
    model: VisionModel,
    x: Tensor,
    method: str,
    options: Mapping[str, Any],
    encoder: str | None = None,
    backward: Backward | None = None,
) -> Iterator[RelevancePass]:
    """The forward pass of `model` on `x` under the rules of a method. Raises `UnknownNameError` for other options."""
    if method not in RULES:
        raise UnknownNameError("method that carries relevance", method, RULES)
    kind: type[RelevancePass] = SRDPass if method == "srd" else AttnLRPPass
    known = [f.name for f in fields(SRDRules if method == "srd" else AttnLRPRules) if f.name != "attention"]
    for name in options:
        if name not in known:
            raise UnknownNameError(f"option of the rules of {method!r}", name, known)
    with kind.of(model, x, RULES[method](**options), encoder, backward) as run:
        yield run
