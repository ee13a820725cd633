"""Scenes of `ierf.world` as the experiments about the truth see them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from ierf.attribution import TokenGrid
from ierf.errors import IerfError
from ierf.model import Captured, VisionModel
from ierf.world import CLASSES, NOTHING, Scene, render

TRUTH = "removal from the picture"
"""The row of what really happens when something is taken away, in the place of what a map says."""


def check_classes(model: VisionModel) -> None:
    """Raise `IerfError` for a network that does not tell the classes of the world."""
    if model.labels != tuple(CLASSES):
        raise IerfError(
            f"{model.name!r} does not tell the classes of ierf.world; take bundled:world-cnn, or one that "
            "scripts/train_world.py made"
        )


def scene_inputs(model: VisionModel, scenes: Sequence[Scene]) -> Float[Tensor, "N 3 H W"]:
    """The scenes' pictures, prepared."""
    return torch.cat([model.prepare(Image.fromarray(render(scene))) for scene in scenes])


def as_mask(mask: Bool[np.ndarray, "*N H W"]) -> Bool[Tensor, "*N H W"]:
    """A mask of a scene as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(mask))


def grid_of(model: VisionModel, captured: Captured) -> TokenGrid:
    """Rows and columns of a layer's PFVs. Raises `IerfError` where it has none."""
    places = captured.site.map
    if len(places) == 2:
        return TokenGrid(0, *places)
    found = TokenGrid.by_aspect(places[0], model.preprocess.size) if len(places) == 1 else None
    if found is None:
        raise IerfError(
            f"{captured.site.layer!r} has no rows and columns; give a layer whose output is a feature map or tokens"
        )
    return found


@dataclass(frozen=True)
class Known:
    """A scene that the network gets right, prepared."""

    scene: Scene
    x: Float[Tensor, "1 3 H W"]
    logits: Float[Tensor, " T"]

    @classmethod
    def of(cls, model: VisionModel, scene: Scene) -> "Known | None":
        """None where the scene shows nothing or the network says something else."""
        if list(CLASSES)[scene.label] == NOTHING:
            return None
        x = scene_inputs(model, [scene])
        with torch.no_grad():
            logits = model(x)[0]
        return cls(scene, x, logits) if int(logits.argmax()) == scene.label else None

    def drops(self, model: VisionModel, changed: Sequence[Scene]) -> Float[Tensor, " M"]:
        """How much the logit of the scene's class falls when the scene is changed, `y(x) − y(x′)`."""
        with torch.no_grad():
            after = model(scene_inputs(model, changed))[:, self.scene.label]
        return self.logits[self.scene.label] - after


def shares_of_falls(falls: Float[Tensor, " n"], numbers: Sequence[int]) -> tuple[float, float]:
    """Of what falls when parts go one by one, the share of some of them, and how even these are (`evenness`)."""
    positive = falls.clamp_min(0).double()
    own = positive[list(numbers)]
    return float(own.sum() / positive.sum()), evenness(own)


def evenness(of_parts: Float[Tensor, " n"]) -> float:
    """`n · min / Σ`: 1 if all are even, 0 if one has nothing; NaN of a single part, where it says nothing."""
    return float(len(of_parts) * of_parts.min() / of_parts.sum()) if len(of_parts) > 1 else torch.nan
