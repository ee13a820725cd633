"""Where everything in a scene is."""

import numpy as np
from jaxtyping import Bool, Float

from ierf.world.drawing import TINT_SHARE, glow_coverage, strokes
from ierf.world.scenes import Scene

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
