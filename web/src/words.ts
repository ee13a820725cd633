/** Numbers and nodes in words. */

import type { Scene, SceneNode } from "./scene";
import type { Notes } from "./notes";

export function percent(share: number): string {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return share >= 0.0095 || !share ? `${(100 * share).toFixed(0)} %` : `${(100 * share).toFixed(1)} %`;
}

/** With two digits, however small: what is left of a score after many layers. */
export function fine(share: number): string {
  return share === 0 || share >= 0.095 ? percent(share) : `${+(100 * share).toPrecision(2)} %`;
}

export function signed(value: number): string {
  const size = Math.abs(value);
  const digits = size === 0 || size >= 0.1 ? size.toFixed(2) : size.toPrecision(2);
  return `${value < 0 ? "−" : "+"}${digits}`;
}

export const layerName = (layer: string): string => (layer === "logits" ? "classes" : layer);

export const shortened = (text: string, most: number): string => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** The user's name for a node, or its own. */
export const nameOf = (node: SceneNode, notes: Notes): string => notes[node.id]?.name || ({ group: `group ${node.index}`, own: `own ${node.index + 1}` } as Record<string, string>)[node.kind] || node.label;

/** With its layer, where it has one. */
export const inLayer = (node: SceneNode, notes: Notes): string =>
  node.kind === "class" ? nameOf(node, notes) : `${nameOf(node, notes)} of ${node.layer}`;

/** For those who hear the page. */
export function described(scene: Scene, node: SceneNode, side: number, notes: Notes): string {
  const version = node.versions[side];
  if (!version) return `${nameOf(node, notes)}, ${layerName(node.layer)}, not in this graph`;
  if (node.kind === "class") return `class ${node.label}, probability ${percent(version.activation)}`;
  const values = version.importance.map((value, place) => `${signed(value)} for ${scene.classes[place]?.label}`).join(", ");
  const name = nameOf(node, notes);
  const what = { concept: `concept ${name}`, group: `${name}, ${version.members.length} concepts,`, own: `${name} of the residual`, residual: "residual" }[node.kind];
  return `${what} of ${node.layer}, ${values}, ${percent(version.influence)} of the flow`;
}
