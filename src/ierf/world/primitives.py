"""Primitives: a shape with a texture and a colour, in coordinates where its radius is 1."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ierf.errors import UnknownNameError

Grid = Float[np.ndarray, "h w"]
Formula = Callable[[Grid, Grid], Grid]
"""(x to the right, y down) -> value."""


def _bar(along: Grid, across: Grid) -> Grid:
    distance: Grid = np.maximum(np.abs(along) - 1, np.abs(across) - 0.4)
    return distance


SHAPES: Mapping[str, Formula] = {
    "disc": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.85,
    "triangle": lambda x, y: np.maximum(np.abs(x) * np.sqrt(0.75) - y / 2, y) - 0.55,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.78) - 0.22,
    "cross": lambda x, y: np.minimum(_bar(x, y), _bar(y, x)),
}
"""Name -> how far a point lies outside the shape, negative inside; no shape reaches farther than 1.21."""

TEXTURES: Mapping[str, Formula] = {
    "plain": lambda x, y: np.ones_like(x),
    "stripes": lambda x, y: 0.75 + 0.3 * np.sin(2.2 * np.pi * x),
    "dots": lambda x, y: 0.75 + 0.4 * np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y),
    "checks": lambda x, y: 0.75 + 0.25 * np.tanh(6 * np.sin(1.6 * np.pi * x) * np.sin(1.6 * np.pi * y)),
}
"""Name -> the factor of the colour at a point."""

COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.86, 0.16, 0.14),
    "blue": (0.16, 0.32, 0.88),
    "yellow": (0.95, 0.82, 0.14),
    "green": (0.14, 0.66, 0.24),
    "purple": (0.58, 0.20, 0.72),
    "orange": (0.98, 0.52, 0.10),
    "white": (0.97, 0.97, 0.95),
    "black": (0.05, 0.05, 0.07),
}


@dataclass(frozen=True)
class Primitive:
    """A shape with a texture and a colour. Raises `UnknownNameError` for one that does not exist."""

    shape: str
    texture: str
    colour: str

    def __post_init__(self) -> None:
        for kind, known in (("shape", SHAPES), ("texture", TEXTURES), ("colour", COLOURS)):
            name = getattr(self, kind)
            if name not in known:
                raise UnknownNameError(kind, name, known)

    @property
    def name(self) -> str:
        return f"{self.colour} {self.texture} {self.shape}"

    def coverage(self, x: Grid, y: Grid, radius: float) -> Grid:
        """The share of each pixel that the shape covers, `clip(½ − d · radius, 0, 1)`, `radius` in pixels."""
        covered: Grid = np.clip(0.5 - SHAPES[self.shape](x, y) * radius, 0, 1)
        return covered

    def paint(self, x: Grid, y: Grid) -> Float[np.ndarray, "h w 3"]:
        """Its colour at each point."""
        shade = TEXTURES[self.texture](x, y)[..., None]
        painted: Float[np.ndarray, "h w 3"] = shade * np.array(COLOURS[self.colour])
        return painted
