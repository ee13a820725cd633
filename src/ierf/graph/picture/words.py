"""What a concept graph says of itself, in plain sentences."""

from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.edge import SIGNIFICANT
from ierf.graph.structure.node import Node

_LEAST_SHARE = 0.01


def percent(share: float) -> str:
    """ "12 %", "0.4 %", "< 0.1 %"."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0095 or not share else f"{100 * share:.1f} %"


def off_the_map(node: Node) -> str:
    """ "83 % prefix tokens": how much of a node no map can show; empty where that is less than 1 %."""
    return f"{percent(node.prefix_share)} prefix tokens" if node.prefix_share >= _LEAST_SHARE else ""


def left_out(graph: ConceptGraph) -> list[str]:
    """What the graph does not show, with its numbers."""
    said = _without_concepts(graph)
    if graph.layers:
        last, shown = graph.account(graph.layers[0]), [min(a.score_kept) for a in graph.accounts]
        least, most = percent(min(shown)), percent(max(shown))
        said.append(
            f"The shown concepts of a layer hold {least if least == most else f'{least} to {most}'} of what all of its "
            "concepts add to or take from a class."
        )
        said.append(
            f"Followed edge by edge from the classes down to {last.layer}, {percent(last.influence_kept)} of the score "
            "is left: the rest went to concepts that are not shown, to weak edges and to residuals on the way."
        )
        worst = max(graph.accounts, key=lambda account: account.residual_share)
        said.append(
            f"The concepts miss up to {percent(worst.residual_share)} of a layer ({worst.layer}): the residual nodes."
        )
        errors = max(account.completeness_error for account in graph.accounts)
        said.append(
            f"Attributions add up to the scores within {errors:.2g} of the score; the codes’ KKT residual is at most "
            f"{max(account.kkt for account in graph.accounts):.1g} λ."
        )
    keep = graph.settings.get("keep", 1)
    if keep < 1:
        said.append(
            f"Of the edges between two layers only the strongest, which carry {percent(keep)} of the flow there, are "
            "in this file; a graph that is built with keep=1 has all."
        )
    if graph.settings.get("patches_only", False):
        said.append(
            "Concepts were found in patches alone and may fit the class token badly; with `ierf collect "
            "--prefix-tokens` they are found in it too."
        )
    tested = [edge for edge in graph.edges if edge.p_value is not None]
    if tested:
        doubtful = sum((edge.p_value or 0) > SIGNIFICANT for edge in tested)
        said.append(
            f"{doubtful} of {len(tested)} edges are no stronger than those of concepts drawn at random "
            f"(p > {SIGNIFICANT}); they are dashed."
        )
    return said


def _without_concepts(graph: ConceptGraph) -> list[str]:
    """Why layers show no concept, and what helps; nothing where all show some."""
    empty = [a for a in graph.accounts if not any(node.kind == "concept" for node in graph.row(a.layer))]
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
