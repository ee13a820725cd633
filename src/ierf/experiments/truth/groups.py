"""Groups of concepts against the truth: what each node of a tree stands for, and what it adds to the classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ierf.concepts import ConceptTree, lasso, refit
from ierf.experiments.truth.concepts import average_precisions
from ierf.graph import icat
from ierf.graph.building.tree_cut import cut_tree, membership
from ierf.model import VisionModel

GROUPS = "groups"
"""The row of groups, `ig` for the sums over their members."""
BUDGET = 13
"""Groups of a scene, as many as a graph has in a row."""


@dataclass(frozen=True, eq=False)
class Grouping:
    """A tree over a layer's concepts, and PFVs of scenes that were trained on, which say what groups fire for."""

    tree: ConceptTree
    codes: Float[Tensor, "N K"]
    """Refitted."""
    on: Bool[Tensor, "N G"]
    """Whether the PFV is on each part."""

    def precisions(self, groups: Sequence[Sequence[int]]) -> Float[Tensor, "F G"]:
        """Average precision of `Σ_{k∈g} u_pk` as a detector of each part."""
        return average_precisions(self.codes @ membership(groups, torch.arange(self.codes.shape[1])).T, self.on)


@dataclass(frozen=True, eq=False)
class GroupEdges:
    """From the groups of one scene to classes."""

    members: list[tuple[int, ...]]
    """The active concepts of each group."""
    values: Float[Tensor, "F T"]
    """`Σ_{k∈g} Σ_p AT(u_pk, logit_t)`."""
    by_position: Float[Tensor, "T P"]
    """What all of them add at each position."""


def refitted(pfvs: Float[Tensor, "P C"], atoms: Float[Tensor, "K C"], lam: float) -> Float[Tensor, "P K"]:
    """Codes of shifted PFVs: least squares on the concepts that the Lasso chose."""
    return refit(pfvs, atoms, lasso(pfvs, atoms, lam)).codes


def group_edges(
    model: VisionModel,
    x: Float[Tensor, "1 3 H W"],
    layer: str,
    pfvs: Float[Tensor, "P C"],
    grouping: Grouping,
    atoms: Float[Tensor, "K C"],
    shift: Float[Tensor, " C"],
    lam: float,
    classes: Sequence[int],
) -> GroupEdges:
    """As a graph of groups has them: refitted codes, X itself scaled from its shift on, with what no concept covers;
    the cut of the tree that shows most for these classes."""
    codes = refitted(pfvs - shift, atoms, lam)
    residual = pfvs - shift - codes @ atoms
    edges = icat(
        model,
        x,
        layer,
        source_atoms=torch.cat([atoms, torch.eye(len(shift)).to(atoms)]),
        source_codes=torch.cat([codes, residual], 1),
        source_shift=shift,
        classes=list(classes),
    )
    values = edges.values[: len(atoms)].detach().cpu()
    active = codes.any(0).nonzero()[:, 0].cpu()
    cut = cut_tree(grouping.tree, active, values.T, BUDGET)
    members = [cut.members[node] for node in cut.groups(BUDGET)]
    table = membership(members, torch.arange(len(atoms))).to(values)
    return GroupEdges(members, table @ values, edges.by_position[: len(atoms)].detach().sum(0).cpu())
