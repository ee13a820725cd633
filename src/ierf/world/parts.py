"""Parts, made of primitives, and classes, made of parts."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ierf.world.primitives import Primitive


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
