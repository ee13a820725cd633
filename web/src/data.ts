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
  kind: "class" | "concept" | "residual";
  index: number;
  label: string;
  importance: number[];
  activation: number;
  influence: number;
  shared: boolean;
  prefix_share: number;
  map: Cells | null;
  ierf: Cells | null;
  /** Addresses. */
  exemplars: string[];
  facts: Facts | null;
  /** The address of a small picture of the first exemplars, "" where there are none. */
  thumbnail: string;
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
