"""Edges against the truth: from concepts to the classes that are made of them, and to those of a later layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ierf.concepts import BisectingSphericalKMeans, ConceptTree, choose_lam, lasso
from ierf.errors import IerfError
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over, takes_track
from ierf.experiments.results import Better, Results, as_values, spearman
from ierf.experiments.truth.concepts import ConceptSettings, Sample, average_precisions, sampled
from ierf.experiments.truth.groups import BUDGET, GROUPS, Grouping, group_edges, refitted
from ierf.experiments.truth.scenes import Known, as_mask, check_classes, grid_of, scene_inputs
from ierf.graph import Alignment, Edges, icat
from ierf.model import Captured, Section, VisionModel, capture, evaluating, patched, shift_of
from ierf.progress import Progress
from ierf.world import CLASSES, HELD_OUT, NOTHING, PARTS, Scene, Scenes, part_masks

COLUMNS: Mapping[str, Better] = {
    "edges, AUC": "higher",
    "edges, precision": "higher",
    "removal": "higher",
    "repainting": "higher",
}
"""edges, AUC        of a scene's active concepts that stand for a part, and all classes: the chance that an edge from a
                  part to a class that asks for it is larger than one to another class
edges, precision  average precision of the same
removal           rank correlation, over the scene's parts, of what the edges at a part's positions claim together for
                  the scene's class with the logit's fall when the part is taken out of the picture
repainting        the same when the part's body gets a colour that no body has"""
CHANGES: Mapping[str, Callable[[Scene, int], Scene]] = {
    "removal": lambda scene, number: scene.without(number),
    "repainting": lambda scene, number: scene.repainted(number, "orange"),
}
"""Column -> what is done to a part in the picture."""
WHOLE = ("kernel_shap",)
"""Attributions to whole concepts, which claim nothing for single positions."""
TAKEN_OUT = "concepts taken out"
"""The row of the concepts at a part's positions, taken out of the layer, against the part, taken out of the picture."""
STANDS_FOR = 0.3
"""A concept stands for the part on which its average precision is best, if it is at least this."""
PRIMITIVES: Mapping[str, frozenset[str]] = {
    primitive.name: frozenset(part.name for part in PARTS.values() if primitive in part.primitives)
    for primitive in dict.fromkeys(primitive for part in PARTS.values() for primitive in part.primitives)
}
"""Name -> the parts that have it."""
MEANINGS: Mapping[str, frozenset[str]] = {
    **{name: frozenset([name]) for name in PARTS},
    **PRIMITIVES,
    **{name: frozenset(parts) for name, parts in CLASSES.items() if parts},
}
"""What a concept may stand for -> the parts that it is about."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Concepts of a layer, and the part that each stands for: its number in `PARTS`, −1 if for none.

    Atoms and shift are on the network's device, what they stand for is on the CPU, as scenes are.
    """

    atoms: Float[Tensor, "K C"]
    shift: Float[Tensor, " C"]
    lam: float
    parts: Int[Tensor, " K"]
    meanings: Int[Tensor, " K"]
    """The same of parts, primitives and classes, their number in `MEANINGS`."""
    grouping: Grouping | None = None

    def codes(self, pfvs: Float[Tensor, "P C"]) -> Float[Tensor, "P K"]:
        """The Lasso's."""
        return lasso(pfvs - self.shift, self.atoms, self.lam).codes


@takes_track
def truth_edges(
    model: VisionModel,
    methods: Sequence[str],
    layer: str,
    out: Path,
    settings: ConceptSettings | None = None,
    *,
    scenes: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """The scores of each attribution on scenes that were not trained on; concepts are those of bisecting k-means.

    One more row has groups of concepts, as a graph of groups has them. A group stands for the part that the sum of its
    active members' refitted coefficients finds best in scenes that were trained on, if as well as a concept must.
    `truth-edges-LAYER.jsonl` in `out` keeps what is finished.

    Args:
        methods: of `ierf.graph.METHODS`.

    Raises:
        IerfError: the network does not tell the world's classes, gets no scene right, or no concept stands for a part.
    """
    check_classes(model)
    settings, data = settings or ConceptSettings(), Scenes(scenes, HELD_OUT)
    file = out / f"truth-edges-{layer}.jsonl"
    journal = journal_of(file, "truth-edges", model, data, methods, settings, seed, layer=layer, groups=BUDGET)
    words = vocabulary(model, layer, settings, seed)

    def measure(known: Known) -> Values | None:
        return _measured(model, known, words, methods, layer)

    return over_scenes(model, data, journal, measure, f"{layer} of {model.name} to its classes", progress)


def journal_of(
    file: Path,
    experiment: str,
    model: VisionModel,
    data: Scenes,
    methods: Sequence[str],
    settings: ConceptSettings,
    seed: int,
    **where: object,
) -> Journal:
    """The journal of a table of edges, with all that its numbers depend on."""
    header = {
        "experiment": experiment,
        "model": f"{model.name} {model_fingerprint(model)}",
        "data": data.fingerprint,
        "methods": list(methods),
        "apart": [TAKEN_OUT],
        "columns": list(COLUMNS),
        **where,
        "seed": seed,
        **asdict(settings),
    }
    return Journal.open(file, header)


def over_scenes(
    model: VisionModel,
    data: Scenes,
    journal: Journal,
    measured: Callable[[Known], Values | None],
    title: str,
    progress: Progress | None,
) -> Results:
    """What is measured on each scene that the network gets right. Raises `IerfError` if it gets none right."""
    index = {name: i for i, name in enumerate(data.names)}

    def measure(name: str) -> Values | None:
        with evaluating(model.net):
            known = Known.of(model, data.scene(index[name]))
        return None if known is None else measured(known)

    values = run_over(data.names, journal, measure, progress)
    if not values:
        raise IerfError(f"{model.name!r} gets none of {len(data)} scenes right; take more, or another network")
    return Results(title, COLUMNS, values, journal.settings, unit="scenes", apart=[TAKEN_OUT])


def vocabulary(model: VisionModel, layer: str, settings: ConceptSettings, seed: int) -> Vocabulary:
    """The concepts of a layer, found in scenes that were trained on. Raises `IerfError` if none stands for a part."""
    data = Scenes(settings.scenes)
    known = sampled(model, data, layer, seed)
    extractor = BisectingSphericalKMeans(settings.n_concepts, seed, shift_of(model, layer)).fit(known.pfvs)
    atoms, shift = extractor.components_, extractor.shift_
    lam = choose_lam(known.pfvs[:512] - shift, atoms, settings.l0_ratio)
    codes = lasso(known.pfvs - shift, atoms, lam).codes
    precisions = average_precisions(codes, meanings_of(known, data))
    parts, meanings = (_best(some) for some in (precisions[:, : len(PARTS)], precisions))
    if not (parts >= 0).any():
        raise IerfError(f"no concept of {layer!r} stands for a part of the scenes; take a later layer or more concepts")
    tree = ConceptTree(extractor.parents_, extractor.sizes_, extractor.leaves_)
    grouping = Grouping(tree, refitted(known.pfvs - shift, atoms, lam), meanings_of(known, data)[:, : len(PARTS)])
    return Vocabulary(atoms.to(model.device), shift.to(model.device), lam, parts, meanings, grouping)


def _best(precisions: Float[Tensor, "K G"]) -> Int[Tensor, " K"]:
    best = precisions.max(1)
    return best.indices.where(best.values >= STANDS_FOR, torch.tensor(-1))


def meanings_of(sample: Sample, data: Scenes) -> Bool[Tensor, "N M"]:
    """Whether PFVs are on each of `MEANINGS`; on a class are those on the deciding parts of its scenes."""
    names, labels = list(PARTS), torch.tensor([data.label(number) for number in range(len(data))])
    of_scene = labels[sample.scenes]
    columns = []
    for meaning, parts in MEANINGS.items():
        on = torch.isin(sample.truth, torch.tensor([names.index(part) for part in parts]))
        columns.append(on & (of_scene == list(CLASSES).index(meaning)) if meaning in CLASSES else on)
    return torch.stack(columns, 1)


def planted(parts: Int[Tensor, " K"], classes: Sequence[str]) -> Bool[Tensor, "K T"]:
    """Whether each class asks for the part that each concept stands for."""
    names = list(PARTS)
    return torch.tensor([[part >= 0 and names[part] in CLASSES[name] for name in classes] for part in parts.tolist()])


def area_under_curve(scores: Float[Tensor, " N"], truth: Bool[Tensor, " N"]) -> float:
    """`P(score of a true one > score of a false one)`, ties count half; NaN where one kind is missing."""
    above = scores[truth][:, None] - scores[~truth]
    return float(((above > 0).double() + 0.5 * (above == 0)).mean()) if above.numel() else torch.nan


def _measured(
    model: VisionModel, known: Known, words: Vocabulary, methods: Sequence[str], layer: str
) -> dict[str, dict[str, float | None]]:
    scene = known.scene
    with torch.no_grad():
        captured = capture(model, known.x, [layer])[layer]
        codes = words.codes(captured.pfvs[0])
    touched = positions_of(model, captured, scene)
    numbers = range(len(scene.parts))
    drops = {name: known.drops(model, [change(scene, i) for i in numbers]).cpu() for name, change in CHANGES.items()}
    lost = _lost(model, known, words, codes, touched, layer)
    rows = {TAKEN_OUT: as_values(dict.fromkeys(COLUMNS, torch.nan) | {n: spearman(lost, d) for n, d in drops.items()})}
    classes = [name for name in CLASSES if name != NOTHING]
    for method in methods:
        edges = icat(
            model,
            known.x,
            layer,
            source_atoms=words.atoms,
            source_codes=codes,
            source_shift=words.shift,
            classes=[list(CLASSES).index(name) for name in classes],
            method=method,
        )
        rows[method] = as_values(_scores(edges, words, classes, scene.label, touched, drops))
    if words.grouping is not None:
        rows[GROUPS] = as_values(_scores_of_groups(model, known, layer, captured.pfvs[0], words, touched, drops))
    return rows


def positions_of(model: VisionModel, captured: Captured, scene: Scene) -> Bool[Tensor, "n P"]:
    """Which positions of a layer each part touches."""
    grid, masks = grid_of(model, captured), as_mask(part_masks(scene)).float()
    touched = torch.nn.functional.adaptive_avg_pool2d(masks, (grid.rows, grid.columns)) > 0
    return grid.to_tokens(touched, captured.pfvs.shape[1])


def _lost(
    model: VisionModel,
    known: Known,
    words: Vocabulary,
    codes: Float[Tensor, "P K"],
    touched: Bool[Tensor, "n P"],
    layer: str,
) -> Float[Tensor, " n"]:
    """How much the logit falls when the concepts at each part's positions are taken out of the layer."""
    after = []
    for positions in touched:
        taken = positions[:, None].to(codes) * codes @ words.atoms
        with torch.no_grad():
            after.append(patched(model, known.x, {layer: partial(torch.sub, other=taken)})[0, known.scene.label])
    return (known.logits[known.scene.label] - torch.stack(after)).cpu()


def _scores(
    edges: Edges,
    words: Vocabulary,
    classes: Sequence[str],
    label: int,
    touched: Bool[Tensor, "n P"],
    drops: Mapping[str, Float[Tensor, " n"]],
) -> dict[str, float]:
    active = edges.active.cpu()
    told = active[words.parts[active] >= 0]
    scores, truth = edges.values[told].detach().cpu().flatten(), planted(words.parts[told], classes).flatten()
    found = dict.fromkeys(COLUMNS, torch.nan)
    if edges.method not in WHOLE:
        at = edges.by_position[:, classes.index(list(CLASSES)[label])].detach().sum(0).cpu()
        found |= {name: spearman(touched.to(at) @ at, fall) for name, fall in drops.items()}
    return found | _of_pairs(scores, truth)


def _scores_of_groups(
    model: VisionModel,
    known: Known,
    layer: str,
    pfvs: Float[Tensor, "P C"],
    words: Vocabulary,
    touched: Bool[Tensor, "n P"],
    drops: Mapping[str, Float[Tensor, " n"]],
) -> dict[str, float]:
    classes = [name for name in CLASSES if name != NOTHING]
    numbers = [list(CLASSES).index(name) for name in classes]
    assert words.grouping is not None
    edges = group_edges(model, known.x, layer, pfvs, words.grouping, words.atoms, words.shift, words.lam, numbers)
    parts = _best(words.grouping.precisions(edges.members))
    told = parts >= 0
    scores, truth = edges.values[told].flatten(), planted(parts[told], classes).flatten()
    at = edges.by_position[numbers.index(known.scene.label)]
    found = {name: spearman(touched.to(at) @ at, fall) for name, fall in drops.items()}
    return found | _of_pairs(scores, truth)


def _of_pairs(scores: Float[Tensor, " N"], truth: Bool[Tensor, " N"]) -> dict[str, float]:
    if not len(scores):
        return {"edges, AUC": torch.nan, "edges, precision": torch.nan}
    precision = float(average_precisions(scores[:, None], truth[:, None])[0, 0])
    return {"edges, AUC": area_under_curve(scores, truth), "edges, precision": precision}


TARGETS = 8
"""Of each scene: those that stand for a part or a class and have the largest coefficients."""


@takes_track
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
    progress: Progress | None = None,
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
        return _measured_between(model, known, words, methods, (source, target))

    return over_scenes(model, data, journal, measure, f"{source} of {model.name} to {target}", progress)


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


def _measured_between(
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
