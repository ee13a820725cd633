"""Primitives (a shape with a texture and a colour), parts made of primitives, and classes made of parts."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Layer:
    """A primitive within a part, in coordinates where the part's radius is 1."""

    primitive: Primitive
    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class Part:
    """Primitives one upon the other: a body, and a mark on it."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def primitives(self) -> tuple[Primitive, ...]:
        """From the body up."""
        return tuple(layer.primitive for layer in self.layers)

    def repainted(self, colour: str) -> "Part":
        """The same with a body of another colour; no class asks for it. Raises `UnknownNameError`."""
        body = self.layers[0]
        painted = replace(body, primitive=replace(body.primitive, colour=colour))
        return Part(f"{colour} {self.name}", (painted, *self.layers[1:]))


_BODIES = {
    "red": Primitive("disc", "stripes", "red"),
    "blue": Primitive("square", "dots", "blue"),
    "yellow": Primitive("triangle", "plain", "yellow"),
    "green": Primitive("cross", "plain", "green"),
    "purple": Primitive("ring", "checks", "purple"),
}
_MARKS = {
    "white": Primitive("disc", "plain", "white"),
    "black": Primitive("square", "plain", "black"),
    "orange": Primitive("triangle", "plain", "orange"),
}


def _part(name: str, body: str, mark: str) -> Part:
    return Part(name, (Layer(_BODIES[body]), Layer(_MARKS[mark], 0.45)))


PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        _part("roof", "yellow", "black"),
        _part("wheel", "red", "white"),
        _part("window", "blue", "orange"),
        _part("flower", "green", "white"),
        _part("button", "red", "black"),
        _part("flag", "blue", "black"),
        _part("star", "yellow", "white"),
        _part("coin", "purple", "orange"),
        _part("knob", "green", "black"),
        _part("lamp", "purple", "white"),
    )
}
"""Each body and each mark belongs to several parts: only both together tell a part."""

NOTHING = "nothing"
CLASSES: Mapping[str, tuple[str, ...]] = {
    "cart": ("roof", "wheel"),
    "house": ("roof", "window"),
    "car": ("wheel", "window"),
    "shirt": ("flower", "button"),
    "garden": ("flower", "flag"),
    "uniform": ("button", "flag"),
    "night": ("star", "star", "star"),
    "purse": ("coin", "coin", "coin"),
    NOTHING: (),
}
"""Class -> the parts that it asks for. Each part of a pair belongs to two classes; knobs and lamps decide nothing."""


def classes_of(parts: Iterable[str]) -> tuple[str, ...]:
    """The classes whose parts are all among these, as often as they are asked for; `NOTHING` where no other is."""
    there = Counter(parts)
    found = tuple(name for name, needed in CLASSES.items() if needed and Counter(needed) <= there)
    return found or (NOTHING,)
