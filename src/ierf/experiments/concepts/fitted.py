"""Extractors fitted to the PFVs of a store without those of some photographs, kept on disk."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ierf.concepts import (
    EXTRACTORS,
    L0_RATIO,
    SAE,
    Extractor,
    Shift,
    choose_lam,
    concept_count,
    lasso,
    make_extractor,
    shift_vector,
    usual_shift,
)
from ierf.concepts.sae import Training
from ierf.deprecated import by_present_names
from ierf.errors import IerfError, UnknownNameError
from ierf.model.following import Values
from ierf.store import PFVStore, StoredLayer, only_writer, write

FOLDER = "fitted"
"""In the folder of a run."""
_FILE = "concepts.safetensors"
_FOR_LAMBDA = 512
"""PFVs that λ is chosen with, as in a bank."""
_AT_ONCE = 256
"""PFVs that are coded at once."""


@dataclass(frozen=True)
class Recipe:
    """An extractor with its options; `text` is what tables call it."""

    text: str
    name: str
    options: Mapping[str, Any]

    def make(self, n_concepts: int, channels: int, seed: int, shift: Shift, l0_ratio: float) -> Extractor:
        """The extractor, aiming at `l0_ratio` where it is one that can, unless its options say otherwise.

        So autoencoders have `(1 − l0_ratio) K` active latents. Options of theirs that are those of
        `ierf.concepts.sae.Training` go there. There are no more principal components than channels.
        """
        options = dict(self.options)
        if self.name.startswith("sae_"):
            options = by_present_names(Training, options)
            names = [field.name for field in fields(Training)]
            options["training"] = {name: options.pop(name) for name in names if name in options}
            options.setdefault("k", max(1, round((1 - l0_ratio) * n_concepts)))
        if self.name == "dictionary":
            options.setdefault("l0_ratio", l0_ratio)
        count = min(n_concepts, channels) if self.name == "pca" else n_concepts
        return make_extractor(self.name, count, seed, shift, **options)


def parse_recipes(texts: Sequence[str]) -> list[Recipe]:
    """`NAME[?OPTION=VALUE[&…]]`, each once; commas separate. Raises `IerfError` for an unknown extractor."""
    parts = dict.fromkeys(part.strip() for text in texts for part in text.split(",") if part.strip())
    return [_recipe(part) for part in parts]


def _recipe(text: str) -> Recipe:
    name, _, query = text.partition("?")
    if name not in EXTRACTORS:
        raise UnknownNameError("extractor", name, EXTRACTORS)
    pairs = [option.partition("=") for option in query.split("&") if option]
    if any(not value for _, _, value in pairs):
        raise IerfError(f"an option of an extractor is given as ?name=value, which {text!r} does not do")
    return Recipe(text, name, {key: _value(value) for key, _, value in pairs})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class FitSettings:
    """What the concepts of all extractors of a run depend on."""

    n_concepts: int | None = None
    """Of each layer; None: 8 for each channel."""
    l0_ratio: float = L0_RATIO
    """That λ is chosen for, on PFVs that are fitted."""
    held_out: int = 1000
    """Photographs whose PFVs are not fitted, drawn by `seed`; at most a fifth of all."""
    seed: int = 0

    def split(self, store: PFVStore, stored: StoredLayer) -> tuple[Int[np.ndarray, " F"], Int[np.ndarray, " H"]]:
        """The rows of a layer to fit, and those of the photographs that are held out, the same for all layers."""
        photographs = np.flatnonzero(store.predictions >= 0)
        count = min(self.held_out, len(photographs) // 5)
        if count < 1:
            raise IerfError(f"{len(photographs)} photographs are too few to hold some out; collect more of them")
        chosen = np.random.default_rng(self.seed).permutation(photographs)[:count]
        held = np.isin(stored.images, chosen)
        return np.flatnonzero(~held), np.flatnonzero(held)


@dataclass(frozen=True, eq=False)
class Fitted:
    """The concepts of one layer that an extractor found."""

    name: str
    """The extractor's, as tables call it."""
    layer: str
    atoms: Float[Tensor, "K C"]
    shift: Float[Tensor, " C"]
    origin: Float[Tensor, " C"]
    """What a bank subtracts from the layer's PFVs: the same for all extractors."""
    lam: float
    values: Values
    """What the layer's PFVs are."""
    own: Float[Tensor, "M H"]
    """How well the extractor's own codes do on the rows that were held out, see `quality`."""
    seconds: float
    """That fitting took."""
    facts: Mapping[str, Any]
    """What the fit depends on."""
    sae: SAE | None
    """The autoencoder, if it is one."""


MEASURES = ("relative error", "relative error shifted", "l0 ratio")


def quality(
    x: Float[Tensor, "N C"], made: Float[Tensor, "N C"], active: Int[Tensor, " N"], n_concepts: int, origin: Tensor
) -> Float[Tensor, "3 N"]:
    """`‖x − x̂‖ / ‖x‖`, the same over `‖x − origin‖`, and `1 − ‖u‖₀ / K` (arXiv 2605.00474, VI-A1); 0/0 is NaN."""
    left = (x - made).norm(dim=1)
    return torch.stack([left / x.norm(dim=1), left / (x - origin).norm(dim=1), 1 - active / n_concepts])


def lasso_quality(found: Fitted, x: Float[Tensor, "N C"]) -> Float[Tensor, "3 N"]:
    """`quality` with the Lasso's codes."""
    parts = []
    for some in torch.split(x, _AT_ONCE):
        codes = lasso(some - found.shift, found.atoms, found.lam)
        made = codes.reconstruct(found.atoms) + found.shift
        parts.append(quality(some, made, codes.sparse.counts(), len(found.atoms), found.origin))
    return torch.cat(parts, 1)


def store_digest(store: PFVStore) -> str:
    """A digest of everything that the store's bytes depend on."""
    return hashlib.sha256(json.dumps(store.plan.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def fitted(store: PFVStore, layer: str, recipe: Recipe, seed: int, settings: FitSettings, folder: Path) -> Fitted:
    """The concepts in `folder`, fitted and put there first if they are not.

    Raises `IerfError` where those in the folder were fitted otherwise.
    """
    place = folder / FOLDER / layer / f"{re.sub(r'[^A-Za-z0-9_.=-]', '_', recipe.text)}-{seed}"
    wanted = {
        "store": store_digest(store),
        "layer": layer,
        "layer number": store.layers.index(layer),
        "extractor": recipe.text,
        "extractor seed": seed,
        **asdict(settings),
    }
    if not (place / _FILE).exists():
        with only_writer(place):
            if not (place / _FILE).exists():
                _fit(store.layer(layer), store, recipe, seed, settings, place, wanted)
    return load_fitted(place, wanted)


def load_fitted(place: Path, wanted: Mapping[str, Any] | None = None) -> Fitted:
    """The concepts in their own folder. Raises `IerfError` if they are damaged, or not those `wanted`."""
    path = place / _FILE
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["fitted"])
            atoms, shift, origin, own = map(file.get_tensor, ("atoms", "shift", "origin", "own"))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise IerfError(f"{str(path)!r} is damaged ({' '.join(str(error).split())}); remove its folder") from None
    settings = facts["settings"]
    differing = [name for name in wanted or {} if (wanted or {})[name] != settings.get(name)]
    if differing:
        raise IerfError(
            f"{str(place)!r} holds concepts that were fitted otherwise ({', '.join(differing)}); "
            "write to another folder with --out"
        )
    sae = SAE.load(place) if facts["sae"] else None
    known = facts["lam"], facts["values"], own, facts["seconds"], settings, sae
    return Fitted(settings["extractor"], settings["layer"], atoms, shift, origin, *known)


def all_fitted(folder: Path, layers: Sequence[str] | None = None) -> list[Fitted]:
    """The concepts in the folder of a run, of its first seed, from the pixels on; `layers` None: of all.

    Raises `IerfError` where there are none.
    """
    places = [path.parent for path in (folder / FOLDER).glob(f"*/*/{_FILE}")]
    everything = [load_fitted(place) for place in places if layers is None or place.parent.name in layers]
    if not everything:
        of_layers = "" if layers is None else f" of {', '.join(layers)}"
        raise IerfError(
            f"{str(folder)!r} holds no fitted extractors{of_layers}; `ierf evaluate extractors --out` makes them"
        )
    everything.sort(key=lambda one: (one.facts["layer number"], one.name, one.facts["extractor seed"]))
    found: dict[tuple[str, str], Fitted] = {}
    for one in everything:
        found.setdefault((one.layer, one.name), one)
    return list(found.values())


def _fit(
    stored: StoredLayer,
    store: PFVStore,
    recipe: Recipe,
    seed: int,
    settings: FitSettings,
    place: Path,
    facts: Mapping[str, Any],
) -> None:
    rows, held = settings.split(store, stored)
    x = stored.pfvs.torch(rows).float()
    count = min(concept_count(stored, settings.n_concepts), len(x))
    start = perf_counter()
    usual, _ = usual_shift(stored)
    extractor = recipe.make(count, x.shape[1], seed, usual, settings.l0_ratio).fit(x)
    seconds = perf_counter() - start
    atoms, shift = (tensor.detach().float().cpu().contiguous() for tensor in (extractor.components_, extractor.shift_))
    sample = np.random.default_rng(settings.seed).permutation(len(x))[:_FOR_LAMBDA]
    lam = choose_lam(x[sample] - shift, atoms, settings.l0_ratio)
    origin, parts = shift_vector(x, usual), []
    for some in torch.split(stored.pfvs.torch(held).float(), _AT_ONCE):
        codes = extractor.transform(some)
        parts.append(quality(some, codes @ atoms + shift, (codes != 0).sum(1), len(atoms), origin))
    if isinstance(extractor, SAE):
        extractor.save(place)
    header = {
        "settings": facts,
        "lam": lam,
        "values": stored.plan.values,
        "seconds": seconds,
        "sae": isinstance(extractor, SAE),
        "config": extractor.config,
    }
    tensors = {"atoms": atoms, "shift": shift, "origin": origin.clone(), "own": torch.cat(parts, 1)}
    write(place / _FILE, save(tensors, {"fitted": json.dumps(header)}))
