/** What is looked at and how: one immutable object, its changes, and the way back. */

import type { Fold } from "./hierarchy";

export type Focus =
  | { kind: "node"; id: string }
  | { kind: "edge"; source: string; target: string }
  /** A place on the photograph, both in [0, 1). */
  | { kind: "pixel"; x: number; y: number };

export type Mode = "influence" | "difference" | "routes";
export const MODES: readonly Mode[] = ["influence", "difference", "routes"];

/** Which graph of two, or what changed from the first to the second. */
export type Side = "before" | "after" | "change";
export const SIDES: readonly Side[] = ["before", "after", "change"];

export type Paint = "map" | "ierf";

export interface State {
  readonly focus: Focus | null;
  readonly mode: Mode;
  readonly side: Side;
  /** Places of two classes: that of routes and differences, and the one it is set against. */
  readonly first: number;
  readonly second: number;
  /** How many routes. */
  readonly routes: number;
  /** The share of each row's influence that its shown concepts hold at least. */
  readonly nodes: number;
  /** The share of the flow between two rows that their shown edges carry at least. */
  readonly edges: number;
  /** Groups in a row; 0: as many as the graph was drawn with. */
  readonly budget: number;
  /** What was opened and closed since then, in order. */
  readonly folds: readonly Fold[];
  readonly paint: Paint;
  readonly opacity: number;
  readonly query: string;
  readonly scale: number;
}

export const INITIAL: State = {
  focus: null,
  mode: "influence",
  side: "before",
  first: 0,
  second: 1,
  routes: 5,
  nodes: 1,
  edges: 1,
  budget: 0,
  folds: [],
  paint: "map",
  opacity: 0.85,
  query: "",
  scale: 1,
};

export interface History {
  readonly past: readonly State[];
  readonly present: State;
  readonly future: readonly State[];
  /** What was changed last: a slider that is dragged is one step back, not a hundred. */
  readonly last: string;
}

const REMEMBERED = 200;

export const begin = (present: State): History => ({ past: [], present, future: [], last: "" });

export function changed(history: History, change: Partial<State>): History {
  const present = { ...history.present, ...change };
  if (JSON.stringify(present) === JSON.stringify(history.present)) return history;
  const last = Object.keys(change).join();
  const dragged = last === history.last && !("focus" in change) && !("mode" in change) && history.past.length > 0;
  const past = dragged ? history.past : [...history.past, history.present].slice(-REMEMBERED);
  return { past, present, future: [], last };
}

export function undone(history: History): History {
  const present = history.past.at(-1);
  if (!present) return history;
  return { past: history.past.slice(0, -1), present, future: [history.present, ...history.future], last: "" };
}

export function redone(history: History): History {
  const [present, ...future] = history.future;
  if (!present) return history;
  return { past: [...history.past, history.present], present, future, last: "" };
}
