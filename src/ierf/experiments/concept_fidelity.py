"""C-insertion and C-deletion (GIG, 4.2.1, Table 2): do the concepts most important for a class carry it?"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.concepts import Codes, ConceptBank, lasso
from ierf.errors import IerfError
from ierf.experiments.data import DataSet, drawn
from ierf.experiments.extractors import Fitted
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over, takes_track
from ierf.experiments.results import Better, Results, as_values, figure_class, png
from ierf.graph import METHODS, LayerObjective, Probabilities, Reconstruction, area
from ierf.model import Section, VisionModel, capture, evaluating
from ierf.model import Values as PFVValues
from ierf.progress import Progress

GRID = 33
"""Points of a curve, from no concept to all active ones."""
KINDS = ("insertion", "deletion")
AREAS: Mapping[str, Better] = {"insertion": "higher", "deletion": "lower", "difference": "higher"}
"""Areas under the two curves, and insertion less deletion."""


def on_grid(counts: Int[Tensor, " S"], heights: Float[Tensor, " S"]) -> list[float]:
    """The heights at GRID equal steps of the share of concepts, linear between the measured ones."""
    shares = (counts.double() / counts[-1]).numpy()
    found: list[float] = np.interp(np.linspace(0, 1, GRID), shares, heights.double().numpy()).tolist()
    return found


def cells(
    prefix: str, counts: Int[Tensor, " S"], insertion: Float[Tensor, " S"], deletion: Float[Tensor, " S"]
) -> dict[str, float]:
    """Areas and curves as a journal keeps them: `PREFIX/insertion/area`, `PREFIX/insertion/7` and so on."""
    found: dict[str, float] = {}
    for kind, heights in zip(KINDS, (insertion, deletion), strict=True):
        found[f"{prefix}/{kind}/area"] = float(area(counts, heights.cpu()))
        found |= {f"{prefix}/{kind}/{i}": height for i, height in enumerate(on_grid(counts, heights.cpu()))}
    inserted, deleted = (found[f"{prefix}/{kind}/area"] for kind in KINDS)
    return found | {f"{prefix}/difference/area": inserted - deleted}


def areas(everything: Results, prefixes: Mapping[str, str], title: str) -> dict[str, Results]:
    """Insertion, deletion, difference -> the areas, photograph by photograph; column -> prefix."""
    return {
        kind: picked(everything, {c: f"{p}/{kind}/area" for c, p in prefixes.items()}, better, f"{title}, {kind}")
        for kind, better in AREAS.items()
    }


def curves_json(everything: Results, prefixes: Sequence[str]) -> str:
    """Every curve at the `shares`: image -> row -> prefix -> "insertion" and "deletion", where concepts are active."""
    images = {
        image: {
            row: {
                prefix: {kind: [found[f"{prefix}/{kind}/{i}"] for i in range(GRID)] for kind in KINDS}
                for prefix in prefixes
                if f"{prefix}/{KINDS[0]}/0" in found
            }
            for row, found in rows.items()
        }
        for image, rows in everything.values.items()
    }
    shares = np.linspace(0, 1, GRID).tolist()
    whole = {"title": everything.title, "settings": everything.settings, "shares": shares, "images": images}
    return json.dumps(whole, ensure_ascii=False) + "\n"


def picked(everything: Results, columns: Mapping[str, str], better: Better, title: str) -> Results:
    """Some of the columns, under the names that are given to them."""
    values = {
        image: {row: {new: found.get(old) for new, old in columns.items()} for row, found in rows.items()}
        for image, rows in everything.values.items()
    }
    return replace(everything, title=title, columns=dict.fromkeys(columns, better), values=values)


def panels(everything: Results, prefixes: Mapping[str, str], height: str) -> bytes | None:
    """A panel for each prefix, insertion above deletion: mean ± standard error over photographs, a line for each row.

    prefixes: the panel's title -> prefix. None without matplotlib.
    """
    figure_of = figure_class()
    if figure_of is None:
        return None
    figure = figure_of(figsize=(2.6 * len(prefixes) + 1.8, 5), layout="constrained")
    axes = figure.subplots(2, len(prefixes), sharex=True, squeeze=False)
    shares = np.linspace(0, 100, GRID)
    for row_of_axes, kind in zip(axes, KINDS, strict=True):
        for panel, prefix in zip(row_of_axes, prefixes.values(), strict=True):
            for i, row in enumerate(everything.rows):
                mean, error = _mean_and_error(everything, row, f"{prefix}/{kind}")
                panel.plot(shares, mean, linewidth=1.2, label=row, color=f"C{i}")
                panel.fill_between(shares, mean - error, mean + error, alpha=0.2, linewidth=0, color=f"C{i}")
            panel.tick_params(labelsize=7)
            panel.grid(alpha=0.3)
        row_of_axes[0].set_ylabel(f"{height} on {kind}", fontsize=8)
    for panel, prefix in zip(axes[0], prefixes, strict=True):
        panel.set_title(prefix, fontsize=8)
    for panel in axes[1]:
        panel.set_xlabel("concepts, %", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside right center")
    return png(figure)


def _mean_and_error(everything: Results, row: str, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    points = torch.stack([everything.of(row, f"{prefix}/{i}") for i in range(GRID)])
    known = points[:, ~points.isnan().any(0)]
    if not known.shape[1]:
        return np.full(GRID, math.nan), np.full(GRID, math.nan)
    error = known.std(1, correction=min(1, known.shape[1] - 1)) / math.sqrt(known.shape[1])
    return known.mean(1).numpy(), error.numpy()


TRACKED = ("probability", "accuracy")
"""Of the class that the untouched network predicts: its probability, and whether it is predicted still."""
KEPT = "kept"


@dataclass(frozen=True, eq=False)
class Concepts:
    """The concepts of a layer, and how PFVs are written with them."""

    name: str
    layer: str
    atoms: Float[Tensor, "K C"]
    shift: Float[Tensor, " C"]
    values: PFVValues
    encode: Callable[[Float[Tensor, "P C"]], Float[Tensor, "P K"] | Codes]


def of_bank(bank: ConceptBank) -> list[Concepts]:
    """Each layer of a bank, with the bank's own codes."""
    layers = [bank.layer(name) for name in bank.layers]
    return [Concepts(bank.plan.extractor, one.name, one.atoms, one.shift, one.values, one.encode) for one in layers]


def of_fitted(fitted: Sequence[Fitted]) -> list[Concepts]:
    """What `ierf evaluate extractors` fitted, with the Lasso's codes, and autoencoders with their own too."""
    return [concepts for one in fitted for concepts in (_with_lasso(one), *_with_own(one))]


def _with_lasso(one: Fitted) -> Concepts:
    def encode(pfvs: Float[Tensor, "P C"]) -> Codes:
        return lasso(pfvs - one.shift.to(pfvs), one.atoms.to(pfvs), one.lam).sparse

    return Concepts(f"{one.name} Lasso", one.layer, one.atoms, one.shift, one.values, encode)


def _with_own(one: Fitted) -> list[Concepts]:
    if one.sae is None:
        return []
    return [Concepts(f"{one.name} own codes", one.layer, one.atoms, one.shift, one.values, one.sae.transform)]


@dataclass(frozen=True)
class FidelitySettings:
    """What the curves depend on apart from model, concepts and photographs."""

    points: int = 33
    """Of a curve, at most."""
    steps: int = 16
    """Of integrated gradients, at least."""
    most_steps: int = 144
    tolerance: float = 1e-2
    """By which attributions may miss the change of the probability before steps are added."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ClassCurves:
    """A class as concepts come or go; rows are its probability and whether it is predicted."""

    counts: Int[Tensor, " S"]
    """How many of the active concepts were put in, or taken out."""
    deletion: Float[Tensor, "2 S"]
    insertion: Float[Tensor, "2 S"]


def class_curves(
    x: Reconstruction,
    section: Callable[[Float[Tensor, "B P C"]], Float[Tensor, "B K"]],
    target: int,
    importance: Float[Tensor, " A"],
    points: int = 33,
    batch: int = 32,
) -> ClassCurves:
    """The class as active concepts leave X̂, or join the shift alone, in descending order of importance.

    Args:
        section: from the layer's PFVs to the logits.
        points: of a curve; all counts of concepts if there are fewer.
    """
    active = len(x.active)
    counts = torch.linspace(0, active, min(active + 1, points)).round().long()
    ranks = importance.argsort(stable=True, descending=True).argsort().cpu()
    first = ranks < counts[:, None]
    shown = torch.cat([~first, first]).to(x.codes.device)
    with torch.no_grad():
        logits = torch.cat([section(x.with_only(some)) for some in torch.split(shown, batch)])
    found = torch.stack([logits.softmax(1)[:, target], (logits.argmax(1) == target).to(logits)])
    deletion, insertion = found.chunk(2, 1)
    return ClassCurves(counts, deletion, insertion)


@takes_track
def concept_fidelity(
    model: VisionModel,
    concepts: Sequence[Concepts],
    identity: Mapping[str, Any],
    data: DataSet,
    out: Path,
    settings: FidelitySettings | None = None,
    *,
    layers: Sequence[str] | None = None,
    limit: int | None = 100,
    progress: Progress | None = None,
) -> Results:
    """Curves and areas of each set of concepts, for each layer: columns `LAYER probability/insertion/area` and so on.

    The class is the one that the untouched network predicts; importance is `Σ_p AT(u_pq, p_c)` by integrated gradients
    (GIG, Eq. 7); only concepts with a coefficient in the photograph are counted. `concept-fidelity.jsonl` in `out`
    keeps what is finished.

    Args:
        identity: what says which concepts these are, for the first line of the journal.

    Raises `IerfError` for two sets of concepts of one name and layer, or for none.
    """
    settings = settings or FidelitySettings()
    chosen = [one for one in concepts if layers is None or one.layer in layers]
    twice = [name for name, count in Counter((one.name, one.layer) for one in chosen).items() if count > 1]
    if twice or not chosen:
        raise IerfError(
            f"there are two sets of concepts {twice[0][0]!r} of {twice[0][1]!r}; give one of each extractor"
            if twice
            else f"no concepts of the layers {', '.join(layers or ())} were given"
        )
    header = {
        "experiment": "concept-fidelity",
        "model": f"{model.name} {model_fingerprint(model)}",
        "concepts": dict(identity),
        "sets": [f"{one.name}, {one.layer}" for one in chosen],
        "data": f"{data.name} {data.fingerprint}",
        **asdict(settings),
    }
    journal = Journal.open(out / "concept-fidelity.jsonl", header)
    work = _Work(model, chosen, settings)

    def measure(name: str) -> Values:
        return work.curves(model.prepare(data.read(name).image))

    with evaluating(model.net):
        values = run_over(drawn(data, limit, settings.seed), journal, measure, progress)
    return Results(f"{model.name} on {data.name}", {}, values, journal.settings, corner="concepts", seed=settings.seed)


def tables(everything: Results, layers: Sequence[str]) -> dict[str, Results]:
    """Table 2 and its like: the areas of probability and of accuracy, and how much of the probability X̂ keeps."""
    found: dict[str, Results] = {}
    for tracked in TRACKED:
        prefixes = {layer: f"{layer} {tracked}" for layer in layers}
        of_tracked = areas(everything, prefixes, f"{everything.title}, {tracked}")
        found |= {f"{tracked}-{kind}": results for kind, results in of_tracked.items()}
    title = f"{everything.title}, probability with X̂ over that of the network"
    return found | {KEPT: picked(everything, {layer: f"{layer}/{KEPT}" for layer in layers}, "higher", title)}


@dataclass(frozen=True)
class _Work:
    """What is the same for all photographs: the network, cut once for each layer."""

    model: VisionModel
    concepts: Sequence[Concepts]
    settings: FidelitySettings
    sections: dict[str, Section] = field(default_factory=dict)

    def curves(self, x: Float[Tensor, "1 3 H W"]) -> Values:
        """Concepts -> areas and curves of each layer, for one photograph."""
        values: PFVValues = "pre-activation" if any(c.values == "pre-activation" for c in self.concepts) else "output"
        layers = list(dict.fromkeys(one.layer for one in self.concepts))
        with torch.no_grad():
            chances = self.model(x).softmax(1)[0]
            pfvs = {layer: found.pfvs[0] for layer, found in capture(self.model, x, layers, values).items()}
        target = int(chances.argmax())
        rows: dict[str, dict[str, float | None]] = {one.name: {} for one in self.concepts}
        for one in self.concepts:
            if one.layer not in self.sections:
                self.sections[one.layer] = Section.of(self.model, x, one.layer, None, values)
            found = self._curves_of(one, pfvs[one.layer], self.sections[one.layer], target, float(chances[target]))
            rows[one.name] |= as_values(found)
        return rows

    def _curves_of(
        self, one: Concepts, pfvs: Float[Tensor, "P C"], section: Section, target: int, chance: float
    ) -> dict[str, float]:
        x = Reconstruction.of(one.encode(pfvs), one.atoms.to(pfvs), one.shift.to(pfvs))
        if not len(x.active):
            return {}
        options = {name: getattr(self.settings, name) for name in ("steps", "most_steps", "tolerance")}
        importance = METHODS["ig"](x, LayerObjective(section, Probabilities([target])), **options).values[0]
        curves = class_curves(x, section, target, importance, self.settings.points)
        found = {f"{one.layer}/{KEPT}": float(curves.insertion[0, -1]) / chance}
        for i, tracked in enumerate(TRACKED):
            found |= cells(f"{one.layer} {tracked}", curves.counts, curves.insertion[i], curves.deletion[i])
        return found
