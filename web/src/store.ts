/** The one place where things change; everything that is shown is told of it. */

import { asAddress, fromAddress } from "./address";
import { keepNotes, noted, readNotes, type Notes } from "./notes";
import { somewhere, type Scene, type SceneNode } from "./scene";
import { begin, changed, redone, undone, type Focus, type History, type State } from "./state";
import { viewOf, type View } from "./view";
import { nameOf } from "./words";

export class Store {
  view: View;
  notes: Notes;
  hover: Focus | null = null;
  /** How often notes were read from a file. */
  readings = 0;
  private history: History;
  private readonly shown: (() => void)[] = [];
  private readonly hovered: (() => void)[] = [];

  constructor(readonly scene: Scene) {
    this.history = begin(this.checked(fromAddress(location.hash.length > 1 ? location.hash : scene.payload.start)));
    this.notes = scene.graphs[0] ? readNotes(scene.graphs[0]) : {};
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
    this.view = this.seen();
    window.history.replaceState(null, "", `#${asAddress(this.state)}`);
    for (const call of this.shown) call();
    for (const call of this.hovered) call();
  }

  /** The state without what this scene does not have. */
  private checked(state: State): State {
    const { focus } = state;
    const last = this.scene.classes.length - 1;
    const known =
      focus === null ||
      focus.kind === "pixel" ||
      (focus.kind === "node" && this.scene.nodes.has(focus.id)) ||
      (focus.kind === "edge" && this.scene.nodes.has(focus.source) && this.scene.nodes.has(focus.target));
    return {
      ...state,
      focus: known ? focus : null,
      first: Math.min(Math.trunc(state.first), last),
      second: Math.min(Math.trunc(state.second), last),
    };
  }

  private seen(): View {
    return viewOf(this.scene, this.state, (node) => {
      const classes = somewhere(node, 0).facts?.classes.map(([label]) => label) ?? [];
      return [node.id, node.label, nameOf(node, this.notes), this.notes[node.id]?.note ?? "", ...classes].join(" ");
    });
  }
}
