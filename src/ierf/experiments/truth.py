"""Scenes of `ierf.world` as the experiments about the truth see them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.world import CLASSES, NOTHING, Scene, render


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
