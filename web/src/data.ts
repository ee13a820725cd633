/** What the page is given: graphs as in docs/graph-format.md, with pictures as addresses and cells in one packed block. */

export interface Cells {
  rows: number;
  columns: number;
  scale: number;
  /** Where its bytes begin in the block of all cells. */
  start: number;
}

export interface Facts {
  frequency: number;
  strength: number;
  relevance: number;
  classes: [string, number][];
  nearest: [number, number][];
  cosines: number[];
}

export interface NodeJson {
  id: string;
  layer: string;
  kind: "class" | "concept" | "group" | "own" | "residual";
  index: number;
  label: string;
  importance: number[];
  activation: number;
  influence: number;
  shared: boolean;
  prefix_share: number;
  map: Cells | null;
  ierf: Cells | null;
  /** Places among the payload's pictures, as is `thumbnail`: a small picture, null where there is none. */
  exemplars: number[];
  facts: Facts | null;
  thumbnail: number | null;
  /** Of a group: its concepts. */
  members: number[];
  /** For each class what it lost when the node was taken out; nothing where that was not tried. */
  effects: number[];
  /** As a target: its score without and with the layer. */
  score: [number, number] | null;
  /** The id of the group that it is a half of, or "". */
  parent: string;
  /** From this budget on it is shown as its two halves; 0: it has none. */
  opens: number;
}

export interface EdgeJson {
  source: string;
  target: string;
  value: number;
  weight: number;
  share: number;
  p_value: number | null;
  /** Where it acts, over the positions of its source's layer. */
  map: Cells | null;
}

export interface AccountJson {
  layer: string;
  concepts: number;
  active: number;
  l0: number;
  residual_share: number;
  kkt: number;
  completeness_error: number;
  logits: number[];
  score_kept: number[];
  influence_kept: number;
  influence_residual: number;
  score_held: number[];
}

/** Maps of one size, one after the other in the block of all cells: for each source one for each target. */
export interface CellTable {
  rows: number;
  columns: number;
  start: number;
  scales: number[][];
}

/** All edges between two layers at every level of their groups; maps are of nodes that do not open. */
export interface PairJson {
  sources: string[];
  targets: string[];
  values: number[][];
  p_values: number[][];
  maps: CellTable | null;
}

export interface HierarchyJson {
  /** The ids of what is drawn at first. */
  shown: string[];
  pairs: PairJson[];
}

export interface GraphJson {
  format: string;
  version: number;
  model: string;
  photo: string;
  photographs: number;
  layers: string[];
  settings: Record<string, unknown>;
  nodes: NodeJson[];
  edges: EdgeJson[];
  accounts: AccountJson[];
  view: string;
  /** Of a graph of groups, whose nodes are then those of every level, and its edges only those that pruning has left. */
  hierarchy: HierarchyJson | null;
}

/** A sentence, and the node or the edge (two ids) that it is about. */
export interface Finding {
  text: string;
  about: string[];
}

export interface Payload {
  title: string;
  /** One; or two, of which the second is compared with the first. */
  graphs: GraphJson[];
  findings: Finding[];
  leftOut: string[];
  /** Addresses. */
  pictures: string[];
  /** The state to begin with, as in the address. */
  start: string;
  /** Deflated bytes of all cells, base64. */
  cells: string;
}

/** A signed map, rows from above. */
export interface SignedMap {
  rows: number;
  columns: number;
  values: Float32Array;
}

export type Bytes = Uint8Array<ArrayBuffer>;

export async function inflated(base64: string): Promise<Bytes> {
  const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** `(byte − 128) · scale`. */
export function signedMap(cells: Cells, bytes: Bytes): SignedMap {
  const some = bytes.subarray(cells.start, cells.start + cells.rows * cells.columns);
  return { rows: cells.rows, columns: cells.columns, values: Float32Array.from(some, (byte) => (byte - 128) * cells.scale) };
}

/** One of a table. */
export function cellsIn(table: CellTable, source: number, target: number): Cells {
  const { rows, columns, scales } = table;
  const number = source * (scales[0]?.length ?? 0) + target;
  return { rows, columns, scale: scales[source]?.[target] ?? 0, start: table.start + number * rows * columns };
}
