"""Where an explanation starts: what a target asks of the logits, or of the PFVs of a layer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ierf.attribution.targets import PFV, Channel, Direction, Logit, LogitFunction, Position, Relevance, Target
from ierf.attribution.token_grid import TokenGrid
from ierf.errors import IerfError

LayerTarget = Channel | PFV | Direction | Relevance


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


def relevance_map(target: PFV | Relevance, shape: tuple[int, ...], grid: TokenGrid | None = None) -> Tensor:
    """The relevance of each PFV of a layer whose map has this shape, (N, H, W), that a target gives outright.

    For tokens with a `grid`, a map (N, rows, columns) gives that of the patches; other tokens have none.
    """
    if isinstance(target, PFV):
        return one_hot(target.position, shape, target.layer, grid)
    if grid is not None and target.map.shape == (shape[0], grid.rows, grid.columns):
        return grid.to_tokens(target.map, shape[1])
    if target.map.shape != shape:
        raise IerfError(f"the relevance map at {target.layer!r} must be {shape}, not {tuple(target.map.shape)}")
    return target.map


def one_hot(
    position: int | Position | Sequence[Position], shape: tuple[int, ...], layer: str, grid: TokenGrid | None = None
) -> Tensor:
    """1 at one position of each sample, (N, H, W); of tokens with a `grid`, a patch may be given by (row, column)."""
    rows = torch.as_tensor(position)
    if grid is not None and rows.shape in ((2,), (shape[0], 2)):
        rows = grid.index(rows.reshape(-1, 2))
    if rows.numel() not in (len(shape) - 1, shape[0] * (len(shape) - 1)):
        raise IerfError(
            f"a position of {layer!r} is (row, column), or (index,) of a token, one or one per sample; got {position!r}"
        )
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


def reading(pfvs: Tensor, target: Channel | Direction, grid: TokenGrid | None = None) -> Tensor:
    """What a channel or a direction reads from each PFV, `⟨a_i, d⟩`: (N, H, W, C) -> (N, H, W), differentiable."""
    return _channel(pfvs, target) if isinstance(target, Channel) else _projection(pfvs, target, grid)


def _channel(pfvs: Tensor, target: Channel) -> Tensor:
    index = torch.as_tensor(target.index, device=pfvs.device).reshape(-1)
    if index.numel() not in (1, len(pfvs)) or not bool(((index >= 0) & (index < pfvs.shape[-1])).all()):
        raise IerfError(f"channel {target.index} of {target.layer!r}: it has channels 0 … {pfvs.shape[-1] - 1}")
    index = index.expand(len(pfvs)).view(-1, *[1] * (pfvs.ndim - 1)).expand(*pfvs.shape[:-1], 1)
    return pfvs.gather(-1, index).squeeze(-1)


def _projection(pfvs: Tensor, target: Direction, grid: TokenGrid | None) -> Tensor:
    vector = target.vector.to(pfvs)
    if vector.shape not in (pfvs.shape[-1:], (len(pfvs), pfvs.shape[-1])):
        raise IerfError(f"a direction at {target.layer!r} has {pfvs.shape[-1]} channels; got {tuple(vector.shape)}")
    along = (pfvs * vector.view(-1, *[1] * (pfvs.ndim - 2), pfvs.shape[-1])).sum(-1)
    return (
        along
        if target.position is None
        else along * one_hot(target.position, tuple(along.shape), target.layer, grid).to(along)
    )
