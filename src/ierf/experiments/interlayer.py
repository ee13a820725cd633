"""Fig. 11: which attribution finds the concepts that one of a later layer needs? By insertion and deletion (VI-C)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.concepts import ConceptBank
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments.concept_fidelity import cells
from ierf.experiments.data import DataSet, drawn
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over, takes_track
from ierf.experiments.results import Results, as_values
from ierf.graph import (
    METHODS,
    Alignment,
    Curves,
    EncodedLayer,
    LayerObjective,
    Logits,
    Projection,
    Score,
    Strength,
    encode,
    interlayer_curves,
    largest_cosine,
    largest_projection,
    select_nodes,
    values_of,
)
from ierf.model import Section, VisionModel, evaluating
from ierf.progress import Progress

SCORES = ("icat", "gig")
"""icat: alignments `Σ u cos`, tracked by the largest cosine; gig: projections, tracked by the largest one."""


@dataclass(frozen=True)
class InterlayerSettings:
    """What the curves depend on apart from model, bank and photographs."""

    methods: tuple[str, ...] = tuple(METHODS)
    targets: int = 3
    """Concepts of the later layer: those with the largest `Σ_p AT(u_pq, logit_c)` for the predicted class c."""
    score: str = "icat"
    points: int = 33
    """Of a curve, at most."""
    shap_samples: int | None = None
    """Coalitions of KernelSHAP; None: four for each active concept, at least 512."""
    seed: int = 0

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise UnknownNameError("attribution of concepts", method, METHODS)
        if self.score not in SCORES:
            raise UnknownNameError("score", self.score, SCORES)
        if self.targets < 1 or self.points < 2:
            raise IerfError(f"curves need a target and two points, not {self.targets} and {self.points}")


@takes_track
def interlayer(
    model: VisionModel,
    bank: ConceptBank,
    data: DataSet,
    out: Path,
    settings: InterlayerSettings | None = None,
    *,
    layers: Sequence[str] | None = None,
    limit: int | None = 100,
    progress: Progress | None = None,
) -> Results:
    """Curves and areas of each attribution for each two consecutive `layers` (all of the bank if None).

    Concepts of the earlier layer are taken out of X̂, or put into the shift alone, in descending order of attribution;
    the strength of a target is divided by that with all of them. A photograph counts with the mean over its targets;
    a target whose strength in X̂ is not positive is left out. `interlayer.jsonl` in `out` keeps what is finished.

    Raises an `IerfError` for fewer than two layers, a bank of another model, and where the network cannot be cut.
    """
    settings, names = settings or InterlayerSettings(), tuple(layers or bank.layers)
    if len(names) < 2:
        raise IerfError(f"interlayer curves need two layers of the bank, which has {', '.join(bank.layers)}")
    bank.check_model(model)
    header = {
        "experiment": "interlayer",
        "model": f"{model.name} {model_fingerprint(model)}",
        "bank": bank.plan.to_json(),
        "data": f"{data.name} {data.fingerprint}",
        "layers": list(names),
        **asdict(settings),
    }
    journal = Journal.open(out / "interlayer.jsonl", header)
    work = _Work(model, bank, names, settings)

    def measure(name: str) -> Values:
        return work.curves(model.prepare(data.read(name).image))

    with evaluating(model.net):
        values = run_over(drawn(data, limit, settings.seed), journal, measure, progress)
    title = f"{model.name} on {data.name}"
    return Results(title, {}, values, journal.settings, corner="attribution", seed=settings.seed)


def pairs_of(layers: Sequence[str]) -> list[str]:
    """The names of the columns: `layer2.1 → layer3.0`."""
    return [f"{a} → {b}" for a, b in pairwise(layers)]


@dataclass(frozen=True)
class _Work:
    """What is the same for all photographs: the network, cut once for each pair of layers."""

    model: VisionModel
    bank: ConceptBank
    layers: tuple[str, ...]
    settings: InterlayerSettings
    sections: dict[tuple[str, str | None], Section] = field(default_factory=dict)

    def curves(self, x: Float[Tensor, "1 3 H W"]) -> Values:
        """Attribution -> areas and curves of each pair of layers, for one photograph."""
        with torch.no_grad():
            predicted = int(self.model(x).argmax())
        taken = encode(self.model, self.bank, x, self.layers)
        rows: dict[str, dict[str, float]] = {method: {} for method in self.settings.methods}
        for (a, b), name in zip(pairwise(self.layers), pairs_of(self.layers), strict=True):
            chosen = self._chosen(x, taken[b], predicted)
            if chosen and len(taken[a].made.active):
                self._add(rows, name, self._section(x, a, b), taken[a], taken[b], chosen)
        return {method: as_values(found) for method, found in rows.items()}

    def _section(self, x: Tensor, source: str, target: str | None) -> Section:
        if (source, target) not in self.sections:
            self.sections[source, target] = Section.of(self.model, x, source, target, values_of(self.bank))
        return self.sections[source, target]

    def _chosen(self, x: Tensor, taken: EncodedLayer, predicted: int) -> list[int]:
        """The concepts of a layer that are most important for the predicted class, as nodes of a graph are chosen."""
        question = LayerObjective(self._section(x, taken.concepts.name, None), Logits([predicted]))
        importance = taken.made.spread(METHODS["ig"](taken.made, question).values.T).T
        return list(select_nodes(importance, self.settings.targets, 0).own)

    def _add(
        self,
        rows: dict[str, dict[str, float]],
        pair: str,
        section: Section,
        source: EncodedLayer,
        target: EncodedLayer,
        chosen: Sequence[int],
    ) -> None:
        """The curves of one pair of layers; of no method where no target is there at all."""
        score, strength = self._scored(section, target, torch.tensor(chosen, device=target.pfvs.device))
        with torch.no_grad():
            there = (strength(source.made.full[None])[0] > 0).cpu()
        if not bool(there.any()):
            return
        question = LayerObjective(section, score)
        for method, cells_of_pair in rows.items():
            attributed = METHODS[method](source.made, question, **self._options(method))
            found = interlayer_curves(source.made, strength, attributed.values, most_points=self.settings.points)
            cells_of_pair |= _mean_cells(pair, found, there)

    def _scored(self, section: Section, target: EncodedLayer, chosen: Tensor) -> tuple[Score, Strength]:
        atoms, shift = target.concepts.atoms.to(target.pfvs)[chosen], target.made.shift
        if self.settings.score == "gig":
            return Projection(atoms, shift), _after(section, partial(largest_projection, atoms=atoms, shift=shift))
        aligned = Alignment(atoms, target.columns(chosen), shift)
        return aligned, _after(section, partial(largest_cosine, atoms=atoms, shift=shift))

    def _options(self, method: str) -> dict[str, int | None]:
        if method == "kernel_shap":
            return {"samples": self.settings.shap_samples, "seed": self.settings.seed}
        return {"seed": self.settings.seed} if method == "random" else {}


def _mean_cells(pair: str, found: Curves, there: Tensor) -> dict[str, float]:
    insertion, deletion = (curve.cpu()[there].mean(0) for curve in (found.insertion, found.deletion))
    return cells(pair, found.counts, insertion, deletion)


def _after(section: Section, largest: Callable[[Tensor], Tensor]) -> Strength:
    def strength(pfvs: Float[Tensor, "B P C"]) -> Float[Tensor, "B T"]:
        return largest(section(pfvs))

    return strength
