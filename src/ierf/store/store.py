"""The front door to a store on disk: what is in it, one layer at a time."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image
from torch import nn

from ierf.errors import IerfError
from ierf.model import Preprocess, VisionModel, as_vision_model
from ierf.model.images import ImageLike
from ierf.store.array import StoredArray
from ierf.store.collecting import collect
from ierf.store.data import Images, open_images
from ierf.store.layer import StoredLayer
from ierf.store.layout import IMAGE_ARRAYS, MANIFEST, PLAN
from ierf.store.manifest import image_names, manifest
from ierf.store.plan import Plan, Settings
from ierf.store.planning import model_differences
from ierf.store.shard import Shard


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
        self._images = images
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
        progress: Callable[[int, int], None] | None = None,
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
        return int((self.predictions >= 0).sum())

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers."""
        return tuple(layer.name for layer in self.plan.layers)

    def layer(self, name: str) -> StoredLayer:
        """One layer. Raises `UnknownNameError` with the nearest names."""
        plan = self.plan.layer(name)
        return StoredLayer(self, plan, np.flatnonzero(self.predictions >= 0))

    @cached_property
    def labels(self) -> Int[np.ndarray, " N"]:
        """The class of each image as its source gave it; −1 if it gave none."""
        return self._per_image("labels")

    @cached_property
    def predictions(self) -> Int[np.ndarray, " N"]:
        """The model's predicted class of each image; −1 for those that were skipped."""
        return self._per_image("predictions")

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """The images that could not be read, with the reason."""
        return [(self.name(index), reason) for index, reason in self.manifest["skipped"]]

    def name(self, image: int) -> str:
        """The name of an image, relative to its folder or file."""
        return str(self._names[image])

    def photo(self, image: int) -> Image.Image:
        """An image as it lies in its source. Raises `IerfError` if the source is gone or has changed."""
        source = next(s for s in reversed(self.plan.sources) if s.first <= image)
        images = self._source(source.address)
        index = image - source.first
        if index >= len(images.names) or images.names[index] != self.name(image):
            raise IerfError(
                f"the photographs at {source.address or 'images='} are not those of the store: "
                f"number {index} is not {self.name(image)!r}"
            )
        return images.read(index)

    def view(self, image: int) -> Image.Image:
        """The part of an image that the model saw."""
        fields = self.plan.model["preprocessing"]
        lists = {name: tuple(fields[name]) for name in ("size", "mean", "std")}
        return Preprocess(**{**fields, **lists}).view(self.photo(image))

    def check_model(self, model: VisionModel) -> None:
        """Raises an `IerfError` that says how a model differs from the one that the store was made with."""
        if differs := model_differences(self.plan, model):
            raise IerfError(f"the store {str(self.path)!r} was made with another model: {'; '.join(differs)}")

    @cached_property
    def _names(self) -> list[str | None]:
        return image_names(self.path, self.plan.images, self.manifest["names_checksum"])

    @cached_property
    def _opened(self) -> dict[str, Images]:
        return {}

    def _source(self, address: str) -> Images:
        if address not in self._opened:
            where = self._images if self._images is not None else address
            if isinstance(where, str) and not where:
                raise IerfError("the photographs of this store were in memory; open it with images=")
            self._opened[address] = open_images(where)
        return self._opened[address]

    def _per_image(self, name: str) -> Int[np.ndarray, " N"]:
        return StoredArray(self.path, self.plan, IMAGE_ARRAYS[name]).rows(np.arange(self.plan.images))
