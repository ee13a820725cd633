/** Where nodes stand: rows of cards, the classes on top, the pixels' side below. */

import { mean, sum } from "d3-array";
import { LOGITS, type Scene, type SceneEdge, type SceneNode } from "./scene";

export const CARD = { width: 84, height: 112 };
export const CLASS_CARD = { width: 168, height: 62 };
const GAP = 8;
const ROW = 184;
/** On the left, for the layers' names. */
export const MARGIN = 148;
const TOP = 14;

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Layout {
  boxes: Map<string, Box>;
  /** The top of each layer's row. */
  tops: Map<string, number>;
  width: number;
  height: number;
}

/** Rows centred; in each, nodes stand near the middle of what they lead to, own directions and residuals at the right end. */
export function layOut(scene: Scene): Layout {
  const sizeOf = (node: SceneNode) => (node.layer === LOGITS ? CLASS_CARD : CARD);
  const widths = scene.rows.map((row) => sum(row, (node) => sizeOf(node).width + GAP));
  const width = MARGIN + Math.max(...widths, CLASS_CARD.width) + GAP;
  const out = Map.groupBy(scene.edges, (edge) => edge.source);
  const boxes = new Map<string, Box>();
  const tops = new Map<string, number>();
  let top = TOP;
  scene.rows.forEach((row, i) => {
    let x = MARGIN + (width - MARGIN - (widths[i] ?? 0)) / 2 + GAP / 2;
    for (const node of ordered(row, out, boxes)) {
      boxes.set(node.id, { x, y: top, ...sizeOf(node) });
      x += sizeOf(node).width + GAP;
    }
    tops.set(scene.layers[i] ?? "", top);
    top += ROW - (i === 0 ? CARD.height - CLASS_CARD.height : 0);
  });
  return { boxes, tops, width, height: top - (ROW - CARD.height) + TOP };
}

function ordered(row: SceneNode[], out: Map<SceneNode, SceneEdge[]>, boxes: Map<string, Box>): SceneNode[] {
  const place = new Map(row.map((node) => [node, middleOfTargets(out.get(node) ?? [], boxes)]));
  const right = (node: SceneNode) => ["own", "residual"].indexOf(node.kind);
  return row.toSorted((a, b) => right(a) - right(b) || (place.get(a) ?? 0) - (place.get(b) ?? 0));
}

function middleOfTargets(edges: SceneEdge[], boxes: Map<string, Box>): number {
  const weight = (edge: SceneEdge) => Math.max(...edge.versions.map((version) => version?.weight ?? 0));
  const at = (edge: SceneEdge) => middle(boxes.get(edge.target.id));
  const total = sum(edges, weight);
  return total ? sum(edges, (edge) => weight(edge) * at(edge)) / total : (mean(edges, at) ?? 0);
}

const middle = (box: Box | undefined): number => (box ? box.x + box.width / 2 : 0);

/** From the upper edge of the source to the lower edge of the target. */
export function ends(edge: SceneEdge, layout: Layout): { source: [number, number]; target: [number, number] } | null {
  const [source, target] = [layout.boxes.get(edge.source.id), layout.boxes.get(edge.target.id)];
  if (!source || !target) return null;
  return { source: [middle(source), source.y], target: [middle(target), target.y + target.height] };
}
