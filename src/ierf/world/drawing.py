"""Scenes as pixels: the picture, and the masks of what in it decides."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from ierf.world.parts import SHAPES, Grid, Primitive
from ierf.world.scenes import BACKGROUND, NOISE, Placed, Scene

Picture = Float[np.ndarray, "H W 3"]

_MUTED = np.array(
    [
        [0.45, 0.42, 0.36],
        [0.36, 0.42, 0.30],
        [0.42, 0.48, 0.55],
        [0.55, 0.50, 0.44],
        [0.30, 0.30, 0.33],
        [0.5, 0.44, 0.4],
    ]
)
"""Stone, moss, haze, sand, slate, clay."""


def background(scene: Scene) -> Picture:
    """The background without parts and tint; it depends on the scene's settings and number alone."""
    size, random = scene.settings.size, scene.random(BACKGROUND)
    first, second = _MUTED[random.choice(len(_MUTED), 2, replace=False)]
    mixed = first + (second - first) * np.clip(0.5 + 0.6 * smooth_noise(size, random), 0, 1)[..., None]
    picture: Picture = mixed * (1 + 0.16 * smooth_noise(size, random))[..., None]
    for _ in range(int(random.integers(scene.settings.clutter // 2, scene.settings.clutter + 1))):
        _add_shape(picture, random)
    return picture


def smooth_noise(size: int, random: np.random.Generator) -> Grid:
    """Noise of mean 0 and deviation 1 whose amplitude falls with the frequency, as in photographs."""
    total = np.zeros((size, size))
    for cells in (3, 5, 9, 17, 33):
        coarse = Image.fromarray(random.standard_normal((cells, cells)).astype(np.float32))
        total += np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)) / cells
    normal: Grid = (total - total.mean()) / total.std()
    return normal


def light(scene: Scene) -> Float[np.ndarray, "H W 1"]:
    """The light on the scene, brighter on one side."""
    random, at = scene.random(BACKGROUND), np.linspace(-1, 1, scene.settings.size)
    right, down, whole = random.uniform([-0.12, -0.12, 0.88], [0.12, 0.12, 1.08])
    brightness: Float[np.ndarray, "H W 1"] = (whole + right * at[None, :] + down * at[:, None])[..., None]
    return brightness


def _add_shape(picture: Picture, random: np.random.Generator) -> None:
    size = len(picture)
    shape = Primitive(str(random.choice(list(SHAPES))), "plain", "white")
    x, y, angle = random.uniform(0, size), random.uniform(0, size), random.uniform(0, 2 * np.pi)
    radius = size * random.uniform(0.03, 0.16)
    colour = _MUTED[random.integers(len(_MUTED))] * random.uniform(0.6, 1.3)
    rows, columns, u, v = window(x, y, radius, angle, size)
    covered = (random.uniform(0.25, 0.7) * shape.coverage(u, v, radius))[..., None]
    picture[rows, columns] = picture[rows, columns] * (1 - covered) + colour * covered


def window(x: float, y: float, radius: float, angle: float, size: int) -> tuple[slice, slice, Grid, Grid]:
    """The rows and columns that a shape may reach, and its own coordinates at their pixels' centres."""
    reach = 1.25 * radius + 1
    rows, columns = (slice(max(0, int(at - reach)), max(0, min(size, int(at + reach) + 1))) for at in (y, x))
    down = (np.arange(rows.start, rows.stop) + 0.5 - y)[:, None] / radius
    right = (np.arange(columns.start, columns.stop) + 0.5 - x)[None, :] / radius
    cos, sin = np.cos(angle), np.sin(angle)
    return rows, columns, cos * right + sin * down, cos * down - sin * right


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


Mask = Bool[np.ndarray, "H W"]


def primitive_coverage(scene: Scene) -> list[list[Float[np.ndarray, "H W"]]]:
    """For each part, for each of its primitives: the share of each pixel that shows it, `α_i Π_j>i (1 − α_j)`."""
    size = scene.settings.size
    shown: list[list[Float[np.ndarray, "H W"]]] = []
    open_share = np.ones((size, size))
    for placed in reversed(scene.parts):
        of_part = []
        for _, rows, columns, _, _, covered in reversed(list(strokes(placed, size))):
            share = np.zeros((size, size))
            share[rows, columns] = open_share[rows, columns] * covered
            open_share[rows, columns] *= 1 - covered
            of_part.append(share)
        shown.append(of_part[::-1])
    return shown[::-1]


def part_masks(scene: Scene) -> Bool[np.ndarray, "n H W"]:
    """The pixels that show at least half of each part, in the order of the scene."""
    size = scene.settings.size
    masks = [sum(shares) >= 0.5 for shares in primitive_coverage(scene)]
    return np.array(masks, dtype=bool).reshape(len(masks), size, size)


def deciding_mask(scene: Scene) -> Mask:
    """The object: the pixels of all parts that make the class what it is; none of a scene that shows nothing."""
    return _union(scene, scene.deciding)


def other_mask(scene: Scene) -> Mask:
    """The pixels of the parts that decide nothing here."""
    return _union(scene, tuple(i for i in range(len(scene.parts)) if i not in scene.deciding))


def cue_mask(scene: Scene) -> Mask:
    """The background that the cue tints at half its strength or more; none without the cue."""
    return (glow_coverage(scene) >= TINT_SHARE / 2) & ~part_masks(scene).any(0)


def _union(scene: Scene, numbers: tuple[int, ...]) -> Mask:
    return np.asarray(part_masks(scene)[list(numbers)].any(0))
