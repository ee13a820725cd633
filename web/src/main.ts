/** Puts the page together: the graph on the left, the photograph and the cards on the right. */

import "./style.css";
import { searchBox, showControls, showPainting, sizes, steps } from "./controls";
import { inflated, type Payload } from "./data";
import { drawGraph } from "./drawing";
import { exportMenu } from "./exporting";
import { h } from "./html";
import { listen } from "./keyboard";
import { showPanel } from "./panel";
import { showPhotograph } from "./photograph";
import { Store } from "./store";

async function begin(): Promise<void> {
  const payload = JSON.parse(document.querySelector("#data")?.textContent ?? "") as Payload;
  const store = new Store(payload, await inflated(payload.cells));
  const stage = h("div", { class: "stage" });
  const photo = h("div", { class: "photo" });
  const painting = h("div", { class: "painting" });
  const controls = h("div", { class: "controls" });
  const panel = h("div", { class: "panel" });
  const app = document.querySelector("#app");
  app?.replaceChildren(
    controls,
    h("main", { tabindex: -1, "aria-label": "Concept graph" }, stage),
    h("aside", { "aria-label": "Photograph and details" }, photo, painting, panel),
  );
  const drawing = drawGraph(stage, store);
  showControls(controls, store);
  showPainting(painting, store);
  showPanel(panel, store);
  listen(store, drawing);
  const title = h("div", { class: "title" }, h("p", { class: "eyebrow" }, payload.graphs[0]?.model ?? ""), h("h1", {}, payload.title));
  app?.prepend(h("header", {}, title, searchBox(store), sizes(store), steps(store), exportMenu(store, drawing)));
  await showPhotograph(photo, store);
  document.documentElement.dataset["ready"] = "";
}

void begin();
