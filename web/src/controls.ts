/** What the view is set with: mode, classes, sides, sliders, search, undo, size. */

import { h } from "./html";
import { MODES, SIDES, type State } from "./state";
import { inner, type SceneNode } from "./scene";
import type { Store } from "./store";
import { percent } from "./words";

export const LARGER = 1.2;

export function showControls(place: HTMLElement, store: Store): void {
  const updates: (() => void)[] = [];
  const parts = [
    choice(store, updates, "Mode", "mode", store.scene.classes.length > 1 ? MODES : MODES.filter((mode) => mode !== "difference")),
    classSelect(store, updates, "first", "Class"),
    classSelect(store, updates, "second", "not"),
    store.scene.graphs.length > 1 ? choice(store, updates, "Photograph", "side", SIDES) : null,
    store.tree ? budgetSlider(store, updates) : null,
    slider(store, updates, "routes", "Routes", { min: 1, max: 30, step: 1 }, (state) => String(state.routes)),
    slider(store, updates, "nodes", "Nodes", { min: 0, max: 1, step: 0.01 }, () => nodesShown(store)),
    slider(store, updates, "edges", "Edges", { min: 0, max: 1, step: 0.01 }, () => edgesShown(store)),
  ];
  place.append(...parts.filter((part) => part !== null));
  const update = () => updates.forEach((call) => call());
  store.onChange(update);
  update();
}

/** How the photograph is painted. */
export function showPainting(place: HTMLElement, store: Store): void {
  const updates: (() => void)[] = [];
  place.append(
    choice(store, updates, "Painted", "paint", ["map", "ierf"], { map: "where it is", ierf: "its pixels (iERF)" }),
    slider(store, updates, "opacity", "Opacity", { min: 0, max: 1, step: 0.01 }, (state) => percent(state.opacity)),
  );
  const update = () => updates.forEach((call) => call());
  store.onChange(update);
  update();
}

export function searchBox(store: Store): HTMLElement {
  const box = h("input", {
    type: "search",
    id: "search",
    placeholder: "Class, layer, number, name",
    "aria-label": "Search nodes",
    input: () => store.change({ query: box.value }),
  });
  const found = h("span", { class: "number", role: "status" });
  const update = () => {
    if (box.value !== store.state.query) box.value = store.state.query;
    found.textContent = store.view.found ? `${store.view.found.size} found` : "";
  };
  store.onChange(update);
  update();
  return h("div", { class: "search" }, box, found);
}

export function steps(store: Store): HTMLElement {
  const undo = h("button", { type: "button", title: "Undo (u)", click: () => store.undo() }, "Undo");
  const redo = h("button", { type: "button", title: "Redo (U)", click: () => store.redo() }, "Redo");
  const update = () => {
    undo.disabled = !store.canUndo;
    redo.disabled = !store.canRedo;
  };
  store.onChange(update);
  update();
  return h("div", { class: "buttons" }, undo, redo);
}

function nodesShown(store: Store): string {
  const of = (nodes: Iterable<SceneNode>) => [...nodes].filter(inner).length;
  return `${of(store.view.kept.nodes)} of ${of(store.scene.nodes.values())}`;
}

function edgesShown(store: Store): string {
  const { edges, share } = store.view.kept;
  const built = Math.min(...store.scene.graphs.map((graph) => Number(graph.settings["keep"] ?? 1)));
  const cut = built < 1 ? `; built with ${percent(built)} of all` : "";
  return `${edges.length} of ${store.scene.edges.length}, ${percent(share)} of the drawn flow${cut}`;
}

function choice<K extends "mode" | "side" | "paint">(
  store: Store,
  updates: (() => void)[],
  label: string,
  key: K,
  values: readonly State[K][],
  names: Record<string, string> = {},
): HTMLElement {
  const inputs = values.map((value) =>
    h("input", { type: "radio", name: key, value, change: () => store.change({ [key]: value }) }));
  updates.push(() => inputs.forEach((input) => (input.checked = input.value === store.state[key])));
  const items = inputs.map((input) => h("label", {}, input, h("span", {}, names[input.value] ?? input.value)));
  return h("fieldset", { class: "choice" }, h("legend", {}, label), ...items);
}

function classSelect(store: Store, updates: (() => void)[], key: "first" | "second", label: string): HTMLElement {
  const options = store.scene.classes.map((node, place) => h("option", { value: place }, node.label));
  const select = h("select", { "aria-label": key === "first" ? "Class" : "Class that it is set against", change: () => store.change({ [key]: Number(select.value) }) }, ...options);
  const whole = h("label", { class: "select" }, `${label} `, select);
  updates.push(() => {
    select.value = String(store.state[key]);
    const { mode } = store.state;
    whole.hidden = mode === "influence" || (mode === "routes" && key === "second");
  });
  return whole;
}

function slider(
  store: Store,
  updates: (() => void)[],
  key: "routes" | "nodes" | "edges" | "opacity",
  label: string,
  range: { min: number; max: number; step: number },
  said: (state: State) => string,
): HTMLElement {
  const input = h("input", { type: "range", ...range, name: key, input: () => store.change({ [key]: Number(input.value) }) });
  const output = h("output");
  const whole = h("label", { class: "slider" }, `${label} `, input, output);
  updates.push(() => {
    input.value = String(store.state[key]);
    output.textContent = said(store.state);
    input.setAttribute("aria-valuetext", output.textContent);
    whole.hidden = key === "routes" && store.state.mode !== "routes";
  });
  return whole;
}

/** How many groups are in a row; moving it takes back what was opened and closed. */
function budgetSlider(store: Store, updates: (() => void)[]): HTMLElement {
  const most = store.tree?.most ?? 1;
  const input = h("input", { type: "range", min: 1, max: most, step: 1, name: "budget", input: () => store.setBudget(Number(input.value)) });
  const output = h("output");
  updates.push(() => {
    const { budget, folds } = store.state;
    const drawn = Number(store.scene.graphs[0]?.settings["budget"] ?? most);
    input.value = String(budget || drawn);
    output.textContent = `${input.value} a row${folds.length ? `, ${folds.length} opened or closed` : ""}`;
    input.setAttribute("aria-valuetext", output.textContent);
  });
  return h("label", { class: "slider" }, "Groups ", input, output);
}

export function sizes(store: Store): HTMLElement {
  const button = (text: string, name: string, scale: () => number) =>
    h("button", { type: "button", "aria-label": name, title: name, click: () => store.change({ scale: limited(scale()) }) }, text);
  return h("div", { class: "buttons" },
    button("−", "Smaller", () => store.state.scale / LARGER), button("Fit", "As at first", () => 1),
    button("+", "Larger", () => store.state.scale * LARGER));
}

export const limited = (scale: number): number => Math.min(3, Math.max(0.2, scale));
