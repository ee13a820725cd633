"""A network that learnt a spurious cue: do explanations catch it looking there?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ierf.errors import IerfError
from ierf.experiments.identity import model_fingerprint
from ierf.experiments.journal import Journal, Track, Values, run_over
from ierf.experiments.methods import Method
from ierf.experiments.results import Better, Results, as_values
from ierf.experiments.truth.scenes import TRUTH, Known, as_mask, check_classes
from ierf.metrics import pointing_game
from ierf.model import VisionModel, evaluating
from ierf.world import CLASSES, CUE_CLASS, HELD_OUT, Scene, Settings, compose, cue_mask, deciding_mask


def truth_cue(
    models: Mapping[str, VisionModel],
    methods: Sequence[Method],
    out: Path,
    *,
    scenes: int = 50,
    seed: int = 0,
    track: Track = iter,
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
    values = run_over(list(found), journal, lambda name: _measured(models, found[name], methods), track)
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


def _measured(models: Mapping[str, VisionModel], scene: Scene, methods: Sequence[Method]) -> Values | None:
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
