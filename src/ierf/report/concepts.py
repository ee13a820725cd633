"""A page of concept cards: what the concepts of a bank are, at a glance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import torch
from PIL import Image
from torch import nn

from ierf.concepts import ConceptBank, LayerConcepts, webp
from ierf.files import write
from ierf.model import VisionModel
from ierf.report.components import classes, concept, crops, facts, layer, tabbed
from ierf.report.explain import Prediction
from ierf.report.text import percent, signed, slug

Order = Literal["frequency", "relevance", "random"]
"""By which concepts are chosen and sorted."""
PICTURES = 10
_CLASSES = 4
_NEIGHBOURS = 4
_SHIFTS = {
    "batch-norm": "shifted by the batch-norm’s μ",
    "zero": "not shifted",
    "mean": "shifted by the mean PFV",
    "extractor": "shifted by the extractor’s own vector",
}


@dataclass(frozen=True, eq=False)
class ConceptCard:
    """What is shown of one concept."""

    layer: str
    index: int
    pictures: Sequence[Image.Image]
    alts: Sequence[str]
    frequency: float
    strength: float
    relevance: float
    classes: Sequence[Prediction]
    """The predicted classes in which the concept is strongest, with their shares of its positive coefficients."""
    siblings: Sequence[int]
    """In the tree, few of them."""
    nearest: Sequence[tuple[int, float]]
    """By cosine."""

    @property
    def anchor(self) -> str:
        return f"{self.layer}/{self.index}"


def chosen(concepts: LayerConcepts, order: Order, limit: int, seed: int = 0) -> list[int]:
    """The first so many concepts of a layer in this order."""
    if order == "random":
        ranked = torch.randperm(len(concepts), generator=torch.Generator().manual_seed(seed))
    else:
        values = concepts.frequencies if order == "frequency" else concepts.relevances
        ranked = values.argsort(descending=True, stable=True)
    return [int(index) for index in ranked[:limit]]


def concept_cards(
    bank: ConceptBank, layer: str, indices: Sequence[int], model: VisionModel | nn.Module | None = None
) -> list[ConceptCard]:
    """The cards of some concepts. With a model, iERFs are computed anew at full resolution.

    Raises `IerfError` where neither the store nor the bank has pictures.
    """
    concepts = bank.layer(layer)
    pictures = bank.pictures(layer, indices, PICTURES, model=model)
    return [_card(bank, concepts, index, of_one) for index, of_one in zip(indices, pictures, strict=True)]


def save_concepts(
    bank: ConceptBank,
    path: Path,
    layers: Sequence[str] | None = None,
    order: Order = "frequency",
    limit: int = 60,
    seed: int = 0,
    model: VisionModel | nn.Module | None = None,
) -> Path:
    """Write a page of concept cards, its pictures in the folder NAME_pictures beside it. Returns `path`.

    Args:
        layers: None: all.
        order: by which the `limit` concepts of each layer are chosen; `seed` is that of "random".
        model: if given, iERFs are computed anew at full resolution.
    """
    folder = path.with_name(f"{path.stem}_pictures")
    sections = {}
    for number, name in enumerate(layers or bank.layers):
        cards = concept_cards(bank, name, chosen(bank.layer(name), order, limit, seed), model)
        addresses = [_write_pictures(card, folder) for card in cards]
        sections[name] = _section(number, bank.layer(name), cards, addresses)
    write(path, tabbed("Concepts", str(bank.plan.model["name"]), _intro(bank, order), sections).encode())
    return path


def _card(bank: ConceptBank, concepts: LayerConcepts, index: int, pictures: Sequence[Image.Image]) -> ConceptCard:
    shares = list(concepts.class_shares.of(index).items())[:_CLASSES]
    cosines = concepts.cosines[index].tolist()
    name = f"concept {index} of {concepts.name}"
    return ConceptCard(
        layer=concepts.name,
        index=index,
        pictures=pictures,
        alts=[f"Exemplar {i + 1} of {name}, cosine {cosines[i]:.2f}" for i in range(len(pictures))],
        frequency=float(concepts.frequencies[index]),
        strength=float(concepts.strengths[index]),
        relevance=float(concepts.relevances[index]),
        classes=[Prediction(label, bank.label(label), share) for label, share in shares],
        siblings=[] if concepts.tree is None else concepts.tree.siblings(index)[:_NEIGHBOURS],
        nearest=concepts.nearest(index, _NEIGHBOURS),
    )


def _write_pictures(card: ConceptCard, folder: Path) -> list[str]:
    """The addresses of the card's pictures, relative to the page."""
    names = [f"{slug(card.layer)}-{card.index}-{i}.webp" for i in range(len(card.pictures))]
    for name, picture in zip(names, card.pictures, strict=True):
        write(folder / name, webp(picture))
    return [quote(f"{folder.name}/{name}") for name in names]


def _intro(bank: ConceptBank, order: Order) -> str:
    return f"""Each card is a direction in the feature vectors (PFVs) of a layer, found by
<code>{escape(bank.plan.extractor)}</code> in PFVs of {bank.plan.store.images} photographs. Its pictures are the ten
PFVs that point most nearly there: the part of the photograph that caused the PFV, bright where the effective receptive
field (iERF) is positive; a frame marks the PFV’s place. Bars are the predicted classes in whose photographs the
concept’s positive coefficients lie. Sorted by {escape(order)}."""


def _section(
    number: int, concepts: LayerConcepts, cards: Sequence[ConceptCard], addresses: Sequence[Sequence[str]]
) -> str:
    shown = {card.index for card in cards}
    heading = (
        f'<code>{escape(concepts.name)}</code> <span class="number">{len(cards)} of {len(concepts)} concepts</span>'
    )
    items = "".join(_item(card, at, shown) for card, at in zip(cards, addresses, strict=True))
    return layer(number, heading, " · ".join(_layer_facts(concepts)), items)


def _layer_facts(concepts: LayerConcepts) -> Iterator[str]:
    yield f"{concepts.rows} PFVs of {concepts.atoms.shape[1]} channels, {concepts.values}"
    yield _SHIFTS[concepts.shift_from]
    yield f"λ = {concepts.lam:.3g}"
    active = (1 - concepts.l0_ratio) * len(concepts)
    yield f"{active:.1f} concepts to a PFV (ℓ₀ ratio {concepts.l0_ratio:.4f})"
    yield f"relative error {concepts.relative_error:.2f} over {concepts.encoded} PFVs"


def _item(card: ConceptCard, addresses: Sequence[str], shown: set[int]) -> str:
    known = {
        "in all photographs": f"in {percent(card.frequency, 2)} of PFVs",
        "mean coefficient there": signed(card.strength).lstrip("+"),
        "of the layer’s relevance": percent(card.relevance, 2),
    }
    parts = crops(addresses, card.alts), facts(known), classes(card.classes), _neighbours(card, shown)
    labels = [prediction.label for prediction in card.classes]
    return concept(card.anchor, card.index, card.layer, labels, "".join(parts), {})


def _neighbours(card: ConceptCard, shown: set[int]) -> str:
    near = ", ".join(f"{_link(card.layer, index, shown)} {cosine:.2f}" for index, cosine in card.nearest)
    siblings = ", ".join(_link(card.layer, index, shown) for index in card.siblings)
    tree = f" · beside it in the tree: {siblings}" if siblings else ""
    return f'<p class="near">nearest: {near}{tree}</p>' if near else ""


def _link(layer: str, index: int, shown: set[int]) -> str:
    return f'<a href="#{quote(f"{layer}/{index}")}">#{index}</a>' if index in shown else f"#{index}"
