/** The edge under the pointer, by its curve's equation: no element is asked, so thousands are as quick as ten. */

import type { Layout } from "./layout";
import { ends } from "./layout";
import type { Drawn } from "./view";

/** In the units of the drawing. */
const REACH = 6;

/**
 * An edge is the curve `y(t) = y0 + (y1 − y0)(3t/2 − 3t²/2 + t³)`, `x(t) = x0 + (x1 − x0)(3t² − 2t³)`: a cubic whose
 * handles lie halfway up. y rises with t, so each height has one x, and of the edges there the nearest is meant.
 */
export function edgeAt(drawn: readonly Drawn[], layout: Layout, x: number, y: number): Drawn | null {
  let [found, least]: [Drawn | null, number] = [null, Infinity];
  for (const each of drawn) {
    const at = ends(each.edge, layout);
    if (!at || y > at.source[1] || y < at.target[1]) continue;
    const t = solved((y - at.source[1]) / (at.target[1] - at.source[1]));
    const away = Math.abs(at.source[0] + (at.target[0] - at.source[0]) * t * t * (3 - 2 * t) - x) - each.width / 2;
    if (away < least && away < REACH) [found, least] = [each, away];
  }
  return found;
}

/** t with `3t/2 − 3t²/2 + t³ = s`, by Newton's method; the slope is never below 3/4. */
function solved(s: number): number {
  let t = s;
  for (let i = 0; i < 4; i++) t -= (t * (1.5 - 1.5 * t + t * t) - s) / (1.5 - 3 * t + 3 * t * t);
  return t;
}
