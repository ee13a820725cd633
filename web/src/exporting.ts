/** The graph as it is seen, as SVG and PNG; its numbers as JSON that ierf reads again; names and notes, also back. */

import { cellsIn, type Bytes, type Cells, type GraphJson, type NodeJson, type PairJson, type SignedMap } from "./data";
import type { Drawing } from "./drawing";
import { h } from "./html";
import { notesIn, type Notes } from "./notes";
import { actingOf, type Scene, type SceneEdge } from "./scene";
import type { Store } from "./store";

const SHARP = 2;

export function exportMenu(store: Store, drawing: Drawing): HTMLElement {
  const name = (suffix: string) => `concept-graph.${suffix}`;
  const svg = () => new Blob([asSvg(drawing)], { type: "image/svg+xml" });
  const items: [string, () => Promise<Blob> | Blob, string][] = [
    ["SVG", svg, name("svg")],
    ["PNG", () => asPng(svg(), drawing), name("png")],
    ["JSON", () => json(asGraph(store.scene, store.view.side, store.notes)), name("json")],
    ["Names and notes", () => json(store.notes), "concept-notes.json"],
  ];
  const buttons = items.map(([text, make, file]) =>
    h("button", { type: "button", click: async () => download(await make(), file) }, text));
  return h("details", { class: "menu" }, h("summary", {}, "Files"), h("div", {}, h("p", {}, "Save"), ...buttons,
    h("p", {}, "Read"), ...notesReader(store)));
}

/** A field that takes a file of names and notes, and what came of it. */
function notesReader(store: Store): HTMLElement[] {
  const said = h("p", { class: "soft", role: "status" });
  const field = h("input", {
    type: "file",
    accept: ".json,application/json",
    change: async () => {
      const file = field.files?.[0];
      if (file) said.textContent = readInto(store, await file.text());
      field.value = "";
    },
  });
  return [h("label", { class: "file" }, "Names and notes …", field), said];
}

function readInto(store: Store, text: string): string {
  const notes = notesIn(parsed(text));
  if (!notes) return "This file holds no names and notes.";
  store.read(notes);
  const here = Object.keys(notes).filter((id) => store.scene.nodes.has(id)).length;
  return `${Object.keys(notes).length} read, ${here} of them in this graph.`;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** All layers in one, with the styles and the colours of the moment: it looks the same anywhere. */
function asSvg({ parts, layout }: Drawing): string {
  const style = getComputedStyle(document.documentElement);
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]);
  const wanted = rules.filter((rule) => rule instanceof CSSStyleRule && rule.selectorText.includes("svg"));
  const css = wanted.map((rule) => rule.cssText).join("\n").replace(/var\((--[\w-]+)\)/g, (_, name: string) => style.getPropertyValue(name));
  const root = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  root.setAttribute("viewBox", `0 0 ${layout.width} ${layout.height}`);
  root.setAttribute("width", String(layout.width));
  root.setAttribute("height", String(layout.height));
  const [look, paper] = ["style", "rect"].map((tag) => document.createElementNS(root.namespaceURI, tag));
  if (look) look.textContent = css;
  paper?.setAttribute("width", "100%");
  paper?.setAttribute("height", "100%");
  paper?.setAttribute("fill", style.getPropertyValue("--paper"));
  for (const part of parts) {
    const copy = part.cloneNode(true) as SVGSVGElement;
    copy.setAttribute("width", String(layout.width));
    copy.setAttribute("height", String(layout.height));
    root.append(copy);
  }
  root.prepend(...[look, paper].filter((part) => part !== undefined));
  return new XMLSerializer().serializeToString(root);
}

async function asPng(svg: Blob, { layout }: Drawing): Promise<Blob> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(await svg.text())}`;
  await image.decode();
  const canvas = h("canvas", { width: Math.round(SHARP * layout.width), height: Math.round(SHARP * layout.height) });
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done, failed) => canvas.toBlob((made) => (made ? done(made) : failed(new Error("no PNG")))));
}

/** As in docs/graph-format.md. Exemplars are there where they are inside the page; names become labels. */
export function asGraph(scene: Scene, side: number, notes: Notes): object {
  const graph = scene.graphs[side] as GraphJson;
  const edges = scene.edges.flatMap((edge) => (edge.versions[side] ? [{ ...edge.versions[side], map: placesOf(scene, edge, side) }] : []));
  return {
    ...graph,
    nodes: graph.nodes.map((node) => wholeNode(scene, node, notes)),
    edges,
    view: base64Of(graph.view),
    hierarchy: graph.hierarchy && {
      nodes: [...(scene.trees[side]?.nodes.values() ?? [])].map((node) => wholeNode(scene, node, notes)),
      pairs: graph.hierarchy.pairs.map((pair) => ({ ...pair, maps: mapsOf(pair, scene.bytes) })),
    },
    notes,
  };
}

function wholeNode({ payload, bytes }: Scene, { thumbnail: _, ...node }: NodeJson, notes: Notes): object {
  const addresses = node.exemplars.map((number) => payload.pictures[number] ?? "");
  return {
    ...node,
    label: notes[node.id]?.name || node.label,
    map: unpacked(node.map, bytes),
    ierf: unpacked(node.ierf, bytes),
    exemplars: addresses.filter((address) => address.startsWith("data:")).map(base64Of),
  };
}

function placesOf(scene: Scene, edge: SceneEdge, side: number): object | null {
  const version = edge.versions[side];
  if (version?.map) return unpacked(version.map, scene.bytes);
  const places = actingOf(scene, edge, side);
  return places && packed(places);
}

function mapsOf(pair: PairJson, bytes: Bytes): (object | null)[][] {
  const { maps } = pair;
  return maps ? maps.scales.map((row, i) => row.map((_, j) => unpacked(cellsIn(maps, i, j), bytes))) : [];
}

/** One byte for each cell, `(byte − 128) · scale`. */
function packed({ rows, columns, values }: SignedMap): object {
  const scale = Math.max(...values.map(Math.abs)) / 127;
  const letters = Array.from(values, (value) => String.fromCharCode(128 + (scale ? Math.round(value / scale) : 0)));
  return { rows, columns, scale, content: btoa(letters.join("")) };
}

function unpacked(cells: Cells | null, bytes: Bytes): object | null {
  if (!cells) return null;
  const { rows, columns, scale, start } = cells;
  const letters = Array.from(bytes.subarray(start, start + rows * columns), (byte) => String.fromCharCode(byte));
  return { rows, columns, scale, content: btoa(letters.join("")) };
}

const base64Of = (address: string): string => address.slice(address.indexOf(",") + 1);

const json = (content: object): Blob => new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });

function download(content: Blob, name: string): void {
  const address = URL.createObjectURL(content);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
