"""Table III: what extractors keep of PFVs that they have not seen, how sparsely (VI-A1), and how alike over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from ierf.concepts import match_concepts
from ierf.concepts.bank_fitting import PER_CHANNEL
from ierf.errors import IerfError
from ierf.experiments.concepts.fitted import MEASURES, FitSettings, Fitted, Recipe, fitted, lasso_quality, store_digest
from ierf.experiments.journal import Journal, Track, Values, run_over
from ierf.experiments.results import Better, Results, as_values
from ierf.store import PFVStore, StoredLayer

BETTER: Mapping[str, Better] = dict(zip(MEASURES, ("lower", "lower", "higher"), strict=True))
OWN, LASSO = "own codes", "Lasso"
SLOW = ("dictionary",)
"""Extractors that are left out of layers with many concepts."""
DICTIONARY_LIMIT = 1024


def extractors(
    store: PFVStore,
    recipes: Sequence[Recipe],
    out: Path,
    settings: FitSettings | None = None,
    *,
    layers: Sequence[str] | None = None,
    dictionary_limit: int = DICTIONARY_LIMIT,
    track: Track = iter,
) -> dict[str, Results]:
    """Measure -> its value for each photograph that was held out, with each extractor's own codes and the Lasso's.

    The Lasso's λ is chosen, on PFVs that were fitted, for the same share of zeros with every extractor. Of several PFVs
    of a photograph the mean counts. `extractors.jsonl` in `out` keeps what is finished, layer by layer and extractor by
    extractor, and `fitted` the concepts.

    Args:
        layers: None: all of the store.
        dictionary_limit: dictionary learning is left out of layers with more concepts.
    """
    settings, names = settings or FitSettings(), list(layers or store.layers)
    header = {**run_header("extractors", store, recipes, settings, names), "dictionary_limit": dictionary_limit}
    journal = Journal.open(out / "extractors.jsonl", header)
    units = {f"{layer} {recipe.text}": (layer, recipe) for layer in names for recipe in recipes}

    def measure(unit: str) -> Values | None:
        layer, recipe = units[unit]
        if too_slow(store, layer, recipe, settings, dictionary_limit):
            return None
        found = fitted(store, layer, recipe, settings.seed, settings, out)
        return _measured(store, store.layer(layer), found, settings)

    done = run_over(list(units), journal, measure, track)
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


def _measured(store: PFVStore, stored: StoredLayer, found: Fitted, settings: FitSettings) -> Values:
    _, held = settings.split(store, stored)
    by_lasso = lasso_quality(found, stored.pfvs.torch(held).float())
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


def concept_stability(
    store: PFVStore,
    recipes: Sequence[Recipe],
    out: Path,
    settings: FitSettings | None = None,
    *,
    seeds: int = 3,
    layers: Sequence[str] | None = None,
    dictionary_limit: int = DICTIONARY_LIMIT,
    track: Track = iter,
) -> dict[str, Results]:
    """Measure -> its value for each two seeds: concepts are matched one to one, so that the cosines sum to the most.

    All seeds get the same PFVs. The first of the `seeds` is that of the settings, so that a run of
    `ierf.experiments.concepts.extractors` into the same `out` has done a part of the work. `concept-stability.jsonl`
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
        one, other = (fitted(store, layer, recipe, seed, settings, out).atoms for seed in pair)
        found = match_concepts(one, other)
        return {"": as_values(dict(zip(STABILITY, (found.mean, found.share_above(ALIKE), found.chance), strict=True)))}

    done = run_over(list(units), journal, measure, track)
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
