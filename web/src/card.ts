/** What is known of a node or of an edge, as a card. */

import { heldBy } from "./flow";
import { h } from "./html";
import { link, nodeLink } from "./links";
import { LONGEST } from "./notes";
import { actingOf, edgeKey, inner, mapOf, somewhere, type SceneEdge, type SceneNode } from "./scene";
import { fewest } from "./painting";
import type { NodeJson } from "./data";
import type { Store } from "./store";
import { importance } from "./view";
import { layerName, nameOf, percent, shortened, signed } from "./words";

const SHOWN = 8;

export function nodeCard(store: Store, node: SceneNode): HTMLElement {
  const here = node.versions[store.view.side];
  const version = somewhere(node, store.view.side);
  const heading = h("h2", {}, nameOf(node, store.notes));
  const parts = [
    foldButtons(store, node, version),
    node.kind === "concept" || node.kind === "group" ? naming(store, node, heading) : null,
    node.kind === "own" ? null : exemplars(store, node, version),
    ...(node.kind === "residual" ? ofResidual(store, node) : []),
  ];
  return h(
    "section",
    { class: "about concept", "aria-label": `Card of ${node.id}` },
    heading,
    h("p", { class: "soft" }, subtitle(store, node, version)),
    here ? null : h("p", {}, "It is no node of this photograph’s graph, only of the other."),
    ...parts.filter((part) => part !== null),
    importances(store, node),
    effects(store, node),
    halves(store, version),
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

function subtitle(store: Store, node: SceneNode, version: NodeJson): string {
  if (node.kind === "class") return `class ${node.index}`;
  if (node.kind === "residual") return `what no concept of ${node.layer} covers`;
  if (node.kind === "group") return `${version.members.length} concepts of ${node.layer} that are in ${store.scene.graphs[store.view.side]?.photographs === 1 ? "this picture" : "these photographs"}, together`;
  if (node.kind === "own") {
    return `a direction of this photograph’s own residual in ${node.layer}, which no concept of the bank covers: of no other photograph anything is known`;
  }
  return `concept ${node.index} of ${node.layer}${version.shared ? ", chosen because all classes need it" : ""}`;
}

function naming(store: Store, node: SceneNode, heading: HTMLElement): HTMLElement {
  const known = store.notes[node.id];
  const name = h("input", {
    type: "text",
    value: known?.name ?? "",
    placeholder: `Name this ${node.kind}`,
    "aria-label": `Name of the ${node.kind}`,
    maxlength: LONGEST,
    input: () => {
      store.note(node, { name: name.value.trim() });
      heading.textContent = nameOf(node, store.notes);
    },
  });
  const note = h("textarea", {
    rows: 2,
    placeholder: "Note",
    "aria-label": `Note on the ${node.kind}`,
    input: () => store.note(node, { note: note.value }),
  }, known?.note ?? "");
  return h("div", { class: "naming" }, name, note);
}

function exemplars(store: Store, node: SceneNode, version: NodeJson): HTMLElement | null {
  if (!version.exemplars.length) return null;
  const pictures = version.exemplars.map((number, i) => {
    const cosine = version.facts?.cosines[i];
    const text = `Exemplar ${i + 1} of ${node.id}${cosine === undefined ? "" : `, cosine ${cosine.toFixed(2)}`}`;
    return h("img", { src: store.scene.payload.pictures[number] ?? "", loading: "lazy", alt: text, title: text, width: 96, height: 96 });
  });
  return h("div", { class: "crops" }, ...pictures);
}

function importances(store: Store, node: SceneNode): HTMLElement {
  const change = store.scene.graphs.length > 1 && store.state.side === "change";
  const values = importance(store.scene, store.state, node);
  const claims = inner(node) && somewhere(node, store.view.side).effects.length > 0;
  return h("div", {}, h("h4", {}, change ? "Importance: after less before" : claims ? "Claim: what it adds to the class" : "Importance"),
    bars(store, values, scaleOf(store, node)));
}

/** Claims and effects of a node are drawn with one scale. */
function scaleOf(store: Store, node: SceneNode): number {
  const tried = node.versions[store.view.side]?.effects ?? [];
  return Math.max(...[...importance(store.scene, store.state, node), ...tried].map(Math.abs)) || 1;
}

/** What happened when the node was taken out: the test of what is claimed. */
function effects(store: Store, node: SceneNode): HTMLElement | null {
  const version = node.versions[store.view.side];
  if (!version?.effects.length) return null;
  if (store.scene.graphs.length > 1 && store.state.side === "change") {
    const [before, after] = node.versions.map((each) => each?.effects ?? []);
    const values = store.scene.classes.map((_, place) => (after?.[place] ?? 0) - (before?.[place] ?? 0));
    return h("div", {}, h("h4", {}, "Effect of taking it out: after less before"), bars(store, values, scaleOf(store, node)));
  }
  const wrong = store.scene.classes.filter((_, place) => (version.importance[place] ?? 0) * (version.effects[place] ?? 0) < 0);
  const said = wrong.length ? `What is claimed for ${wrong.map((each) => each.label).join(" and ")} has the other sign: do not trust it alone.` : null;
  return h("div", {}, h("h4", {}, "Effect: taken out at this layer, the class loses"), bars(store, version.effects, scaleOf(store, node)),
    said && h("p", { class: "soft" }, said));
}

function bars(store: Store, values: number[], largest: number): HTMLElement {
  const items = store.scene.classes.map((each, place) => {
    const value = values[place] ?? 0;
    const bar = h("i", { class: `c${place % 4}`, style: `width:${((50 * Math.abs(value)) / largest).toFixed(1)}%;${value < 0 ? "right" : "left"}:50%` });
    return h("li", {}, h("span", { class: "label" }, each.label), h("span", { class: "bar both", "aria-hidden": "true" }, bar),
      h("span", { class: "number" }, signed(value)));
  });
  return h("ol", { class: "bars" }, ...items);
}

/** Opens a group, or closes the one that this is a half of. */
function foldButtons(store: Store, node: SceneNode, version: NodeJson): HTMLElement | null {
  const above = store.tree?.nodes.get(version.parent);
  const button = (text: string, title: string, click: () => void) => h("button", { type: "button", title, click }, text);
  const buttons = [
    version.opens && store.tree ? button("Open into its two halves", "Open (o, or a double click)", () => store.open(node.id)) : null,
    above ? button(`Close into group ${above.index} (${above.members.length} concepts)`, "Close (c)", () => store.close(above.id)) : null,
  ];
  return buttons.some((each) => each) ? h("div", { class: "buttons fold" }, ...buttons) : null;
}

/** What a group is made of; a click on a half opens it and goes there. */
function halves(store: Store, version: NodeJson): HTMLElement | null {
  const { tree } = store;
  if (!version.members.length) return null;
  const items = (tree?.halves.get(version.id) ?? []).map((id) => {
    const half = tree?.nodes.get(id);
    const go = () => {
      store.open(version.id);
      store.change({ focus: { kind: "node", id } });
    };
    const name = half?.kind === "group" ? `group ${half.index} (${half.members.length})` : `concept ${half?.index}`;
    const values = store.scene.classes.map((each, place) => `${signed(half?.importance[place] ?? 0)} ${shortened(each.label, 12)}`);
    return h("li", {}, h("button", { type: "button", class: "link", click: go }, name), h("span", { class: "number" }, values.join(", ")));
  });
  const rest = version.members.length - SHOWN;
  const members = `${version.members.slice(0, SHOWN).map((member) => `#${member}`).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
  return h("div", {}, items.length ? h("h4", {}, "Its two halves") : null, h("ul", { class: "edges-of" }, ...items),
    h("p", { class: "near" }, `concepts that add or take most: ${members}`));
}

/** Where the residual is, for which class it speaks, and whether it is opened. */
function ofResidual(store: Store, node: SceneNode): (HTMLElement | null)[] {
  const { scene, view } = store;
  const version = node.versions[view.side];
  if (!version) return [];
  const share = heldBy(scene, view.side, view.kept)[scene.layers.indexOf(node.layer) - 1] ?? [];
  const each = scene.classes.map((one, place) => `${percent(share[place]?.residual ?? 0)} of the score of ${one.label}`).join(" and ");
  const values = scene.classes.map((one, place) => [one.label, version.importance[place] ?? 0] as const);
  const named = (some: typeof values) => some.map(([label, value]) => `${label} (${signed(value)})`).join(" and ");
  const [good, bad] = [values.filter(([, value]) => value > 0), values.filter(([, value]) => value < 0)];
  const speaks = [good.length ? `It speaks for ${named(good)}` : "", bad.length ? `${good.length ? "and" : "It speaks"} against ${named(bad)}` : ""];
  const own = (scene.rows[scene.layers.indexOf(node.layer)] ?? []).filter((other) => other.kind === "own");
  const opened = scene.graphs[view.side]?.hierarchy && scene.graphs[view.side]?.photographs === 1;
  return [
    h("p", {}, `${speaks.filter(Boolean).join(" ")}${speaks.some(Boolean) ? ". " : ""}Here ${each} ends.`),
    version.map ? h("p", {}, "On the photograph: where it is, as the size of what is not covered.") : null,
    own.length
      ? h("p", {}, "It held more than a tenth of the flow, so its own directions are shown: ", ...own.flatMap((other, i) => [i ? ", " : "", nodeLink(store, other)]), ". What is said here is of the rest.")
      : opened ? h("p", { class: "soft" }, `${version.influence > 0.1 ? "With all groups opened it" : "It"} holds no more than a tenth of the flow, from which on its own directions would be shown.`) : null,
  ];
}

function facts(store: Store, node: SceneNode, version: NodeJson): [string, string][] {
  const map = mapOf(store.scene, node, store.view.side, "map");
  const known: [string, string | null][] = [
    ["of the flow", percent(version.influence)],
    [measureOf(store, node), inner(node) ? version.activation.toPrecision(3) : percent(version.activation)],
    ["of it at prefix tokens", version.prefix_share >= 0.01 ? percent(version.prefix_share) : null],
    ["largest at a position", map ? signed(map.values.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0)) : null],
    ["its own score here", version.score ? version.score.map((value) => signed(value)).join(" → ") : null],
    [node.kind === "group" ? "its concepts, on average" : "in all photographs", version.facts ? `in ${percent(version.facts.frequency)} of PFVs` : null],
    ["mean coefficient there", version.facts ? version.facts.strength.toPrecision(3) : null],
    ["of the layer’s relevance", version.facts ? percent(version.facts.relevance) : null],
  ];
  return known.filter((fact): fact is [string, string] => fact[1] !== null);
}

/** What a node's activation is. */
function measureOf(store: Store, node: SceneNode): string {
  const ofGroups = store.tree !== null;
  if (node.kind === "class") return "probability";
  if (node.kind === "residual") return "of the layer";
  return ofGroups ? "of the PFVs’ lengths" : "Σ |coefficient|";
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
