"""Edges between layers against the truth: from primitives and parts to the parts and classes that are made of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ierf.experiments.journal import Track, Values
from ierf.experiments.results import Results, as_values
from ierf.experiments.statistics import spearman
from ierf.experiments.truth.concepts import ConceptSettings, average_precisions
from ierf.experiments.truth.edges import (
    CHANGES,
    COLUMNS,
    MEANINGS,
    PRIMITIVES,
    TAKEN_OUT,
    WHOLE,
    Vocabulary,
    area_under_curve,
    journal_of,
    over_scenes,
    positions_of,
    vocabulary,
)
from ierf.experiments.truth.scenes import Known, check_classes, scene_inputs
from ierf.graph import Alignment, icat
from ierf.model import Section, VisionModel, capture
from ierf.world import CLASSES, HELD_OUT, Scene, Scenes

TARGETS = 8
"""Of each scene: those that stand for a part or a class and have the largest coefficients."""


def truth_between(
    model: VisionModel,
    methods: Sequence[str],
    source: str,
    target: str,
    out: Path,
    settings: ConceptSettings | None = None,
    *,
    scenes: int = 50,
    seed: int = 0,
    track: Track = iter,
) -> Results:
    """The scores of each attribution from concepts of a layer to those of a later one, both of bisecting k-means.

    Sources stand for a primitive or a part, targets for a part or a class; an edge is true if both share a part. The
    columns are those of edges to classes; in place of a logit's falls stand those of a target's score
    `Σ_i u_it cos(y_i, v_t)`, and correlations are means over the scene's targets.
    `truth-edges-SOURCE-TARGET.jsonl` in `out` keeps what is finished.

    Args:
        methods: of `ierf.graph.METHODS`.

    Raises:
        IerfError: the network does not tell the world's classes, cannot be cut there, gets no scene right, or its
            concepts stand for nothing.
    """
    check_classes(model)
    settings, data = settings or ConceptSettings(), Scenes(scenes, HELD_OUT)
    file, where = out / f"truth-edges-{source}-{target}.jsonl", {"layers": [source, target], "targets": TARGETS}
    journal = journal_of(file, "truth-between", model, data, methods, settings, seed, **where)
    words = [vocabulary(model, layer, settings, seed) for layer in (source, target)]

    def measure(known: Known) -> Values | None:
        return _measured(model, known, words, methods, (source, target))

    return over_scenes(model, data, journal, measure, f"{source} of {model.name} to {target}", track)


def sources_of(meanings: Int[Tensor, " K"]) -> Bool[Tensor, " K"]:
    """Whether concepts stand for a primitive or a part."""
    return (meanings >= 0) & ~_among(meanings, CLASSES)


def targets_of(meanings: Int[Tensor, " K"]) -> Bool[Tensor, " K"]:
    """Whether concepts stand for a part or a class."""
    return (meanings >= 0) & ~_among(meanings, PRIMITIVES)


def planted_between(sources: Int[Tensor, " Q"], targets: Int[Tensor, " T"]) -> Bool[Tensor, "Q T"]:
    """Whether a primitive or part and a part or class share a part: one is then made of the other, or of its part."""
    parts = list(MEANINGS.values())
    return torch.tensor([[bool(parts[q] & parts[t]) for t in targets.tolist()] for q in sources.tolist()])


def _among(meanings: Int[Tensor, " K"], names: Mapping[str, object]) -> Bool[Tensor, " K"]:
    return torch.isin(meanings, torch.tensor([i for i, name in enumerate(MEANINGS) if name in names]))


def _measured(
    model: VisionModel, known: Known, words: Sequence[Vocabulary], methods: Sequence[str], layers: tuple[str, str]
) -> Values | None:
    scene, (source, target) = known.scene, layers
    with torch.no_grad():
        found = capture(model, known.x, layers)
        codes = [one.codes(found[layer].pfvs[0]) for one, layer in zip(words, layers, strict=True)]
    chosen = _chosen(codes[1], words[1].meanings)
    if not len(chosen):
        return None
    score = Alignment(words[1].atoms[chosen], codes[1][:, chosen], words[1].shift)
    touched = positions_of(model, found[source], scene)
    with torch.no_grad():
        before = score(found[target].pfvs)
        falls = {
            name: before - score(_pfvs(model, [change(scene, i) for i in range(len(scene.parts))], target))
            for name, change in CHANGES.items()
        }
        taken = torch.stack([at[:, None].to(codes[0]) * codes[0] @ words[0].atoms for at in touched])
        lost = before - score(Section.of(model, known.x, source, target)(found[source].pfvs - taken))
    agreeing = {name: _agreement(lost, fall) for name, fall in falls.items()}
    rows = {TAKEN_OUT: as_values(dict.fromkeys(COLUMNS, torch.nan) | agreeing)}
    for method in methods:
        edges = icat(
            model,
            known.x,
            source,
            target,
            source_atoms=words[0].atoms,
            source_codes=codes[0],
            source_shift=words[0].shift,
            target_atoms=score.atoms,
            target_codes=score.codes,
            target_shift=score.shift,
            method=method,
        )
        active = edges.active.cpu()
        told = active[sources_of(words[0].meanings[active])]
        values, truth = (
            edges.values[told].detach().cpu().flatten(),
            planted_between(words[0].meanings[told], words[1].meanings[chosen]).flatten(),
        )
        cells = dict.fromkeys(COLUMNS, torch.nan)
        if method not in WHOLE:
            claimed = touched.to(codes[0]) @ edges.by_position.detach().sum(0).T
            cells |= {name: _agreement(claimed, fall) for name, fall in falls.items()}
        cells["edges, AUC"] = area_under_curve(values, truth)
        cells["edges, precision"] = float(average_precisions(values[:, None], truth[:, None])[0, 0])
        rows[method] = as_values(cells)
    return rows


def _pfvs(model: VisionModel, scenes: Sequence[Scene], layer: str) -> Float[Tensor, "N P C"]:
    return capture(model, scene_inputs(model, scenes), [layer])[layer].pfvs


def _chosen(codes: Float[Tensor, "P K"], meanings: Int[Tensor, " K"]) -> Int[Tensor, " T"]:
    """The targets of a scene."""
    size = codes.clamp_min(0).sum(0).cpu() * targets_of(meanings)
    return size.topk(min(TARGETS, int((size > 0).sum()))).indices


def _agreement(claimed: Float[Tensor, "n T"], true: Float[Tensor, "n T"]) -> float:
    """The rank correlation over parts, the mean over targets for which it is defined."""
    pairs = zip(claimed.T.contiguous(), true.T.contiguous(), strict=True)
    each = torch.tensor([spearman(one, other) for one, other in pairs])
    return float(each.nanmean())
