"""The photographs that a graph is made of, one at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ierf.errors import IerfError
from ierf.graph.picture.thumbnails import lossless
from ierf.model import VisionModel
from ierf.model.images import ImageLike

Photographs = Tensor | ImageLike | Sequence[ImageLike]
"""Prepared pixels (N, 3, H, W), a photograph, or several."""


class Opened:
    """Photographs of a model by number; those from files are read when they are asked for."""

    def __init__(self, model: VisionModel, photographs: Tensor | Sequence[ImageLike]) -> None:
        self._model, self._photographs = model, photographs

    def __len__(self) -> int:
        return len(self._photographs)

    def x(self, index: int) -> Float[Tensor, "1 3 H W"]:
        """The pixels as the network takes them."""
        if isinstance(self._photographs, Tensor):
            return self._photographs[index : index + 1].to(self._model.device, self._model.dtype)
        return self._model.prepare(self._photographs[index])

    @property
    def name(self) -> str:
        """The file's name, or how many there are."""
        if len(self) > 1:
            return f"{len(self)} photographs"
        one = self._photographs[0]
        return Path(one).name if isinstance(one, str | Path) else "photograph"

    @property
    def view(self) -> bytes:
        """A single photograph as the network sees it, a PNG file; nothing for several."""
        if len(self) > 1:
            return b""
        return lossless(self._model.preprocess.picture(self.x(0)[0]))


def open_photographs(model: VisionModel, photographs: Photographs) -> Opened:
    """Raises `IerfError` where there are none, or for pixels of another shape."""
    if isinstance(photographs, Tensor):
        if photographs.ndim != 4 or not len(photographs):
            raise IerfError(f"prepared pixels are (N, 3, H, W) with N ≥ 1, not {tuple(photographs.shape)}")
        return Opened(model, photographs)
    several = [photographs] if isinstance(photographs, str | Path | Image.Image | np.ndarray) else list(photographs)
    if not several:
        raise IerfError("a graph needs at least one photograph")
    return Opened(model, several)
