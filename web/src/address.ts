/** The state as the part of the address behind "#", and back; what is as at first is left out. */

import { INITIAL, MODES, SIDES, type Focus, type State } from "./state";

const NUMBERS = ["first", "second", "routes", "nodes", "edges", "budget", "opacity", "scale"] as const;
const RANGES: Record<(typeof NUMBERS)[number], [number, number]> = {
  first: [0, 99],
  second: [0, 99],
  routes: [1, 30],
  nodes: [0, 1],
  edges: [0, 1],
  budget: [0, 999],
  opacity: [0, 1],
  scale: [0.2, 3],
};

export function asAddress(state: State): string {
  const said = new URLSearchParams();
  const { focus } = state;
  if (focus?.kind === "node") said.set("node", focus.id);
  if (focus?.kind === "edge") said.set("edge", `${focus.source}>${focus.target}`);
  if (focus?.kind === "pixel") said.set("pixel", `${focus.x.toFixed(4)},${focus.y.toFixed(4)}`);
  for (const key of ["mode", "side", "paint", "query"] as const) if (state[key] !== INITIAL[key]) said.set(key, state[key]);
  if (state.folds.length) said.set("folds", state.folds.join(","));
  for (const key of NUMBERS) if (state[key] !== INITIAL[key]) said.set(key, String(+state[key].toFixed(4)));
  return said.toString();
}

/** Whatever in the text is no state is passed over. */
export function fromAddress(text: string): State {
  const said = new URLSearchParams(text.replace(/^#/, ""));
  const numbers = NUMBERS.map((key) => [key, inRange(said.get(key), RANGES[key], INITIAL[key])]);
  return {
    ...INITIAL,
    ...Object.fromEntries(numbers),
    focus: focusIn(said),
    mode: MODES.find((mode) => mode === said.get("mode")) ?? INITIAL.mode,
    side: SIDES.find((side) => side === said.get("side")) ?? INITIAL.side,
    paint: said.get("paint") === "ierf" ? "ierf" : INITIAL.paint,
    query: said.get("query") ?? "",
    folds: said.get("folds")?.split(",") ?? INITIAL.folds,
  };
}

function focusIn(said: URLSearchParams): Focus | null {
  const [node, edge, pixel] = [said.get("node"), said.get("edge")?.split(">"), said.get("pixel")?.split(",").map(Number)];
  if (node) return { kind: "node", id: node };
  if (edge?.[0] && edge[1]) return { kind: "edge", source: edge[0], target: edge[1] };
  const [x, y] = pixel ?? [];
  return inside(x) && inside(y) ? { kind: "pixel", x, y } : null;
}

const inside = (value: number | undefined): value is number => value !== undefined && value >= 0 && value < 1;

function inRange(text: string | null, [low, high]: [number, number], otherwise: number): number {
  const value = text === null ? NaN : Number(text);
  return value >= low && value <= high ? value : otherwise;
}
