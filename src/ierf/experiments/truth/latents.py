"""Latents whose evidence is known: do attributions of a latent find its parts, where its activation map may not?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ierf.cafe import LatentLayer, evidence
from ierf.concepts.sae import SAE
from ierf.errors import IerfError
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over, takes_track
from ierf.experiments.results import Better, Results, as_values, spearman
from ierf.experiments.truth.concepts import UNCLEAR, average_precisions, what_is_there
from ierf.experiments.truth.scenes import (
    TRUTH,
    Known,
    as_mask,
    check_classes,
    evenness,
    scene_inputs,
    shares_of_falls,
)
from ierf.model import VisionModel, capture, evaluating
from ierf.progress import Progress
from ierf.world import CLASSES, HELD_OUT, PARTS, Scene, Scenes, part_masks

Reading = Literal["part", "class-patch", "class-token"]
READINGS: Mapping[Reading, str] = {
    "part": "latents of a part, at the patch on it that they fire most at",
    "class-patch": "latents of a class, at the patch that they fire most at",
    "class-token": "latents of a class, at the class token",
}
"""Which latents are read, and where."""
MEASURES: Mapping[str, Better] = {"on parts": "higher", "least part": "higher", "removal": "higher"}
"""on parts    the share of positive evidence on the patches of the latent's parts
least part  of the evidence on its n parts, n times the share of the one with least: 1 if all are even
removal     rank correlation, over the scene's parts, of the evidence on a part with the fall of the latent's
            pre-activation, where it is read, when the part is taken out of the picture

The row `TRUTH` has those falls in the place of evidence."""
GROUPS = ("touching", "counted")
"""Scenes whose class asks for two parts that touch, and for three of a kind anywhere."""
_ON = 0.25
"""A patch is on a part that covers this share of it."""
_AT_ONCE = 32


@dataclass(frozen=True)
class LatentSettings:
    """What the latents, and the scenes to find them in, depend on."""

    latents: int = 256
    k: int = 8
    samples: int = 400_000
    """Tokens that the autoencoder sees."""
    rate: float = 2e-3
    scenes: int = 600
    of_class: float = 0.8
    """A latent stands for the class, of whose scenes its average precision is best, if it is at least this."""
    of_part: float = 0.3
    """The same of a part and patches."""


@dataclass(frozen=True, eq=False)
class Named:
    """An autoencoder of a layer, and what its latents stand for at each reading: a number, −1 for nothing."""

    layer: LatentLayer
    stands_for: Mapping[Reading, Int[Tensor, " K"]]


@takes_track
def truth_latents(
    model: VisionModel,
    methods: Sequence[str],
    layer: str,
    out: Path,
    settings: LatentSettings | None = None,
    *,
    scenes: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[Reading, Results]:
    """The scores of each attribution of latents, for each reading that the layer has.

    Of each scene that is not trained on, and that the network gets right, the strongest latent that stands for its
    class, or for one of its deciding parts, is read. `truth-latents-LAYER.jsonl` in `out` keeps what is finished.

    Args:
        methods: of `ierf.cafe.METHODS`; "activation" is the latent's own map.

    Raises:
        IerfError: the network does not tell the world's classes, the layer has no patches, or no scene has a latent.
    """
    check_classes(model)
    settings, data = settings or LatentSettings(), Scenes(scenes, HELD_OUT)
    header = {
        "experiment": "truth-latents",
        "model": f"{model.name} {model_fingerprint(model)}",
        "data": data.fingerprint,
        "methods": list(methods),
        "layer": layer,
        "seed": seed,
        **asdict(settings),
    }
    journal = Journal.open(out / f"truth-latents-{layer}.jsonl", header)
    named = named_latents(model, layer, settings, seed)
    index = {f"{reading} {name}": (reading, i) for i, name in enumerate(data.names) for reading in named.stands_for}

    def measure(unit: str) -> Values | None:
        reading, number = index[unit]
        with evaluating(model.net):
            known = Known.of(model, data.scene(number))
        return None if known is None else _measured(known, named, reading, methods)

    values = run_over(list(index), journal, measure, progress)
    if not values:
        raise IerfError(f"no latent of {layer!r} stands for what {scenes} scenes show; take more scenes or samples")
    columns = {f"{measure}, {group}": better for group in GROUPS for measure, better in MEASURES.items()}
    found = {
        reading: {unit.split(" ", 1)[1]: rows for unit, rows in values.items() if index[unit][0] == reading}
        for reading in named.stands_for
    }
    about = f"{layer} of {model.name}"
    return {
        reading: Results(
            f"{about}: {READINGS[reading]}", columns, of_scenes, journal.settings, unit="scenes", apart=[TRUTH]
        )
        for reading, of_scenes in found.items()
        if of_scenes
    }


def named_latents(model: VisionModel, layer: str, settings: LatentSettings, seed: int) -> Named:
    """A TopK autoencoder of a layer's tokens, fitted to scenes that were trained on, and what its latents stand for."""
    data = Scenes(settings.scenes)
    pfvs, shown = [], []
    for start in range(0, len(data), _AT_ONCE):
        scenes = [data.scene(i) for i in range(start, min(start + _AT_ONCE, len(data)))]
        with torch.no_grad():
            pfvs.append(capture(model, scene_inputs(model, scenes), [layer])[layer].pfvs.cpu())
        shown += scenes
    tokens = torch.cat(pfvs)
    training = {"samples": settings.samples, "lr": settings.rate, "seed": seed}
    sae = SAE("topk", n_latents=settings.latents, k=settings.k, seed=seed, training=training).fit(tokens.flatten(0, 1))
    at = LatentLayer(model, layer, sae.to(model.device))
    grid = at.grid.rows, at.grid.columns
    codes = sae.transform(tokens.flatten(0, 1)).view(*tokens.shape[:2], -1)
    patches = at.of_kind(codes, "patch")
    there = torch.stack([what_is_there(scene, grid).flatten() for scene in shown]).flatten()
    clear = there != UNCLEAR
    labels = torch.tensor([scene.label for scene in shown])
    found: dict[Reading, Tensor] = {
        "part": stands_for(patches.flatten(0, 1)[clear], there[clear], len(PARTS), settings.of_part),
        "class-patch": stands_for(patches.amax(1), labels, len(CLASSES), settings.of_class),
    }
    if "class" in at.kinds:
        found["class-token"] = stands_for(at.of_kind(codes, "class")[:, 0], labels, len(CLASSES), settings.of_class)
    return Named(at, found)


def stands_for(codes: Float[Tensor, "N K"], truth: Int[Tensor, " N"], count: int, at_least: float) -> Int[Tensor, " K"]:
    """The truth, of 0 to `count` − 1, that each latent finds with the best average precision; −1 below `at_least`."""
    members = torch.stack([truth == number for number in range(count)], 1)
    best = average_precisions(codes, members[:, members.any(0)]).max(1)
    there = members.any(0).nonzero()[:, 0]
    return there[best.indices].where(best.values >= at_least, torch.tensor(-1))


def patches_of_parts(
    scene: Scene, grid: tuple[int, int]
) -> tuple[Float[Tensor, "n rows columns"], Bool[Tensor, "n rows columns"]]:
    """How much of each patch each part covers, and whether the patch is on the part."""
    covered = torch.nn.functional.adaptive_avg_pool2d(as_mask(part_masks(scene)).float(), grid)
    return covered, covered >= _ON


def _measured(known: Known, named: Named, reading: Reading, methods: Sequence[str]) -> Values | None:
    scene, layer = known.scene, named.layer
    grid = layer.grid.rows, layer.grid.columns
    covered, on = patches_of_parts(scene, grid)
    read = _read(known, named, reading, on)
    if read is None:
        return None
    latent, position, numbers = read
    latents, positions = torch.tensor([latent]), torch.tensor([position])
    falls = _falls(known, layer, latent, position)
    group = GROUPS[len(CLASSES[list(CLASSES)[scene.label]]) == 3]
    truth = (*shares_of_falls(falls, numbers), torch.nan)
    cells = {TRUTH: dict(zip(MEASURES, truth, strict=True))}
    for method in methods:
        found = evidence(layer, known.x, latents, positions, method)[0].detach().cpu()
        cells[method] = scores(found, covered, on, numbers, falls)
    return {
        row: as_values({f"{measure}, {group}": value for measure, value in of_row.items()})
        for row, of_row in cells.items()
    }


def _read(
    known: Known, named: Named, reading: Reading, on: Bool[Tensor, "n rows columns"]
) -> tuple[int, int, tuple[int, ...]] | None:
    """The strongest latent, the position at which it is read, and the numbers of its parts; None where all are silent.

    At the class token and at any patch the parts are those that decide; of a latent of a part, the one it is read on.
    """
    scene, layer = known.scene, named.layer
    stands = named.stands_for[reading]
    codes = layer.codes(known.x)
    if reading == "class-token":
        allowed = layer.of_kind(codes, "class")[0].cpu() * (stands == scene.label)
    else:
        allowed = layer.of_kind(codes, "patch")[0].cpu()
        allowed = allowed * ((stands == scene.label) if reading == "class-patch" else _on_own(scene, stands, on))
    best = int(allowed.argmax())
    if allowed.flatten()[best] <= 0:
        return None
    place, latent = divmod(best, allowed.shape[1])
    position = place if reading == "class-token" else layer.grid.prefix + place
    if reading != "part":
        return latent, position, scene.deciding
    name = list(PARTS)[int(stands[latent])]
    own = [i for i in scene.deciding if scene.names[i] == name and on[i].flatten()[place]]
    return latent, position, (own[0],)


def _on_own(scene: Scene, stands: Int[Tensor, " K"], on: Bool[Tensor, "n rows columns"]) -> Bool[Tensor, "P K"]:
    """Whether each patch lies on a deciding part that each latent stands for."""
    numbers = torch.tensor([list(PARTS).index(scene.names[i]) for i in scene.deciding])
    of_latent = numbers[:, None] == stands
    return (on[list(scene.deciding)].flatten(1).T[:, :, None] & of_latent).any(1)


@torch.no_grad()
def _falls(known: Known, layer: LatentLayer, latent: int, position: int) -> Float[Tensor, " n"]:
    """How much the latent's pre-activation at a position falls when each part is taken out of the picture."""
    changed = [known.scene.without(i) for i in range(len(known.scene.parts))]
    x = torch.cat([known.x, scene_inputs(layer.model, changed)])
    pfvs = capture(layer.model, x, [layer.layer], layer.values)[layer.layer].pfvs[:, position]
    values = layer.sae.pre_activations(pfvs)[:, latent].cpu()
    return values[0] - values[1:]


def scores(
    evidence: Float[Tensor, "rows columns"],
    covered: Float[Tensor, "n rows columns"],
    on: Bool[Tensor, "n rows columns"],
    numbers: Sequence[int],
    falls: Float[Tensor, " n"],
) -> dict[str, float]:
    """The measures of one map of patches; `numbers` are the latent's parts. Shares of nothing positive are NaN."""
    own = on[list(numbers)]
    return {
        "on parts": share_on(evidence, own),
        "least part": evenness((evidence.clamp_min(0).double() * own).sum((1, 2))),
        "removal": spearman((evidence * covered).sum((1, 2)), falls),
    }


def share_on(evidence: Float[Tensor, "rows columns"], own: Bool[Tensor, "n rows columns"]) -> float:
    """Of the positive evidence, what lies on patches of any of these parts; NaN where there is none."""
    positive = evidence.clamp_min(0).double()
    return float((positive * own.any(0)).sum() / positive.sum())
