/** From the scene and the state to what is drawn: pure, no element is touched here. */

import { max } from "d3-array";
import { flowOf, kept, onlyClass, type Kept } from "./flow";
import { strongestRoutes, type Route } from "./routes";
import type { Notes } from "./notes";
import { actingOf, edgeKey, mapOf, type Scene, type SceneEdge, type SceneNode } from "./scene";
import type { Focus, State } from "./state";
import type { SignedMap } from "./data";
import { inLayer } from "./words";

const WIDEST = 6;
const SIGNIFICANT = 0.05;

export interface Drawn {
  edge: SceneEdge;
  /** Signed: what its colour says. */
  value: number;
  width: number;
  opacity: number;
  /** "for", "against", "first" or "second": the class that it serves more. */
  colour: string;
  doubtful: boolean;
}

export interface View {
  side: number;
  kept: Kept;
  /** The weakest first, so that the strongest lie on top. */
  edges: Drawn[];
  byEdge: Map<SceneEdge, Drawn>;
  /** For each class its bar, in [−1, 1]; by the node's id. */
  bars: Map<string, number[]>;
  routes: Route[];
  /** Ids of nodes that the search found; null without a search. */
  found: Set<string> | null;
}

/** The graph that maps and shares are taken from; a change is looked at from what it led to. */
export const sideOf = (scene: Scene, state: State): number => (scene.graphs.length > 1 && state.side !== "before" ? 1 : 0);

export function viewOf(scene: Scene, state: State, texts: (node: SceneNode) => string): View {
  const side = sideOf(scene, state);
  const shown = kept(scene, side, state.nodes, state.edges);
  const start = scene.classes[state.first];
  const routes =
    state.mode === "routes" && start ? strongestRoutes(scene, side, shown.edges, start, state.routes) : [];
  const edges = drawnEdges(scene, state, side, shown, routes);
  return {
    side,
    kept: shown,
    edges,
    byEdge: new Map(edges.map((each) => [each.edge, each])),
    bars: barsOf(scene, state, side),
    routes,
    found: search(scene, state.query, texts),
  };
}

function drawnEdges(scene: Scene, state: State, side: number, shown: Kept, routes: Route[]): Drawn[] {
  const value = edgeValues(scene, state, side, shown);
  const largest = new Map<string, number>();
  for (const edge of shown.edges) {
    largest.set(edge.target.layer, Math.max(largest.get(edge.target.layer) ?? 0, Math.abs(value(edge))));
  }
  const onRoute = new Set(routes.flatMap((route) => route.edges));
  const drawn = shown.edges.map((edge) => {
    const size = Math.abs(value(edge)) / (largest.get(edge.target.layer) || 1);
    const aside = state.mode === "routes" && !onRoute.has(edge);
    return {
      edge,
      value: value(edge),
      width: aside ? 0.7 : 0.7 + (WIDEST - 0.7) * size,
      opacity: aside ? 0.12 : 0.22 + 0.68 * size,
      colour: colourOf(state, value(edge)),
      doubtful: (edge.versions[side]?.p_value ?? 0) > SIGNIFICANT,
    };
  });
  return drawn.filter((each) => each.value !== 0).sort((a, b) => a.opacity - b.opacity);
}

function colourOf(state: State, value: number): string {
  if (state.mode === "difference") return value > 0 ? "first" : "second";
  return value > 0 ? "for" : "against";
}

/** What an edge is worth: its value, its change, or the flow to one class less that to another. */
function edgeValues(scene: Scene, state: State, side: number, shown: Kept): (edge: SceneEdge) => number {
  if (state.mode === "difference") {
    const [first, second] = [state.first, state.second].map(
      (place) => flowOf(scene, side, shown.edges, onlyClass(scene, place)).edges,
    );
    return (edge) => (first?.get(edge) ?? 0) - (second?.get(edge) ?? 0);
  }
  if (scene.graphs.length > 1 && state.side === "change") {
    return (edge) => (edge.versions[1]?.value ?? 0) - (edge.versions[0]?.value ?? 0);
  }
  return (edge) => edge.versions[side]?.value ?? 0;
}

/** A node's importance for each class: in this graph, or its change. */
export function importance(scene: Scene, state: State, node: SceneNode): number[] {
  const [before, after] = [node.versions[0]?.importance, node.versions[1]?.importance];
  if (scene.graphs.length > 1 && state.side === "change") {
    return scene.classes.map((_, place) => (after?.[place] ?? 0) - (before?.[place] ?? 0));
  }
  return node.versions[sideOf(scene, state)]?.importance ?? scene.classes.map(() => 0);
}

function barsOf(scene: Scene, state: State, side: number): Map<string, number[]> {
  const bars = new Map<string, number[]>();
  for (const row of scene.rows) {
    const largest = max(row.flatMap((node) => importance(scene, state, node).map(Math.abs))) || 1;
    for (const node of row) {
      const values = node.kind === "class" ? [node.versions[side]?.activation ?? 0] : importance(scene, state, node);
      bars.set(node.id, values.map((value) => (node.kind === "class" ? value : value / largest)));
    }
  }
  return bars;
}

function search(scene: Scene, query: string, texts: (node: SceneNode) => string): Set<string> | null {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const nodes = [...scene.nodes.values()].filter((node) => {
    const text = texts(node).toLowerCase();
    return words.every((word) => text.includes(word));
  });
  return new Set(nodes.map((node) => node.id));
}

/** Concepts by how much more they matter to the first class than to the second, row by row, the largest first. */
export function differences(scene: Scene, state: State, view: View): { layer: string; nodes: [SceneNode, number][] }[] {
  return scene.rows.slice(1).map((row, i) => ({
    layer: scene.layers[i + 1] ?? "",
    nodes: row
      .filter((node) => view.kept.nodes.has(node))
      .map((node): [SceneNode, number] => {
        const values = importance(scene, state, node);
        return [node, (values[state.first] ?? 0) - (values[state.second] ?? 0)];
      })
      .sort((a, b) => b[1] - a[1]),
  }));
}

/** The edges that belong to what is looked at. */
export function edgesOf(scene: Scene, view: View, focus: Focus | null): Drawn[] {
  if (focus?.kind === "edge") {
    return view.edges.filter(({ edge }) => edge.source.id === focus.source && edge.target.id === focus.target);
  }
  if (focus?.kind !== "node") return [];
  return (scene.touching.get(focus.id) ?? []).flatMap((edge) => view.byEdge.get(edge) ?? []);
}

/** One picture of the photograph's corner. */
export interface Picture {
  side: number;
  map: SignedMap | null;
  /** Whether the map's cells are shown as they are. */
  cells: boolean;
  caption: string;
}

/** Each photograph with the map of the node; an edge has the places where it acts beside those of its target. */
export function picturesOf(scene: Scene, state: State, view: View, focus: Focus | null, notes: Notes): Picture[] {
  if (focus?.kind === "edge") {
    const edge = scene.byKey.get(edgeKey(focus.source, focus.target));
    return edge ? ofEdge(scene, state, view, edge, notes) : [];
  }
  const node = focus?.kind === "node" ? scene.nodes.get(focus.id) : undefined;
  const paint = node?.kind === "residual" ? "map" : state.paint;
  return scene.graphs.map((graph, side) => ({
    side,
    map: node ? mapOf(scene, node, side, paint) : null,
    cells: paint === "map",
    caption: scene.graphs.length > 1 ? graph.photo : "",
  }));
}

/** Of a change: where the edge acts before and after. */
function ofEdge(scene: Scene, state: State, view: View, edge: SceneEdge, notes: Notes): Picture[] {
  const cells = state.paint === "map";
  const name = (node: SceneNode): string => inLayer(node, notes);
  const pixels = (node: SceneNode, side: number): Picture => {
    const map = mapOf(scene, node, side, state.paint);
    const without = node.kind === "class" ? `${name(node)}: a class has no place` : `${name(node)}: its places are not known`;
    return { side, map, cells, caption: map ? (cells ? `where ${name(node)} is` : `pixels of ${name(node)}`) : without };
  };
  const source = (side: number): Picture => {
    if (!edge.versions[side]) return { side, map: null, cells, caption: `${name(edge.source)} does not act on it` };
    const map = cells ? actingOf(scene, edge, side) : null;
    return map ? { side, map, cells, caption: `where ${name(edge.source)} acts on it` } : pixels(edge.source, side);
  };
  if (scene.graphs.length > 1 && state.side === "change") {
    return scene.graphs.map((graph, side) => ({ ...source(side), caption: `${graph.photo}: ${source(side).caption}` }));
  }
  return [source(view.side), pixels(edge.target, view.side)];
}
