/** The strongest routes from a class to the lowest layer: those with the largest product of shares. */

import type { Scene, SceneEdge, SceneNode } from "./scene";

export interface Route {
  /** From the class down. */
  nodes: SceneNode[];
  edges: SceneEdge[];
  /** The share of the class's score that takes this route. */
  share: number;
}

/** The best `count` of them; layer by layer each node keeps the best `count` ways that lead to it. */
export function strongestRoutes(
  scene: Scene,
  side: number,
  edges: readonly SceneEdge[],
  start: SceneNode,
  count: number,
): Route[] {
  let ways = new Map<SceneNode, Route[]>([[start, [{ nodes: [start], edges: [], share: 1 }]]]);
  const into = Map.groupBy(edges, (edge) => edge.target);
  for (let row = 1; row < scene.layers.length; row++) {
    const next = new Map<SceneNode, Route[]>();
    for (const [node, routes] of ways) {
      for (const edge of into.get(node) ?? []) {
        const share = edge.versions[side]?.share ?? 0;
        const longer = routes.map((route) => ({
          nodes: [...route.nodes, edge.source],
          edges: [...route.edges, edge],
          share: route.share * share,
        }));
        next.set(edge.source, best([...(next.get(edge.source) ?? []), ...longer], count));
      }
    }
    ways = next;
  }
  return best([...ways.values()].flat(), count);
}

const best = (routes: Route[], count: number): Route[] => routes.sort((a, b) => b.share - a.share).slice(0, count);
