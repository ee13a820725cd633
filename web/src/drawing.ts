/** The graph as SVG, in three layers: edges, dimmed as a whole when some are lit; those; cards. So pointing redraws little. */

import { select, type Selection } from "d3-selection";
import { linkVertical } from "d3-shape";
import { CARD, ends, layOut, type Layout } from "./layout";
import { edgeAt } from "./pick";
import { inner, somewhere, type SceneNode } from "./scene";
import type { Store } from "./store";
import type { Focus } from "./state";
import { edgesOf, type Drawn } from "./view";
import { described, layerName, nameOf, percent, shortened } from "./words";

const PICTURE = 76;
/** Of the text below it, and of the bars. */
const NAME = 94;
const BARS = 98;
const INSET = (CARD.width - PICTURE) / 2;
const CLASS_COLOURS = 4;
const LEAST = 0.68;

type Group = Selection<SVGGElement, unknown, null, undefined>;
const curve = linkVertical<{ source: [number, number]; target: [number, number] }, [number, number]>();

export interface Drawing {
  /** As it is now: opening a group moves the others. */
  readonly layout: Layout;
  /** The layers, from below. */
  parts: SVGSVGElement[];
  focusOn: (id: string) => void;
}

export function drawGraph(stage: HTMLElement, store: Store): Drawing {
  let scene = store.scene;
  let layout = layOut(scene);
  const below = svgIn(stage, "edges").attr("aria-hidden", "true");
  const between = svgIn(stage, "lit").attr("aria-hidden", "true");
  const above = svgIn(stage, "cards").attr("role", "group").attr("aria-label", "Nodes of the graph");
  const edges: Group = below.append("g");
  const lit: Group = between.append("g");
  const labels: Group = above.append("g");
  const cards: Group = above.append("g");
  const elements = new Map<string, SVGGElement>();
  place(cards, elements, layout, store);

  const scale = () => store.state.scale * fitting(stage, layout);
  const update = () => {
    if (store.scene !== scene) {
      scene = store.scene;
      layout = layOut(scene);
      place(cards, elements, layout, store);
    }
    resize(stage, [below, between, above], layout, scale());
    curves(edges, store.view.edges, layout, false);
    rows(labels, store, layout);
    updateCards(elements, store);
    light();
  };
  const light = () => {
    const some = edgesOf(scene, store.view, store.focus);
    curves(lit, some, layout, true);
    below.classed("dimmed", some.length > 0);
    mark(elements, some, store);
  };
  const under = (event: MouseEvent): Focus | null => {
    const id = (event.target as Element).closest<SVGGElement>(".node")?.dataset["node"];
    if (id) return { kind: "node", id };
    const box = stage.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / scale(), (event.clientY - box.top) / scale()];
    const found = edgeAt(store.view.edges, layout, x, y)?.edge;
    return found ? { kind: "edge", source: found.source.id, target: found.target.id } : null;
  };
  stage.addEventListener("pointermove", (event) => store.point(under(event)));
  stage.addEventListener("pointerleave", () => store.point(null));
  stage.addEventListener("click", (event) => store.change({ focus: under(event) }));
  stage.addEventListener("dblclick", (event) => {
    const at = under(event);
    if (at?.kind === "node") store.open(at.id);
  });
  store.onChange(update);
  addEventListener("resize", update);
  store.onHover(light);
  update();
  return {
    get layout() {
      return layout;
    },
    parts: [below, between, above].map((part) => part.node() as SVGSVGElement),
    focusOn: (id) => elements.get(id)?.focus({ preventScroll: false }),
  };
}

function svgIn(stage: HTMLElement, name: string): Selection<SVGSVGElement, unknown, null, undefined> {
  return select(stage).append("svg").attr("class", name);
}

/** The cards of the nodes that there are, each at its place; those that stay are moved. */
function place(cards: Group, elements: Map<string, SVGGElement>, layout: Layout, store: Store): void {
  for (const [id, element] of elements) {
    if (store.scene.nodes.has(id)) continue;
    element.remove();
    elements.delete(id);
  }
  for (const node of store.scene.rows.flat()) {
    const element = elements.get(node.id) ?? card(cards, node, layout, store);
    const box = layout.boxes.get(node.id);
    if (box) element.setAttribute("transform", `translate(${box.x.toFixed(1)} ${box.y})`);
    elements.set(node.id, element);
  }
}

/** By how much a wide graph is made smaller to be seen whole, as long as it can be read. */
const fitting = (stage: HTMLElement, layout: Layout): number =>
  Math.min(1, Math.max(LEAST, (stage.parentElement?.clientWidth ?? 0) / layout.width));

function resize(
  stage: HTMLElement,
  parts: Selection<SVGSVGElement, unknown, null, undefined>[],
  layout: Layout,
  scale: number,
): void {
  stage.style.width = `${layout.width * scale}px`;
  stage.style.height = `${layout.height * scale}px`;
  for (const part of parts) {
    part.attr("viewBox", `0 0 ${layout.width} ${layout.height}`);
    part.attr("width", layout.width * scale).attr("height", layout.height * scale);
  }
}

function curves(group: Group, drawn: readonly Drawn[], layout: Layout, strong: boolean): void {
  group
    .selectAll<SVGPathElement, Drawn>("path")
    .data(drawn, (each) => each.edge.key)
    .join("path")
    .attr("class", (each) => `edge ${each.colour}${each.doubtful ? " doubtful" : ""}`)
    .attr("d", (each) => {
      const at = ends(each.edge, layout);
      return at ? curve(at) : null;
    })
    .attr("stroke-width", (each) => (strong ? Math.max(1.6, each.width) : each.width).toFixed(2))
    .attr("stroke-opacity", (each) => (strong ? 1 : each.opacity).toFixed(3))
    .order();
}

function rows(group: Group, store: Store, layout: Layout): void {
  const { scene, view } = store;
  const lines = scene.layers.flatMap((layer, i) => {
    const y = (layout.tops.get(layer) ?? 0) + 30;
    const flow = (which: (node: SceneNode) => boolean) =>
      (scene.rows[i] ?? []).reduce((sum, n) => sum + (which(n) ? (view.kept.flow.nodes.get(n.id) ?? 0) : 0), 0);
    const account = scene.graphs[view.side]?.accounts.find((each) => each.layer === layer);
    const texts = account
      ? [`${percent(flow(inner))} of the flow`, `${percent(flow((node) => !inner(node)))} to the residual`,
          `${percent(account.residual_share)} not covered`]
      : [];
    return [
      { key: layer, y, text: shortened(layerName(layer), 15), kind: "layer" },
      ...texts.map((text, j) => ({ key: `${layer} ${j}`, y: y + 18 + 15 * j, text, kind: "soft" })),
    ];
  });
  group
    .selectAll<SVGTextElement, (typeof lines)[number]>("text")
    .data(lines, (line) => line.key)
    .join("text")
    .attr("class", (line) => line.kind)
    .attr("x", 12)
    .attr("y", (line) => line.y)
    .text((line) => line.text);
}

function card(group: Group, node: SceneNode, layout: Layout, store: Store): SVGGElement {
  const box = layout.boxes.get(node.id) ?? { x: 0, y: 0, ...CARD };
  const made = group
    .append("g")
    .attr("class", `node ${node.kind}`)
    .attr("data-node", node.id)
    .attr("role", "button")
    .attr("tabindex", -1);
  const version = somewhere(node, 0);
  const ofOne = node.kind === "residual" && store.scene.graphs.length > 1;
  const picture = version.thumbnail === null || ofOne ? null : store.scene.payload.pictures[version.thumbnail];
  if (version.opens) made.append("rect").attr("class", "behind").attr("x", 4).attr("y", 4).attr("width", box.width).attr("height", box.height).attr("rx", 8);
  made.append("rect").attr("class", "card").attr("width", box.width).attr("height", box.height).attr("rx", 8);
  const pictured = inner(node) || Boolean(picture);
  if (pictured) {
    const frame = made.append(picture ? "image" : "rect").attr("x", INSET).attr("y", INSET);
    frame.attr("width", PICTURE).attr("height", PICTURE);
    if (picture) frame.attr("href", picture);
    else frame.attr("class", "empty");
  }
  if (node.kind === "group") badge(made, String(version.members.length), box.width);
  const lines = pictured ? [NAME, 0] : node.kind === "class" ? [26, 44] : [30, 46];
  made.append("text").attr("class", "name").attr("x", box.width / 2).attr("y", lines[0] ?? 0);
  if (!pictured) made.append("text").attr("class", "soft middle").attr("x", box.width / 2).attr("y", lines[1] ?? 0);
  const bars = made.append("g").attr("class", "bars");
  const places = node.kind === "class" ? [store.scene.classes.indexOf(node)] : store.scene.classes.map((_, place) => place);
  for (const place of places) bars.append("rect").attr("class", `c${place % CLASS_COLOURS}`);
  if (node.kind !== "class") bars.append("path").attr("class", "axis").attr("d", `M${box.width / 2} ${BARS}V${BARS + 12}`);
  return made.node() as SVGGElement;
}

/** How many concepts a group holds, in the corner of its picture. */
function badge(card: Group, text: string, width: number): void {
  const wide = 8 + 7 * text.length;
  const right = width - INSET;
  card.append("rect").attr("class", "badge").attr("x", right - wide).attr("y", INSET).attr("width", wide).attr("height", 15);
  card.append("text").attr("class", "count").attr("x", right - wide / 2).attr("y", 15.5).text(text);
}

function updateCards(elements: Map<string, SVGGElement>, store: Store): void {
  const { view, state, notes } = store;
  for (const [id, element] of elements) {
    const node = store.scene.nodes.get(id) as SceneNode;
    const version = node.versions[view.side];
    const chosen = select(element)
      .attr("aria-label", described(store.scene, node, view.side, notes))
      .classed("hidden", !view.kept.nodes.has(node))
      .classed("absent", !version || (inner(node) && version.activation === 0))
      .classed("lost", view.found !== null && !view.found.has(id))
      .classed("found", view.found?.has(id) ?? false);
    chosen.select(".name").text(shortened(nameOf(node, notes), node.kind === "class" ? 21 : 11));
    if (node.kind === "class") chosen.select(".soft.middle").text(version ? `${percent(version.activation)}, logit ${logit(version.importance)}` : "");
    if (node.kind === "residual") chosen.select(".soft.middle").text(version ? `${percent(version.activation)} left` : "");
    bars(element, view.bars.get(id) ?? [], node.kind === "class");
  }
  const start = state.focus?.kind === "node" ? state.focus.id : store.scene.classes[0]?.id;
  for (const [id, element] of elements) element.setAttribute("tabindex", id === start ? "0" : "-1");
}

const logit = (importance: number[]): string => importance.reduce((sum, value) => sum + value, 0).toFixed(2).replace("-", "−");

function bars(element: SVGGElement, values: number[], ofClass: boolean): void {
  const step = ofClass ? 6 : 12 / Math.max(1, values.length);
  const reach = ofClass ? 156 : CARD.width / 2 - 4;
  const [middle, top] = ofClass ? [6, 52] : [CARD.width / 2, BARS];
  select(element)
    .selectAll<SVGRectElement, unknown>(".bars rect")
    .data(values)
    .attr("x", (value) => (value < 0 ? middle + reach * value : middle).toFixed(1))
    .attr("y", (_, place) => top + place * step)
    .attr("width", (value) => Math.abs(reach * value).toFixed(1))
    .attr("height", Math.max(1, step - 1));
}

/** The ends of lit edges, the node that is looked at, and the nodes of routes. */
function mark(elements: Map<string, SVGGElement>, lit: readonly Drawn[], store: Store): void {
  const near = new Set(lit.flatMap(({ edge }) => [edge.source.id, edge.target.id]));
  const onRoute = new Set(store.view.routes.flatMap((route) => route.nodes.map((node) => node.id)));
  const { focus } = store;
  const at = focus?.kind === "node" ? focus.id : null;
  const chosen = store.state.focus?.kind === "node" ? store.state.focus.id : null;
  for (const [id, element] of elements) {
    element.classList.toggle("near", near.has(id) || onRoute.has(id));
    element.classList.toggle("at", id === at);
    element.classList.toggle("chosen", id === chosen);
  }
}
