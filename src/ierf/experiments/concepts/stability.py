"""How alike the concepts are that an extractor finds with different seeds."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from ierf.concepts import match_concepts
from ierf.errors import IerfError
from ierf.experiments.concepts.extractors import DICTIONARY_LIMIT, run_header, too_slow
from ierf.experiments.concepts.fitted import FitSettings, Recipe, fitted
from ierf.experiments.journal import Journal, Track, Values, run_over
from ierf.experiments.results import Better, Results, as_values
from ierf.store import PFVStore

ALIKE = 0.9
"""Pairs with at least this cosine count as the same concept."""
MEASURES: Mapping[str, Better] = {"matched cosine": "higher", "found again": "higher", "by chance": ""}
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
        return {"": as_values(dict(zip(MEASURES, (found.mean, found.share_above(ALIKE), found.chance), strict=True)))}

    done = run_over(list(units), journal, measure, track)
    values: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {name: {} for name in MEASURES}
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
        for name, better in MEASURES.items()
    }
