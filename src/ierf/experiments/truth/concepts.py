"""Concepts against the truth: does each fire for one part, is each part and primitive found, do iERFs show it?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ierf.attribution import effective_receptive_fields
from ierf.concepts import choose_lam, lasso
from ierf.experiments.extractors import Recipe
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over, takes_track
from ierf.experiments.results import Better, Results, as_values
from ierf.experiments.truth.scenes import as_mask, check_classes, grid_of, scene_inputs
from ierf.metrics import attribution_localization
from ierf.model import VisionModel, capture, evaluating, shift_of
from ierf.progress import Progress
from ierf.world import HELD_OUT, PARTS, Scene, Scenes, part_masks

MEASURES: Mapping[str, Better] = {
    "purity": "higher",
    "parts found": "higher",
    "primitives found": "higher",
    "iERF on part": "higher",
    "active": "",
}
"""purity            of a concept's 50 strongest PFVs the share on the commonest part (or on none); the mean over all
parts found       average precision of the best concept for a part; the mean over the parts
primitives found  the same for primitives, which several parts share
iERF on part      of the best concept of each part, the 5 strongest PFVs on that part: the positive relevance on it
active            coefficients of a PFV that are not zero"""
OWN, LASSO = "own codes", "Lasso"

STRONGEST = 50
EXEMPLARS = 5
_PER_SCENE = 64
_AT_ONCE = 32
_ON, _OFF = 0.25, 0.05
"""A PFV is on a part that covers this share of its cell, and on none where all parts together cover less."""
UNCLEAR, NONE = -2, -1


@dataclass(frozen=True)
class ConceptSettings:
    """What the concepts, and the scenes to find and to test them, depend on."""

    n_concepts: int = 64
    l0_ratio: float = 0.95
    """That λ of the Lasso, and k of autoencoders, are chosen for."""
    scenes: int = 400
    """To find the concepts in."""
    held_out: int = 150
    """To test them on."""


@dataclass(frozen=True, eq=False)
class Sample:
    """PFVs of a layer with what is there."""

    pfvs: Float[Tensor, "N C"]
    truth: Int[Tensor, " N"]
    """The number of the part in `PARTS`, NONE or UNCLEAR."""
    scenes: Int[Tensor, " N"]
    positions: Int[Tensor, "N 2"]


@takes_track
def truth_concepts(
    model: VisionModel,
    recipes: Sequence[Recipe],
    layers: Sequence[str],
    out: Path,
    settings: ConceptSettings | None = None,
    *,
    seeds: int = 3,
    progress: Progress | None = None,
) -> dict[str, Results]:
    """Measure -> its value for each seed, with each extractor's own codes and the Lasso's, layer by layer.

    A seed draws the PFVs and is the extractor's. `truth-concepts.jsonl` in `out` keeps what is finished.

    Raises:
        IerfError: the network does not tell the world's classes, or a layer has no rows and columns.
    """
    check_classes(model)
    settings = settings or ConceptSettings()
    header = {
        "experiment": "truth-concepts",
        "model": f"{model.name} {model_fingerprint(model)}",
        "data": Scenes(1).fingerprint,
        "extractors": [recipe.text for recipe in recipes],
        "layers": list(layers),
        **asdict(settings),
    }
    journal = Journal.open(out / "truth-concepts.jsonl", header)
    units = {f"{layer} {seed}": (layer, seed) for layer in layers for seed in range(seeds)}
    done = run_over(list(units), journal, lambda unit: _unit(model, recipes, *units[unit], settings), progress)
    return {measure: _results(model, measure, done, units, journal) for measure in MEASURES}


def _results(
    model: VisionModel,
    measure: str,
    done: Mapping[str, Values],
    units: Mapping[str, tuple[str, int]],
    journal: Journal,
) -> Results:
    values: dict[str, dict[str, dict[str, float | None]]] = {}
    for unit, rows in done.items():
        layer, seed = units[unit]
        for row, cells in rows.items():
            values.setdefault(f"seed {seed}", {}).setdefault(row, {})[layer] = cells[measure]
    columns: dict[str, Better] = dict.fromkeys(dict.fromkeys(layer for layer, _ in units.values()), MEASURES[measure])
    title = f"{measure[0].upper()}{measure[1:]} of concepts of {model.name}"
    return Results(title, columns, values, journal.settings, corner="extractor", unit="seeds")


def _unit(model: VisionModel, recipes: Sequence[Recipe], layer: str, seed: int, settings: ConceptSettings) -> Values:
    known = sampled(model, Scenes(settings.scenes), layer, seed)
    data = Scenes(settings.held_out, HELD_OUT)
    tested = sampled(model, data, layer, seed)
    shift = shift_of(model, layer)
    rows: dict[str, Mapping[str, float | None]] = {}
    for recipe in recipes:
        extractor = recipe.make(settings.n_concepts, known.pfvs.shape[1], seed, shift, settings.l0_ratio)
        extractor.fit(known.pfvs)
        atoms, origin = extractor.components_.detach(), extractor.shift_.detach()
        lam = choose_lam(known.pfvs[:512] - origin, atoms, settings.l0_ratio)
        for name, codes in (
            (OWN, extractor.transform(tested.pfvs).detach()),
            (LASSO, lasso(tested.pfvs - origin, atoms, lam).codes),
        ):
            rows[f"{recipe.text} {name}"] = as_values(_scores(model, data, layer, tested, codes))
    return rows


def _scores(
    model: VisionModel, data: Scenes, layer: str, tested: Sample, codes: Float[Tensor, "N K"]
) -> dict[str, float]:
    clear = tested.truth != UNCLEAR
    by_part = average_precisions(codes[clear], memberships(tested.truth[clear]))
    best = by_part.max(0)
    shown = [
        _shown(model, data, layer, tested, codes[:, concept], part)
        for part, concept in enumerate(best.indices[: len(PARTS)].tolist())
    ]
    values = (
        purity(codes[clear], tested.truth[clear]),
        float(best.values[: len(PARTS)].mean()),
        float(best.values[len(PARTS) :].mean()),
        float(torch.tensor(shown).nanmean()),
        float((codes != 0).sum(1).float().mean()),
    )
    return dict(zip(MEASURES, values, strict=True))


def sampled(model: VisionModel, data: Scenes, layer: str, seed: int) -> Sample:
    """PFVs at 64 patches, drawn by `seed`, of every scene; all where the layer has no more."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(data), _AT_ONCE):
        scenes = [data.scene(i) for i in range(start, min(start + _AT_ONCE, len(data)))]
        with torch.no_grad(), evaluating(model.net):
            captured = capture(model, scene_inputs(model, scenes), [layer])[layer]
        grid = grid_of(model, captured)
        for number, (scene, pfvs) in enumerate(zip(scenes, captured.pfvs, strict=True), start):
            places = torch.randperm(grid.patches, generator=generator)[:_PER_SCENE]
            positions = torch.stack([places // grid.columns, places % grid.columns], 1)
            truth = what_is_there(scene, (grid.rows, grid.columns)).flatten()[places]
            parts.append((pfvs[grid.prefix + places].cpu(), truth, torch.full_like(places, number), positions))
    return Sample(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def what_is_there(scene: Scene, size: tuple[int, int]) -> Int[Tensor, "h w"]:
    """The part in each cell of a map: its number in `PARTS`, NONE, or UNCLEAR where a part only touches the cell."""
    masks = as_mask(part_masks(scene)).float()
    covered = torch.nn.functional.adaptive_avg_pool2d(masks, size)
    share, which = covered.max(0)
    numbers = torch.tensor([list(PARTS).index(name) for name in scene.names])
    there = numbers[which].where(share >= _ON, torch.tensor(UNCLEAR))
    return there.where(covered.sum(0) >= _OFF, torch.tensor(NONE))


def memberships(truth: Int[Tensor, " N"]) -> Bool[Tensor, "N G"]:
    """Which PFVs are on each part, in the order of `PARTS`, then on each primitive."""
    on = [truth == number for number in range(len(PARTS))]
    for primitive in dict.fromkeys(primitive for part in PARTS.values() for primitive in part.primitives):
        having = [i for i, part in enumerate(PARTS.values()) if primitive in part.primitives]
        on.append(torch.isin(truth, torch.tensor(having)))
    return torch.stack(on, 1)


def average_precisions(codes: Float[Tensor, "N K"], members: Bool[Tensor, "N G"]) -> Float[Tensor, "K G"]:
    """`Σ_n precision@n · member_n / Σ_n member_n` of each concept, its PFVs by falling code, for each group.

    Equal codes count as one step, so that the order of PFVs does not matter.
    """
    steps = members.double()
    rows = []
    for column in codes.T:
        values, order = column.sort(descending=True)
        ends = torch.cat([values[1:] != values[:-1], torch.ones(1, dtype=torch.bool)]).nonzero()[:, 0]
        hits = steps[order].cumsum(0)[ends]
        gained = hits.diff(dim=0, prepend=torch.zeros_like(hits[:1]))
        rows.append((gained * hits / (ends + 1)[:, None]).sum(0) / steps.sum(0))
    return torch.stack(rows)


def purity(codes: Float[Tensor, "N K"], truth: Int[Tensor, " N"]) -> float:
    """Of a concept's strongest PFVs the share of the commonest truth; the mean over concepts that fire often enough.

    NaN where no concept is positive on `STRONGEST` PFVs.
    """
    alive = (codes > 0).sum(0) >= STRONGEST
    if not alive.any():
        return torch.nan
    strongest = truth[codes[:, alive].topk(STRONGEST, dim=0).indices]
    counts = torch.stack([(strongest == number).sum(0) for number in range(NONE, len(PARTS))])
    return float(counts.max(0).values.double().mean() / STRONGEST)


def _shown(
    model: VisionModel, data: Scenes, layer: str, tested: Sample, codes: Float[Tensor, " N"], part: int
) -> float:
    """The mean share of positive relevance on the part, of the iERFs of the strongest PFVs that lie on it."""
    on = (tested.truth == part) & (codes > 0)
    shares = []
    for row in codes.where(on, -torch.inf).topk(min(EXEMPLARS, int(on.sum()))).indices.tolist():
        scene = data.scene(int(tested.scenes[row]))
        row_column = tuple(map(int, tested.positions[row]))
        ierf = effective_receptive_fields(model, scene_inputs(model, [scene]), layer, [row_column])[0, 0]
        alike = [i for i, name in enumerate(scene.names) if name == list(PARTS)[part]]
        mask = as_mask(part_masks(scene)[alike]).any(0)
        shares.append(float(attribution_localization(ierf.detach().cpu(), mask)))
    return float(np.mean(shares)) if shares else torch.nan
