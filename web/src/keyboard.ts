/** Everything by keys. */

import { LARGER, limited } from "./controls";
import type { Drawing } from "./drawing";
import { somewhere, type SceneNode } from "./scene";
import { MODES } from "./state";
import type { Store } from "./store";

export function listen(store: Store, drawing: Drawing): void {
  const goTo = (node: SceneNode | undefined) => {
    if (!node) return;
    store.point(null);
    store.change({ focus: { kind: "node", id: node.id } });
    drawing.focusOn(node.id);
  };
  const toMode = (place: number) => () => {
    const mode = MODES[place];
    if (mode && (mode !== "difference" || store.scene.classes.length > 1)) store.change({ mode });
  };
  const keys: Record<string, () => void> = {
    ArrowLeft: () => goTo(beside(store, drawing, -1)),
    ArrowRight: () => goTo(beside(store, drawing, 1)),
    ArrowUp: () => goTo(along(store, "target")),
    ArrowDown: () => goTo(along(store, "source")),
    Escape: () => store.change({ focus: null }),
    "/": () => document.querySelector<HTMLInputElement>("#search")?.focus(),
    o: () => refocused(store, drawing, (node) => store.open(node.id)),
    c: () => refocused(store, drawing, (node) => store.close(somewhere(node, 0).parent)),
    m: () => store.change({ paint: store.state.paint === "map" ? "ierf" : "map" }),
    u: () => store.undo(),
    U: () => store.redo(),
    1: toMode(0),
    2: toMode(1),
    3: toMode(2),
    "+": () => store.change({ scale: limited(store.state.scale * LARGER) }),
    "-": () => store.change({ scale: limited(store.state.scale / LARGER) }),
    0: () => store.change({ scale: 1 }),
  };
  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    const written = target.closest("input:not([type=range], [type=radio]), textarea, select");
    if (written) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      return event.shiftKey ? store.redo() : store.undo();
    }
    const arrow = event.key.startsWith("Arrow");
    if (event.ctrlKey || event.metaKey || event.altKey || (arrow && target.closest("input"))) return;
    if ((event.key === "Enter" || event.key === " ") && target.closest(".node")) {
      event.preventDefault();
      return store.change({ focus: { kind: "node", id: (target as HTMLElement).dataset["node"] ?? "" } });
    }
    const call = keys[event.key];
    if (!call) return;
    event.preventDefault();
    call();
  });
}

const at = (store: Store): SceneNode | undefined =>
  store.state.focus?.kind === "node" ? store.scene.nodes.get(store.state.focus.id) : undefined;

/** Opens or closes what is chosen, and goes to what stands in its place. */
function refocused(store: Store, drawing: Drawing, change: (node: SceneNode) => void): void {
  const before = at(store);
  if (!before) return;
  change(before);
  const after = at(store);
  if (after && after.id !== before.id) drawing.focusOn(after.id);
}

/** The next shown node of the row; the first class where nothing is chosen. */
function beside(store: Store, drawing: Drawing, step: 1 | -1): SceneNode | undefined {
  const node = at(store);
  if (!node) return store.scene.classes[0];
  const x = (other: SceneNode) => drawing.layout.boxes.get(other.id)?.x ?? 0;
  const row = [...store.view.kept.nodes].filter((other) => other.layer === node.layer).sort((a, b) => x(a) - x(b));
  return row[row.indexOf(node) + step];
}

/** The other end of the strongest edge upwards ("target") or downwards ("source"). */
function along(store: Store, end: "source" | "target"): SceneNode | undefined {
  const node = at(store);
  if (!node) return store.scene.classes[0];
  const drawn = (store.scene.touching.get(node.id) ?? []).flatMap((edge) => store.view.byEdge.get(edge) ?? []);
  const away = drawn.filter(({ edge }) => edge[end] !== node);
  return away.sort((a, b) => Math.abs(b.value) - Math.abs(a.value))[0]?.edge[end];
}
