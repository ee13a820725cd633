"""Backgrounds that look like something: smooth noise at many scales between two muted colours, and muted shapes."""

import numpy as np
from jaxtyping import Float
from PIL import Image

from ierf.world.primitives import SHAPES, Grid, Primitive
from ierf.world.scenes import BACKGROUND, Scene

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
