"""Table III: what extractors keep of PFVs that they have not seen, how sparsely (VI-A1), and how alike over seeds."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
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
    match_concepts,
    shift_vector,
    usual_shift,
)
from ierf.concepts.bank_fitting import PER_CHANNEL
from ierf.concepts.sae import Training
from ierf.deprecated import by_present_names
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments.journal import Journal, Values, run_over, takes_track
from ierf.experiments.results import Better, Results, as_values
from ierf.model import Values as PFVValues
from ierf.progress import Progress
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
    values: PFVValues
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
    """`quality` with the Lasso's codes, where x is."""
    parts = []
    atoms, shift, origin = (tensor.to(x) for tensor in (found.atoms, found.shift, found.origin))
    for some in torch.split(x, _AT_ONCE):
        codes = lasso(some - shift, atoms, found.lam)
        made = codes.reconstruct(atoms) + shift
        parts.append(quality(some, made, codes.sparse.counts(), len(atoms), origin))
    return torch.cat(parts, 1)


def store_digest(store: PFVStore) -> str:
    """A digest of everything that the store's bytes depend on."""
    return hashlib.sha256(json.dumps(store.plan.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def fitted(
    store: PFVStore,
    layer: str,
    recipe: Recipe,
    seed: int,
    settings: FitSettings,
    folder: Path,
    device: str = "cpu",
) -> Fitted:
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
                _fit(store.layer(layer), store, recipe, seed, settings, place, wanted, device)
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
    device: str,
) -> None:
    rows, held = settings.split(store, stored)
    x = stored.pfvs.torch(rows).float().to(device)
    count = min(concept_count(stored, settings.n_concepts), len(x))
    start = perf_counter()
    usual, _ = usual_shift(stored)
    extractor = recipe.make(count, x.shape[1], seed, usual, settings.l0_ratio).fit(x)
    seconds = perf_counter() - start
    atoms, shift = (tensor.detach().float() for tensor in (extractor.components_, extractor.shift_))
    sample = np.random.default_rng(settings.seed).permutation(len(x))[:_FOR_LAMBDA]
    lam = choose_lam(x[sample] - shift, atoms, settings.l0_ratio)
    origin, parts = shift_vector(x, usual), []
    for some in torch.split(stored.pfvs.torch(held).float().to(device), _AT_ONCE):
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
    tensors = {"atoms": atoms, "shift": shift, "origin": origin, "own": torch.cat(parts, 1)}
    kept = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    write(place / _FILE, save(kept, {"fitted": json.dumps(header)}))


BETTER: Mapping[str, Better] = dict(zip(MEASURES, ("lower", "lower", "higher"), strict=True))
OWN, LASSO = "own codes", "Lasso"
SLOW = ("dictionary",)
"""Extractors that are left out of layers with many concepts."""
DICTIONARY_LIMIT = 1024


@takes_track
def extractors(
    store: PFVStore,
    recipes: Sequence[Recipe],
    out: Path,
    settings: FitSettings | None = None,
    *,
    layers: Sequence[str] | None = None,
    dictionary_limit: int = DICTIONARY_LIMIT,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Results]:
    """Measure -> its value for each photograph that was held out, with each extractor's own codes and the Lasso's.

    The Lasso's λ is chosen, on PFVs that were fitted, for the same share of zeros with every extractor. Of several PFVs
    of a photograph the mean counts. `extractors.jsonl` in `out` keeps what is finished, layer by layer and extractor by
    extractor, and `fitted` the concepts.

    Args:
        layers: None: all of the store.
        dictionary_limit: dictionary learning is left out of layers with more concepts.
        device: where to compute; what differs is rounding, so that a run may go on elsewhere.
    """
    settings, names = settings or FitSettings(), list(layers or store.layers)
    header = {**run_header("extractors", store, recipes, settings, names), "dictionary_limit": dictionary_limit}
    journal = Journal.open(out / "extractors.jsonl", header)
    units = {f"{layer} {recipe.text}": (layer, recipe) for layer in names for recipe in recipes}

    def measure(unit: str) -> Values | None:
        layer, recipe = units[unit]
        if too_slow(store, layer, recipe, settings, dictionary_limit):
            return None
        found = fitted(store, layer, recipe, settings.seed, settings, out, device)
        return _measured(store, store.layer(layer), found, settings, device)

    done = run_over(list(units), journal, measure, progress)
    by_photograph: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {measure: {} for measure in MEASURES}
    for unit, found in done.items():
        layer, recipe = units[unit]
        for name, values in found.items():
            codes, measure_name = name.split("/")
            for photograph, value in values.items():
                rows = by_photograph[measure_name].setdefault(photograph, {})
                rows.setdefault(f"{recipe.text} {codes}", {})[layer] = value
    if not done:
        raise IerfError("nothing is left to measure: every extractor is too slow for these layers")
    return {
        name: Results(
            f"{name[0].upper()}{name[1:]} of {store.plan.model['name']}",
            dict.fromkeys(names, BETTER[name]),
            by_photograph[name],
            journal.settings,
            corner="extractor",
            seed=settings.seed,
        )
        for name in MEASURES
    }


def run_header(
    experiment: str, store: PFVStore, recipes: Sequence[Recipe], settings: FitSettings, layers: Sequence[str]
) -> dict[str, Any]:
    """What the numbers of a run over a store depend on."""
    return {
        "experiment": experiment,
        "store": f"{store.plan.model['name']} {store_digest(store)}",
        "extractors": [recipe.text for recipe in recipes],
        "layers": list(layers),
        **asdict(settings),
    }


def too_slow(store: PFVStore, layer: str, recipe: Recipe, settings: FitSettings, limit: int) -> bool:
    """Whether an extractor is left out of a layer, as in the paper."""
    wanted = settings.n_concepts or PER_CHANNEL * store.plan.layer(layer).channels
    return recipe.name in SLOW and wanted > limit


def _measured(store: PFVStore, stored: StoredLayer, found: Fitted, settings: FitSettings, device: str) -> Values:
    _, held = settings.split(store, stored)
    by_lasso = lasso_quality(found, stored.pfvs.torch(held).float().to(device)).cpu()
    images = stored.images[held]
    values: dict[str, Mapping[str, float | None]] = {}
    for codes, parts in ((OWN, found.own), (LASSO, by_lasso)):
        for name, part in zip(MEASURES, parts, strict=True):
            values[f"{codes}/{name}"] = _by_photograph(store, images, part)
    return values


def _by_photograph(
    store: PFVStore, images: Int[np.ndarray, " H"], values: Float[Tensor, " H"]
) -> dict[str, float | None]:
    distinct, places = np.unique(images, return_inverse=True)
    means = np.bincount(places, values.double().numpy()) / np.bincount(places)
    return as_values({f"{i} {store.name(int(i))}": mean for i, mean in zip(distinct, means.tolist(), strict=True)})


ALIKE = 0.9
"""Pairs with at least this cosine count as the same concept."""
STABILITY: Mapping[str, Better] = {"matched cosine": "higher", "found again": "higher", "by chance": ""}
"""Mean cosine of the matched pairs; the share of them with at least ALIKE; the mean with channels shuffled."""


@takes_track
def concept_stability(
    store: PFVStore,
    recipes: Sequence[Recipe],
    out: Path,
    settings: FitSettings | None = None,
    *,
    seeds: int = 3,
    layers: Sequence[str] | None = None,
    dictionary_limit: int = DICTIONARY_LIMIT,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Results]:
    """Measure -> its value for each two seeds: concepts are matched one to one, so that the cosines sum to the most.

    All seeds get the same PFVs. The first of the `seeds` is that of the settings, so that a run of
    `ierf.experiments.extractors` into the same `out` has done a part of the work. `concept-stability.jsonl`
    keeps what is finished.
    """
    settings, names = settings or FitSettings(), list(layers or store.layers)
    if seeds < 2:
        raise IerfError(f"stability compares at least two seeds, not {seeds}")
    header = run_header("concept-stability", store, recipes, settings, names)
    journal = Journal.open(out / "concept-stability.jsonl", {**header, "dictionary_limit": dictionary_limit})
    used = range(settings.seed, settings.seed + seeds)
    units = {
        f"{layer} {recipe.text} {one}–{other}": (layer, recipe, one, other)
        for layer in names
        for recipe in recipes
        for one, other in combinations(used, 2)
    }

    def measure(unit: str) -> Values | None:
        layer, recipe, *pair = units[unit]
        if too_slow(store, layer, recipe, settings, dictionary_limit):
            return None
        one, other = (fitted(store, layer, recipe, seed, settings, out, device).atoms for seed in pair)
        found = match_concepts(one.to(device), other.to(device))
        return {"": as_values(dict(zip(STABILITY, (found.mean, found.share_above(ALIKE), found.chance), strict=True)))}

    done = run_over(list(units), journal, measure, progress)
    values: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {name: {} for name in STABILITY}
    for unit, found in done.items():
        layer, recipe, one, other = units[unit]
        for name, value in found[""].items():
            rows = values[name].setdefault(f"seeds {one} and {other}", {})
            rows.setdefault(recipe.text, {})[layer] = value
    return {
        name: Results(
            f"{name[0].upper()}{name[1:]} of concepts from two seeds, {store.plan.model['name']}",
            dict.fromkeys(names, better),
            values[name],
            journal.settings,
            corner="extractor",
            seed=settings.seed,
            unit="pairs",
        )
        for name, better in STABILITY.items()
    }
