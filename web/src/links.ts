/** Nodes and edges in text: pointing at one shows it, a click goes there. */

import { h } from "./html";
import type { SceneNode } from "./scene";
import type { Focus } from "./state";
import type { Store } from "./store";
import { layerName, nameOf } from "./words";

export function link(store: Store, focus: Focus, text: string): HTMLButtonElement {
  return h(
    "button",
    {
      type: "button",
      class: "link",
      pointerenter: () => store.point(focus),
      pointerleave: () => store.point(null),
      focus: () => store.point(focus),
      blur: () => store.point(null),
      click: () => {
        store.point(null);
        store.change({ focus });
      },
    },
    text,
  );
}

export function nodeLink(store: Store, node: SceneNode, withLayer = false): HTMLButtonElement {
  const name = nameOf(node, store.notes);
  const text = withLayer && node.kind !== "class" ? `${layerName(node.layer)} ${name}` : name;
  return link(store, { kind: "node", id: node.id }, text);
}
