"""Graphs of groups beside graphs of single concepts: what they hold of the score, and are claims true?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.concepts import ConceptBank
from ierf.errors import IerfError
from ierf.experiments.data import DataSet, drawn
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over
from ierf.experiments.results import Better, Results, as_values
from ierf.graph import ConceptGraph
from ierf.graph.concept_graph import BUDGET, MOST_STEPS, SHARED, STEPS
from ierf.model import VisionModel, evaluating
from ierf.progress import Progress

GROUPS = "groups"
LASSO = "groups, Lasso codes"
CONCEPTS = "concepts"

MEASURES: Mapping[str, Better] = {
    "followed": "higher",
    "own": "",
    "residual": "lower",
    "residual so far": "lower",
    "held": "higher",
    "adding up": "higher",
    "rank correlation": "higher",
    "slope": "",
    "completeness": "lower",
}
"""Of each layer:

followed          the share of the classes' scores that is followed down to the nodes shown, own directions among them
own               the part of it that the residual's own directions hold, concepts of this photograph alone
residual          the share that ends in this layer's residual
residual so far   the same, of this layer and of all above
held              the share of the classes of which the slopes of the layer above hand `logit(X) − logit(shift)` down,
                  to a tenth of it; of groups
adding up         the share of the classes of which they hand a quarter to four times of it, so that importances are
                  scaled to add up; those of others do not
rank correlation  of claims with effects over the nodes that a bank has, the mean over classes
slope             of effects by claims
completeness      the largest `|Σ AT − (S(X) − S(shift))| / |S(X) − S(shift)|` of a target, in thousandths"""
_HELD = (0.9, 1.1)
_ADDING_UP = (0.25, 4.0)
COST: Mapping[str, Better] = {"CPU s": "lower", "CPU ratio": "lower"}
"""Of the whole graph without pictures: processor time, and the same over that of a graph of concepts."""
PICTURED: Mapping[str, Better] = {f"{column}, pictures": better for column, better in COST.items()}
"""The same of graphs with pictures."""


@dataclass(frozen=True)
class GraphSettings:
    """What graphs depend on apart from model, bank and photographs."""

    budget: int = BUDGET
    """Groups of a layer; as many single concepts, of two classes."""
    steps: int = STEPS
    most_steps: int = MOST_STEPS
    pictures: bool = False
    """Whether graphs are timed with pictures, too."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.budget <= SHARED:
            raise IerfError(
                f"{SHARED} concepts are shared by both classes and each has one of its own at least, so that a row has "
                f"more than {SHARED} nodes, not {self.budget}"
            )

    @property
    def options(self) -> Mapping[str, dict[str, Any]]:
        """Row -> how the graph is built."""
        same = {"steps": self.steps, "most_steps": self.most_steps, "draws": 0, "keep": 1.0}
        return {
            GROUPS: {**same, "nodes": "groups", "budget": self.budget, "refit": True},
            LASSO: {**same, "nodes": "groups", "budget": self.budget, "refit": False},
            CONCEPTS: {**same, "nodes": "concepts", "top": max(1, (self.budget - SHARED) // 2), "shared": SHARED},
        }


def graphs(
    model: VisionModel,
    bank: ConceptBank,
    data: DataSet,
    out: Path,
    settings: GraphSettings | None = None,
    *,
    layers: Sequence[str] | None = None,
    limit: int | None = 50,
    progress: Progress | None = None,
) -> Results:
    """Three graphs of each photograph and its two most probable classes: of groups, of groups with the Lasso's codes,
    and of about as many single concepts.

    Columns are `LAYER MEASURE` for the `MEASURES`, and the `COST`; `tables` sorts them. `graphs.jsonl` in `out` keeps
    what is finished. Processor times are those of this process and depend on what else the machine does.

    Raises an `IerfError` for a bank of another model, an unknown layer, and where the network cannot be cut.
    """
    settings, names = settings or GraphSettings(), tuple(layers or bank.layers)
    bank.check_model(model)
    header = {
        "experiment": "graphs",
        "model": f"{model.name} {model_fingerprint(model)}",
        "bank": bank.plan.to_json(),
        "data": f"{data.name} {data.fingerprint}",
        "layers": list(names),
        "rows": {row: dict(options) for row, options in settings.options.items()},
        **asdict(settings),
    }
    journal = Journal.open(out / "graphs.jsonl", header)
    work = _Work(model, bank, names, settings)

    def measure(name: str) -> Values:
        return work.measured(model.prepare(data.read(name).image))

    chosen = drawn(data, limit, settings.seed)
    with evaluating(model.net):
        if any(name not in journal.finished for name in chosen):
            work.warm_up(model.prepare(data.read(chosen[0]).image))
        values = run_over(chosen, journal, measure, progress)
    columns = {f"{layer} {measure}": better for layer in names for measure, better in MEASURES.items()}
    costs = {**COST, **(PICTURED if settings.pictures else {})}
    return Results(
        f"{model.name} on {data.name}",
        {**columns, **costs},
        values,
        journal.settings,
        corner="graph",
        seed=settings.seed,
        unit="photographs",
    )


def tables(everything: Results, layers: Sequence[str]) -> dict[str, Results]:
    """Each measure over the layers, from the classes down, and what a graph costs."""
    found = {
        name: _only(everything, [f"{layer} {name}" for layer in reversed(layers)], f"{everything.title}, {name}")
        for name in MEASURES
    }
    costs = [column for column in everything.columns if column in {**COST, **PICTURED}]
    return found | {"cost": _only(everything, costs, f"{everything.title}, cost")}


def _only(everything: Results, columns: Sequence[str], title: str) -> Results:
    values = {
        image: {row: {column: found[column] for column in columns if column in found} for row, found in rows.items()}
        for image, rows in everything.values.items()
    }
    return replace(
        everything, title=title, columns={column: everything.columns[column] for column in columns}, values=values
    )


def _share_within(values: Sequence[float], bounds: tuple[float, float]) -> float:
    """NaN of no values."""
    return fmean(bounds[0] <= value <= bounds[1] for value in values) if values else torch.nan


@dataclass(frozen=True)
class _Work:
    """What is the same for all photographs."""

    model: VisionModel
    bank: ConceptBank
    layers: tuple[str, ...]
    settings: GraphSettings

    def warm_up(self, x: Float[Tensor, "1 3 H W"]) -> None:
        """Let everything be loaded that is loaded once, so that no photograph pays for it."""
        for options in self.settings.options.values():
            self._built(x, {**options, "steps": 1, "most_steps": 1}, pictures=False)

    def measured(self, x: Float[Tensor, "1 3 H W"]) -> Values:
        """Row -> column -> value, for one photograph."""
        rows: dict[str, dict[str, float]] = {}
        for row, options in self.settings.options.items():
            graph, seconds = self._built(x, options, pictures=False)
            rows[row] = {**self.read_off(graph, x), "CPU s": seconds}
            if self.settings.pictures:
                rows[row]["CPU s, pictures"] = self._built(x, options, pictures=True)[1]
        reference = dict(rows[CONCEPTS])
        for found in rows.values():
            for column in [column for column in found if column.startswith("CPU s")]:
                found[column.replace("CPU s", "CPU ratio")] = found[column] / reference[column]
        return {row: as_values(found) for row, found in rows.items()}

    def read_off(self, graph: ConceptGraph, x: Float[Tensor, "1 3 H W"]) -> dict[str, float]:
        """`MEASURES` of all layers."""
        tested = graph.test(self.model, self.bank, x).layers
        found: dict[str, float] = {}
        so_far = 0.0
        for layer in reversed(self.layers):
            account = graph.account(layer)
            so_far += account.influence_residual
            test = tested.get(layer)
            cells = {
                "followed": account.influence_kept,
                "own": sum(node.influence for node in graph.row(layer) if node.kind == "own"),
                "residual": account.influence_residual,
                "residual so far": so_far,
                "held": _share_within(account.score_held, _HELD),
                "adding up": _share_within(account.score_held, _ADDING_UP),
                "rank correlation": torch.nan if test is None else test.rank_correlation,
                "slope": torch.nan if test is None else test.slope,
                "completeness": 1000 * account.completeness_error,
            }
            found |= {f"{layer} {name}": value for name, value in cells.items()}
        return found

    def _built(
        self, x: Float[Tensor, "1 3 H W"], options: Mapping[str, Any], *, pictures: bool
    ) -> tuple[ConceptGraph, float]:
        """The graph, and the processor time that it took."""
        start = process_time()
        graph = ConceptGraph.build(self.model, self.bank, x, layers=self.layers, pictures=pictures, **options)
        return graph, process_time() - start
