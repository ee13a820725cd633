"""Where an explanation starts: what a target asks of the logits, or of the PFVs of a layer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ierf.attribution.targets import PFV, Channel, Direction, Latent, Logit, LogitFunction, Position, Relevance, Target
from ierf.attribution.token_grid import TokenGrid
from ierf.errors import IerfError
from ierf.model import Outputs

LayerTarget = Channel | PFV | Direction | Latent | Relevance


def norm(features: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
    """`‖z‖`: what is explained of an embedding where nothing is asked for."""
    return features.flatten(1).square().sum(1).sqrt()


def asked_of(target: Target, outputs: Outputs) -> Target:
    """The target itself; for None, of a network without classes, the norm of what it returns."""
    return norm if target is None and outputs == "features" else target


def logit_weights(logits: Tensor, target: Target) -> Tensor:
    """∂(target)/∂(logits): what a class index, a list of them or a function of the logits weighs each logit by."""
    if callable(target):
        return _gradient_of_function(logits, target)
    if logits.ndim != 2:
        raise IerfError(
            f"the network returns {tuple(logits.shape)}, not (N, classes); explain it by a function of its output "
            "or by a layer: target=lambda y: …, ierf.targets.Channel, PFV, Direction, Latent or Relevance"
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
        if isinstance(value, Tensor) and value.shape == point.shape[:1] and not value.requires_grad:
            raise IerfError(
                "the target function's value does not depend on the network's output by torch's operations (is it a "
                "constant, or behind .detach(), .item() or no_grad?), so there is nothing to explain"
            )
        if not isinstance(value, Tensor) or value.shape != point.shape[:1]:
            got = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
            raise IerfError(f"a target function must return one number per sample, (N,), not {got}")
        (weights,) = torch.autograd.grad(value.sum(), point, allow_unused=True)
        return torch.zeros_like(point) if weights is None else weights


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


def reading(pfvs: Tensor, target: Channel | Direction | Latent, grid: TokenGrid | None = None) -> Tensor:
    """What a target reads from each PFV: (N, H, W, C) -> (N, H, W), differentiable.

    Of a channel or a direction `⟨a_i, d⟩`, of a latent its pre-activation at its position and 0 elsewhere.
    """
    if isinstance(target, Latent):
        return _pre_activation(pfvs, target, grid)
    return _channel(pfvs, target) if isinstance(target, Channel) else _projection(pfvs, target, grid)


def latents(pfvs: Float[Tensor, "N C"], target: Latent) -> Float[Tensor, "N K"]:
    """All pre-activations of one PFV of each sample, in the autoencoder's own precision."""
    weight = next(target.sae.parameters(), None) if isinstance(target.sae, nn.Module) else None
    return target.sae.pre_activations(pfvs if weight is None else pfvs.to(weight))


def latent_indices(target: Latent, n: int, n_latents: int) -> Int[Tensor, "N 1"]:
    """The latent of each sample. Raises `IerfError` for one that the autoencoder does not have."""
    index = torch.as_tensor(target.index).reshape(-1)
    if index.numel() not in (1, n) or not bool(((index >= 0) & (index < n_latents)).all()):
        raise IerfError(f"latent {target.index} of {target.layer!r}: the autoencoder has latents 0 … {n_latents - 1}")
    return index.expand(n)[:, None]


@torch.no_grad()
def place_of(pfvs: Tensor, target: Latent, grid: TokenGrid | None) -> Tensor:
    """1 at the latent's position in each sample, (N, H, W, C) -> (N, H, W); the strongest one if none is given."""
    shape = tuple(pfvs.shape[:-1])
    if target.position is not None:
        return one_hot(target.position, shape, target.layer, grid).to(pfvs)
    codes = latents(pfvs.flatten(0, -2), target)
    codes = codes.view(len(pfvs), -1, codes.shape[1])
    index = latent_indices(target, len(pfvs), codes.shape[2]).to(codes.device)
    best = codes.gather(2, index[:, None].expand(-1, codes.shape[1], -1)).argmax(1)
    return torch.zeros(len(pfvs), codes.shape[1]).to(pfvs).scatter(1, best, 1).view(shape)


def _pre_activation(pfvs: Tensor, target: Latent, grid: TokenGrid | None) -> Tensor:
    hot = place_of(pfvs, target, grid)
    there = latents(pfvs[hot.bool()], target)
    index = latent_indices(target, len(pfvs), there.shape[1]).to(there.device)
    return hot * there.gather(1, index).view(-1, *[1] * (hot.ndim - 1)).to(hot)


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
