/** The concepts that a place of the photograph speaks for, layer by layer. */

import type { SignedMap } from "./data";
import { mapOf, type Scene, type SceneNode } from "./scene";

export interface Ranked {
  layer: string;
  /** With the relevance that the concept's iERF has there, and its share of all that the iERF has. */
  concepts: { node: SceneNode; evidence: number; share: number }[];
}

/** The largest first; concepts without evidence there are left out. */
export function ranking(scene: Scene, side: number, x: number, y: number): Ranked[] {
  return scene.layers.slice(1).map((layer, i) => ({
    layer,
    concepts: (scene.rows[i + 1] ?? [])
      .flatMap((node) => {
        const map = mapOf(scene, node, side, "ierf");
        if (!map) return [];
        const evidence = at(map, x, y);
        return evidence ? [{ node, evidence, share: Math.abs(evidence) / sizes(map) }] : [];
      })
      .sort((a, b) => Math.abs(b.evidence) - Math.abs(a.evidence)),
  }));
}

/** The cell that the place lies in. */
export function at(map: SignedMap, x: number, y: number): number {
  return map.values[Math.floor(y * map.rows) * map.columns + Math.floor(x * map.columns)] ?? 0;
}

const sizes = (map: SignedMap): number => map.values.reduce((sum, value) => sum + Math.abs(value), 0) || 1;
