"""Concept graphs in the JSON of attribution graphs that circuit-tracer writes and Neuronpedia draws.

Fields and ids as in `circuit_tracer/frontend/graph_models.py` of github.com/safety-research/circuit-tracer, schema
version 1. That format was made for words: it has no place for pictures, maps or significance, which are left out.
"""

import re
from typing import Any

from ierf.graph.structure.concept_graph import ConceptGraph
from ierf.graph.structure.node import LOGITS, Node


def to_neuronpedia(graph: ConceptGraph, slug: str | None = None) -> dict[str, Any]:
    """Metadata, nodes and links. The photograph is the only "token"; layers count from 0 at the pixels."""
    ids = {node.id: _id(graph, node) for node in graph.nodes}
    return {
        "metadata": {
            "slug": slug or re.sub(r"[^a-z0-9]+", "-", f"{graph.model} {graph.photo}".lower()).strip("-"),
            "scan": graph.model,
            "transcoder_list": [],
            "prompt_tokens": [graph.photo],
            "prompt": graph.photo,
            "node_threshold": graph.settings.get("keep"),
            "schema_version": 1,
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": [_node(graph, node, ids[node.id]) for node in graph.nodes],
        "links": [{"source": ids[e.source], "target": ids[e.target], "weight": e.value} for e in graph.edges],
    }


def _node(graph: ConceptGraph, node: Node, name: str) -> dict[str, Any]:
    layer = _layer(graph, node)
    kinds = {"class": "logit", "concept": "cross layer transcoder", "residual": "mlp reconstruction error"}
    return {
        "node_id": name,
        "feature": _paired(layer, node.index) if node.kind == "concept" else node.index,
        "layer": str(layer),
        "ctx_idx": 0,
        "feature_type": kinds[node.kind],
        "token_prob": node.activation if node.kind == "class" else 0.0,
        "is_target_logit": node.kind == "class" and node == graph.classes[0],
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{'L' if node.kind == 'class' else layer}_{node.index}-0",
        "clerp": node.label,
        "influence": node.influence,
        "activation": node.activation if node.kind == "concept" else None,
    }


def _id(graph: ConceptGraph, node: Node) -> str:
    return f"{_layer(graph, node)}_{node.index}_0"


def _layer(graph: ConceptGraph, node: Node) -> int:
    return len(graph.layers) + 1 if node.layer == LOGITS else graph.layers.index(node.layer)


def _paired(layer: int, index: int) -> int:
    """Cantor's pairing, by which the format numbers the features of all layers."""
    return (layer + index) * (layer + index + 1) // 2 + index
