/** The photograph, always in sight, and on it the map of what is looked at. */

import { coloured, grey } from "./painting";
import { h } from "./html";
import type { SignedMap } from "./data";
import type { Store } from "./store";
import { picturesOf, type Picture } from "./view";

const STEP = 1 / 32;
/** Pixels across a canvas: two to a pixel of the page. */
const SIDE = 480;

interface Photo {
  plain: HTMLCanvasElement;
  grey: HTMLCanvasElement;
}

/** Loads the photographs and keeps `place` painted. */
export async function showPhotograph(place: HTMLElement, store: Store): Promise<void> {
  const photos = await Promise.all(store.scene.graphs.map((graph) => opened(graph.view)));
  const painted = new WeakMap<SignedMap, HTMLCanvasElement>();
  const colours = (map: SignedMap): HTMLCanvasElement => {
    const known = painted.get(map) ?? canvasOf(coloured(map));
    painted.set(map, known);
    return known;
  };
  let frames: HTMLElement[] = [];
  const update = () => {
    const pictures = picturesOf(store.scene, store.state, store.view, store.focus, store.notes);
    if (frames.length !== pictures.length) {
      frames = pictures.map((_, number) => frame(store, number));
      place.replaceChildren(...frames);
    }
    pictures.forEach((picture, number) => {
      const canvas = frames[number]?.querySelector("canvas");
      const caption = frames[number]?.querySelector("figcaption");
      if (!canvas || !caption) return;
      canvas.dataset["side"] = String(picture.side);
      caption.textContent = picture.caption;
      paint(canvas, photos[picture.side] ?? null, picture, store.state.opacity, colours);
      const focus = store.state.focus;
      if (focus?.kind === "pixel") cross(canvas, focus.x, focus.y);
    });
  };
  store.onChange(update);
  store.onHover(update);
  update();
}

function frame(store: Store, number: number): HTMLElement {
  const canvas = h("canvas", {
    width: SIDE,
    height: SIDE,
    tabindex: 0,
    role: "img",
    "aria-label": `Photograph ${number + 1}: click, or use the arrow keys, to rank the concepts at a place`,
    click: (event) => {
      const [mouse, box] = [event as MouseEvent, canvas.getBoundingClientRect()];
      rankAt(store, (mouse.clientX - box.left) / box.width, (mouse.clientY - box.top) / box.height);
    },
    keydown: (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[(event as KeyboardEvent).key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      const { focus } = store.state;
      const [x, y] = focus?.kind === "pixel" ? [focus.x, focus.y] : [0.5, 0.5];
      rankAt(store, x + STEP * (step[0] ?? 0), y + STEP * (step[1] ?? 0));
    },
  });
  return h("figure", {}, canvas, h("figcaption"));
}

function rankAt(store: Store, x: number, y: number): void {
  const inside = (value: number) => Math.min(0.9999, Math.max(0, value));
  store.point(null);
  store.change({ focus: { kind: "pixel", x: inside(x), y: inside(y) } });
}

async function opened(address: string): Promise<Photo | null> {
  if (!address) return null;
  const image = new Image();
  image.src = address;
  await image.decode();
  const plain = h("canvas", { width: SIDE, height: Math.round((SIDE * image.naturalHeight) / image.naturalWidth) });
  const context = plain.getContext("2d") as CanvasRenderingContext2D;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, plain.width, plain.height);
  return { plain, grey: canvasOf(grey(context.getImageData(0, 0, plain.width, plain.height))) };
}

function canvasOf(pixels: ImageData): HTMLCanvasElement {
  const canvas = h("canvas", { width: pixels.width, height: pixels.height });
  canvas.getContext("2d")?.putImageData(pixels, 0, 0);
  return canvas;
}

/** With opacity 0 the photograph as it is, with 1 the map on grey. */
function paint(
  canvas: HTMLCanvasElement,
  photo: Photo | null,
  picture: Picture,
  opacity: number,
  colours: (map: SignedMap) => HTMLCanvasElement,
): void {
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  const fill = (image: HTMLCanvasElement, alpha: number, smooth: boolean) => {
    context.globalAlpha = alpha;
    context.imageSmoothingEnabled = smooth;
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
  };
  const height = photo?.plain.height ?? SIDE;
  if (canvas.height !== height) canvas.height = height;
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (photo) fill(photo.plain, 1, true);
  if (picture.map) {
    if (photo) fill(photo.grey, opacity, true);
    fill(colours(picture.map), opacity, !picture.cells);
  }
  context.globalAlpha = 1;
}

function cross(canvas: HTMLCanvasElement, x: number, y: number): void {
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  const [column, row] = [x * canvas.width, y * canvas.height];
  for (const [width, colour] of [[5, "#000"], [2.5, "#fff"]] as const) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.beginPath();
    context.arc(column, row, 12, 0, 2 * Math.PI);
    context.moveTo(column - 22, row);
    context.lineTo(column + 22, row);
    context.moveTo(column, row - 22);
    context.lineTo(column, row + 22);
    context.stroke();
  }
}
