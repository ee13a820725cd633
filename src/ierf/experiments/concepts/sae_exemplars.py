"""Where latents are most active: the photographs' patches, as a contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from ierf.attribution.token_grid import TokenGrid
from ierf.concepts.sae import SAE
from ierf.errors import IerfError
from ierf.experiments.concepts.sae_evaluation import batches_of
from ierf.model import VisionModel, as_vision_model, capture
from ierf.model.following import Values
from ierf.model.images import ImageLike
from ierf.store import First, contact_sheet, open_images, part

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
