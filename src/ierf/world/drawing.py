"""From a scene to its pixels."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8

from ierf.world.clutter import background, light, window
from ierf.world.primitives import Grid, Primitive
from ierf.world.scenes import NOISE, Placed, Scene

TINT = np.array([0.85, 0.25, 0.62])
"""The colour of the cue, which no part has."""
TINT_SHARE = 0.6
_GRAIN = 0.012


def render(scene: Scene) -> UInt8[np.ndarray, "H W 3"]:
    """The picture: background, tint, and primitive over primitive, each anti-aliased; then light and grain.

    A pixel that a change of the scene does not cover keeps its value exactly.
    """
    picture = background(scene)
    tint = glow_coverage(scene)[..., None]
    picture = picture * (1 - tint) + TINT * tint
    for placed in scene.parts:
        for primitive, rows, columns, u, v, covered in strokes(placed, scene.settings.size):
            colour = np.array(placed.gain) * primitive.paint(u, v)
            share = covered[..., None]
            picture[rows, columns] = picture[rows, columns] * (1 - share) + colour * share
    grain = _GRAIN * scene.random(NOISE).standard_normal(picture.shape)
    pixels: UInt8[np.ndarray, "H W 3"] = np.round(255 * np.clip(picture * light(scene) + grain, 0, 1)).astype(np.uint8)
    return pixels


def strokes(placed: Placed, size: int) -> Iterator[tuple[Primitive, slice, slice, Grid, Grid, Grid]]:
    """Each primitive of a part, the lowest first: the window that it may reach, its coordinates and coverage there."""
    cos, sin = np.cos(placed.angle), np.sin(placed.angle)
    for layer in placed.part.layers:
        x = placed.x + placed.radius * (cos * layer.x - sin * layer.y)
        y = placed.y + placed.radius * (sin * layer.x + cos * layer.y)
        radius = placed.radius * layer.scale
        rows, columns, u, v = window(x, y, radius, placed.angle, size)
        yield layer.primitive, rows, columns, u, v, layer.primitive.coverage(u, v, radius)


def glow_coverage(scene: Scene) -> Float[np.ndarray, "H W"]:
    """The share of the tint in each pixel of the background: level within the radius, soft at its edge."""
    size, glow = scene.settings.size, scene.glow
    if glow is None:
        return np.zeros((size, size))
    at = np.arange(size) + 0.5
    distance = np.hypot(at[None, :] - glow.x, at[:, None] - glow.y) / glow.radius
    share: Float[np.ndarray, "H W"] = TINT_SHARE * np.clip(3 * (1.15 - distance), 0, 1)
    return share
