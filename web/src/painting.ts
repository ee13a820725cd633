/** Signed maps as colours: warm for, cool against, clear for nothing; told apart with any colour vision. */

import type { SignedMap } from "./data";

const WARM = [[255, 199, 64], [245, 107, 15], [184, 13, 26]] as const;
const COOL = [[140, 217, 255], [41, 133, 230], [31, 43, 158]] as const;
const OPACITY = 0.82;
const HIGH = 0.995;

/** One pixel for each cell, scaled by the 99.5th percentile of the sizes. */
export function coloured(map: SignedMap): ImageData {
  const sizes = map.values.map(Math.abs).sort();
  const largest = sizes[Math.floor(HIGH * (sizes.length - 1))] || sizes.at(-1) || 1;
  const pixels = new ImageData(map.columns, map.rows);
  map.values.forEach((value, i) => {
    const strength = Math.min(1, Math.abs(value) / largest);
    pixels.data.set(along(value > 0 ? WARM : COOL, strength), 4 * i);
    pixels.data[4 * i + 3] = 255 * OPACITY * strength;
  });
  return pixels;
}

/** How many of its cells hold this share of the map's sizes. */
export function fewest(map: SignedMap, share: number): number {
  const sizes = map.values.map(Math.abs).sort().reverse();
  const wanted = share * sizes.reduce((sum, size) => sum + size, 0);
  let sum = 0;
  const last = sizes.findIndex((size) => (sum += size) >= wanted);
  return wanted ? last + 1 : 0;
}

function along(stops: readonly (readonly [number, number, number])[], where: number): number[] {
  const at = where * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(at));
  const [from, to] = [stops[low] ?? [0, 0, 0], stops[low + 1] ?? [0, 0, 0]];
  return from.map((channel, i) => channel + (at - low) * ((to[i] ?? 0) - channel));
}

/** What an overlay lies on: the photograph in grey, with less contrast. */
export function grey(photo: ImageData): ImageData {
  const made = new ImageData(photo.width, photo.height);
  for (let i = 0; i < photo.data.length; i += 4) {
    const [red = 0, green = 0, blue = 0] = photo.data.subarray(i, i + 3);
    const light = 41 + 0.46 * (0.299 * red + 0.587 * green + 0.114 * blue);
    made.data.set([light, light, light, 255], i);
  }
  return made;
}
