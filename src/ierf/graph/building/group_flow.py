"""A graph of groups of concepts that hold the whole score: one pass from the classes down, a pair of layers at a time.

Attributions of coefficients add up, so a group is a node: `AT(g) = Σ_{k∈g} Σ_p AT(u_pk)`. At each pair of layers the
targets are the groups of the upper layer and, for each class, its logit as slopes that the pair above found (`Relay`).
All of the lower layer's concepts are attributed at once; then its tree is cut into groups by what they add to the
classes, so that a graph costs its pairs of layers, whatever the depth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ierf.graph.building.encoding import EncodedLayer
from ierf.graph.building.layer_attribution import Attributor, EncodedPhotograph
from ierf.graph.building.layer_edges import drawn_values, p_values_of_groups, random_groups
from ierf.graph.building.tree_cut import TreeCut, cut_tree, membership
from ierf.graph.influence.layer_objective import Attribution, LayerObjective
from ierf.graph.influence.scores import GroupAlignment, Logits, Relay, Score, Together

OWN = 3
"""Directions of a residual that become concepts of the photograph."""
OPENS = 0.1
"""A residual that holds more of the flow than this is opened: its own directions become nodes."""
TESTED = 16
"""Photographs, the first of several, on which edges are tested against random groups."""
_MOST_SCALED = 4
FINER = 1.5
"""The file holds the cut into so many times the budget, to be opened on the page."""


@dataclass(frozen=True)
class Groups:
    """The nodes of one layer: the groups of a cut and, where they are shown, directions of the residual."""

    cut: TreeCut | None
    """None for a layer without an active concept."""
    n_concepts: int
    own: int
    """How many own directions are nodes."""
    budget: int
    """Groups that are drawn."""

    @cached_property
    def finest(self) -> list[tuple[int, ...]]:
        """The members of each node of the finest cut, own directions last."""
        groups = [] if self.cut is None else [self.cut.members[node] for node in self.cut.finest]
        return [*groups, *((self.n_concepts + e,) for e in range(self.own))]

    @cached_property
    def nodes(self) -> list[tuple[int, ...]]:
        """The members of each node at every level: inner groups first, from the root on, then the finest."""
        inner = [] if self.cut is None else [self.cut.members[split.node] for split in self.cut.splits]
        return [*inner, *self.finest]

    @cached_property
    def drawn(self) -> list[bool]:
        """Whether each of the nodes is drawn."""
        some = set() if self.cut is None else {self.cut.members[node] for node in self.cut.groups(self.budget)}
        return [node in some or min(node) >= self.n_concepts for node in self.nodes]

    @cached_property
    def table(self) -> Float[Tensor, "N F"]:
        """1 where a node of the finest cut is part of a node."""
        rows = [[float(set(fine) <= set(node)) for fine in self.finest] for node in self.nodes]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(self.nodes), len(self.finest))

    def parts(self, of_layer: EncodedLayer) -> Float[Tensor, "F P C"]:
        """`Σ_{k∈g} u_pk v_k` of each of the finest nodes."""
        x = of_layer.whole
        found: Tensor = (self._membership(x.active).to(x.codes)[:, None] * x.codes) @ x.atoms
        return found

    def directions(self, of_layer: EncodedLayer) -> Float[Tensor, "F P C"]:
        """`Σ_{k∈g} u_pk v_k / ‖v_k‖`, what a group is as a target."""
        x = of_layer.whole
        found: Tensor = (self._membership(x.active).to(x.codes)[:, None] * x.codes) @ normalize(x.atoms, dim=1)
        return found

    def summed(self, of_concepts: Float[Tensor, "K T"]) -> Float[Tensor, "F T"]:
        """Sums over the members of the finest nodes."""
        summed: Tensor = membership(self.finest, torch.arange(len(of_concepts))).to(of_concepts) @ of_concepts
        return summed

    def _membership(self, active: Int[Tensor, " A"]) -> Float[Tensor, "F A"]:
        return membership(self.finest, active)


@dataclass(eq=False)
class LayerMeans:
    """One layer, and what its concepts add to the targets above; means over photographs, where not said otherwise.

    Concepts are those of the dictionary; behind them stand, of a single photograph, own directions of the residual, and
    the rest of the residual (`EncodedLayer.whole`).
    """

    values: Float[Tensor, "K+E+1 T"]
    """`Σ_p AT(u_pk, S_t)` for the groups of the layer above, then the classes."""
    ends: Float[Tensor, "2 T"]
    """`S(shift)` and `S(X)`; of the classes the logits themselves."""
    lengths: Float[Tensor, " K+E+1"]
    """`Σ_p ⟨u_pk v_k, x̃_p⟩ / ‖x̃_p‖`, the concept's part of the lengths of the PFVs."""
    prefix_lengths: Float[Tensor, " K+E+1"]
    """The part of `lengths` at tokens in front of the patches."""
    coefficients: Float[Tensor, " K+E+1"]
    """`Σ_p u_pk`."""
    logits: Float[Tensor, " C"]
    """With X̂ in the place of X."""
    held: Float[Tensor, " C"]
    """What concepts and residual add up to before they are scaled, over `logit(X) − logit(shift)`."""
    used: Float[Tensor, " K+E+1"]
    """The share of the photographs in which the concept has a coefficient."""
    active: float
    l0: float
    residual_share: float
    kkt: float
    """The largest."""
    completeness_error: float
    """The largest."""

    def add(self, other: "LayerMeans", share: float) -> None:
        """Another photograph's, which is this share of them all."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            worst = name in ("kkt", "completeness_error")
            setattr(self, name, max(mine, value) if worst else mine * (1 - share) + value * share)


@dataclass(eq=False)
class GroupRow:
    """One layer of one graph: its nodes, what they add to the nodes above, and whether chance would."""

    groups: Groups
    means: LayerMeans
    flow: Float[Tensor, " N"]
    """The share of the classes' scores that reaches the drawn nodes, 0 for the others."""
    values: Float[Tensor, "N T'"]
    """From the nodes of all levels to those of the layer above at all levels; the classes of the top layer."""
    residual: Float[Tensor, " T'"]
    """What the residual adds to these targets, own directions that are no nodes among it."""
    importance: Float[Tensor, "N+1 C"]
    """Of the nodes and of the residual, for the classes."""
    p_values: Float[Tensor, "N T'"] | None
    effects: Float[Tensor, "N C"]
    """By how much the logits of the classes fall when the node is taken out."""
    maps: Float[Tensor, "F T P"] | None
    """Where the finest edges act, of a single photograph."""
    scores: Float[Tensor, "2 T'"]
    """`S(shift)` and `S(X)` of the targets above, at all levels."""


class Source(Protocol):
    """The photographs of one graph, to be gone through again and again."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[EncodedPhotograph]: ...


@dataclass(frozen=True, eq=False)
class GroupFlow:
    """How a graph's layers are attributed and cut."""

    work: Attributor
    budget: int
    draws: int
    seed: int

    def rows(self, sources: Sequence[Source]) -> list[dict[str, GroupRow]]:
        """Of each source the layers of its graph, from the classes down; all sources have the same groups."""
        relays: list[list[Float[Tensor, "C P D"] | None]] = [[None] * len(source) for source in sources]
        found: list[dict[str, GroupRow]] = [{} for _ in sources]
        above: str | None = None
        for layer in reversed(self.work.layers):
            upper = None if above is None else [rows[above].groups for rows in found]
            passes = [
                self._attributed(source, layer, above, None if upper is None else upper[i], relays[i])
                for i, source in enumerate(sources)
            ]
            cut = self._cut(layer, [means for means, _ in passes])
            for rows, source, (means, slopes) in zip(found, sources, passes, strict=True):
                rows[layer] = self._row(source, layer, cut, means, slopes, None if above is None else rows[above])
            above = layer
        return found

    def _attributed(
        self,
        source: Source,
        layer: str,
        above: str | None,
        upper: Groups | None,
        relays: list[Float[Tensor, "C P D"] | None],
    ) -> tuple[LayerMeans, list[Float[Tensor, "T P D"]]]:
        """Means over the photographs, and the slopes of the first few. Leaves slopes for the classes in `relays`."""
        classes = len(self.work.classes)
        means: LayerMeans | None = None
        kept = []
        for i, (_, layers) in enumerate(source):
            self.work.progress.begin(f"edges from {layer} to {above or 'the classes'}")
            here = layers[layer]
            score: Score = Logits(self.work.classes)
            if above is not None:
                assert upper is not None
                b, relay = layers[above], relays[i]
                assert relay is not None
                score = Together([GroupAlignment(upper.directions(b), b.made.shift), Relay(relay, b.made.shift)])
            found = self.work.of_whole(here, above, score)
            assert found.slopes is not None
            own, scale = self._means(here, found)
            relays[i] = found.slopes[-classes:] * scale[:, None, None]
            if i < TESTED:
                kept.append(found.slopes[:-classes] if above is not None else found.slopes)
            if means is None:
                means = own
            else:
                means.add(own, 1 / (i + 1))
        assert means is not None
        return means, kept

    def _means(self, here: EncodedLayer, found: Attribution) -> tuple[LayerMeans, Float[Tensor, " C"]]:
        """Of one photograph, and by how much the classes' slopes were scaled, see `scales`."""
        x, made = here.whole, here.made
        centred = here.pfvs - made.shift
        length = centred.norm(dim=1, keepdim=True)
        along = x.codes * ((centred / length.where(length > 0, 1)) @ x.atoms.T)
        objective = LayerObjective(self.work.section(here.concepts.name, None), Logits(self.work.classes))
        points = torch.stack([made.shift.expand_as(here.pfvs), here.pfvs, made.full])
        *logits, with_concepts = objective.values(points)
        classes = len(self.work.classes)
        handed, change = found.values[-classes:].sum(1), logits[1] - logits[0]
        scale = scales(handed, change)
        values, ends = found.values.clone(), torch.stack([found.start, found.end])
        values[-classes:] *= scale[:, None]
        ends[:, -classes:] = torch.stack(logits)
        means = LayerMeans(
            values=_double(x.spread(values.T)),
            ends=_double(ends),
            lengths=_double(x.spread(along.sum(0))),
            prefix_lengths=_double(x.spread(along[: here.concepts.prefix_tokens or 0].sum(0))),
            coefficients=_double(x.spread(x.codes.sum(0))),
            logits=_double(with_concepts),
            held=_double(torch.where(change != 0, handed / change, 1)),
            used=_double(x.spread(torch.ones_like(x.codes[0]))),
            active=float(len(made.active)),
            l0=here.l0,
            residual_share=here.residual_share,
            kkt=here.kkt,
            completeness_error=float(found.completeness_error.max()),
        )
        return means, scale

    def _cut(self, layer: str, means: Sequence[LayerMeans]) -> TreeCut | None:
        """One cut for all sources, by what concepts add to the classes of any."""
        concepts = self.work.bank.layer(layer)
        count, classes = len(concepts), len(self.work.classes)
        active = torch.stack([m.used[:count] for m in means]).amax(0).nonzero()[:, 0]
        if not len(active):
            return None
        relevance = torch.cat([m.values[:count, -classes:].T for m in means])
        return cut_tree(concepts.hierarchy, active, relevance, ceil(FINER * self.budget))

    def _row(
        self,
        source: Source,
        layer: str,
        cut: TreeCut | None,
        means: LayerMeans,
        slopes: Sequence[Float[Tensor, "T P D"]],
        above: GroupRow | None,
    ) -> GroupRow:
        count, classes = len(self.work.bank.layer(layer)), len(self.work.classes)
        own, rest = means.values[count:-1], means.values[-1]
        if above is None:
            to_nodes, flow = torch.eye(classes, dtype=torch.float64), torch.full((classes,), 1 / classes).double()
        else:
            to_nodes, flow = above.groups.table, above.flow
        fine_targets, of_classes = slice(to_nodes.shape[1]), slice(-classes, None)

        def values(groups: Groups) -> Float[Tensor, "N+1 T'"]:
            """From the nodes of all levels, and the residual, to those above."""
            residual = rest if groups.own else rest + own.sum(0)
            rows = torch.cat([groups.table @ groups.summed(means.values), residual[None]])
            return rows[:, fine_targets] @ to_nodes.T

        groups = Groups(cut, count, 0, self.budget)
        if float(_flow(values(groups), groups, flow)[-1]) > OPENS:
            groups = Groups(cut, count, len(own), self.budget)
        residual = rest if groups.own else rest + own.sum(0)
        fine, all_values = groups.summed(means.values), values(groups)
        return GroupRow(
            groups,
            means,
            flow=_flow(all_values, groups, flow)[:-1],
            values=all_values[:-1],
            residual=all_values[-1],
            importance=torch.cat([groups.table @ fine[:, of_classes], residual[None, of_classes]]),
            p_values=self._p_values(source, layer, groups, fine[:, fine_targets], slopes, to_nodes),
            effects=self._effects(source, layer, groups),
            maps=self._maps(source, layer, groups, slopes) if self.work.mapped else None,
            scores=means.ends[:, fine_targets] @ to_nodes.T,
        )

    def _p_values(
        self,
        source: Source,
        layer: str,
        groups: Groups,
        fine: Float[Tensor, "F T"],
        slopes: Sequence[Float[Tensor, "T P D"]],
        targets: Float[Tensor, "T' T"],
    ) -> Float[Tensor, "N T'"] | None:
        """Of all nodes but own directions, which no dictionary has others of: theirs are 1."""
        if groups.cut is None or not self.draws:
            return None
        concepts = self.work.bank.layer(layer)
        members = [groups.cut.members[node] for node in groups.cut.finest]
        random = random_groups(concepts.hierarchy, groups.cut.finest, members, self.draws, self.seed)
        if not all(map(len, random)):
            return None
        atoms = concepts.atoms
        drawn = torch.zeros(self.draws, len(groups.finest), fine.shape[1], dtype=torch.float64)
        values = torch.zeros_like(fine)
        for (_, layers), of_photo in zip(source, slopes, strict=False):
            x = layers[layer].whole
            place = {concept: i for i, concept in enumerate(x.active.tolist())}
            sensitivity = torch.einsum("pa,tpc->atc", x.codes, of_photo)
            values += groups.summed(_double(x.spread((sensitivity * x.atoms[:, None]).sum(-1)))) / len(slopes)
            for g, (own, others) in enumerate(zip(members, random, strict=True)):
                here = [i for i, k in enumerate(own) if k in place]
                at = [place[own[i]] for i in here]
                norms = x.atoms[at].norm(dim=1)
                of_group = drawn_values(sensitivity[at], norms, atoms.to(x.atoms), others[:, here])
                drawn[:, g] += _double(of_group) / len(slopes)
        at_all = torch.einsum("nf,dft,st->dns", groups.table, drawn, targets)
        found = p_values_of_groups(groups.table @ values @ targets.T, at_all)
        own_directions = torch.tensor([min(node) >= len(concepts) for node in groups.nodes])
        return found.masked_fill(own_directions[:, None], 1.0)

    def _effects(self, source: Source, layer: str, groups: Groups) -> Float[Tensor, "N C"]:
        """`logit(X) − logit(X − Σ_{k∈g} u_k v_k)`, the mean over photographs."""
        objective = LayerObjective(self.work.section(layer, None), Logits(self.work.classes))
        total = torch.zeros(len(groups.nodes), len(self.work.classes), dtype=torch.float64)
        self.work.progress.begin(f"taking groups out of {layer}")
        for _, layers in source:
            here = layers[layer]
            parts = (groups.table.to(here.pfvs) @ groups.parts(here).flatten(1)).view(len(total), *here.pfvs.shape)
            logits = _double(objective.values(torch.cat([here.pfvs[None], here.pfvs - parts])))
            total += (logits[0] - logits[1:]) / len(source)
        return total

    def _maps(
        self, source: Source, layer: str, groups: Groups, slopes: Sequence[Float[Tensor, "T P D"]]
    ) -> Float[Tensor, "F T P"]:
        """`Σ_{k∈g} u_pk ⟨∫ ∂S_t/∂x_p dα, v_k⟩` of the finest nodes."""
        (_, layers) = next(iter(source))
        return _double(torch.einsum("fpc,tpc->ftp", groups.parts(layers[layer]), slopes[0]))


def _double(values: Tensor) -> Tensor:
    """On the CPU, in a type in which means over photographs lose nothing."""
    return values.detach().cpu().double()


def scales(handed: Float[Tensor, " C"], change: Float[Tensor, " C"]) -> Float[Tensor, " C"]:
    """By what the parts of the classes are multiplied so that they sum to `logit(X) − logit(shift)`.

    Each layer has its own shift to start from, so that what the slopes of the layer above hand down misses the change
    of the logits from here. Where it misses it by more than a factor of four or has the other sign, the change is the
    small difference of large parts; they are made smaller then, by no more than four, and do not sum to it.
    """
    scale = change / handed
    fits = (scale >= 1 / _MOST_SCALED) & (scale <= _MOST_SCALED)
    return torch.where(fits, scale, scale.abs().nan_to_num(1.0).clamp(1 / _MOST_SCALED, 1))


def _flow(values: Float[Tensor, "N+1 T'"], groups: Groups, above: Float[Tensor, " T'"]) -> Float[Tensor, " N+1"]:
    """The flow that reaches each drawn source, the residual last: each target hands its own down by `|value|`."""
    sizes = values.abs() * torch.tensor([*groups.drawn, True])[:, None]
    totals = sizes.sum(0)
    return sizes @ (above / totals.where(totals > 0, 1))
