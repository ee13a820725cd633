"""From a photograph to a network's input: resize, centre crop, normalise."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.model.pixels import to_rgb

Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos"]
Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """How a photograph becomes an input of `size` = (height, width) pixels.

    The short side is resized to `resize` pixels (None: both sides to `size`, squashed), then the centre is cropped.
    Photographs that would not fill the crop are scaled until they do. Values v in [0, 1] become (v − mean) / std.
    """

    size: tuple[int, int] = (224, 224)
    resize: int | None = 256
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if self.interpolation not in get_args(Interpolation):
            raise UnknownNameError("interpolation", self.interpolation, get_args(Interpolation))
        if min(*self.size, self.resize or 1) < 1:
            raise IerfError(f"a model's input needs at least one pixel: size {self.size}, resize {self.resize}")

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """The network's input for one photograph, float32 on the CPU."""
        return self.to_tensor(self.view(image))

    def view(self, image: Image.Image) -> Image.Image:
        """The part of the photograph that the network sees, RGB, of `size`.

        Only that part is resampled, so that a panorama costs no more memory than a square. The pixels are those of a
        resize of the whole followed by a crop.
        """
        height, width = self.size
        full_width, full_height = self._resized(*image.size)
        left, top = round((full_width - width) / 2), round((full_height - height) / 2)
        across, down = image.width / full_width, image.height / full_height
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        within = (*box[:2], min(box[2], image.width), min(box[3], image.height))
        return to_rgb(image).resize((width, height), Image.Resampling[self.interpolation.upper()], box=within)

    def to_tensor(self, view: Image.Image) -> Float[Tensor, "3 H W"]:
        """An RGB picture, normalised."""
        pixels = torch.from_numpy(np.array(view, dtype=np.float32)).permute(2, 0, 1) / 255
        return (pixels - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(3, 1, 1)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) that the whole photograph would be resized to."""
        crop_height, crop_width = self.size
        if self.resize is None:
            return crop_width, crop_height
        short = min(width, height)
        new_width, new_height = self.resize * width // short, self.resize * height // short
        lack = max(crop_width / new_width, crop_height / new_height, 1.0)
        return max(crop_width, round(new_width * lack)), max(crop_height, round(new_height * lack))
