"""C-insertion and C-deletion: do the concepts that are most important for a class carry it? (GIG, 4.2.1, Table 2)"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.concepts import Codes, ConceptBank, lasso
from ierf.errors import IerfError
from ierf.experiments.concepts.curves import areas, cells, picked
from ierf.experiments.concepts.fitted import Fitted
from ierf.experiments.data import DataSet, drawn
from ierf.experiments.identity import model_fingerprint
from ierf.experiments.journal import Journal, Track, Values, run_over
from ierf.experiments.results import Results, as_values
from ierf.graph import METHODS, LayerObjective, Probabilities, Reconstruction
from ierf.model import Section, VisionModel, capture, evaluating
from ierf.model.following import Values as PFVValues

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
    at_once: int = 32,
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
        logits = torch.cat([section(x.with_only(some)) for some in torch.split(shown, at_once)])
    found = torch.stack([logits.softmax(1)[:, target], (logits.argmax(1) == target).to(logits)])
    deletion, insertion = found.chunk(2, 1)
    return ClassCurves(counts, deletion, insertion)


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
    track: Track = iter,
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
        values = run_over(drawn(data, limit, settings.seed), journal, measure, track)
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
