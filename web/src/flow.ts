/** How the classes' scores are followed down, by the edges' shares, and which nodes and edges are kept for it. */

import { inner, type Scene, type SceneEdge, type SceneNode } from "./scene";

export interface Flow {
  /** What reaches each node. */
  nodes: Map<string, number>;
  /** What each edge carries: its share of what reaches its target. */
  edges: Map<SceneEdge, number>;
}

/** Followed from the classes, which begin with `start` (by their place), along `edges`. Layer by layer, as edges are. */
export function flowOf(scene: Scene, side: number, edges: readonly SceneEdge[], start: readonly number[]): Flow {
  const nodes = new Map<string, number>(scene.classes.map((node, place) => [node.id, start[place] ?? 0]));
  const carried = new Map<SceneEdge, number>();
  for (const some of byRow(scene, edges)) {
    for (const edge of some) {
      const flow = (edge.versions[side]?.share ?? 0) * (nodes.get(edge.target.id) ?? 0);
      carried.set(edge, flow);
      nodes.set(edge.source.id, (nodes.get(edge.source.id) ?? 0) + flow);
    }
  }
  return { nodes, edges: carried };
}

/** All classes together begin with 1. */
export const everyClass = (scene: Scene): number[] => scene.classes.map(() => 1 / Math.max(1, scene.classes.length));

export const onlyClass = (scene: Scene, place: number): number[] => scene.classes.map((_, i) => (i === place ? 1 : 0));

/** Edges by the row that they lead into, from the classes down. */
export function byRow(scene: Scene, edges: readonly SceneEdge[]): SceneEdge[][] {
  const place = new Map(scene.layers.map((layer, i) => [layer, i]));
  const rows: SceneEdge[][] = scene.layers.map(() => []);
  for (const edge of edges) rows[place.get(edge.target.layer) ?? 0]?.push(edge);
  return rows;
}

/** The fewest items whose values sum to at least `share` of the whole. */
export function strongest<T>(items: readonly T[], value: (item: T) => number, share: number): Set<T> {
  if (share >= 1) return new Set(items);
  const ordered = items.toSorted((a, b) => value(b) - value(a));
  const wanted = share * ordered.reduce((sum, item) => sum + value(item), 0);
  const kept = new Set<T>();
  let sum = 0;
  for (const item of ordered) {
    if (sum >= wanted) break;
    sum += value(item);
    kept.add(item);
  }
  return kept;
}

export interface Kept {
  nodes: Set<SceneNode>;
  edges: SceneEdge[];
  /** The flow along the kept edges. */
  flow: Flow;
  /** Of the flow of all edges of the graph. */
  share: number;
}

/**
 * Of each row the fewest concepts or groups that hold `nodeShare` of its influence, of each pair the fewest edges likewise; of two
 * graphs the larger counts. Flow and share are those of one side.
 */
export function kept(scene: Scene, side: number, nodeShare: number, edgeShare: number): Kept {
  const start = everyClass(scene);
  const whole = flowOf(scene, side, scene.edges, start);
  const influence = (node: SceneNode): number => Math.max(...node.versions.map((version) => version?.influence ?? 0));
  const nodes = new Set<SceneNode>();
  for (const row of scene.rows) {
    const concepts = strongest(row.filter(inner), influence, nodeShare);
    for (const node of row) if (!inner(node) || concepts.has(node)) nodes.add(node);
  }
  const between = scene.edges.filter((edge) => nodes.has(edge.source) && nodes.has(edge.target));
  const carried = scene.graphs.map((_, each) => flowOf(scene, each, between, start).edges);
  const most = (edge: SceneEdge): number => Math.max(...carried.map((flow) => flow.get(edge) ?? 0));
  const edges = byRow(scene, between).flatMap((row) => [...strongest(row, most, edgeShare)]);
  const flow = flowOf(scene, side, edges, start);
  return { nodes, edges, flow, share: total(flow) / (total(whole) || 1) };
}

const total = (flow: Flow): number => [...flow.edges.values()].reduce((sum, value) => sum + value, 0);

export interface Held {
  kept: number;
  residual: number;
}

/** For each layer, from the classes down, and each class the shares of its score that reach what is kept, and its residual. */
export function heldBy(scene: Scene, side: number, shown: Kept): Held[][] {
  const flows = scene.classes.map((_, place) => flowOf(scene, side, shown.edges, onlyClass(scene, place)).nodes);
  return scene.rows.slice(1).map((row) => flows.map((flow) => {
    const sum = (some: SceneNode[]) => some.reduce((all, node) => all + (flow.get(node.id) ?? 0), 0);
    return { kept: sum(row.filter(inner)), residual: sum(row.filter((node) => !inner(node))) };
  }));
}
