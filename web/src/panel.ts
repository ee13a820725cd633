/** The column beside the graph: what was chosen, the routes or differences, what the graph leaves out. */

import { edgeCard, nodeCard } from "./card";
import { heldBy } from "./flow";
import { h } from "./html";
import { link, nodeLink } from "./links";
import { ranking } from "./ranking";
import type { Finding } from "./data";
import type { Store } from "./store";
import { differences } from "./view";
import { fine, layerName, percent, shortened, signed } from "./words";

const SHOWN = 3;

export function showPanel(place: HTMLElement, store: Store): void {
  let [before, focus] = ["", ""];
  const update = () => {
    const { query: _, opacity: __, scale: ___, paint: ____, ...said } = store.state;
    const now = JSON.stringify([said, store.readings]);
    if (now === before) return;
    const moved = JSON.stringify(said.focus) !== focus;
    [before, focus] = [now, JSON.stringify(said.focus)];
    place.replaceChildren(...[chosen(store), ofMode(store), findings(store), leftOut(store), reading()].filter((part) => part !== null));
    if (moved) place.scrollTop = 0;
  };
  store.onChange(update);
  update();
}

function chosen(store: Store): HTMLElement | null {
  const { focus } = store.state;
  if (focus?.kind === "edge") return edgeCard(store, focus.source, focus.target);
  if (focus?.kind === "pixel") return ranked(store, focus.x, focus.y);
  const node = focus ? store.scene.nodes.get(focus.id) : undefined;
  return node ? nodeCard(store, node) : null;
}

function ranked(store: Store, x: number, y: number): HTMLElement {
  const rows = ranking(store.scene, store.view.side, x, y).map(({ layer, concepts }) => {
    const items = concepts.slice(0, SHOWN).map(({ node, evidence, share }) =>
      h("li", {}, nodeLink(store, node), ` ${signed(evidence)}`, h("span", { class: "number" }, percent(share))));
    return h("div", {}, h("h3", {}, layer), items.length ? h("ol", { class: "edges-of" }, ...items) : h("p", { class: "soft" }, "none"));
  });
  const at = `${Math.floor(100 * y)} % down, ${Math.floor(100 * x)} % across`;
  return h("section", { class: "about ranking", "aria-label": "Concepts at this place" }, h("h2", {}, "At this place"),
    h("p", { class: "soft" }, `${at}. Each concept with the relevance that its iERF has in this cell, and how much of all its relevance that is.`),
    ...rows);
}

function ofMode(store: Store): HTMLElement | null {
  const { scene, state, view } = store;
  const [first, second] = [scene.classes[state.first]?.label ?? "", scene.classes[state.second]?.label ?? ""];
  if (state.mode === "routes") {
    const items = view.routes.map((route) => {
      const steps = route.nodes.slice(1).flatMap((node) => [" ← ", nodeLink(store, node, true)]);
      return h("li", {}, h("strong", {}, fine(route.share)), ` ${first}`, ...steps);
    });
    const whole = view.routes.reduce((sum, route) => sum + route.share, 0);
    return h("section", { class: "routes", "aria-label": "Routes" }, h("h2", {}, `Strongest routes to ${first}`),
      h("p", { class: "soft" }, `Together they carry ${fine(whole)} of its score down to the lowest layer.`),
      h("ol", {}, ...items));
  }
  if (state.mode !== "difference") return null;
  const rows = differences(scene, state, view).map(({ layer, nodes }) => {
    const item = ([node, value]: (typeof nodes)[number]) => h("li", {}, nodeLink(store, node), ` ${signed(value)}`);
    const strongest = nodes.toSorted((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, SHOWN);
    return h("div", {}, h("h3", {}, layerName(layer)), h("ul", { class: "edges-of" }, ...strongest.map(item)));
  });
  return h("section", { class: "difference", "aria-label": "Difference of classes" }, h("h2", {}, `Why ${first}, not ${second}`),
    h("p", { class: "soft" }, "Importance for the one less that for the other: the largest differences of each layer."), ...rows);
}

function findings(store: Store): HTMLElement | null {
  const { findings: found } = store.scene.payload;
  if (!found.length) return null;
  const item = ({ text, about }: Finding) => {
    const [source, target] = about;
    if (source && target) return h("li", {}, link(store, { kind: "edge", source, target }, text));
    return h("li", {}, source ? link(store, { kind: "node", id: source }, text) : text);
  };
  return h("section", { class: "findings", "aria-label": "Findings" }, h("h2", {}, "Findings"), h("ul", {}, ...found.map(item)));
}

/** How much of each class's score the drawn graph holds, layer by layer, and how much went to residuals. */
function held(store: Store): HTMLElement[] {
  const { scene, view } = store;
  const layers = scene.layers.slice(1);
  const last = layers.at(-1);
  if (!last) return [];
  const shares = heldBy(scene, view.side, view.kept);
  const parts = scene.classes.map((each, place) => {
    const lost = shares.reduce((sum, row) => sum + (row[place]?.residual ?? 0), 0);
    return `${fine(shares.at(-1)?.[place]?.kept ?? 0)} of the score of ${each.label} (${percent(lost)} went to residuals on the way)`;
  });
  const names = scene.classes.map((each) => h("th", { scope: "colgroup", colspan: 2 }, shortened(each.label, 14)));
  const kinds = scene.classes.flatMap(() => ["held", "to residual"].map((text) => h("th", { scope: "col" }, text)));
  const rows = layers.map((layer, i) => h("tr", {}, h("td", {}, layer), ...(shares[i] ?? []).flatMap(({ kept, residual }) =>
    [h("td", {}, fine(kept)), h("td", {}, percent(residual))])));
  return [
    h("p", {}, `What is drawn holds, down to ${last}, ${parts.join(" and ")}.`),
    h("table", { class: "held" }, h("thead", {}, h("tr", {}, h("td"), ...names), h("tr", {}, h("td"), ...kinds)), h("tbody", {}, ...rows)),
  ];
}

function leftOut(store: Store): HTMLElement {
  const graph = store.scene.graphs[store.view.side];
  const head = ["layer", "active", "at a place", "not covered", "shown", "error", "KKT"];
  const rows = (graph?.accounts ?? []).toReversed().map((account) => [
    account.layer,
    `${account.active.toFixed(0)}/${account.concepts}`,
    account.l0.toFixed(1),
    percent(account.residual_share),
    percent(Math.min(...account.score_kept)),
    short(account.completeness_error),
    short(account.kkt),
  ]);
  const cells = (kind: "th" | "td", row: string[]) => h("tr", {}, ...row.map((text) => h(kind, kind === "th" ? { scope: "col" } : {}, text)));
  return h("details", { open: store.state.focus === null }, h("summary", {}, "What it holds and leaves out"),
    ...held(store),
    store.state.budget || store.state.folds.length ? h("p", { class: "soft" }, "As it was drawn at first:") : null,
    ...store.scene.payload.leftOut.map((text) => h("p", {}, text)),
    h("div", { class: "scroll" }, h("table", { class: "held small" }, h("thead", {}, cells("th", head)), h("tbody", {}, ...rows.map((row) => cells("td", row))))));
}

/** "8e-7" */
const short = (value: number): string => value.toExponential(0).replace("-", "−");

const READING = [
  "Each row is a layer, the classes above, the pixels’ side below. A picture is a concept: the parts of other photographs where it is strongest. The bars say how much it matters to each class; to the right speaks for the class, to the left against. A dashed frame is the residual: what no concept of the layer covers.",
  "An edge says how much a concept matters to one of the next layer: wide is much, orange speaks for it, blue against, dashed is no more than chance. Edges are scaled by the strongest of each pair of layers. They are attributions, not proofs of cause.",
  "A card with another one behind it is a group of concepts, as many as the number in its corner says: open it into its two halves (double click, o) and close it again (c); the slider says how many groups are in a row. Edges of groups are the sums of those of their halves, so nothing is lost but grain. A dotted frame is a direction of this photograph’s own residual.",
  "Point at a node to see on the photograph where it is, or the pixels that caused it; at an edge to see where it acts, beside where its target is. Click to keep it. Click the photograph to rank the concepts at that place.",
];
const KEYS = [
  ["← →", "along the row"], ["↑ ↓", "the strongest edge up or down"], ["o, c", "open the group, close it again"], ["Esc", "let go"], ["/", "search"], ["m", "map or pixels"],
  ["1 2 3", "influence, difference, routes"], ["u, U", "undo, redo"], ["+ − 0", "larger, smaller, as at first"],
];

function reading(): HTMLElement {
  return h("details", {}, h("summary", {}, "How to read this, and keys"), ...READING.map((text) => h("p", {}, text)),
    h("dl", { class: "facts" }, ...KEYS.flatMap(([key = "", what = ""]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])));
}
