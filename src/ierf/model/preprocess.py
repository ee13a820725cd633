"""From a photograph to a network's input: resize, centre crop, normalise."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.model.images import to_rgb

Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos"]
Channels = tuple[float, ...]
"""One number for each channel of the network's input."""

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
_GREY: tuple[Channels, Channels] = ((0.449,), (0.226,))
"""ImageNet's mean and standard deviation over the channels."""


@dataclass(frozen=True)
class Preprocess:
    """How a photograph becomes an input of `size` = (height, width) pixels.

    The short side is resized to `resize` pixels (None: both sides to `size`, squashed), then the centre is cropped.
    Photographs that would not fill the crop are scaled until they do. Values v in [0, 1] become (v − mean) / std.
    `mean` and `std` have one number for each channel of the input: with one, photographs become grey (ITU-R 601). With
    another number than one and three no photograph is an input; tensors in the network's own units are.
    """

    size: tuple[int, int] = (224, 224)
    resize: int | None = 256
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if self.interpolation not in get_args(Interpolation):
            raise UnknownNameError("interpolation", self.interpolation, get_args(Interpolation))
        if min(*self.size, self.resize or 1) < 1:
            raise IerfError(f"a model's input needs at least one pixel: size {self.size}, resize {self.resize}")
        if not isinstance(self.mean, Sequence) or not isinstance(self.std, Sequence) or not len(self.mean):
            raise IerfError(f"mean and std have one number per channel, as (0.5,); got {self.mean!r}, {self.std!r}")
        if len(self.mean) != len(self.std):
            raise IerfError(f"mean has {len(self.mean)} channels and std {len(self.std)}; give one of each per channel")
        if not all(isfinite(m) and isfinite(s) and s > 0 for m, s in zip(self.mean, self.std, strict=True)):
            raise IerfError(f"means are finite and standard deviations above 0; got {self.mean} and {self.std}")

    @classmethod
    def of_channels(cls, channels: int) -> "Preprocess":
        """The default for so many channels: ImageNet's statistics for colour and grey, none for others."""
        if channels == 3:
            return cls()
        mean, std = _GREY if channels == 1 else ((0.0,) * channels, (1.0,) * channels)
        return cls(mean=mean, std=std)

    @property
    def channels(self) -> int:
        """Of the network's input."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the network's input."""
        return (self.channels, *self.size)

    @property
    def statistics(self) -> tuple[Float[Tensor, "C 1 1"], Float[Tensor, "C 1 1"]]:
        """Mean and standard deviation, ready to be broadcast over pixels."""
        mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (self.mean, self.std))
        return mean, std

    def __call__(self, image: Image.Image) -> Float[Tensor, "C H W"]:
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

    def to_tensor(self, view: Image.Image) -> Float[Tensor, "C H W"]:
        """An RGB picture, normalised; grey for one channel. Raises `IerfError` for other channels than one or three."""
        if self.channels not in (1, 3):
            raise IerfError(
                f"the network takes {self.channels} channels and a photograph has three; give a tensor "
                f"({self.channels}, height, width) in the network's units, or a .npy file of one"
            )
        pixels = torch.from_numpy(np.array(view.convert("L") if self.channels == 1 else view, dtype=np.float32)) / 255
        mean, std = self.statistics
        return ((pixels[None] if self.channels == 1 else pixels.permute(2, 0, 1)) - mean) / std

    def picture(self, x: Float[Tensor, "C H W"]) -> Image.Image:
        """An input as an RGB picture again: `x std + mean`, clipped to [0, 1].

        Of other channels than one or three, which have no colours, their mean in grey, from its least value to its
        greatest.
        """
        mean, std = self.statistics
        values = x.detach().cpu().float() * std + mean
        if self.channels not in (1, 3):
            values = values.mean(0, keepdim=True)
            low, high = values.aminmax()
            values = (values - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)
        pixels = (values * 255).round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) that the whole photograph would be resized to."""
        crop_height, crop_width = self.size
        if self.resize is None:
            return crop_width, crop_height
        short = min(width, height)
        new_width, new_height = self.resize * width // short, self.resize * height // short
        lack = max(crop_width / new_width, crop_height / new_height, 1.0)
        return max(crop_width, round(new_width * lack)), max(crop_height, round(new_height * lack))
