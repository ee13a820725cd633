"""The Interlayer Concept Graph: concepts of consecutive layers, and how much each matters to those of the next.

Source: arXiv 2605.00474, section VI.

Pruning follows the classes' scores down through the nodes. Between two layers, `shares[s, t]` is the part of target t's
score that comes from source s: `|value|` over the sum of all sources' `|value|`, so that a column of shown sources sums
to 1 minus what is not shown. The classes share a flow of 1; each node hands its flow down in these parts. This is the
influence of attribution graphs, for layers in a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ierf.errors import IerfError, UnknownNameError
from ierf.graph.elements import LOGITS, Edge, LayerAccount, Node
from ierf.graph.hierarchy import Hierarchy
from ierf.progress import Progress

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank
    from ierf.graph.analysis.interventions import ClaimTest
    from ierf.graph.building.encoding import Photographs
    from ierf.model import VisionModel

Shares = Float[Tensor, "S T"]

NodesName = Literal["groups", "concepts"]
"""What a graph's nodes are: groups that hold all concepts of a layer, or the most important concepts alone."""

BUDGET = 13
"""Groups of a layer."""
TOP = 5
"""Nodes of a layer for each class."""
SHARED = 3
"""Nodes of a layer for all classes together."""
STEPS = 16
"""Of integrated gradients, at least."""
MOST_STEPS = 144
KEEP = 0.8
"""The share of the flow between two layers whose edges are kept."""
DRAWS = 200
"""Random concepts against which edges are tested."""


@dataclass(frozen=True)
class ConceptGraph:
    """Nodes in rows, one row a layer, and edges from each row to the one above it."""

    model: str
    photo: str
    """The photograph's name, or what the photographs have in common."""
    photographs: int
    layers: tuple[str, ...]
    """From the pixels to the classes."""
    nodes: tuple[Node, ...]
    """The classes' first, then layer by layer towards the pixels."""
    edges: tuple[Edge, ...]
    accounts: tuple[LayerAccount, ...]
    """What each layer leaves out, in the order of `layers`."""
    settings: Mapping[str, Any]
    """How it was made; JSON-able."""
    view: bytes = b""
    """The photograph as the network sees it, a PNG file; empty for many photographs."""
    hierarchy: Hierarchy | None = None
    """Of a graph of groups: what they are made of, and all edges between them."""

    def __repr__(self) -> str:
        classes = ", ".join(node.label for node in self.classes)
        layers = ", ".join(self.layers)
        return f"ConceptGraph({self.photo}: {classes}; {len(self.nodes)} nodes and {len(self.edges)} edges of {layers})"

    @classmethod
    def build(
        cls,
        model: "VisionModel | nn.Module",
        bank: "ConceptBank",
        photographs: "Photographs",
        classes: Sequence[str | int] | None = None,
        layers: Sequence[str] | None = None,
        *,
        nodes: NodesName | None = None,
        budget: int = BUDGET,
        refit: bool = True,
        top: int | None = None,
        shared: int | None = None,
        also: Mapping[str, Sequence[int]] | None = None,
        steps: int = STEPS,
        most_steps: int = MOST_STEPS,
        keep: float | None = None,
        draws: int = DRAWS,
        seed: int = 0,
        pictures: bool = True,
        progress: Progress | None = None,
    ) -> "ConceptGraph":
        """The Interlayer Concept Graph of a photograph, or the mean of those of many (arXiv 2605.00474, section VI).

        Edges are ICAT with integrated gradients (Eq. 13–16) between consecutive `layers`: the score of a concept t is
        `Σ_i u_it cos(X̃_i − shift, v_t)`, that of a class its logit. There are two forms.

        **Groups** hold all concepts of a layer, so that nothing but the residual is left out: a cut of the dictionary's
        tree into `budget` subtrees, chosen by what they show for the classes. Attributions of coefficients add up, so
        `AT(g) = Σ_{k∈g} Σ_p AT(u_pk)`, and as a target a group is `S(g) = Σ_i ⟨X̃_i / ‖X̃_i‖, Σ_{t∈g} u_it v_t / ‖v_t‖⟩`.
        What is scaled from 0 to 1 is X without its shift, concepts and residual, so that the way ends at the network's
        own scores; a class's logit is handed down from layer to layer as its slopes. Codes are refitted
        (`ierf.concepts.refit`). The graph opens and closes (`opened`, `closed`, `cut`) down to half as many groups
        again. Of one photograph, a residual that holds a tenth of the flow opens into its own principal directions.

        **Concepts**, the paper's form, are in each layer the `top` ones of each class and the `shared` ones by
        `Σ_p AT(u_pq, logit_c)`, and the residual; the others are left out. What is scaled is X̂ without its shift.

        Args:
            photographs: prepared pixels (N, 3, H, W), a photograph, or a sequence of photographs. Of many, one after
                the other is in memory, and each is looked at twice.
            classes: names or indices; None: the two most probable of the first photograph.
            layers: those of the bank if None, in the bank's order, which must be that of the network.
            nodes: "groups" or "concepts"; None: groups, but where `top`, `shared` or `also` ask for single concepts.
            budget: groups of each layer.
            refit: of groups: least squares on the concepts that the Lasso chose, instead of its shrunk coefficients.
            top: concepts of each layer that become nodes for each class; None: 5.
            shared: those that become nodes for all classes together; None: 3.
            also: more concepts that become nodes, for each layer.
            steps: of integrated gradients; three or nine times as many where attributions do not add up within 1e-3.
            most_steps: no more than these.
            keep: the share of the flow between two layers whose edges are kept, see `pruned`; None: all of groups,
                0.8 of concepts.
            draws: random concepts, or groups, against which edges are tested.
            seed: of these.
            pictures: whether nodes get exemplars and, for a single photograph, their places and pixels on it, and edges
                where they act.
            progress: called before each step, see `ierf.progress.Progress`.

        Raises:
            IerfError: a layer that another path of the network goes around, or a class, layer or concept that does not
                exist.
        """
        from ierf.graph.building.build import build

        return build(
            model,
            bank,
            photographs,
            classes,
            layers,
            nodes=nodes,
            budget=budget,
            refit=refit,
            top=top,
            shared=shared,
            also=also,
            steps=steps,
            most_steps=most_steps,
            keep=keep,
            draws=draws,
            seed=seed,
            pictures=pictures,
            progress=progress,
        )

    @cached_property
    def by_id(self) -> Mapping[str, Node]:
        """The nodes by their ids."""
        return {node.id: node for node in self.nodes}

    @property
    def classes(self) -> tuple[Node, ...]:
        """The class nodes."""
        return self.row(LOGITS)

    def node(self, name: str) -> Node:
        """The node with this id. Raises `UnknownNameError`."""
        if name not in self.by_id:
            raise UnknownNameError("node", name, self.by_id)
        return self.by_id[name]

    def row(self, layer: str) -> tuple[Node, ...]:
        """The nodes of a layer, concepts first; `"logits"` for the classes."""
        return tuple(node for node in self.nodes if node.layer == layer)

    def into(self, name: str) -> tuple[Edge, ...]:
        """The edges that end at a node, the strongest first."""
        return tuple(sorted((e for e in self.edges if e.target == name), key=lambda e: -e.share))

    def account(self, layer: str) -> LayerAccount:
        """What the layer leaves out. Raises `UnknownNameError`."""
        if layer not in self.layers:
            raise UnknownNameError("layer of this graph", layer, self.layers)
        return self.accounts[self.layers.index(layer)]

    def pruned(self, keep: float = KEEP, classes: Sequence[int] | None = None) -> "ConceptGraph":
        """Of each pair of layers the fewest edges that carry `keep` of the flow to shown concepts, and their nodes.

        `classes` (indices) restricts the start to some of the graph's classes. Residual nodes stay. Influences and the
        accounts' shares are those of what is left.
        """
        if not 0 < keep <= 1:
            raise IerfError(f"the share of the flow to keep lies above 0 and not above 1, so it cannot be {keep}")
        wanted = {self.node(f"{LOGITS}/{index}").index for index in classes or [n.index for n in self.classes]}
        places = [i for i, node in enumerate(self.classes) if node.index in wanted]
        rows = [self.row(LOGITS), *(self.row(layer) for layer in reversed(self.layers))]
        start = torch.tensor([1 / len(wanted) if node.index in wanted else 0.0 for node in rows[0]])
        kept = prune(self._shares(rows), start, keep, [len(_followed(row)) for row in rows[1:]])
        flows = influences(kept, start)
        nodes = [
            replace(
                node,
                influence=flow,
                importance=_some(node.importance, places),
                effects=_some(node.effects, places) if node.effects else (),
            )
            for row, of_row in zip(rows, flows, strict=True)
            for node, flow in zip(row, of_row.tolist(), strict=True)
            if flow > 0 or node.kind == "residual"
        ]
        linked = {
            (sources[s].id, _followed(targets)[t].id)
            for (targets, sources), pair in zip(pairwise(rows), edge_flows(kept, start), strict=True)
            for s, t in (pair > 0).nonzero().tolist()
        }
        return replace(
            self,
            nodes=tuple(nodes),
            edges=tuple(edge for edge in self.edges if (edge.source, edge.target) in linked),
            accounts=tuple(_recounted(account, self, nodes, places) for account in self.accounts),
            settings={**self.settings, "keep": keep},
            hierarchy=None if self.hierarchy is None else self.hierarchy.of_classes(places, [n.id for n in rows[0]]),
        )

    def cut(self, budget: int) -> "ConceptGraph":
        """The same graph with so many groups in each row, or as many as it has; exact, as attributions add up.

        Raises `IerfError` for a graph of single concepts, and for a budget below 1.
        """
        if budget < 1:
            raise IerfError(f"a row has at least one group, not {budget}")
        return self._showing(self._hierarchy.shown(budget), budget)

    def opened(self, name: str) -> "ConceptGraph":
        """The same graph with a group's two halves in its place. Raises `IerfError` for a node that does not open."""
        return self._showing(self._hierarchy.opened(self._shown(), name))

    def closed(self, name: str) -> "ConceptGraph":
        """The same graph with a group in the place of all that it holds. Raises `IerfError` where it is not open."""
        return self._showing(self._hierarchy.closed(self._shown(), name))

    def test(self, model: "VisionModel | nn.Module", bank: "ConceptBank", photographs: "Photographs") -> "ClaimTest":
        """Take every concept or group out of its layer, one at a time: do its claims foretell what the classes lose?

        See `ierf.graph.ClaimTest`; `.rank_correlation` and `.slope` of effects against claims.
        """
        from ierf.graph.analysis.interventions import check_claims

        return check_claims(self, model, bank, photographs)

    @property
    def _hierarchy(self) -> Hierarchy:
        if self.hierarchy is None:
            raise IerfError("this graph has single concepts, which do not open; build it with nodes='groups'")
        return self.hierarchy

    def _shown(self) -> list[str]:
        return [node.id for node in self.nodes if node.id in self._hierarchy.by_id]

    def _showing(self, shown: Sequence[str], budget: int | None = None) -> "ConceptGraph":
        """The same graph of other nodes of its hierarchy, without pruning."""
        hierarchy, settings, drawn = self._hierarchy, dict(self.settings), set(shown)
        if budget is not None:
            settings["budget"] = budget
        inner = [node for node in hierarchy.nodes if node.id in drawn]
        rows = [
            node
            for layer in reversed(self.layers)
            for node in (*(n for n in inner if n.layer == layer), *(n for n in self.row(layer) if n.kind == "residual"))
        ]
        whole = replace(self, nodes=(*self.classes, *rows), edges=tuple(hierarchy.edges(shown)), settings=settings)
        return whole.pruned(1.0)

    def save(self, path: str | Path, single_file: bool = False) -> Path:
        """Write the graph as ".json" (whole, loads again equal), ".html" (an interactive page) or ".svg" (a picture).

        A page's exemplars lie in the folder NAME_pictures beside it, or inside with `single_file`.
        Raises `IerfError` for another suffix.
        """
        from ierf.graph.picture.page import save

        return save(self, Path(path), single_file)

    @classmethod
    def load(cls, path: str | Path) -> "ConceptGraph":
        """The graph that was saved as JSON. Raises `IerfError` for a file that is none."""
        from ierf.graph.schema import load

        return load(Path(path))

    def _shares(self, rows: Sequence[Sequence[Node]]) -> list[Shares]:
        """The edges' shares as matrices, pair by pair from the classes down."""
        of_edge = {(edge.source, edge.target): edge.share for edge in self.edges}
        return [
            torch.tensor([[of_edge.get((s.id, t.id), 0.0) for t in _followed(targets)] for s in sources])
            for targets, sources in pairwise(rows)
        ]


def _followed(row: Sequence[Node]) -> list[Node]:
    """The nodes of a row that have edges into them."""
    return [node for node in row if node.kind != "residual"]


def _some(values: tuple[float, ...], places: Sequence[int]) -> tuple[float, ...]:
    return tuple(values[i] for i in places)


def _recounted(
    account: LayerAccount, whole: ConceptGraph, nodes: Sequence[Node], places: Sequence[int]
) -> LayerAccount:
    """The account of the nodes that are left, for the classes at `places`; `whole` has those that there were."""
    here = [node for node in nodes if node.layer == account.layer]
    concepts = _followed(here)
    before = [_some(node.importance, places) for node in _followed(whole.row(account.layer))]
    shares = [
        _part([node.importance[c] for node in concepts], [importance[c] for importance in before])
        for c in range(len(places))
    ]
    return replace(
        account,
        logits=_some(account.logits, places),
        score_held=_some(account.score_held, places) if account.score_held else (),
        score_kept=tuple(share * rest for share, rest in zip(_some(account.score_kept, places), shares, strict=True)),
        influence_kept=sum(node.influence for node in concepts),
        influence_residual=sum(node.influence for node in here if node.kind == "residual"),
    )


def _part(some: Sequence[float], of: Sequence[float]) -> float:
    """The share that some values have of the sum of sizes of all."""
    total = sum(map(abs, of))
    return sum(map(abs, some)) / total if total else 0.0


def influences(shares: Sequence[Shares], start: Float[Tensor, " T"]) -> list[Float[Tensor, " S"]]:
    """The flow that reaches each node, layer by layer from the classes (`start`) down: `f_s = Σ_t shares[s, t] f_t`.

    A pair's sources are the next pair's targets, in the same order; the last sources may lack there: residuals, from
    which nothing is followed further.
    """
    flows = [start]
    for pair in shares:
        flows.append(pair @ flows[-1][: pair.shape[1]])
    return flows


def edge_flows(shares: Sequence[Shares], start: Float[Tensor, " T"]) -> list[Shares]:
    """The flow along each edge, `shares[s, t] f_t`; those of a target sum to its flow minus what is not shown."""
    flows = influences(shares, start)
    return [pair * flow[: pair.shape[1]] for pair, flow in zip(shares, flows, strict=False)]


def strongest(values: Float[Tensor, "*any"], share: float) -> Bool[Tensor, "*any"]:
    """The fewest of these non-negative values that sum to at least `share` of the whole; zeros are never kept."""
    flat = values.flatten()
    order = flat.argsort(descending=True, stable=True)
    before = flat[order].double().cumsum(0) - flat[order].double()
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[order] = before < share * flat.double().sum()
    return (kept & (flat > 0)).view(values.shape)


def prune(shares: Sequence[Shares], start: Float[Tensor, " T"], keep: float, concepts: Sequence[int]) -> list[Shares]:
    """The same shares with weak edges set to 0: of each pair the fewest edges that carry `keep` of its flow.

    Only the first `concepts[i]` sources of pair i count and are cut: residuals behind them keep all of their edges,
    as what they take is not up for choice. From the classes down, so that what was cut above no longer counts below.
    """
    flow, kept = start, []
    for pair, count in zip(shares, concepts, strict=True):
        carried = pair * flow[: pair.shape[1]]
        here = strongest(carried[:count], keep)
        kept.append(torch.cat([pair[:count] * here, pair[count:]]))
        flow = kept[-1] @ flow[: pair.shape[1]]
    return kept
