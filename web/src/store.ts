/** The one place where things change; everything that is shown is told of it. */

import { asAddress, fromAddress } from "./address";
import { keepNotes, noted, readNotes, type Notes } from "./notes";
import type { Bytes, Payload } from "./data";
import { inItsPlace, opens, withFold, type Tree } from "./hierarchy";
import { sceneOf, somewhere, type Scene, type SceneNode } from "./scene";
import { begin, changed, redone, undone, type Focus, type History, type State } from "./state";
import { viewOf, type View } from "./view";
import { nameOf } from "./words";

export class Store {
  /** Another one as soon as a group is opened or closed. */
  scene: Scene;
  view: View;
  notes: Notes;
  hover: Focus | null = null;
  /** How often notes were read from a file. */
  readings = 0;
  private history: History;
  private readonly shown: (() => void)[] = [];
  private readonly hovered: (() => void)[] = [];

  constructor(payload: Payload, bytes: Bytes) {
    this.scene = sceneOf(payload, bytes, 0, []);
    this.history = begin(this.checked(fromAddress(location.hash.length > 1 ? location.hash : payload.start)));
    this.notes = payload.graphs[0] ? readNotes(payload.graphs[0]) : {};
    this.scene = this.sceneFor(this.state);
    this.view = this.seen();
    addEventListener("hashchange", () => {
      const state = this.checked(fromAddress(location.hash));
      if (asAddress(state) !== asAddress(this.state)) this.change(state);
    });
  }

  get state(): State {
    return this.history.present;
  }

  get canUndo(): boolean {
    return this.history.past.length > 0;
  }

  get canRedo(): boolean {
    return this.history.future.length > 0;
  }

  /** What is painted: what is under the pointer, or else what was chosen. */
  get focus(): Focus | null {
    return this.hover ?? this.state.focus;
  }

  onChange(call: () => void): void {
    this.shown.push(call);
  }

  onHover(call: () => void): void {
    this.hovered.push(call);
  }

  change(change: Partial<State>): void {
    this.go(changed(this.history, change));
  }

  /** What opens and closes here; null for a graph of single concepts. */
  get tree(): Tree | null {
    return this.scene.trees.find((tree) => tree !== null) ?? null;
  }

  /** A group's two halves in its place. */
  open(id: string): void {
    const { tree } = this;
    if (tree && opens(tree, id) && this.scene.nodes.has(id)) this.fold(tree, `+${id}`, tree.halves.get(id)?.[0] ?? "");
  }

  /** A group in the place of all that it holds. */
  close(id: string): void {
    const { tree } = this;
    if (tree?.nodes.has(id) && !this.scene.nodes.has(id)) this.fold(tree, `-${id}`, id);
  }

  private fold(tree: Tree, fold: string, id: string): void {
    const { budget, folds } = this.state;
    this.hover = null;
    this.change({ folds: withFold(tree, budget, folds, fold), focus: { kind: "node", id } });
  }

  /** So many groups in a row. */
  setBudget(budget: number): void {
    const next = { ...this.state, budget, folds: [] };
    const focus = this.known(this.sceneFor(next), next.focus);
    const same = JSON.stringify(focus) === JSON.stringify(next.focus);
    this.change(same ? { budget, folds: [] } : { budget, folds: [], focus });
  }

  undo(): void {
    this.go(undone(this.history));
  }

  redo(): void {
    this.go(redone(this.history));
  }

  point(at: Focus | null): void {
    if (JSON.stringify(at) === JSON.stringify(this.hover)) return;
    this.hover = at;
    for (const call of this.hovered) call();
  }

  note(node: SceneNode, change: { name?: string; note?: string }): void {
    this.keep(noted(this.notes, node.id, change));
  }

  /** Names and notes from a file, in the place of those that there were for the same concepts. */
  read(notes: Notes): void {
    this.readings += 1;
    this.keep({ ...this.notes, ...notes });
  }

  private keep(notes: Notes): void {
    this.notes = notes;
    if (this.scene.graphs[0]) keepNotes(this.scene.graphs[0], this.notes);
    this.view = this.seen();
    for (const call of this.shown) call();
  }

  private go(history: History): void {
    if (history === this.history) return;
    this.history = history;
    this.scene = this.sceneFor(this.state);
    this.view = this.seen();
    window.history.replaceState(null, "", `#${asAddress(this.state)}`);
    for (const call of this.shown) call();
    for (const call of this.hovered) call();
  }

  private sceneFor({ budget, folds }: State): Scene {
    if (this.scene.budget === budget && this.scene.folds.join() === folds.join()) return this.scene;
    return sceneOf(this.scene.payload, this.scene.bytes, budget, folds);
  }

  /** The state without what this graph does not have. */
  private checked(state: State): State {
    const { tree } = this;
    const last = this.scene.classes.length - 1;
    const known = {
      ...state,
      first: Math.min(Math.trunc(state.first), last),
      second: Math.min(Math.trunc(state.second), last),
      budget: tree ? Math.min(Math.trunc(state.budget), tree.most) : 0,
      folds: tree ? state.folds.filter((fold) => /^[+-]/.test(fold) && opens(tree, fold.slice(1))) : [],
    };
    return { ...known, focus: this.known(this.sceneFor(known), state.focus) };
  }

  /** What is looked at in a scene that may lack it: instead of a node what holds it or is part of it. */
  private known(scene: Scene, focus: Focus | null): Focus | null {
    if (focus?.kind === "edge") return scene.nodes.has(focus.source) && scene.nodes.has(focus.target) ? focus : null;
    if (focus?.kind !== "node" || scene.nodes.has(focus.id)) return focus;
    const id = this.tree && inItsPlace(this.tree, new Set(scene.nodes.keys()), focus.id);
    return id ? { kind: "node", id } : null;
  }

  private seen(): View {
    return viewOf(this.scene, this.state, (node) => {
      const classes = somewhere(node, 0).facts?.classes.map(([label]) => label) ?? [];
      const members = somewhere(node, 0).members.map((member) => `#${member}`);
      return [node.id, node.label, nameOf(node, this.notes), this.notes[node.id]?.note ?? "", ...classes, ...members].join(" ");
    });
  }
}
