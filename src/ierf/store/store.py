"""The front door to a store on disk: what is in it, one layer at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image
from torch import nn

from ierf.errors import IerfError
from ierf.model import VisionModel, as_vision_model
from ierf.model.images import ImageLike
from ierf.progress import Progress
from ierf.store.collecting import collect
from ierf.store.files import Shard
from ierf.store.integrity import check_model
from ierf.store.layer import StoredLayer
from ierf.store.layout import MANIFEST, PLAN, manifest
from ierf.store.photographs import StoredPhotographs
from ierf.store.plan import Plan, Settings


class PFVStore:
    """PFVs with their iERFs of a data set, on disk. Opening reads the manifest only.

    Args:
        path: the folder that `collect` wrote.
        model: if given, raises an `IerfError` that says what differs from the model that the store was made with.
        images: where the photographs are now, if they were moved or came from memory.
    """

    def __init__(
        self,
        path: str | Path,
        model: VisionModel | nn.Module | None = None,
        images: str | Path | Sequence[ImageLike] | None = None,
    ) -> None:
        self.path = Path(path)
        if not (self.path / MANIFEST).exists():
            begun = (self.path / PLAN).exists()
            raise IerfError(
                f"the store {str(path)!r} is not complete; `ierf collect` with the same arguments finishes it"
                if begun
                else f"there is no PFV–iERF store at {str(path)!r}; `ierf collect` makes one"
            )
        self.manifest = manifest(self.path)
        self.plan = Plan.from_json(self.manifest, str(path))
        self.photographs = StoredPhotographs(self.path, self.manifest, self.plan, images)
        if model is not None:
            self.check_model(as_vision_model(model))

    @classmethod
    def collect(
        cls,
        model: VisionModel | nn.Module,
        images: str | Path | Sequence[ImageLike],
        layers: Sequence[str],
        path: str | Path,
        *,
        limit: int | None = None,
        append: bool = False,
        shard: Shard | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> "PFVStore":
        """The complete store of `images` at `path`: collected, or finished, or only opened if nothing is lacking.

        `settings` are those of `ierf.store.Settings`, the other arguments those of `ierf.store.collect`. Under
        `torch.distributed` each rank collects its share and waits for the others.
        """
        collect(
            model,
            images,
            layers,
            path,
            Settings.of(**settings),
            limit=limit,
            append=append,
            shard=shard,
            workers=workers,
            progress=progress,
        )
        return cls(path, images=None if isinstance(images, str | Path) else images)

    def __repr__(self) -> str:
        return f"PFVStore({str(self.path)!r}, {len(self.layers)} layers, {len(self)} images)"

    def __len__(self) -> int:
        """Images in it, without those that were skipped."""
        return len(self.photographs.kept)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers."""
        return tuple(layer.name for layer in self.plan.layers)

    def layer(self, name: str) -> StoredLayer:
        """One layer. Raises `UnknownNameError` with the nearest names."""
        return StoredLayer(self.path, self.plan, self.plan.layer(name), self.photographs)

    @property
    def labels(self) -> Int[np.ndarray, " N"]:
        """The class of each image as its source gave it; −1 if it gave none."""
        return self.photographs.labels

    @property
    def predictions(self) -> Int[np.ndarray, " N"]:
        """The model's predicted class of each image; −1 for those that were skipped."""
        return self.photographs.predictions

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """The images that could not be read, with the reason."""
        return self.photographs.skipped

    def name(self, image: int) -> str:
        """The name of an image, relative to its folder or file."""
        return self.photographs.name(image)

    def photo(self, image: int) -> Image.Image:
        """An image as it lies in its source. Raises `IerfError` if the source is gone or has changed."""
        return self.photographs.photo(image)

    def view(self, image: int) -> Image.Image:
        """The part of an image that the model saw."""
        return self.photographs.view(image)

    def check_model(self, model: VisionModel) -> None:
        """Raises an `IerfError` that says how a model differs from the one that the store was made with."""
        check_model(self.path, self.plan, model)
