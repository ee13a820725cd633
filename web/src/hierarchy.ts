/** The groups of a graph at every level: which are shown, opened and closed, and the edges between any; as in ierf.graph.hierarchy. */

import { cellsIn, signedMap, type Bytes, type EdgeJson, type GraphJson, type NodeJson, type PairJson, type SignedMap } from "./data";

/** "+" and the id of a group that was opened, "-" and that of one that was closed. */
export type Fold = string;

export interface Tree {
  /** All but classes and residuals, a group before its halves. */
  nodes: Map<string, NodeJson>;
  halves: Map<string, string[]>;
  /** What is drawn at first. */
  drawn: string[];
  /** The budget from which on nothing more opens. */
  most: number;
}

/** Null for a graph of single concepts. */
export function treeOf(graph: GraphJson): Tree | null {
  if (!graph.hierarchy) return null;
  const nodes = new Map(graph.nodes.filter(inTree).map((node) => [node.id, node]));
  const halves = new Map<string, string[]>([...nodes.keys()].map((id) => [id, []]));
  for (const node of nodes.values()) halves.get(node.parent)?.push(node.id);
  return { nodes, halves, drawn: graph.hierarchy.shown, most: Math.max(1, ...[...nodes.values()].map((node) => node.opens)) };
}

const inTree = (node: NodeJson): boolean => node.kind !== "class" && node.kind !== "residual";

export const opens = (tree: Tree, id: string): boolean => (tree.halves.get(id)?.length ?? 0) > 0;

/** The ids of what is shown for a budget, or at first (0), after groups were opened and closed. */
export function shownIn(tree: Tree, budget: number, folds: readonly Fold[]): string[] {
  if (!budget && !folds.length) return tree.drawn;
  return folds.reduce((shown, fold) => folded(tree, shown, fold), budget ? forBudget(tree, budget) : completed(tree, tree.drawn));
}

/** With what pruning has dropped, as few groups as hold it, so that shares are of the whole again. */
function completed(tree: Tree, drawn: string[]): string[] {
  const shown = new Set(drawn);
  const cut = (id: string): string[] =>
    shown.has(id) || !below(tree, id).some((each) => shown.has(each)) ? [id] : (tree.halves.get(id) ?? []).flatMap(cut);
  const found = new Set([...tree.nodes.values()].filter(({ parent }) => !parent).flatMap(({ id }) => cut(id)));
  return [...tree.nodes.keys()].filter((id) => found.has(id));
}

function forBudget(tree: Tree, budget: number): string[] {
  const open = (id: string): boolean => {
    const at = tree.nodes.get(id)?.opens ?? 0;
    return at > 0 && at <= budget;
  };
  return [...tree.nodes.values()].filter(({ id, parent }) => !open(id) && (!parent || open(parent))).map(({ id }) => id);
}

/** What cannot be opened or closed stays. */
function folded(tree: Tree, shown: string[], fold: Fold): string[] {
  const id = fold.slice(1);
  if (fold.startsWith("+")) {
    return opens(tree, id) ? shown.flatMap((each) => (each === id ? (tree.halves.get(id) ?? []) : [each])) : shown;
  }
  const inside = new Set(below(tree, id));
  const first = shown.find((each) => inside.has(each));
  return shown.flatMap((each) => (each === first ? [id] : inside.has(each) ? [] : [each]));
}

/** All that a group holds. */
export function below(tree: Tree, id: string): string[] {
  return (tree.halves.get(id) ?? []).flatMap((half) => [half, ...below(tree, half)]);
}

/** What was done, and this; what takes back an earlier step takes it away. */
export function withFold(tree: Tree, budget: number, folds: readonly Fold[], fold: Fold): Fold[] {
  const about = new Set([fold.slice(1), ...below(tree, fold.slice(1))]);
  const shorter = folds.filter((each) => !about.has(each.slice(1)));
  const direct = [...folds, fold];
  const shown = (some: readonly Fold[]): string => shownIn(tree, budget, some).toSorted().join();
  return shown(shorter) === shown(direct) ? shorter : direct;
}

/** The shown nearest to one that is not: the group that holds it, or else the first part of it. */
export function inItsPlace(tree: Tree, shown: ReadonlySet<string>, id: string): string | null {
  for (let at = tree.nodes.get(id)?.parent; at; at = tree.nodes.get(at)?.parent) if (shown.has(at)) return at;
  return below(tree, id).find((each) => shown.has(each)) ?? null;
}

/** The graph of what is shown: its edges, and the flow that reaches its nodes; those that none reaches are left out. */
export function graphOf(graph: GraphJson, tree: Tree, budget: number, folds: readonly Fold[]): GraphJson {
  const shown = new Set(shownIn(tree, budget, folds));
  const atFirst = !budget && !folds.length;
  const edges = atFirst && graph.edges.length ? graph.edges : graph.hierarchy?.pairs.flatMap((pair) => edgesOf(tree, pair, shown)) ?? [];
  const flow = influences(graph, edges);
  const nodes = graph.nodes
    .filter((node) => node.kind === "class" || node.kind === "residual" || (shown.has(node.id) && (flow.get(node.id) ?? 0) > 0))
    .map((node) => ({ ...node, influence: flow.get(node.id) ?? 0 }));
  const known = new Set(nodes.map((node) => node.id));
  const share = (layer: string, residual: boolean) => nodes.reduce((sum, node) =>
    sum + (node.layer === layer && (node.kind === "residual") === residual ? node.influence : 0), 0);
  return {
    ...graph,
    nodes,
    edges: edges.filter((edge) => known.has(edge.source) && known.has(edge.target)),
    accounts: graph.accounts.map((account) => ({
      ...account, influence_kept: share(account.layer, false), influence_residual: share(account.layer, true),
    })),
    settings: atFirst ? graph.settings : { ...graph.settings, keep: 1, ...(budget ? { budget } : {}) },
  };
}

/** Between shown nodes, from residuals, and into classes. */
function edgesOf(tree: Tree, pair: PairJson, shown: ReadonlySet<string>): EdgeJson[] {
  const some = (ids: string[]) => [...ids.keys()].filter((i) => shown.has(ids[i] ?? "") || !tree.nodes.has(ids[i] ?? ""));
  const [rows, columns] = [some(pair.sources), some(pair.targets)];
  const value = (i: number, j: number): number => pair.values[i]?.[j] ?? 0;
  const totals = new Map(columns.map((j) => [j, rows.reduce((sum, i) => sum + Math.abs(value(i, j)), 0)]));
  const largest = Math.max(...rows.flatMap((i) => columns.map((j) => Math.abs(value(i, j)))));
  return rows.flatMap((i) => columns.filter((j) => value(i, j)).map((j) => ({
    source: pair.sources[i] ?? "",
    target: pair.targets[j] ?? "",
    value: value(i, j),
    weight: Math.abs(value(i, j)) / largest,
    share: Math.abs(value(i, j)) / (totals.get(j) ?? 1),
    p_value: pair.p_values[i]?.[j] ?? null,
    map: null,
  })));
}

/** The share of the classes' scores that reaches each node; edges are there from the classes down. */
function influences(graph: GraphJson, edges: readonly EdgeJson[]): Map<string, number> {
  const classes = graph.nodes.filter((node) => node.kind === "class");
  const flow = new Map(classes.map((node) => [node.id, 1 / classes.length]));
  const into = Map.groupBy(edges, (edge) => layerOf(edge.target));
  for (const layer of ["logits", ...graph.layers.toReversed()]) {
    for (const { source, target, share } of into.get(layer) ?? []) {
      flow.set(source, (flow.get(source) ?? 0) + share * (flow.get(target) ?? 0));
    }
  }
  return flow;
}

const layerOf = (id: string): string => id.slice(0, id.lastIndexOf("/"));

/** Where an edge acts: the sum over what its ends hold; null where it is not known by position. */
export function placesOf(graph: GraphJson, tree: Tree, source: string, target: string, bytes: Bytes): SignedMap | null {
  const pair = graph.hierarchy?.pairs.find(({ sources, targets }) => sources.includes(source) && targets.includes(target));
  if (!pair?.maps || !tree.nodes.has(source)) return null;
  const { maps } = pair;
  const finest = (ids: string[]) => new Map(ids.filter((id) => !opens(tree, id)).map((id, i) => [id, i]));
  const [rows, columns] = [finest(pair.sources), finest(pair.targets)];
  const parts = (id: string, places: Map<string, number>) => [id, ...below(tree, id)].flatMap((each) => places.get(each) ?? []);
  const some = parts(source, rows).flatMap((i) => parts(target, columns).map((j) => signedMap(cellsIn(maps, i, j), bytes)));
  return some.reduce((sum, each) => ({ ...sum, values: sum.values.map((value, at) => value + (each.values[at] ?? 0)) }));
}
