"""Whether chance would reach an edge: random concepts for a concept, random groups of its size for a group."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ierf.graph.concept_graph import DRAWS

if TYPE_CHECKING:
    from ierf.concepts import ConceptTree


def random_concepts(atoms: Float[Tensor, "K C"], draws: int = DRAWS, seed: int = 0) -> Float[Tensor, "R C"]:
    """Unit vectors along `draws` atoms of the dictionary, drawn with replacement, each with a random sign.

    Directions of the data, not of the whole space: against uniformly random directions almost any concept looks
    special, as all concepts of a layer share a few directions.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(atoms), (draws,), generator=generator).to(atoms.device)
    signs = torch.randint(2, (draws, 1), generator=generator).to(atoms) * 2 - 1
    return signs * torch.nn.functional.normalize(atoms[drawn], dim=1)


def p_values(
    values: Float[Tensor, "Q T"], sensitivity: Float[Tensor, "Q T C"], norms: Float[Tensor, " Q"], random: Tensor
) -> Float[Tensor, "Q T"]:
    """For each edge `(1 + #{r : |h · r̂_r ‖v_q‖| ≥ |value|}) / (1 + R)`, with the random unit vectors `r̂` (R, C).

    `sensitivity` is `h_qt = Σ_p u_pq ∫ ∂S_t/∂X̂_p dα`, so `value = ⟨h_qt, v_q⟩`: the null puts another concept of the
    same norm in the place of `v_q`, with the same coefficients at the same positions, and leaves the path as it is.
    """
    drawn = (sensitivity @ random.to(sensitivity).T).abs() * norms.to(sensitivity)[:, None, None]
    reached: Int[Tensor, "Q T"] = (drawn >= values.abs()[..., None]).sum(-1)
    return (1 + reached) / (1 + len(random))


def alike(spans: Int[Tensor, "M 2"], node: int) -> Int[Tensor, " N"]:
    """Nodes of a tree apart from this one with half to twice as many leaves; the nearest in size if there are none.

    spans: `ierf.concepts.ConceptTree.spans`.
    """
    start, stop = spans.unbind(1)
    size = stop - start
    apart = (start >= stop[node]) | (stop <= start[node])
    close = apart & (2 * size >= size[node]) & (size <= 2 * size[node])
    if not bool(close.any()):
        away = (size - size[node]).abs().masked_fill(~apart, len(spans))
        close = apart & (away == away.min())
    return close.nonzero()[:, 0]


def random_groups(
    tree: "ConceptTree", nodes: Sequence[int], members: Sequence[Sequence[int]], draws: int, seed: int
) -> list[Int[Tensor, "D m"]]:
    """For each group, `draws` times, a concept in the place of each of its members: all from one random subtree.

    The subtree lies apart from the group's own node and is about as large (`alike`), so that what is drawn
    is a group of its kind. Nothing for a group that is the whole tree.
    """
    generator = torch.Generator().manual_seed(seed)
    found, order, spans = [], tree.order, tree.spans
    for node, own in zip(nodes, members, strict=True):
        others = alike(spans, node)
        if not len(others):
            found.append(order.new_empty(0, len(own)))
            continue
        start, stop = spans[others[torch.randint(len(others), (draws,), generator=generator)]].unbind(1)
        place = start[:, None] + torch.rand(draws, len(own), generator=generator) * (stop - start)[:, None]
        found.append(order[place.long()])
    return found


def drawn_values(
    sensitivity: Float[Tensor, "m T C"],
    norms: Float[Tensor, " m"],
    atoms: Float[Tensor, "K C"],
    drawn: Int[Tensor, "D m"],
) -> Float[Tensor, "D T"]:
    """What an edge would be worth if the drawn concepts, at the lengths of the members, stood in their places.

    `sensitivity` is `h_kt = Σ_p u_pk ∫ ∂S_t/∂x_p dα` of each member, so that the group's value is `Σ_k ⟨h_kt, v_k⟩`.
    """
    directions = F.normalize(atoms[drawn.to(atoms.device)], dim=-1) * norms.to(atoms)[:, None]
    return torch.einsum("mtc,dmc->dt", sensitivity, directions.to(sensitivity))


def p_values_of_groups(values: Float[Tensor, "N T"], drawn: Float[Tensor, "D N T"]) -> Float[Tensor, "N T"]:
    """`(1 + #{d : |drawn| ≥ |value|}) / (1 + D)`."""
    reached: Int[Tensor, "N T"] = (drawn.abs() >= values.abs()).sum(0)
    return (1 + reached) / (1 + len(drawn))
