/** Names and notes that the user gives to concepts. They belong to the bank, so all of its graphs share them. */

import type { GraphJson } from "./data";

export type Notes = Readonly<Record<string, { name: string; note: string }>>;

/** Letters of a name. */
export const LONGEST = 60;

const place = (graph: GraphJson): string => `ierf:${graph.model}:${String(graph.settings["extractor"] ?? "")}`;

/** Those kept in the browser; none where it keeps nothing. */
export function readNotes(graph: GraphJson): Notes {
  try {
    return JSON.parse(localStorage.getItem(place(graph)) ?? "{}") as Notes;
  } catch {
    return {};
  }
}

export function keepNotes(graph: GraphJson, notes: Notes): void {
  try {
    localStorage.setItem(place(graph), JSON.stringify(notes));
  } catch {
    return;
  }
}

/** What a file of names and notes holds, or the JSON of a graph that was exported with them; null for any other. */
export function notesIn(content: unknown): Notes | null {
  const found = isRecord(content) && isRecord(content["notes"]) && "nodes" in content ? content["notes"] : content;
  if (!isRecord(found)) return null;
  const read = Object.entries(found).map(([id, each]) => [id, isRecord(each) ? noteOf(each) : null] as const);
  if (read.some(([, each]) => each === null)) return null;
  return Object.fromEntries(read.filter(([, each]) => each?.name || each?.note)) as Notes;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function noteOf({ name = "", note = "" }: Record<string, unknown>): { name: string; note: string } | null {
  return typeof name === "string" && typeof note === "string" ? { name: name.slice(0, LONGEST), note } : null;
}

/** With another name or note for a node; one without either is forgotten. */
export function noted(notes: Notes, id: string, change: { name?: string; note?: string }): Notes {
  const { [id]: old, ...others } = notes;
  const made = { name: "", note: "", ...old, ...change };
  return made.name || made.note ? { ...others, [id]: made } : others;
}
