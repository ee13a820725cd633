"""What a sparse autoencoder keeps of a layer (variance, sparsity, the model's answer), and where latents are active."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ierf.attribution import TokenGrid
from ierf.concepts.sae import SAE
from ierf.errors import IerfError
from ierf.experiments.journal import takes_track
from ierf.model import ImageLike, Values, VisionModel, as_vision_model, capture, patched
from ierf.progress import Progress
from ierf.store import First, Images, contact_sheet, open_images
from ierf.store.pictures import part


@dataclass(frozen=True)
class Evaluation:
    """One layer over a set of photographs, all positions."""

    pfvs: int
    fvu: float
    """Σ ‖x − x̂‖² / Σ ‖x − x̄‖²."""
    l0: float
    """Active latents per PFV."""
    dead: float
    """Share of latents that no PFV of the set activates."""
    loss: float
    """Mean cross-entropy of the untouched model."""
    loss_patched: float
    """With every PFV of the layer replaced by its reconstruction."""
    loss_empty: float
    """With every PFV replaced by the reconstruction from no latent, the decoder's bias."""
    loss_zero: float
    """With zeros instead."""
    agreement: float
    """Share of photographs whose predicted class stays."""

    @property
    def recovered(self) -> float:
        """1 − (patched − untouched) / (empty − untouched): 1: the patch does no harm; 0: codes are worth nothing."""
        return _recovered(self.loss, self.loss_patched, self.loss_empty)

    @property
    def recovered_from_zero(self) -> float:
        """The same against zeros, as it is often reported: zeros do more harm, so this is higher."""
        return _recovered(self.loss, self.loss_patched, self.loss_zero)


@torch.no_grad()
@takes_track
def evaluate_saes(
    model: VisionModel | nn.Module,
    saes: Mapping[str, SAE],
    images: str | Path | Sequence[ImageLike],
    *,
    values: Values = "pre-activation",
    labels: bool = False,
    limit: int | None = None,
    batch: int = 64,
    progress: Progress | None = None,
) -> dict[str, Evaluation]:
    """Evaluate each layer's autoencoder, one layer patched at a time. Sums are kept in float64.

    Args:
        saes: layer -> autoencoder.
        labels: cross-entropy to the photographs' own labels; else to the classes that the untouched model predicts.
    """
    model = as_vision_model(model)
    source = open_images(images) if limit is None else First(open_images(images), limit)
    found = {name: _Sums(sae) for name, sae in saes.items()}
    numbers = range(len(source.names))
    for first in numbers[::batch]:
        if progress is not None:
            progress("evaluating", first, len(numbers))
        x, own = _batch(model, source, numbers[first : first + batch])
        clean = model(x)
        classes = _classes(own, clean) if labels else clean.argmax(1)
        captured = capture(model, x, list(saes), values)
        for name, sums in found.items():
            sums.add_pfvs(captured[name].pfvs.flatten(0, 1))
            sums.add_losses(model, x, name, values, clean, classes)
    if progress is not None:
        progress("evaluating", len(numbers), len(numbers))
    return {name: sums.evaluation() for name, sums in found.items()}


class _Sums:
    """Of one layer."""

    def __init__(self, sae: SAE) -> None:
        self._sae, self._pfvs, self._images = sae, 0, 0
        self._error = self._square = self._active = 0.0
        self._mean = torch.zeros(sae.components_.shape[1], dtype=torch.float64, device=sae.decoder.device)
        self._fired = torch.zeros(sae.n_latents, dtype=torch.bool, device=sae.decoder.device)
        self._losses = torch.zeros(5, dtype=torch.float64)

    def add_pfvs(self, x: Float[Tensor, "R C"]) -> None:
        codes = self._sae.encode(x.to(self._sae.decoder))
        self._error += float((x - self._sae.decode(codes)).double().square().sum())
        self._square += float(x.double().square().sum())
        self._mean += x.double().sum(0)
        self._active += float((codes > 0).sum())
        self._fired |= (codes > 0).any(0)
        self._pfvs += len(x)

    def add_losses(
        self,
        model: VisionModel,
        x: Float[Tensor, "N 3 H W"],
        layer: str,
        values: Values,
        clean: Float[Tensor, "N T"],
        classes: Int[Tensor, " N"],
    ) -> None:
        sae = self._sae

        def rebuilt(pfvs: Float[Tensor, "N P C"]) -> Float[Tensor, "N P C"]:
            found: Tensor = sae(pfvs.flatten(0, 1).to(sae.decoder))
            return found.view_as(pfvs).to(pfvs)

        logits = [
            clean,
            patched(model, x, {layer: rebuilt}, values),
            patched(model, x, {layer: lambda pfvs: sae.shift_.to(pfvs).expand_as(pfvs)}, values),
            patched(model, x, {layer: torch.zeros_like}, values),
        ]
        losses = [F.cross_entropy(one.float(), classes, reduction="sum") for one in logits]
        same = (logits[1].argmax(1) == clean.argmax(1)).sum()
        self._losses += torch.stack([*losses, same]).double().cpu()
        self._images += len(x)

    def evaluation(self) -> Evaluation:
        variance = self._square - float(self._mean.square().sum()) / self._pfvs
        return Evaluation(
            self._pfvs,
            self._error / variance if variance > 0 else math.nan,
            self._active / self._pfvs,
            1 - float(self._fired.double().mean()),
            *(self._losses / self._images).tolist(),
        )


def _batch(
    model: VisionModel, source: Images, numbers: Sequence[int]
) -> tuple[Float[Tensor, "N 3 H W"], Int[Tensor, " N"]]:
    x = torch.stack([model.preprocess(source.read(i)) for i in numbers]).to(model.device, model.dtype)
    return x, torch.tensor([source.label(i) for i in numbers], device=model.device)


def _classes(own: Int[Tensor, " N"], logits: Float[Tensor, "N T"]) -> Int[Tensor, " N"]:
    if bool((own < 0).any()) or int(own.max()) >= logits.shape[1]:
        raise IerfError("these photographs have no labels among the model's classes; evaluate without labels")
    return own


def batches_of(model: VisionModel, source: Images, batch: int) -> Iterator[tuple[range, Float[Tensor, "N 3 H W"]]]:
    """All photographs in order, prepared, with their numbers."""
    numbers = range(len(source.names))
    for first in numbers[::batch]:
        some = numbers[first : first + batch]
        yield some, _batch(model, source, some)[0]


def _recovered(clean: float, patched_loss: float, ablated: float) -> float:
    return 1 - (patched_loss - clean) / (ablated - clean) if ablated != clean else math.nan


_AROUND = 3
"""Cells along a side of the part that is shown enlarged."""


@dataclass(frozen=True)
class Strongest:
    """The photographs in which a latent is most active, at most one patch of each."""

    values: Float[Tensor, "K n"]
    images: Int[Tensor, "K n"]
    patches: Int[Tensor, "K n"]
    """Row-major places on the grid."""
    grid: tuple[int, int]
    frequency: Float[Tensor, " K"]
    """Share of patches that activate the latent."""


@torch.no_grad()
def strongest(
    model: VisionModel | nn.Module,
    sae: SAE,
    layer: str,
    images: str | Path | Sequence[ImageLike],
    *,
    count: int = 10,
    values: Values = "pre-activation",
    limit: int | None = None,
    batch: int = 64,
) -> Strongest:
    """The `count` photographs with the highest activation of each latent; class and register tokens are left out."""
    model = as_vision_model(model)
    source = open_images(images) if limit is None else First(open_images(images), limit)
    best, where, patches = (torch.zeros(sae.n_latents, 0, dtype=d) for d in (torch.float32, torch.long, torch.long))
    fired, seen, grid = torch.zeros(sae.n_latents), 0, TokenGrid(0, 1, 1)
    for numbers, x in batches_of(model, source, batch):
        found = capture(model, x, [layer], values)[layer]
        grid = _grid(found.site.map, x.shape[2:])
        pfvs = found.pfvs[:, grid.prefix : grid.prefix + grid.patches]
        codes = sae.encode(pfvs.flatten(0, 1).to(sae.decoder)).view(len(x), grid.patches, -1).cpu()
        top, place = codes.max(1)
        fired, seen = fired + (codes > 0).sum((0, 1)), seen + len(x) * grid.patches
        best, order = torch.cat([best, top.T], 1).topk(min(count, best.shape[1] + len(x)), dim=1)
        where = torch.cat([where, torch.tensor(numbers).expand(sae.n_latents, -1)], 1).gather(1, order)
        patches = torch.cat([patches, place.T], 1).gather(1, order)
    return Strongest(best, where, patches, (grid.rows, grid.columns), fired / seen)


def latent_sheet(
    model: VisionModel | nn.Module,
    found: Strongest,
    images: str | Path | Sequence[ImageLike],
    latents: Sequence[int],
    tile: int = 120,
) -> Image.Image:
    """A strip for each latent: photographs with the patch framed, and below each what surrounds the patch."""
    model, source = as_vision_model(model), open_images(images)
    rows = []
    for latent in latents:
        pairs = []
        for value, number, patch in zip(found.values[latent], found.images[latent], found.patches[latent], strict=True):
            if value > 0:
                cell = divmod(int(patch), found.grid[1])
                pairs.append(_pair(model.view(source.read(int(number))), cell, found.grid, tile))
        rows.append((f"latent {latent}, active in {float(found.frequency[latent]):.2%} of patches", pairs))
    if not any(pairs for _, pairs in rows):
        raise IerfError(f"none of the latents {list(latents)} is active in these photographs")
    return contact_sheet(rows, tile)


def drawn_latents(found: Strongest, count: int, seed: int = 0) -> list[int]:
    """Latents at random among those that are active in at least as many photographs as are shown."""
    living = (found.values[:, -1] > 0).nonzero()[:, 0].numpy()
    chosen = np.random.default_rng(seed).permutation(living)[:count]
    return sorted(int(latent) for latent in chosen)


def _pair(
    view: Image.Image, cell: tuple[int, int], grid: tuple[int, int], tile: int
) -> tuple[Image.Image, Image.Image]:
    whole = 0.0, 0.0, float(view.width), float(view.height)
    across, down = view.width / grid[1], view.height / grid[0]
    width, height = min(_AROUND * across, view.width), min(_AROUND * down, view.height)
    left = min(max(0.0, (cell[1] + 0.5) * across - width / 2), view.width - width)
    top = min(max(0.0, (cell[0] + 0.5) * down - height / 2), view.height - height)
    around = left, top, left + width, top + height
    return part(view, whole, tile, cell, grid), part(view, around, tile, cell, grid)


def _grid(map_shape: Sequence[int], size: Sequence[int]) -> TokenGrid:
    """The map as it is, or the patches of a sequence of tokens."""
    if len(map_shape) == 2:
        return TokenGrid(0, map_shape[0], map_shape[1])
    found = TokenGrid.by_aspect(map_shape[0], size) if len(map_shape) == 1 else None
    if found is None:
        raise IerfError(f"a layer of shape {tuple(map_shape)} has no grid of patches to show")
    return found
