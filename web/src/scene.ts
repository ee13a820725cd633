/** One or two graphs as one layout: nodes and edges, each as it is in every graph. */

import type { Bytes, Cells, EdgeJson, GraphJson, NodeJson, Payload, SignedMap } from "./data";
import { signedMap } from "./data";
import { graphOf, placesOf, treeOf, type Fold, type Tree } from "./hierarchy";

export const LOGITS = "logits";

export interface SceneNode {
  id: string;
  layer: string;
  kind: NodeJson["kind"];
  index: number;
  label: string;
  /** In each graph; null where it is none of its nodes. */
  versions: (NodeJson | null)[];
}

export interface SceneEdge {
  key: string;
  source: SceneNode;
  target: SceneNode;
  versions: (EdgeJson | null)[];
}

export interface Scene {
  payload: Payload;
  /** As they are drawn: of groups those that are shown. */
  graphs: GraphJson[];
  budget: number;
  folds: readonly Fold[];
  /** What opens, of each graph; null for single concepts. */
  trees: (Tree | null)[];
  bytes: Bytes;
  /** "logits", then layer by layer towards the pixels. */
  layers: string[];
  rows: SceneNode[][];
  nodes: Map<string, SceneNode>;
  edges: SceneEdge[];
  byKey: Map<string, SceneEdge>;
  /** Edges by the id of the node at either end. */
  touching: Map<string, SceneEdge[]>;
  classes: SceneNode[];
}

export const edgeKey = (source: string, target: string): string => `${source} → ${target}`;

/** What is shown for a budget, or at first (0), after groups were opened and closed. */
export function sceneOf(payload: Payload, bytes: Bytes, budget: number, folds: readonly Fold[]): Scene {
  const trees = payload.graphs.map(treeOf);
  const graphs = payload.graphs.map((graph, side) => {
    const tree = trees[side];
    return tree ? graphOf(graph, tree, budget, folds) : graph;
  });
  const nodes = new Map<string, SceneNode>();
  graphs.forEach((graph, side) => {
    for (const node of graph.nodes) {
      const { id, layer, kind, index, label } = node;
      const known = nodes.get(id) ?? { id, layer, kind, index, label, versions: graphs.map(() => null) };
      known.versions[side] = node;
      nodes.set(id, known);
    }
  });
  const byKey = new Map<string, SceneEdge>();
  graphs.forEach((graph, side) => {
    for (const edge of graph.edges) {
      const [source, target] = [nodes.get(edge.source), nodes.get(edge.target)];
      if (!source || !target) continue;
      const key = edgeKey(edge.source, edge.target);
      const known = byKey.get(key) ?? { key, source, target, versions: graphs.map(() => null) };
      known.versions[side] = edge;
      byKey.set(key, known);
    }
  });
  const layers = [LOGITS, ...(graphs[0]?.layers ?? []).toReversed()];
  const edges = [...byKey.values()];
  const touching = new Map<string, SceneEdge[]>([...nodes.keys()].map((id) => [id, []]));
  for (const edge of edges) {
    touching.get(edge.source.id)?.push(edge);
    touching.get(edge.target.id)?.push(edge);
  }
  const rows = layers.map((layer) => [...nodes.values()].filter((node) => node.layer === layer));
  return { payload, graphs, budget, folds, trees, bytes, layers, rows, nodes, edges, byKey, touching, classes: rows[0] ?? [] };
}

const maps = new WeakMap<object, SignedMap>();

function unpacked(scene: Scene, cells: Cells | null | undefined): SignedMap | null {
  if (!cells) return null;
  const known = maps.get(cells) ?? signedMap(cells, scene.bytes);
  maps.set(cells, known);
  return known;
}

/** Where a node is on a photograph ("map"), or the pixels that caused it ("ierf"). */
export const mapOf = (scene: Scene, node: SceneNode, side: number, which: "map" | "ierf"): SignedMap | null =>
  unpacked(scene, node.versions[side]?.[which]);

/** Where an edge acts on a photograph: what it is worth at each position of its source's layer. */
export function actingOf(scene: Scene, edge: SceneEdge, side: number): SignedMap | null {
  const [version, graph, tree] = [edge.versions[side], scene.graphs[side], scene.trees[side]];
  if (!version || version.map || !graph || !tree) return unpacked(scene, version?.map);
  const known = maps.get(version) ?? placesOf(graph, tree, edge.source.id, edge.target.id, scene.bytes);
  if (known) maps.set(version, known);
  return known;
}

/** Whether a node is a concept, a group of them or an own direction: what a row is made of beside its residual. */
export const inner = (node: { kind: NodeJson["kind"] }): boolean => node.kind !== "class" && node.kind !== "residual";

/** The node as it is in the graph of this side, or else in the other. */
export const somewhere = (node: SceneNode, side: number): NodeJson =>
  (node.versions[side] ?? node.versions.find((version) => version !== null)) as NodeJson;
