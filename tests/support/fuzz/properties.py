"""What must hold for every network: properties by name, each of which gives the complaint, or None."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from support.fuzz.network import Built
from support.fuzz.oracles import Propositions, SharingRatios, by_hand
from torch import Tensor

import ierf
from ierf.attribution.attribute import relevance_pass

TOLERANCE = 1e-9
METHODS = ("srd", "attnlrp", "cp_lrp")
Property = Callable[[Built], str | None]


def logits(method: str, built: Built) -> str | None:
    """The recorded pass computes what the network computes."""
    with torch.no_grad():
        plain = built.net(built.x.clone())
    with relevance_pass(ierf.VisionModel(built.net), built.x.clone(), method, {}) as run:
        return _differs("recorded logits", run.logits.detach(), plain)


def accounts(method: str, built: Built) -> str | None:
    """In = out + named leaks, at every stage; between the pixels and the map's start, a map holds what went out."""
    ledger = ierf.check_conservation(built.net, built.x.clone(), method, target=0)
    amounts = [e.relevance_in for e in ledger.entries] + [e.relevance_out for e in ledger.entries]
    leaks = [leak.amount for e in ledger.entries for leak in e.leaks]
    scale = max([abs(a) for a in amounts + leaks] + [float(_map(method, built).abs().sum())])
    for entry in ledger.entries:
        if not abs(entry.unexplained) <= TOLERANCE * max(scale, 1e-4):
            return f"{entry.unexplained:.3g} of {scale:.3g} unexplained between {entry.layer!r} and the map before it"
    return None


def finite_and_alive(method: str, built: Built) -> str | None:
    """Maps are finite, and not zero where gradient × input is not."""
    found = _map(method, built)
    with torch.no_grad():
        classes = built.net(built.x.clone()).shape[1]
    if classes == 1:  # nothing to compare with: the default head is the logit itself
        found = ierf.attribute(built.net, built.x.clone(), target=0, method=method)
    if not found.isfinite().all():
        return "the map is not finite"
    try:
        plain = ierf.attribute(built.net, built.x.clone(), target=0, method="gradient_x_input")
    except RuntimeError:  # torch cannot differentiate every network that writes in place
        return None
    silent = [n for n in range(len(found)) if plain[n].abs().max() > 1e-9 and not found[n].any()]
    return f"the map of samples {silent} is zero, gradient × input is not" if silent else None


def differentiated(built: Built) -> str | None:
    """What torch cannot differentiate is refused in words."""
    ierf.attribute(built.net, built.x.clone(), target=0, method="gradient_x_input")
    return None


def batch_mates(method: str, built: Built) -> str | None:
    """A sample's map does not depend on its batch, unless the network does."""
    with torch.no_grad():
        scores = torch.cat([built.net(built.x[n : n + 1].clone()) for n in range(len(built.x))])
        if _differs("", scores, built.net(built.x.clone())) is not None:
            return None
    together = _map(method, built)
    alone = [_map(method, built, built.x[n : n + 1]) for n in range(len(built.x))]
    return _differs("a map alone", torch.cat(alone), together)


def spelling(method: str, built: Built) -> str | None:
    """The same function written otherwise has the same map."""
    if built.twin is None:
        return None
    with torch.no_grad():
        assert _differs("the twin's logits", built.twin(built.x.clone()), built.net(built.x.clone())) is None
    # The γ-rule is one of convolutions, whatever they could be written as.
    options: dict[str, Any] = {"head": "raw"} if method == "srd" else {"conv_gamma": 0.0}
    one, other = (
        ierf.attribute(net, built.x.clone(), target=0, method=method, **options) for net in (built.net, built.twin)
    )
    return _differs("the map", one, other)


def untouched(method: str, built: Built) -> str | None:
    """Network and pictures are as they were: values, gradients, modes, hooks."""
    before, pictures = _state(built.net) | {"x": built.x.clone()}, built.x.clone()
    ierf.attribute(built.net, pictures, target=0, method=method)
    after = _state(built.net) | {"x": pictures}
    changed = [name for name in before if not _same(before[name], after[name])]
    return f"{', '.join(changed)} changed" if changed else None


def oracle(method: str, built: Built) -> str | None:
    """The map is the one that the formulas give, evaluated naively."""
    judge = SharingRatios() if method == "srd" else Propositions()
    with torch.no_grad():
        expected = by_hand(built, judge, 0)
    if expected is None:
        return None
    options: dict[str, Any] = {"head": "raw"} if method == "srd" else {"conv_gamma": 0.0}
    found = ierf.attribute(built.net, built.x.clone(), target=0, method=method, **options)[0]
    return _differs("the oracle's map", found, expected, 1e-8)


_HEAD: dict[str, dict[str, Any]] = {"srd": {"head": "raw"}}


def _map(method: str, built: Built, x: Tensor | None = None) -> Tensor:
    pictures = (built.x if x is None else x).clone()
    return ierf.attribute(built.net, pictures, target=0, method=method, **_HEAD.get(method, {}))


def _differs(what: str, found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> str | None:
    if found.shape != expected.shape:
        return f"{what}: shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    error, scale = float((found - expected).abs().max()), float(expected.abs().max())
    return None if error <= tolerance * max(scale, 1e-9) else f"{what}: off by {error:.3g} of {scale:.3g}"


def _state(net: torch.nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for name, module in net.named_modules():
        state[f"{name}.training"] = module.training
        state[f"{name}.hooks"] = [len(getattr(module, h)) for h in vars(module) if h.endswith("_hooks")]
    for name, p in [*net.named_parameters(), *net.named_buffers()]:
        state[name], state[f"{name}.grad"], state[f"{name}.requires_grad"] = p.detach().clone(), p.grad, p.requires_grad
    return state


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def _of(check: Callable[[str, Built], str | None], method: str) -> Property:
    return lambda built: check(method, built)


PROPERTIES: Mapping[str, Property] = (
    {
        f"{check.__name__}, {method}": _of(check, method)
        for check in (logits, accounts, finite_and_alive, batch_mates, spelling, untouched)
        for method in METHODS
    }
    | {f"oracle, {method}": _of(oracle, method) for method in ("srd", "attnlrp")}
    | {"differentiated": differentiated}
)


def complaint(check: Property, built: Built) -> str | None:
    """What a property finds wrong; a refusal in words is no fault, any other exception is."""
    try:
        return check(built)
    except ierf.IerfError:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def refusal(built: Built, method: str) -> str | None:
    """The sentence with which a network is refused."""
    try:
        _map(method, built)
    except ierf.IerfError as error:
        return str(error)
    except Exception:
        return None
    return None
