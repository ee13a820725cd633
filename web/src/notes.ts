/** Names and notes that the user gives to concepts. They belong to the bank, so all of its graphs share them. */

import type { GraphJson } from "./data";

export type Notes = Readonly<Record<string, { name: string; note: string }>>;

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

/** With another name or note for a node; one without either is forgotten. */
export function noted(notes: Notes, id: string, change: { name?: string; note?: string }): Notes {
  const { [id]: old, ...others } = notes;
  const made = { name: "", note: "", ...old, ...change };
  return made.name || made.note ? { ...others, [id]: made } : others;
}
