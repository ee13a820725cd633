/** What is known of a node or of an edge, as a card. */

import { h } from "./html";
import { link, nodeLink } from "./links";
import { LONGEST } from "./notes";
import { actingOf, edgeKey, mapOf, somewhere, type SceneEdge, type SceneNode } from "./scene";
import { fewest } from "./painting";
import type { NodeJson } from "./data";
import type { Store } from "./store";
import { importance } from "./view";
import { layerName, nameOf, percent, signed } from "./words";

const SHOWN = 8;

export function nodeCard(store: Store, node: SceneNode): HTMLElement {
  const here = node.versions[store.view.side];
  const version = somewhere(node, store.view.side);
  const heading = h("h2", {}, nameOf(node, store.notes));
  const parts = node.kind === "concept" ? [naming(store, node, heading), exemplars(node, version)] : [];
  return h(
    "section",
    { class: "about concept", "aria-label": `Card of ${node.id}` },
    heading,
    h("p", { class: "soft" }, subtitle(node, version)),
    here ? null : h("p", {}, "It is no node of this photograph’s graph, only of the other."),
    ...parts,
    importances(store, node),
    list(facts(store, node, version)),
    ...about(store, node, version),
    neighbours(store, node, "Matters to", (edge) => edge.source === node),
    neighbours(store, node, "Made of", (edge) => edge.target === node),
  );
}

export function edgeCard(store: Store, source: string, target: string): HTMLElement {
  const edge = store.scene.byKey.get(edgeKey(source, target));
  const version = edge?.versions[store.view.side];
  if (!edge) return h("section", { class: "about concept" }, h("p", {}, "There is no such edge."));
  const places = actingOf(store.scene, edge, store.view.side);
  const values = edge.versions.length > 1 ? edge.versions.map((each) => signed(each?.value ?? 0)).join(" → ") : null;
  return h(
    "section",
    { class: "about concept", "aria-label": `Card of the edge ${edge.key}` },
    h("h2", {}, nodeLink(store, edge.source, true), " → ", nodeLink(store, edge.target, true)),
    h("p", {}, version
      ? `It adds ${signed(version.value)} to the score of its target: ${percent(version.share)} of all that flows into it.`
      : "It is no edge of this photograph’s graph."),
    list([
      ...(values ? [["before → after", values] as [string, string]] : []),
      ...(version?.p_value == null
        ? []
        : [["as strong by chance", `p = ${version.p_value.toPrecision(2)}${version.p_value > 0.05 ? ", dashed" : ""}`] as [string, string]]),
      ...(places ? [["half of it at", `${fewest(places, 0.5)} of ${places.values.length} places`] as [string, string]] : []),
    ]),
    h("p", { class: "soft" }, places
      ? "On the photograph: where the source adds to the target or takes from it, beside where the target is."
      : "It is not known by position."),
  );
}

function subtitle(node: SceneNode, version: NodeJson): string {
  if (node.kind === "class") return `class ${node.index}`;
  if (node.kind === "residual") return `what no concept of ${node.layer} covers`;
  return `concept ${node.index} of ${node.layer}${version.shared ? ", chosen because all classes need it" : ""}`;
}

function naming(store: Store, node: SceneNode, heading: HTMLElement): HTMLElement {
  const known = store.notes[node.id];
  const name = h("input", {
    type: "text",
    value: known?.name ?? "",
    placeholder: "Name this concept",
    "aria-label": "Name of the concept",
    maxlength: LONGEST,
    input: () => {
      store.note(node, { name: name.value.trim() });
      heading.textContent = nameOf(node, store.notes);
    },
  });
  const note = h("textarea", {
    rows: 2,
    placeholder: "Note",
    "aria-label": "Note on the concept",
    input: () => store.note(node, { note: note.value }),
  }, known?.note ?? "");
  return h("div", { class: "naming" }, name, note);
}

function exemplars(node: SceneNode, version: NodeJson): HTMLElement | null {
  if (!version.exemplars.length) return null;
  const pictures = version.exemplars.map((address, i) => {
    const cosine = version.facts?.cosines[i];
    const text = `Exemplar ${i + 1} of ${node.id}${cosine === undefined ? "" : `, cosine ${cosine.toFixed(2)}`}`;
    return h("img", { src: address, loading: "lazy", alt: text, title: text, width: 96, height: 96 });
  });
  return h("div", { class: "crops" }, ...pictures);
}

function importances(store: Store, node: SceneNode): HTMLElement {
  const values = importance(store.scene, store.state, node);
  const largest = Math.max(...values.map(Math.abs)) || 1;
  const items = store.scene.classes.map((each, place) => {
    const value = values[place] ?? 0;
    const bar = h("i", { class: `c${place % 4}`, style: `width:${((50 * Math.abs(value)) / largest).toFixed(1)}%;${value < 0 ? "right" : "left"}:50%` });
    return h("li", {}, h("span", { class: "label" }, each.label), h("span", { class: "bar both", "aria-hidden": "true" }, bar),
      h("span", { class: "number" }, signed(value)));
  });
  const change = store.scene.graphs.length > 1 && store.state.side === "change";
  return h("div", {}, h("h4", {}, change ? "Importance: after less before" : "Importance"), h("ol", { class: "bars" }, ...items));
}

function facts(store: Store, node: SceneNode, version: NodeJson): [string, string][] {
  const map = mapOf(store.scene, node, store.view.side, "map");
  const known: [string, string | null][] = [
    ["of the flow", percent(version.influence)],
    [{ class: "probability", concept: "Σ |coefficient|", residual: "of the layer" }[node.kind],
      node.kind === "concept" ? version.activation.toPrecision(3) : percent(version.activation)],
    ["of it at prefix tokens", version.prefix_share >= 0.01 ? percent(version.prefix_share) : null],
    ["largest coefficient", map ? signed(map.values.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0)) : null],
    ["in all photographs", version.facts ? `in ${percent(version.facts.frequency)} of PFVs` : null],
    ["mean coefficient there", version.facts ? version.facts.strength.toPrecision(3) : null],
    ["of the layer’s relevance", version.facts ? percent(version.facts.relevance) : null],
  ];
  return known.filter((fact): fact is [string, string] => fact[1] !== null);
}

const list = (facts: [string, string][]): HTMLElement =>
  h("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

function about(store: Store, node: SceneNode, version: NodeJson): (HTMLElement | null)[] {
  if (!version.facts) return [];
  const classes = version.facts.classes.map(([label, share]) =>
    h("li", {}, h("span", { class: "label" }, label),
      h("span", { class: "bar", "aria-hidden": "true" }, h("i", { style: `width:${(100 * share).toFixed(1)}%` })),
      h("span", { class: "number" }, percent(share))));
  const nearest = version.facts.nearest.flatMap(([index, cosine], i) => {
    const there = store.scene.nodes.get(`${node.layer}/${index}`);
    return [i ? ", " : "", there ? nodeLink(store, there) : `#${index}`, ` ${cosine.toFixed(2)}`];
  });
  return [
    classes.length ? h("div", {}, h("h4", {}, "Predicted classes where it is"), h("ol", { class: "bars" }, ...classes)) : null,
    nearest.length ? h("p", { class: "near" }, "nearest: ", ...nearest) : null,
  ];
}

function neighbours(store: Store, node: SceneNode, title: string, which: (edge: SceneEdge) => boolean): HTMLElement | null {
  const { side, byEdge } = store.view;
  const edges = (store.scene.touching.get(node.id) ?? [])
    .filter((edge) => which(edge) && byEdge.has(edge) && edge.versions[side])
    .sort((a, b) => Math.abs(b.versions[side]?.value ?? 0) - Math.abs(a.versions[side]?.value ?? 0));
  if (!edges.length) return null;
  const items = edges.slice(0, SHOWN).map((edge) => {
    const other = edge.source === node ? edge.target : edge.source;
    const focus = { kind: "edge", source: edge.source.id, target: edge.target.id } as const;
    const value = edge.versions[side]?.value ?? 0;
    return h("li", {}, nodeLink(store, other), " ", link(store, focus, `edge ${signed(value)}`),
      h("span", { class: "number" }, percent(edge.versions[side]?.share ?? 0)));
  });
  const layer = layerName((edges[0]?.source === node ? edges[0]?.target : edges[0]?.source)?.layer ?? "");
  const more = edges.length > SHOWN ? `, the ${SHOWN} strongest of ${edges.length}` : "";
  return h("div", {}, h("h4", {}, `${title} (${layer}${more})`), h("ul", { class: "edges-of" }, ...items));
}
