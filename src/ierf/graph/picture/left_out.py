"""What a concept graph does not show and how far its claims can be trusted, in sentences."""

from collections.abc import Sequence

from ierf.graph.concept_graph import ConceptGraph
from ierf.graph.elements import SIGNIFICANT, LayerAccount, Node
from ierf.graph.picture.drawing import percent

_ALL = "a graph that is built with keep=1 has all"
_HELD = (0.9, 1.1)
"""A layer whose parts of a class sum to this part of what it gained stays within what a reader would round away."""
_TREES = {
    "bisecting": "of splits that bisecting k-means has left",
    "cosine and co-firing": "that clusters concepts by cosine and by what fires together",
    "cosine": "that clusters concepts by cosine",
}


def left_out(graph: ConceptGraph) -> list[str]:
    """What the graph does not show, with its numbers."""
    of_groups = graph.hierarchy is not None
    said = _without_concepts(graph)
    if graph.layers:
        said += _of_groups(graph) if of_groups else _of_concepts(graph)
    keep = graph.settings.get("keep", 1)
    if keep < 1:
        whole = "opening a group, or setting how many are in a row, shows all" if of_groups else _ALL
        said.append(
            f"Of the edges between two layers only the strongest, which carry {percent(keep)} of the flow there, are "
            f"{'drawn at first' if of_groups else 'in this file'}; {whole}."
        )
    if graph.settings.get("patches_only", False):
        said.append(
            "Concepts were found in patches alone and may fit the class token badly; with `ierf collect "
            "--prefix-tokens` they are found in it too."
        )
    return [*said, *_doubtful(graph), *_errors(graph)]


def _of_concepts(graph: ConceptGraph) -> list[str]:
    last, shown = graph.account(graph.layers[0]), [min(a.score_kept) for a in graph.accounts]
    least, most = percent(min(shown)), percent(max(shown))
    worst = _worst(graph)
    return [
        f"The shown concepts of a layer hold {least if least == most else f'{least} to {most}'} of what all of its "
        "concepts add to or take from a class.",
        f"Followed edge by edge from the classes down to {last.layer}, {percent(last.influence_kept)} of the score "
        "is left: the rest went to concepts that are not shown, to weak edges and to residuals on the way.",
        f"The concepts miss up to {percent(worst.residual_share)} of a layer ({worst.layer}): the residual nodes.",
    ]


def _of_groups(graph: ConceptGraph) -> list[str]:
    last, worst = graph.account(graph.layers[0]), _worst(graph)
    whole = graph.settings.get("keep", 1) >= 1
    most = max(graph.accounts, key=lambda account: account.influence_residual)
    rest = "residuals" if whole else "residuals and weak edges"
    here = "this picture" if graph.photographs == 1 else "these photographs"
    grain = (
        f"The groups of a layer hold all of its concepts that are in {here}, so nothing is left out but the residual: "
        "what is coarse is the grain, and a group opens."
    )
    return [
        *([grain] if whole else []),
        f"Followed edge by edge from the classes down to {last.layer}, {percent(last.influence_kept)} of the score "
        f"arrives; the rest went to {rest} on the way, most at {most.layer} ({percent(most.influence_residual)}).",
        f"The concepts miss up to {percent(worst.residual_share)} of a layer’s length ({worst.layer}), which is not "
        "the same as of a score: much of it speaks for no class.",
        *_tree(graph),
        *_effects(graph),
        *_held(graph),
    ]


def _worst(graph: ConceptGraph) -> LayerAccount:
    return max(graph.accounts, key=lambda account: account.residual_share)


def _tree(graph: ConceptGraph) -> list[str]:
    """Where the groups come from."""
    layers: dict[str, list[str]] = {}
    for layer, made_by in graph.settings.get("trees", {}).items():
        layers.setdefault(_TREES.get(made_by, f"made by {made_by}"), []).append(layer)
    if len(layers) == 1:
        return [f"Groups are subtrees of the tree {next(iter(layers))}."]
    return [f"The groups of {', '.join(some)} are subtrees of the tree {how}." for how, some in layers.items()]


def _effects(graph: ConceptGraph) -> list[str]:
    """Of the claims whose effects were tried, how many have its sign; what a claim is and is not."""
    tried = [
        (claim, effect)
        for node in graph.nodes
        if node.effects and node.kind not in ("class", "residual")
        for claim, effect in zip(node.importance, node.effects, strict=True)
    ]
    if not tried:
        return ["What a group adds to a class is a claim of attribution; `ierf graph --interventions` tries it."]
    agree = sum(claim * effect > 0 for claim, effect in tried)
    return [
        "What a group adds to a class is a claim of attribution; what the class loses when the group is taken out of "
        f"its layer was tried: {agree} of {len(tried)} claims have the sign of their effect. Effects of several groups "
        "do not add up, as the network is not linear."
    ]


def _held(graph: ConceptGraph) -> list[str]:
    """Layers whose parts do not sum to what the class gained before they were scaled to."""
    far = [
        f"{account.layer} ({', '.join(_times(graph.classes, account))})"
        for account in reversed(graph.accounts)
        if any(not _HELD[0] <= held <= _HELD[1] for held in account.score_held)
    ]
    if not far:
        return []
    return [
        "Each layer begins from its own mean, so what the slopes of the layer above hand down misses the change of a "
        f"logit: at {'; '.join(far)}. Claims there are scaled to sum to the change where it is missed by less than a "
        "factor of four, else made smaller; their order is worth more than their size."
    ]


def _times(classes: Sequence[Node], account: LayerAccount) -> list[str]:
    return [f"{held:.2f} × {node.label}" for node, held in zip(classes, account.score_held, strict=True)]


def _errors(graph: ConceptGraph) -> list[str]:
    if not graph.accounts:
        return []
    errors = max(account.completeness_error for account in graph.accounts)
    return [
        f"Attributions add up to the scores within {errors:.2g} of the score; the codes’ KKT residual is at most "
        f"{max(account.kkt for account in graph.accounts):.1g} λ."
    ]


def _doubtful(graph: ConceptGraph) -> list[str]:
    """How many edges chance makes as strong."""
    tested = [edge for edge in graph.edges if edge.p_value is not None]
    if not tested:
        return []
    doubtful = sum((edge.p_value or 0) > SIGNIFICANT for edge in tested)
    others = "groups" if graph.hierarchy is not None else "concepts"
    return [
        f"{doubtful} of {len(tested)} edges are no stronger than those of {others} drawn at random "
        f"(p > {SIGNIFICANT}); they are dashed."
    ]


def _without_concepts(graph: ConceptGraph) -> list[str]:
    """Why layers show no concept, and what helps; nothing where all show some."""
    empty = [a for a in graph.accounts if all(node.kind in ("residual", "own") for node in graph.row(a.layer))]
    silent, found = [a.layer for a in empty if not a.active], [a.layer for a in empty if a.active]
    said = []
    if silent:
        said.append(
            f"No concept of {', '.join(silent)} is in a PFV here, so only residuals are shown: its λ leaves no "
            "coefficient, as that of a bank with few concepts does; fit the bank with a smaller l0_ratio "
            "(--l0-ratio), or to more photographs."
        )
    if found:
        said.append(
            f"The concepts of {', '.join(found)} that are in this picture speak for none of the classes, so none is "
            "shown; ask for other classes, or fit the bank to more photographs."
        )
    return said
