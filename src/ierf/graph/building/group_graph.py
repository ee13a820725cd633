"""Concept graphs of groups: the rows of `group_flow` as nodes at every level, accounts, and pictures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.concepts import crops
from ierf.errors import IerfError
from ierf.graph.building.encoding import EncodedLayer, OpenedPhotographs, encode, patches_only
from ierf.graph.building.group_flow import OWN, GroupFlow, GroupRow, Groups
from ierf.graph.building.layer_attribution import Attributor, EncodedPhotograph
from ierf.graph.building.layer_edges import EDGE_MAP_SIDE
from ierf.graph.building.nodes import coefficient_ierfs, concept_facts
from ierf.graph.building.tree_cut import membership
from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.elements import LOGITS, RESIDUAL, Cells, ConceptFacts, Kind, LayerAccount, Node, node_id
from ierf.graph.hierarchy import Hierarchy, LayerPair
from ierf.graph.picture.drawing import jpeg

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank, LayerConcepts

EXEMPLARS = 4
"""Pictures of a group."""
_CLASSES = 6
_MEMORY = 1 << 30
"""Bytes of encoded photographs that are kept; those of more are encoded again for each pair of layers."""


class Album:
    """Photographs of one graph with their layers written in concepts, to be looked at again and again."""

    def __init__(self, work: Attributor, photographs: OpenedPhotographs, refit: bool, own: int) -> None:
        self._work, self.photographs, self._refit, self._own = work, photographs, refit, own
        self._kept: dict[int, EncodedPhotograph] = {}
        self._room = _MEMORY

    def __len__(self) -> int:
        return len(self.photographs)

    def __iter__(self) -> Iterator[EncodedPhotograph]:
        for i in range(len(self)):
            yield self._kept[i] if i in self._kept else self._encoded(i)

    def _encoded(self, i: int) -> EncodedPhotograph:
        work = self._work
        work.progress.begin(f"coefficients of {len(work.layers)} layers")
        x = self.photographs.x(i)
        found = x, encode(work.model, work.bank, x, work.layers, self._refit, self._own)
        need = sum(layer.bytes for layer in found[1].values())
        if need <= self._room:
            self._room -= need
            self._kept[i] = found
        return found


@dataclass(frozen=True)
class GroupSettings:
    """How a graph of groups is made."""

    budget: int
    refit: bool
    steps: int
    most_steps: int
    draws: int
    seed: int


def group_graphs(
    work: Attributor, sources: Sequence[OpenedPhotographs], settings: GroupSettings, pictures: bool
) -> list[ConceptGraph]:
    """A graph of each source, all with the same groups."""
    alone = len(sources) == 1 and len(sources[0]) == 1
    albums = [Album(work, source, settings.refit, OWN if alone else 0) for source in sources]
    found = GroupFlow(work, settings.budget, settings.draws, settings.seed).rows(albums)
    return [_graph(work, album, rows, settings, pictures) for album, rows in zip(albums, found, strict=True)]


def _graph(
    work: Attributor, album: Album, rows: dict[str, GroupRow], settings: GroupSettings, pictures: bool
) -> ConceptGraph:
    single = next(iter(album)) if len(album) == 1 else None
    classes = _class_nodes(work, album, rows)
    layers = tuple(reversed(work.layers))
    below = {layer: rows[lower] for layer, lower in pairwise(layers)}
    nodes = {layer: list(_nodes(layer, rows[layer], below.get(layer))) for layer in layers}
    residuals = [_residual(layer, rows[layer], single[1][layer] if single and pictures else None) for layer in layers]
    targets = [classes, *(nodes[layer] for layer in layers)]
    pairs = [
        _pair(layer, rows[layer], nodes[layer], above, single[1][layer] if single else None)
        for layer, above in zip(layers, targets, strict=False)
    ]
    if pictures:
        for layer in layers:
            work.progress.begin(f"pictures of {layer}")
            nodes[layer] = _with_pictures(work, layer, rows[layer], nodes[layer], single)
    whole = ConceptGraph(
        model=work.model.name,
        photo=album.photographs.name,
        photographs=len(album),
        layers=work.layers,
        nodes=(*classes, *residuals),
        edges=(),
        accounts=tuple(_account(layer, rows[layer]) for layer in work.layers),
        settings={
            "nodes": "groups",
            **asdict(settings),
            "method": "ig",
            "extractor": work.bank.plan.extractor,
            "lam": {layer: work.bank.layer(layer).lam for layer in work.layers},
            "patches_only": patches_only(work.bank, work.layers),
            "trees": {layer: work.bank.layer(layer).hierarchy.made_by for layer in work.layers},
        },
        view=album.photographs.view,
        hierarchy=Hierarchy(tuple(chain.from_iterable(nodes[layer] for layer in layers)), tuple(pairs)),
    )
    return whole.cut(settings.budget)


def _class_nodes(work: Attributor, album: Album, rows: dict[str, GroupRow]) -> list[Node]:
    """One for each class, with its mean logit and probability."""
    with torch.no_grad():
        logits = torch.stack([work.model(x)[0].cpu().double() for x, _ in album])
    chances, mean, ends = logits.softmax(1).mean(0), logits.mean(0), rows[work.layers[-1]].means.ends
    return [
        Node(
            LOGITS,
            "class",
            c,
            work.model.label(c),
            tuple(float(mean[c]) if other == c else 0.0 for other in work.classes),
            float(chances[c]),
            score=(float(ends[0, i]), float(ends[1, i])),
        )
        for i, c in enumerate(work.classes)
    ]


def _nodes(layer: str, row: GroupRow, below: GroupRow | None) -> Iterator[Node]:
    """The nodes of all levels, a group before its halves; `below` has what they are worth as targets."""
    groups, means = row.groups, row.means
    lengths, prefix = (
        groups.table @ groups.summed(part[:, None])[:, 0] for part in (means.lengths, means.prefix_lengths)
    )
    sizes = means.values[:, -row.importance.shape[1] :].abs().sum(1)
    names = _names(layer, groups)
    scores = None if below is None else below.scores
    for i, (members, (kind, index, parent, opens)) in enumerate(zip(groups.nodes, names, strict=True)):
        yield Node(
            layer,
            kind,
            index,
            _label(kind, index, len(members)),
            tuple(row.importance[i].tolist()),
            float(lengths[i]),
            prefix_share=float((prefix[i] / lengths[i]).clamp(0, 1)) if lengths[i] > 0 else 0.0,
            members=tuple(sorted(members, key=lambda k: -float(sizes[k]))) if kind == "group" else (),
            effects=tuple(row.effects[i].tolist()),
            score=None if scores is None else (float(scores[0, i]), float(scores[1, i])),
            parent=parent,
            opens=opens,
        )


def _names(layer: str, groups: Groups) -> list[tuple[Kind, int, str, int]]:
    """Kind, index, the parent's id, and the budget at which it opens, of all nodes."""
    if groups.cut is None:
        return [("own", e, "", 0) for e in range(groups.own)]
    members = groups.cut.members
    named: dict[int, tuple[Kind, int]] = {
        node: ("concept", below[0]) if len(below) == 1 else ("group", node) for node, below in members.items()
    }
    parents = {half: split.node for split in groups.cut.splits for half in split.halves}
    opens = {split.node: i + 2 for i, split in enumerate(groups.cut.splits)}
    found: list[tuple[Kind, int, str, int]] = []
    for node in (*opens, *groups.cut.finest):
        kind, index = named[node]
        parent = node_id(layer, parents[node], "group") if node in parents else ""
        found.append((kind, index, parent, opens.get(node, 0)))
    return [*found, *(("own", e, "", 0) for e in range(groups.own))]


def _label(kind: Kind, index: int, members: int) -> str:
    return {"group": f"{members} concepts", "own": f"own direction {index + 1}"}.get(kind, f"#{index}")


def _residual(layer: str, row: GroupRow, encoded: EncodedLayer | None) -> Node:
    node = Node(layer, "residual", RESIDUAL, "residual", tuple(row.importance[-1].tolist()), row.means.residual_share)
    if encoded is None:
        return node
    return replace(node, map=Cells.of(encoded.on_map((encoded.pfvs - encoded.made.full).norm(dim=1))))


def _pair(
    layer: str, row: GroupRow, sources: Sequence[Node], targets: Sequence[Node], single: EncodedLayer | None
) -> LayerPair:
    maps: tuple[tuple[Cells, ...], ...] = ()
    if row.maps is not None and single is not None:
        maps = tuple(
            tuple(Cells.of(single.on_map(of_edge), EDGE_MAP_SIDE) for of_edge in of_source) for of_source in row.maps
        )
    values = torch.cat([row.values, row.residual[None]])
    return LayerPair(
        (*(node.id for node in sources), node_id(layer, RESIDUAL)),
        tuple(node.id for node in targets),
        _table(values),
        () if row.p_values is None else _table(row.p_values),
        maps,
    )


def _table(values: Float[Tensor, "N T"]) -> tuple[tuple[float, ...], ...]:
    """Numbers with the digits that float32 has."""
    return tuple(tuple(float(f"{value:.8g}") for value in row) for row in values.tolist())


def _account(layer: str, row: GroupRow) -> LayerAccount:
    """Shares of the flow come when the graph is cut."""
    means, classes = row.means, row.importance.shape[1]
    return LayerAccount(
        layer=layer,
        concepts=row.groups.n_concepts,
        active=means.active,
        l0=means.l0,
        residual_share=means.residual_share,
        kkt=means.kkt,
        completeness_error=means.completeness_error,
        logits=tuple(means.logits.tolist()),
        score_kept=(1.0,) * classes,
        influence_kept=0.0,
        influence_residual=0.0,
        score_held=tuple(means.held.tolist()),
    )


def _with_pictures(
    work: Attributor, layer: str, row: GroupRow, nodes: Sequence[Node], single: EncodedPhotograph | None
) -> list[Node]:
    """The nodes with exemplars, what is known of their concepts and, of a single photograph, their places on it."""
    concepts, groups = work.bank.layer(layer), row.groups
    vectors = _vectors(concepts, row)
    exemplars = _exemplars(work.bank, concepts, vectors, groups.nodes)
    shares = {k: concepts.class_shares.of(k) for node in groups.finest for k in node if k < len(concepts)}
    found = [
        replace(node, exemplars=pictures, facts=_facts(work.bank, concepts, members, row, shares))
        for node, pictures, members in zip(nodes, exemplars, groups.nodes, strict=True)
    ]
    if single is None or not found:
        return found
    x, encoded = single[0], single[1][layer]
    centred = encoded.pfvs - encoded.made.shift
    length = centred.norm(dim=1, keepdim=True)
    fine = torch.einsum("fpc,pc->fp", groups.parts(encoded), centred / length.where(length > 0, 1))
    table = groups.table.to(fine)
    ierfs = coefficient_ierfs(work.model, x, encoded, fine)
    maps, pixels = table @ fine, (groups.table.to(ierfs) @ ierfs.flatten(1)).view(len(nodes), *ierfs.shape[1:])
    return [
        replace(node, map=Cells.of(encoded.on_map(of_node)), ierf=Cells.of(ierf))
        for node, of_node, ierf in zip(found, maps, pixels, strict=True)
    ]


def _vectors(concepts: "LayerConcepts", row: GroupRow) -> Float[Tensor, "N C"]:
    """`Σ_p Σ_{k∈g} u_pk v_k` of the nodes: what the group is here."""
    count = len(concepts)
    own = row.means.coefficients[:count, None] * concepts.atoms.cpu().double()
    table = membership([[k for k in node if k < count] for node in row.groups.nodes], torch.arange(count))
    return (table.double() @ own).float()


def _exemplars(
    bank: "ConceptBank", concepts: "LayerConcepts", vectors: Float[Tensor, "N C"], nodes: Sequence[Sequence[int]]
) -> list[tuple[bytes, ...]]:
    """The parts of photographs whose PFVs point most nearly where each vector points; without the store, the bank's
    pictures of the members in turn; none where there are none."""
    with suppress(IerfError):
        store = bank.store
        rows = store.layer(concepts.name).nearest(vectors, EXEMPLARS, concepts.shift).rows
        pictures = dict(crops(store, concepts.name, rows.flatten().tolist()))
        files = [jpeg(pictures[i]) for i in range(rows.numel())]
        return [
            tuple(files[i * rows.shape[1] : (i + 1) * rows.shape[1]]) if min(node) < len(concepts) else ()
            for i, node in enumerate(nodes)
        ]
    with suppress(IerfError):
        known = [[k for k in node if k < len(concepts)][:EXEMPLARS] for node in nodes]
        used = sorted({k for some in known for k in some})
        of_concept = dict(zip(used, bank.pictures(concepts.name, used, EXEMPLARS), strict=True))
        return [
            tuple(jpeg(of_concept[k][i]) for i in range(EXEMPLARS) for k in some if i < len(of_concept[k]))[:EXEMPLARS]
            for some in known
        ]
    return [()] * len(nodes)


def _facts(
    bank: "ConceptBank",
    concepts: "LayerConcepts",
    members: Sequence[int],
    row: GroupRow,
    of_classes: Mapping[int, Mapping[int, float]],
) -> ConceptFacts | None:
    """What the bank knows of a group's concepts, by what each adds here; None for an own direction."""
    known = [k for k in members if k < len(concepts)]
    if not known:
        return None
    if len(known) == 1:
        return concept_facts(bank, concepts.name, known[0])
    weights = row.means.lengths[known].abs()
    weights = weights / weights.sum().clamp_min(1e-30)
    classes: dict[int, float] = {}
    for k, weight in zip(known, weights.tolist(), strict=True):
        for label, share in of_classes[k].items():
            classes[label] = classes.get(label, 0.0) + weight * share
    shares = sorted(classes.items(), key=lambda item: -item[1])[:_CLASSES]
    return ConceptFacts(
        frequency=float(weights @ concepts.frequencies[known].to(weights)),
        strength=float(weights @ concepts.strengths[known].to(weights)),
        relevance=float(concepts.relevances[known].sum()),
        classes=tuple((bank.label(label), share) for label, share in shares),
        nearest=(),
        cosines=(),
    )
