"""Latents as people see them: where each fires beside what drives it, as a picture and as a page to search."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image

from ierf.cafe import Example, IndexedLayer, LatentIndex, LatentLayer, ierfs, nonlocality, on_grid
from ierf.concepts.bank import webp
from ierf.errors import IerfError
from ierf.files import write
from ierf.report import components
from ierf.report.explain import Prediction
from ierf.report.pictures import spotlight
from ierf.report.text import percent, slug
from ierf.store import Images, only_writer
from ierf.store.pictures import contact_sheet

Order = Literal["non-locality", "frequency", "selectivity", "random"]
"""By which latents are chosen and sorted."""
ORDERS: tuple[Order, ...] = ("non-locality", "frequency", "selectivity", "random")
SIDE = 128
"""Of a picture on the page, in pixels."""
PICTURES = 5
_TILE = 160
_RAREST = 8
"""Photographs that must activate a latent for its non-locality to say something."""


@dataclass(frozen=True, eq=False)
class LatentCard:
    """What is shown of one latent."""

    layer: str
    kind: str
    index: int
    pairs: Sequence[tuple[Image.Image, Image.Image]]
    """Of each photograph: bright where the latent is active, and bright where its iERF is positive."""
    alts: Sequence[str]
    frequency: float
    entropy: float
    selectivity: float
    displacement: float
    outside: float
    classes: Sequence[Prediction]

    @property
    def anchor(self) -> str:
        return f"{self.layer}/{self.kind}/{self.index}"


def chosen_latents(indexed: IndexedLayer, order: Order, limit: int, seed: int = 0) -> list[int]:
    """The first so many latents in this order, of those that enough photographs activate."""
    if order == "random":
        values = torch.rand(len(indexed), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    elif order == "frequency":
        values = indexed.frequency
    else:
        values = indexed.selectivity if order == "selectivity" else indexed.entropy.double()
    known = values.masked_fill(indexed.kept.fired < _RAREST, -torch.inf)
    ranked = known.argsort(descending=True, stable=True)[:limit]
    return [int(latent) for latent in ranked if known[latent] > -torch.inf]


def latent_card(
    layer: LatentLayer,
    indexed: IndexedLayer,
    photographs: Images,
    latent: int,
    *,
    count: int = PICTURES,
    side: int = SIDE,
    method: str = "attnlrp",
) -> LatentCard:
    """The photographs that activate a latent most, and its non-locality in them."""
    examples = indexed.top(latent, count)
    views = [layer.model.view(photographs.read(example.image)) for example in examples]
    pairs: list[tuple[Image.Image, Image.Image]] = []
    displacement = outside = float("nan")
    if examples:
        x = torch.stack([layer.model.preprocess.to_tensor(view) for view in views])
        x = x.to(layer.model.device, layer.model.dtype)
        latents, positions = torch.full((len(x),), latent), torch.tensor([example.position for example in examples])
        pixels, active = ierfs(layer, x, latents, positions, method), layer.maps(x, latents)
        driving = on_grid(pixels, (layer.grid.rows, layer.grid.columns))
        displacement = float(nonlocality.displacement(active, driving).nanmean())
        outside = float(nonlocality.outside(active, driving).nanmean())
        for view, example, fired, ierf in zip(views, examples, active.cpu(), pixels.cpu(), strict=True):
            pairs.append(_pair(layer, view, example, fired.float().numpy(), ierf.float().numpy(), side))
    return LatentCard(
        layer=layer.layer,
        kind=indexed.kind,
        index=latent,
        pairs=pairs,
        alts=[f"photograph {example.image}, activation {example.activation:.2f}" for example in examples],
        frequency=float(indexed.frequency[latent]),
        entropy=float(indexed.entropy[latent]),
        selectivity=float(indexed.selectivity[latent]),
        displacement=displacement,
        outside=outside,
        classes=[Prediction(i, layer.model.label(i), share) for i, share in indexed.classes(latent)],
    )


def latents_sheet(cards: Sequence[LatentCard], tile: int = _TILE) -> Image.Image:
    """A strip for each latent: above where it is active, below the pixels that drive it."""
    return contact_sheet([(_title(card), card.pairs) for card in cards], tile)


def save_latents(
    layers: Mapping[str, LatentLayer],
    index: LatentIndex,
    photographs: Images,
    path: Path,
    *,
    order: Order = "non-locality",
    limit: int = 40,
    count: int = PICTURES,
    method: str = "attnlrp",
    seed: int = 0,
) -> Path:
    """Write a page of latents, its pictures in the folder NAME_pictures beside it. Returns `path`.

    Args:
        layers: of the index.
        order: by which the `limit` latents of each layer and kind of token are chosen, and first sorted.
        count: photographs of each.
        method: whose iERFs are shown.

    Raises `IerfError` where no latent is active in enough photographs to be shown.
    """
    if not any(
        bool((found.kept.fired >= _RAREST).any()) for (name, _), found in index.layers.items() if name in layers
    ):
        raise IerfError(
            f"no latent is active in {_RAREST} of the {index.photographs} photographs: give more of them, or say which "
            "latents to show with --latent"
        )
    folder = path.with_name(f"{path.stem}_pictures")
    sections: dict[str, str] = {}
    with only_writer(path.parent, path.name):
        for (name, kind), indexed in index.layers.items():
            if name in layers:
                cards = [
                    latent_card(layers[name], indexed, photographs, latent, count=count, method=method)
                    for latent in chosen_latents(indexed, order, limit, seed)
                ]
                sections[f"{name} {kind}"] = _section(len(sections), indexed, cards, folder)
        write(path, _page(index, sections, order).encode())
    return path


def _pair(
    layer: LatentLayer, view: Image.Image, example: Example, active: np.ndarray, ierf: np.ndarray, side: int
) -> tuple[Image.Image, Image.Image]:
    grid = layer.grid.rows, layer.grid.columns
    scale = side / max(view.size)
    large = view.resize((round(view.width * scale), round(view.height * scale)), Image.Resampling.BICUBIC)
    cell = layer.grid.cell(example.position)
    return spotlight(large, active, cell, grid), spotlight(large, ierf, cell, grid)


def _title(card: LatentCard) -> str:
    return (
        f"{card.layer}, {card.kind}, latent {card.index}: {percent(card.frequency, 2)} of photographs, "
        f"entropy {_number(card.entropy)}, {percent(card.outside, 2)} of the evidence outside the peak"
    )


def _section(number: int, indexed: IndexedLayer, cards: Sequence[LatentCard], folder: Path) -> str:
    items = "".join(_item(card, _write_pictures(card, folder)) for card in cards)
    heading = f"""<code>{escape(indexed.name)}</code> {indexed.kind} tokens
<span class="number">{len(cards)} of {len(indexed)} latents</span>"""
    return components.layer(number, heading, "", items)


def _write_pictures(card: LatentCard, folder: Path) -> list[str]:
    """The addresses of the card's pictures, where it is active first, relative to the page."""
    stem = slug(f"{card.layer}-{card.kind}-{card.index}")
    flat = [picture for row in zip(*card.pairs, strict=True) for picture in row] if card.pairs else []
    names = [f"{stem}-{i}.webp" for i in range(len(flat))]
    for name, picture in zip(names, flat, strict=True):
        write(folder / name, webp(picture))
    return [quote(f"{folder.name}/{name}") for name in names]


def _item(card: LatentCard, addresses: Sequence[str]) -> str:
    titles = [*(f"active: {alt}" for alt in card.alts), *(f"driven by: {alt}" for alt in card.alts)]
    known = {
        "in all photographs": f"in {percent(card.frequency, 2)}",
        **({"entropy of the activation": _number(card.entropy)} if card.kind == "patch" else {}),
        "evidence": _evidence(card),
    }
    pictures = components.crops(addresses, titles, max(len(card.pairs), 1))
    parts = pictures, components.facts(known), components.classes(card.classes)
    keys = {"frequency": card.frequency, "nonlocality": card.entropy, "selectivity": card.selectivity}
    labels = [prediction.label for prediction in card.classes]
    return components.concept(card.anchor, card.index, card.layer, labels, "".join(parts), keys)


def _evidence(card: LatentCard) -> str:
    """Where the evidence is, relative to the peak; not a number where no patch has any, or none has a place."""
    if math.isnan(card.displacement):
        return "no patch is active or has positive evidence, so there is no distance between the two"
    return f"{card.displacement:.2f} of the diagonal from the peak, {percent(card.outside, 2)} outside it"


def _page(index: LatentIndex, sections: Mapping[str, str], order: Order) -> str:
    sorting = "".join(
        f'<option value="{key}"{" selected" if name == order else ""}>{name}</option>'
        for name, key in (("non-locality", "nonlocality"), ("frequency", "frequency"), ("selectivity", "selectivity"))
    )
    intro = f"""Each card is a latent of a sparse autoencoder, over {index.photographs} photographs. Upper row: the
photographs that activate it most, bright where it is active, the strongest patch framed (a class token has no place).
Lower row: bright where the pixels are that drive that activation (its iERF). Bars are the predicted classes in whose
photographs the latent is active. Chosen by {escape(order)}."""
    tools = f'<label>Sort by <select id="sort">{sorting}</select></label>'
    return components.tabbed("Latents", str(index.settings["model"]), intro, sections, tools, ["latents.js"])


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
