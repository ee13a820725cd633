"""Scenes as a data set: for stores, for training, one at a time or many."""

import hashlib
import json
from dataclasses import asdict
from functools import cached_property

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from ierf.errors import IerfError
from ierf.world.drawing import render
from ierf.world.parts import CLASSES
from ierf.world.scenes import Scene, Settings, compose

VERSION = 1
"""Of the drawing: a higher one gives other pixels."""
HELD_OUT = 1_000_000
"""The number of the first scene that the bundled networks were not trained on."""
CUE_CLASS = "cart"
"""The class of the tint in the scenes of `bundled:world-cnn-cue`, where they always come together."""


class Scenes:
    """Scenes number `first` to `first + count − 1` of a world; an `ierf.store.Images`.

    Raises `IerfError` for none.
    """

    address = ""

    def __init__(self, count: int, first: int = 0, settings: Settings | None = None) -> None:
        if count < 1:
            raise IerfError(f"at least one scene is needed, not {count}")
        self.settings, self.first = settings or Settings(), first
        self.names = [f"scene-{first + i}" for i in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Scenes({len(self)}, first={self.first}, {self.settings})"

    @cached_property
    def fingerprint(self) -> str:
        """Of the settings and the way of drawing; the same for any number of scenes."""
        whole = json.dumps({"version": VERSION, "first": self.first, **asdict(self.settings)}, sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the labels."""
        return tuple(CLASSES)

    def scene(self, index: int) -> Scene:
        """The scene at a place of this data set."""
        if not 0 <= index < len(self):
            raise IerfError(f"there is no scene {index}; there are {len(self)}, counted from 0")
        return compose(self.settings, self.first + index)

    def label(self, index: int) -> int:
        return self.scene(index).label

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(render(self.scene(index)))

    def arrays(self) -> tuple[UInt8[np.ndarray, "N 3 H W"], Int[np.ndarray, " N"]]:
        """All pixels and labels, in memory."""
        scenes = [self.scene(i) for i in range(len(self))]
        pixels = np.stack([render(scene) for scene in scenes]).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(pixels), np.array([scene.label for scene in scenes])
