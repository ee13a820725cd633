"""A world whose concepts are known: scenes drawn from parts, parts from primitives, with a mask for each of them."""

from ierf.world.data import CUE_CLASS, HELD_OUT, Scenes
from ierf.world.drawing import cue_mask, deciding_mask, other_mask, part_masks, primitive_coverage, render
from ierf.world.parts import CLASSES, COLOURS, NOTHING, PARTS, SHAPES, TEXTURES, Layer, Part, Primitive, classes_of
from ierf.world.scenes import Glow, Placed, Scene, Settings, compose

__all__ = [
    "CLASSES",
    "COLOURS",
    "CUE_CLASS",
    "HELD_OUT",
    "NOTHING",
    "PARTS",
    "SHAPES",
    "TEXTURES",
    "Glow",
    "Layer",
    "Part",
    "Placed",
    "Primitive",
    "Scene",
    "Scenes",
    "Settings",
    "classes_of",
    "compose",
    "cue_mask",
    "deciding_mask",
    "other_mask",
    "part_masks",
    "primitive_coverage",
    "render",
]
