"""Local explanations against the truth: is the evidence on the parts that decide; is a spurious cue caught?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ierf.errors import IerfError
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over, takes_track
from ierf.experiments.local import Method
from ierf.experiments.results import Better, Results, as_values, spearman
from ierf.experiments.truth.scenes import TRUTH, Known, as_mask, check_classes, shares_of_falls
from ierf.metrics import attribution_localization, pointing_game
from ierf.model import VisionModel, evaluating
from ierf.progress import Progress
from ierf.world import (
    CLASSES,
    CUE_CLASS,
    HELD_OUT,
    Scene,
    Scenes,
    Settings,
    compose,
    cue_mask,
    deciding_mask,
    other_mask,
    part_masks,
)

COLUMNS: Mapping[str, Better] = {
    "pointing": "higher",
    "on deciding parts": "higher",
    "on other parts": "lower",
    "least part": "higher",
    "removal": "higher",
}
"""pointing            the maximum lies on a part that decides, without tolerance
on deciding parts   their share of the positive relevance
on other parts      the share of the parts that decide nothing
least part          of the relevance on the n deciding parts, n times the share of the one with least: 1 if all are even
removal             rank correlation, over the scene's parts, of the relevance on a part with the logit's fall when the
                    part is taken out of the picture

The row `TRUTH` has those falls in the place of relevance."""


@takes_track
def truth_local(
    model: VisionModel,
    methods: Sequence[Method],
    out: Path,
    *,
    scenes: int = 100,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Results:
    """The scores of each method on scenes that were not trained on; `truth-local.jsonl` in `out` keeps the finished.

    The class explained is the scene's own. Scenes that show nothing, or that the network gets wrong, are left out.

    Raises:
        IerfError: the network does not tell the world's classes, or gets no scene right.
    """
    check_classes(model)
    data = Scenes(scenes, HELD_OUT, settings)
    header = {
        "experiment": "truth-local",
        "model": f"{model.name} {model_fingerprint(model)}",
        "data": data.fingerprint,
        "methods": [method.text for method in methods],
        "apart": [TRUTH],
        "columns": list(COLUMNS),
    }
    journal = Journal.open(out / "truth-local.jsonl", header)
    index = {name: i for i, name in enumerate(data.names)}
    with evaluating(model.net):
        values = run_over(
            data.names,
            journal,
            lambda name: _measured(model, Known.of(model, data.scene(index[name])), methods),
            progress,
        )
    if not values:
        raise IerfError(f"{model.name!r} gets none of {scenes} scenes right; take more, or another network")
    return Results(f"{model.name} on scenes", COLUMNS, values, journal.settings, unit="scenes", apart=[TRUTH])


def over_networks(found: Mapping[str, Results]) -> Results:
    """One value for each network, the mean over its scenes, so that intervals are over networks."""
    values = {
        name: {
            row: as_values({column: cell.mean for column, cell in cells.items()})
            for row, cells in results.summary.items()
        }
        for name, results in found.items()
    }
    settings = {name: results.settings for name, results in found.items()}
    return Results(f"{', '.join(found)} on scenes", COLUMNS, values, settings, unit="networks", apart=[TRUTH])


def _measured(model: VisionModel, known: Known | None, methods: Sequence[Method]) -> Values | None:
    if known is None:
        return None
    scene = known.scene
    drops = known.drops(model, [scene.without(i) for i in range(len(scene.parts))])
    deciding, other, parts = (as_mask(mask) for mask in (deciding_mask(scene), other_mask(scene), part_masks(scene)))
    on_deciding, least = shares_of_falls(drops.cpu(), scene.deciding)
    truth = {"on deciding parts": on_deciding, "on other parts": 1 - on_deciding, "least part": least}
    found = {TRUTH: as_values(dict.fromkeys(COLUMNS, torch.nan) | truth)}
    for method in methods:
        map = method(model, known.x, [scene.label])[0].detach().cpu()
        found[method.text] = as_values(scores(map, deciding, other, parts, scene.deciding, drops.cpu()))
    return found


def scores(
    map: Float[Tensor, "H W"],
    deciding: Bool[Tensor, "H W"],
    other: Bool[Tensor, "H W"],
    parts: Bool[Tensor, "n H W"],
    numbers: Sequence[int],
    drops: Float[Tensor, " n"],
) -> dict[str, float]:
    """The columns of one map; `numbers` are those of the deciding parts, `drops` what each part's removal costs."""
    on_parts = (map * parts).sum((1, 2))
    on_deciding = (map.clamp_min(0) * parts[list(numbers)]).sum((1, 2))
    least = len(numbers) * on_deciding.min() / on_deciding.sum()
    values = (
        pointing_game(map, deciding, 0),
        attribution_localization(map, deciding),
        attribution_localization(map, other),
        least,
        torch.tensor(spearman(on_parts, drops)),
    )
    return {name: float(value) for name, value in zip(COLUMNS, values, strict=True)}


@takes_track
def truth_cue(
    models: Mapping[str, VisionModel],
    methods: Sequence[Method],
    out: Path,
    *,
    scenes: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """Of what is on the tint and on the deciding parts, the share on the tint, for each network.

    For a map these are sums of positive relevance; the row `TRUTH` takes the falls of the logit when the tint, or the
    deciding parts, are taken out of the picture. "points at": the map's maximum lies on the tint. All scenes are of the
    tint's class, with the tint, and right with every network; `truth-cue.jsonl` in `out` keeps the finished ones.

    Args:
        models: what columns call them -> network.
    """
    for model in models.values():
        check_classes(model)
    settings = Settings(seed=seed, cue_class=CUE_CLASS)
    header = {
        "experiment": "truth-cue",
        "models": {name: model_fingerprint(model) for name, model in models.items()},
        "seed": seed,
        "methods": [method.text for method in methods],
    }
    journal = Journal.open(out / "truth-cue.jsonl", header)
    found = {f"scene-{scene.index}": scene for scene in tinted_scenes(settings, scenes)}
    values = run_over(list(found), journal, lambda name: _on_tint(models, found[name], methods), progress)
    if not values:
        raise IerfError(f"none of {scenes} tinted scenes is right with every network; take more scenes")
    columns: dict[str, Better] = {}
    for name in models:
        columns |= {f"tint share, {name}": "", f"points at tint, {name}": ""}
    return Results(f"Tinted scenes of class {CUE_CLASS}", columns, values, journal.settings, unit="scenes")


def tinted_scenes(settings: Settings, count: int) -> list[Scene]:
    """The first held-out scenes of the tint's class that have the tint."""
    label, found, index = list(CLASSES).index(CUE_CLASS), list[Scene](), HELD_OUT
    while len(found) < count:
        scene = compose(settings, index)
        if scene.label == label and scene.glow is not None:
            found.append(scene)
        index += 1
    return found


def _on_tint(models: Mapping[str, VisionModel], scene: Scene, methods: Sequence[Method]) -> Values | None:
    tint, parts = as_mask(cue_mask(scene)), as_mask(deciding_mask(scene))
    rows: dict[str, dict[str, float | None]] = {name: {} for name in (TRUTH, *(method.text for method in methods))}
    for name, model in models.items():
        with evaluating(model.net):
            known = Known.of(model, scene)
            if known is None:
                return None
            drops = known.drops(model, [scene.without_cue(), scene.without(*scene.deciding)]).clamp_min(0)
            share = {f"tint share, {name}": float(drops[0] / drops.sum())}
            rows[TRUTH] |= as_values({**share, f"points at tint, {name}": torch.nan})
            for method in methods:
                map = method(model, known.x, [scene.label])[0].detach().cpu()
                cells = {
                    "tint share": tint_share(map, tint, parts),
                    "points at tint": float(pointing_game(map, tint, 0)),
                }
                rows[method.text] |= as_values({f"{column}, {name}": value for column, value in cells.items()})
    return rows


def tint_share(map: Float[Tensor, "H W"], tint: Bool[Tensor, "H W"], parts: Bool[Tensor, "H W"]) -> float:
    """`Σ_tint max(map, 0) / Σ_{tint ∪ parts} max(map, 0)`; NaN where there is none."""
    positive = map.clamp_min(0).double()
    on_tint, on_parts = (positive * tint).sum(), (positive * parts).sum()
    return float(on_tint / (on_tint + on_parts))
