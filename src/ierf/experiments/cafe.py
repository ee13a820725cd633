"""Fig. 7: which attribution finds the patches that a latent needs? By insertion and deletion (Sec. V-C1)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.cafe import KINDS, METHODS, Kind, LatentIndex, LatentLayer, evidence, latent_curves, nonlocality
from ierf.concepts.sae import SAE
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over, takes_track
from ierf.experiments.results import Results, as_values
from ierf.model import VisionModel, evaluating
from ierf.progress import Progress
from ierf.store import Images, weights_hash

DEFAULT = tuple(method for method in METHODS if method != "srd")
MEASURES = ("entropy", "spread", "displacement", "outside", "evidence entropy")
"""Of the activation map: entropy, mean distance from its peak. Of the evidence: mean distance from that peak, share
outside the peak and its neighbours, entropy."""
_LATENT = "latent"
"""The row of a journal with what does not depend on a method."""
_RAREST = 8
"""Photographs that must activate a latent of the index for its statistics to count."""
_SPREAD = 0.3
"""Collision entropy above which a latent counts as spread: of 64 patches, 64^0.3 = 3.5 even ones have it."""
PARTS = ("local third", "middle third", "non-local third")


@dataclass(frozen=True)
class CafeSettings:
    """What the curves depend on apart from model, autoencoders and photographs."""

    methods: tuple[str, ...] = DEFAULT
    kinds: tuple[str, ...] = KINDS
    latents: int = 200
    """Of each layer and kind of token, drawn among those that are active in enough photographs."""
    images: int = 4
    """Of each latent, at even quantiles of its activation."""
    points: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise UnknownNameError("attribution of latents", method, METHODS)
        for kind in self.kinds:
            if kind not in KINDS:
                raise UnknownNameError("kind of token", kind, KINDS)
        if self.latents < 1 or self.images < 1 or self.points < 2:
            raise IerfError(
                "curves need a latent, a photograph and two points, "
                f"not {self.latents}, {self.images} and {self.points}"
            )


@takes_track
def cafe(
    model: VisionModel,
    saes: Mapping[str, SAE],
    index: LatentIndex,
    photographs: Images,
    out: Path,
    settings: CafeSettings | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, Results]:
    """Tables by name: the areas of each kind of token by layer, what non-local latents make of it, non-locality itself.

    The unit is a latent of a layer at one kind of token, with the mean over its photographs. `cafe.jsonl` in `out`
    keeps what is finished.
    """
    settings = settings or CafeSettings()
    layers = {name: LatentLayer(model, name, sae, index.settings["values"]) for name, sae in saes.items()}
    units = _units(layers, index, settings)
    header = {
        "experiment": "cafe",
        "model": f"{model.name} {model_fingerprint(model)}",
        "saes": {name: weights_hash(sae) for name, sae in saes.items()},
        "index": dict(index.settings),
        "photographs": photographs.fingerprint,
        **asdict(settings),
    }
    journal = Journal.open(out / "cafe.jsonl", header)

    def measure(unit: str) -> Values:
        layer, kind, latent = units[unit]
        examples = index.layer(layer.layer, kind).quantiles(latent, settings.images)
        x = torch.cat([model.prepare(photographs.read(example.image)) for example in examples])
        positions = torch.tensor([example.position for example in examples], device=x.device)
        return measured(layer, x, latent, positions, settings)

    with evaluating(model.net):
        values = run_over(list(units), journal, measure, progress)
    made = tables(values, list(saes), settings, journal.settings, f"{model.name}")
    return made | {"index": of_index(index, list(saes), settings, journal.settings, f"{model.name}")}


def _units(
    layers: Mapping[str, LatentLayer], index: LatentIndex, settings: CafeSettings
) -> dict[str, tuple[LatentLayer, Kind, int]]:
    """What to measure by name: the first latent of every layer and kind of token, then the second."""
    found = [
        (at, f"{name} {kind} {latent}", (layer, _kind(kind), latent))
        for name, layer in layers.items()
        for kind in settings.kinds
        if kind in layer.kinds
        for at, latent in enumerate(chosen(index, name, _kind(kind), settings))
    ]
    return {name: unit for _, name, unit in sorted(found, key=lambda one: one[0])}


def chosen(index: LatentIndex, layer: str, kind: Kind, settings: CafeSettings) -> list[int]:
    """Latents at random among those that are active in as many photographs as are asked for."""
    active = (index.layer(layer, kind).kept.fired >= settings.images).nonzero()[:, 0]
    order = torch.randperm(len(active), generator=torch.Generator().manual_seed(settings.seed))
    return [int(latent) for latent in active[order[: settings.latents]]]


def measured(
    layer: LatentLayer, x: Float[Tensor, "N 3 H W"], latent: int, positions: Tensor, settings: CafeSettings
) -> Values:
    """Method -> areas and curves, means over the photographs; and the latent's non-locality."""
    latents = torch.full((len(x),), latent, device=x.device)
    scores = {method: evidence(layer, x, latents, positions, method) for method in settings.methods}
    count = len(scores)
    found = latent_curves(
        layer,
        x.repeat(count, 1, 1, 1),
        latents.repeat(count),
        positions.repeat(count),
        torch.cat(list(scores.values())),
        points=settings.points,
    )
    insertion, deletion = (area.view(count, -1).nanmean(1).tolist() for area in found.areas())
    rows = {
        method: {"insertion": inserted, "deletion": deleted}
        for method, inserted, deleted in zip(scores, insertion, deletion, strict=True)
    }
    reference = scores[settings.methods[0]]
    rows[_LATENT] = {
        name: float(value.nanmean()) for name, value in measures(layer.maps(x, latents), reference).items()
    }
    return {row: as_values(numbers) for row, numbers in rows.items()}


def measures(activation: Float[Tensor, "N h w"], evidence: Float[Tensor, "N h w"]) -> dict[str, Float[Tensor, " N"]]:
    """Every measure of non-locality, by name."""
    return dict(
        zip(
            MEASURES,
            (
                nonlocality.entropy(activation),
                nonlocality.spread(activation),
                nonlocality.displacement(activation, evidence),
                nonlocality.outside(activation, evidence),
                nonlocality.entropy(evidence),
            ),
            strict=True,
        )
    )


def tables(
    values: Mapping[str, Values], layers: Sequence[str], settings: CafeSettings, about: Mapping[str, object], name: str
) -> dict[str, Results]:
    """File name -> results, of what a journal has."""
    made: dict[str, Results] = {}
    for kind in settings.kinds:
        here = {unit: found for unit, found in values.items() if unit.rsplit(" ", 2)[1] == kind}
        if not here:
            continue
        for curve, better in (("insertion", "higher"), ("deletion", "lower")):
            title = f"{name}: {curve}, {kind} tokens"
            by_layer = {unit: _columns(found, curve, unit.rsplit(" ", 2)[0]) for unit, found in here.items()}
            made[f"{curve}-{kind}"] = Results(
                title,
                dict.fromkeys(layers, better),  # type: ignore[arg-type]
                by_layer,
                about,
                corner="attribution",
                seed=settings.seed,
                unit="latents",
            )
            part = thirds(here, layers)
            by_part = {unit: _columns(found, curve, part[unit]) for unit, found in here.items() if unit in part}
            made[f"{curve}-{kind}-thirds"] = Results(
                f"{title}, by entropy of the activation map",
                dict.fromkeys(PARTS, better),  # type: ignore[arg-type]
                by_part,
                about,
                corner="attribution",
                seed=settings.seed,
                unit="latents",
            )
    spread: dict[str, Values] = {
        unit: {" ".join(unit.rsplit(" ", 2)[:2]): found[_LATENT]} for unit, found in values.items() if _LATENT in found
    }
    made["non-locality"] = Results(
        f"{name}: non-locality",
        dict.fromkeys(MEASURES, ""),
        spread,
        about,
        corner="layer and token",
        seed=settings.seed,
        unit="latents",
    )
    return made


def of_index(
    index: LatentIndex, layers: Sequence[str], settings: CafeSettings, about: Mapping[str, object], name: str
) -> Results:
    """Of all latents in the index: collision entropy at patches, the share of latents above `_SPREAD`, frequency."""
    values: dict[str, Values] = {}
    for layer, kind in [(layer, kind) for layer in layers for kind in KINDS if (layer, kind) in index.layers]:
        indexed = index.layer(layer, _kind(kind))
        frequency, entropy = indexed.frequency.tolist(), indexed.entropy.tolist()
        for latent in (indexed.kept.fired >= _RAREST).nonzero()[:, 0].tolist():
            found = {"frequency": frequency[latent]}
            if kind == "patch":
                found |= {"entropy": entropy[latent], f"entropy above {_SPREAD}": float(entropy[latent] > _SPREAD)}
            values[f"{layer} {kind} {latent}"] = {f"{layer} {kind}": as_values(found)}
    return Results(
        f"{name}: all latents of an index that at least {_RAREST} photographs activate",
        {"entropy": "", f"entropy above {_SPREAD}": "", "frequency": ""},
        values,
        about,
        corner="layer and token",
        seed=settings.seed,
        unit="latents",
    )


def thirds(values: Mapping[str, Values], layers: Sequence[str]) -> dict[str, str]:
    """Each latent's third among those of its layer, by the entropy of its activation map over the patches."""
    found: dict[str, str] = {}
    for layer in layers:
        entropy = {
            unit: rows[_LATENT]["entropy"]
            for unit, rows in values.items()
            if unit.rsplit(" ", 2)[0] == layer and rows[_LATENT].get("entropy") is not None
        }
        ordered = sorted(entropy, key=lambda unit: entropy[unit] or 0.0)
        found |= {unit: PARTS[math.floor(3 * at / len(ordered))] for at, unit in enumerate(ordered)}
    return found


def _columns(found: Values, curve: str, column: str) -> Values:
    return {method: {column: rows[curve]} for method, rows in found.items() if method != _LATENT}


def _kind(name: str) -> Kind:
    return "class" if name == "class" else "patch"
