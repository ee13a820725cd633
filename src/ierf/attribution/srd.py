"""Sharing Ratio Decomposition: from a class, a PFV or a direction to the pixels (arXiv 2605.00474, Sec. IV)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.attribution.recorded import RecordedPass
from ierf.attribution.running import running
from ierf.attribution.targets import PFV, Channel, Direction, Logit, LogitFunction, Position, Relevance, Target
from ierf.errors import IerfError, UnknownNameError
from ierf.model import VisionModel
from ierf.rules import Backward, SRDRules, as_cotangent, as_relevance, record

Head = Literal["clamped", "mean", "raw"]
HEADS: tuple[str, ...] = get_args(Head)


class SRDPass(RecordedPass):
    """One forward pass with sharing-ratio rules, ready to be walked back from anywhere to anywhere upstream."""

    def final_ratio(self, target: Target, head: Head) -> Tensor:
        """`μ_i→c` at the encoder output (Eq. 5–6), (N, H, W).

        Φ_i^c = Σ_k α_k^c A_i^k with α the spatial mean of ∂y^c/∂A. mean: minus the mean of Φ over all classes, which
        is Φ of the mean logit, so one gradient serves. clamped: the positive part of that.
        """
        if head not in HEADS:
            raise UnknownNameError("choice for head", head, HEADS)
        entry, logits = self.tape.nodes[self.encoder], self.tape.settle(self.tape.output)
        with self.backward.as_gradient():
            weights = logit_weights(logits, target)
            if head != "raw" and logits.ndim == 2:
                weights = weights - weights.sum(1, keepdim=True) / logits.shape[1]
            (gradient,) = torch.autograd.grad(logits, entry.tensor, weights, retain_graph=True)
        spatial = [i for i in range(entry.tensor.ndim) if i not in (0, entry.axis)]
        phi = as_relevance(gradient.mean(spatial, keepdim=True), self.pfvs(self.encoder), entry.axis)
        return phi.clamp_min(0) if head == "clamped" else phi

    def start(self, target: Target, head: Head) -> tuple[int, Tensor]:
        """Where a target's relevance begins and what it is there: a node and an (N, H, W) map."""
        if not isinstance(target, Channel | PFV | Direction | Relevance):
            return self.encoder, self.final_ratio(target, head)
        node = self.layer(target.layer)
        entry, pfvs = self.tape.nodes[node], self.pfvs(node)
        shape = (len(pfvs), *entry.map_shape)
        if isinstance(target, Relevance):
            given = target.map.to(pfvs)
            if given.shape != shape:
                raise IerfError(f"the relevance map at {target.layer!r} must be {shape}, not {tuple(given.shape)}")
            return node, given
        if isinstance(target, PFV):
            return node, one_hot(target.position, shape, target.layer).to(pfvs)
        channels = pfvs.movedim(entry.axis, -1)
        return node, reading(channels, target)

    def carry(self, start: int, relevance: Tensor, stops: Sequence[int]) -> list[Tensor]:
        """Relevance at `start`, carried back to the maps of `stops`.

        `relevance` is (N, H, W), or (B, N, H, W) for a batch of backward passes over the one forward pass.
        """
        entry, pfvs = self.tape.nodes[start], self.pfvs(start)
        output, sources = self.tape.settle(start), [self._source(stop, start) for stop in stops]

        def back(cotangent: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(output, sources, cotangent, retain_graph=True, allow_unused=True)

        cotangent = as_cotangent(relevance, pfvs, entry.axis)
        gradients = torch.func.vmap(back)(cotangent) if cotangent.ndim > pfvs.ndim else back(cotangent)
        maps = []
        for stop, gradient in zip(stops, gradients, strict=True):
            if gradient is None:
                raise IerfError(
                    f"{self.tape.describe(stop)!r} does not lie between the pixels and {self.tape.describe(start)!r}, "
                    "so no relevance reaches it"
                )
            maps.append(as_relevance(gradient, self.pfvs(stop), self.tape.nodes[stop].axis))
        return maps

    def _source(self, stop: int, start: int) -> Tensor:
        """The tensor to differentiate by; a backward pass that stops where it starts needs the very same one."""
        return self.tape.settle(stop) if stop == start else self.tape.nodes[stop].tensor


def logit_weights(logits: Tensor, target: Target) -> Tensor:
    """∂(target)/∂(logits): what a class index, a list of them or a function of the logits weighs each logit by."""
    if callable(target):
        return _gradient_of_function(logits, target)
    if logits.ndim != 2:
        raise IerfError(
            f"the network returns {tuple(logits.shape)}, not (N, classes); explain it by a function of its output "
            "or by a layer: target=lambda y: …, ierf.targets.Channel, PFV, Direction or Relevance"
        )
    if isinstance(target, Logit):
        target = target.index
    n, k = logits.shape
    index = logits.detach().argmax(1) if target is None else class_indices(target).to(logits.device)
    if index.numel() not in (1, n):
        raise IerfError(f"{index.numel()} targets for {n} samples; give one, or one per sample")
    if not bool(((index >= 0) & (index < k)).all()):
        raise IerfError(f"class {index.tolist()} is out of range; the network has classes 0 … {k - 1}")
    return torch.nn.functional.one_hot(index.expand(n), k).to(logits)


def class_indices(target: object) -> Tensor:
    try:
        index = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        index = torch.tensor(0.5)
    if index.numel() and (index.is_floating_point() or index.is_complex()):
        raise IerfError(
            f"a class is given by its index, one or one per sample, not by {target!r}; "
            "VisionModel.class_index finds the index of a name"
        )
    return index.long().reshape(-1)


def _gradient_of_function(logits: Tensor, function: LogitFunction) -> Tensor:
    with torch.enable_grad():
        point = logits.detach().requires_grad_()
        value = function(point)
        if value.shape != point.shape[:1]:
            raise IerfError(f"a target function must return one number per sample, (N,), not {tuple(value.shape)}")
        return torch.autograd.grad(value.sum(), point)[0]


def one_hot(position: Position | Sequence[Position], shape: tuple[int, ...], layer: str) -> Tensor:
    """1 at one position of each sample, (N, H, W)."""
    rows = torch.as_tensor(position)
    if rows.numel() not in (len(shape) - 1, shape[0] * (len(shape) - 1)):
        raise IerfError(f"a position of {layer!r} is (row, column), one or one per sample; got {position!r}")
    rows = rows.reshape(-1, len(shape) - 1).expand(shape[0], -1)
    check_positions(rows, shape[1:], layer)
    hot = torch.zeros(shape)
    hot[(torch.arange(shape[0]), *rows.unbind(1))] = 1
    return hot


def check_positions(positions: Tensor, size: tuple[int, ...], layer: str) -> None:
    """An error for any (row, column) outside a map of this size."""
    outside = (positions < 0) | (positions >= torch.tensor(size))
    if bool(outside.any()):
        bad = tuple(positions[outside.any(1)][0].tolist())
        raise IerfError(f"position {bad} is outside {layer!r}, whose map is {' × '.join(map(str, size))}")


def reading(pfvs: Tensor, target: Channel | Direction) -> Tensor:
    """What a channel or a direction reads from each PFV, `⟨a_i, d⟩`: (N, H, W, C) -> (N, H, W), differentiable."""
    return _channel(pfvs, target) if isinstance(target, Channel) else _projection(pfvs, target)


def _channel(pfvs: Tensor, target: Channel) -> Tensor:
    index = torch.as_tensor(target.index, device=pfvs.device).reshape(-1)
    if index.numel() not in (1, len(pfvs)) or not bool(((index >= 0) & (index < pfvs.shape[-1])).all()):
        raise IerfError(f"channel {target.index} of {target.layer!r}: it has channels 0 … {pfvs.shape[-1] - 1}")
    index = index.expand(len(pfvs)).view(-1, *[1] * (pfvs.ndim - 1)).expand(*pfvs.shape[:-1], 1)
    return pfvs.gather(-1, index).squeeze(-1)


def _projection(pfvs: Tensor, target: Direction) -> Tensor:
    vector = target.vector.to(pfvs)
    if vector.shape not in (pfvs.shape[-1:], (len(pfvs), pfvs.shape[-1])):
        raise IerfError(f"a direction at {target.layer!r} has {pfvs.shape[-1]} channels; got {tuple(vector.shape)}")
    along = (pfvs * vector.view(-1, *[1] * (pfvs.ndim - 2), pfvs.shape[-1])).sum(-1)
    return (
        along
        if target.position is None
        else along * one_hot(target.position, tuple(along.shape), target.layer).to(along)
    )


@contextmanager
def srd_pass(
    model: VisionModel, x: Tensor, rules: SRDRules, encoder: str | None = None, metered: bool = False
) -> Iterator[SRDPass]:
    """The forward pass of `model` on `x` under `rules`; the model is in evaluation mode until the context is left.

    `metered` makes a ledger possible.
    """
    with running(model, x) as (forward, pixels):
        backward = Backward(metered)
        tape = record(model.net, pixels, rules.table(), rules.fallback, backward, forward)
        yield SRDPass(tape, backward, encoder)


def srd(
    model: VisionModel,
    x: Float[Tensor, "N 3 H W"],
    target: Target = None,
    resolution: str = "input",
    *,
    bias: Literal["norm", "uniform", "drop"] = "norm",
    head: Head = "clamped",
    unknown: Literal["raise", "gradient"] = "raise",
    encoder: str | None = None,
) -> Float[Tensor, "N h w"]:
    """Sharing Ratio Decomposition, `φ_c(x) = Σ_i μ_i→c iERF_i` (Eq. 4), by one forward and one backward pass.

    Args:
        bias: who inherits a bias's relevance: inputs in proportion to their contribution's norm ("norm", conserves),
            equally ("uniform") or nobody ("drop": fastest, leaks).
        head: the final ratio of a class: "clamped" max(Φ − mean over classes, 0), "mean" Φ − mean, "raw" Φ.
        unknown: an operation without a rule raises, or passes relevance by its plain "gradient".
        encoder: the layer to take as the encoder output; None finds it.
    """
    with srd_pass(model, x, SRDRules(bias, unknown), encoder) as run:
        start, relevance = run.start(target, head)
        return run.carry(start, relevance, [run.at(resolution)])[0].detach()
