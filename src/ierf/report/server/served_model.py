"""What is served: a model, perhaps its concepts, what can be asked about them, and photographs from the network."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self

import torch
from PIL import Image, UnidentifiedImageError

from ierf.attribution import METHODS, RESOLUTIONS, RULES, LayerGrid, layer_grids, relevance_pass, usual_method
from ierf.errors import IerfError, UnknownNameError
from ierf.model import VisionModel, as_image, evaluating
from ierf.report.explain import Prediction, predictions, scene
from ierf.report.server.schemas import RETRY_AFTER, Limits, RefusedError

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model with what the server may ask of it. Its checks raise `IerfError` for what does not exist."""

    model: VisionModel
    bank: "ConceptBank | None"
    options: Mapping[str, Any]
    """Of methods that carry relevance by rules."""
    usual: str
    """The method if none is named."""
    layers: tuple[LayerGrid, ...]
    n_classes: int

    @classmethod
    def of(cls, model: VisionModel, bank: "ConceptBank | None" = None, **options: Any) -> Self:
        """Try the model on noise to learn its layers and classes.

        Raises `IerfError` for the bank of another model, and for an operation that the usual method has no rule for.
        """
        if bank is not None:
            bank.check_model(model)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(1, *model.preprocess.shape, generator=generator).to(model.device, model.dtype)
        method = usual_method(model)
        with relevance_pass(model, noise, method, options) as run:
            return cls(model, bank, options, method, tuple(layer_grids(run)), run.logits.shape[1])

    def method(self, name: str | None) -> str:
        """A method of maps."""
        if name is not None and name not in METHODS:
            raise UnknownNameError("method", name, METHODS)
        return name or self.usual

    def rules(self, name: str | None) -> str:
        """A method that carries relevance to the pixels from anywhere."""
        if name is not None and name not in RULES:
            raise UnknownNameError("method that carries relevance", name, RULES)
        return name or self.usual

    def options_of(self, method: str) -> Mapping[str, Any]:
        return self.options if method in RULES else {}

    def layer(self, name: str) -> LayerGrid:
        """A layer whose positions can be asked about."""
        found = next((layer for layer in self.layers if layer.name == name), None)
        if found is None:
            raise UnknownNameError("layer", name, [layer.name for layer in self.layers])
        return found

    def resolution(self, name: str) -> str:
        """A resolution, or a layer."""
        return name if name in RESOLUTIONS else self.layer(name).name

    def classes(self, names: Sequence[str | int]) -> list[int]:
        """Their indices, each once."""
        return list(dict.fromkeys(self.model.class_index(name, self.n_classes) for name in names))

    def concepts(self) -> "ConceptBank":
        """The bank."""
        if self.bank is None:
            raise IerfError("this server knows no concepts; start it with --bank to see graphs and interventions")
        return self.bank

    def concept(self, name: str) -> str:
        """A concept named by layer and number, as in "layer3.1/512", or a group, as in "layer3.1/group77"."""
        from ierf.graph import concepts_of

        concepts_of(self.concepts(), name)
        return name

    def predictions(self, picture: Image.Image) -> list[Prediction]:
        """All classes, the most probable first."""
        with torch.no_grad(), evaluating(self.model.net):
            return predictions(self.model, self.model(self.model.prepare(picture))[0])


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that Pillow decodes by itself, without calling another program."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph, named by its content."""

    id: str
    picture: Image.Image
    """Upright, 8-bit RGB."""
    view: bytes
    """The part that the model sees, a PNG file."""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return 3 * self.picture.width * self.picture.height + len(self.view)


class Arriving:
    """Room for the files of uploads that are on their way, or wait to be read. Of one thread, the event loop's."""

    def __init__(self, room: int) -> None:
        self._room = room

    @contextmanager
    def upload(self, size: int) -> Iterator[None]:
        """Inside: so many bytes may come. Raises `RefusedError` 503 where there is no room for them."""
        if size > self._room:
            raise RefusedError(503, "too many photographs arrive at once; try again in a moment", RETRY_AFTER)
        self._room -= size
        try:
            yield
        finally:
            self._room += size


def opened(model: VisionModel, content: bytes, limits: Limits) -> Photo:
    """The photograph in a file's bytes.

    Raises `RefusedError`: 415 for what is no image of `FORMATS`, 413 for too many pixels, 422 for a damaged file.
    """
    picture, view = _decoded(content, limits.pixels), BytesIO()
    scene(model, picture).save(view, "PNG")
    return Photo(name_of(content), picture, view.getvalue())


def name_of(content: bytes) -> str:
    """The id of the photograph in a file's bytes."""
    return sha256(content).hexdigest()[:32]


def _decoded(content: bytes, most_pixels: int) -> Image.Image:
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > most_pixels:
                raise _too_large(most_pixels)
            image.load()
            return as_image(image)
    except RefusedError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(most_pixels) from None
    except UnidentifiedImageError:
        raise RefusedError(415, f"this is no photograph; send one of {', '.join(FORMATS)}") from None
    except Exception:
        raise RefusedError(422, "the photograph cannot be read: its file is damaged or cut short") from None


def _too_large(most_pixels: int) -> RefusedError:
    return RefusedError(413, f"the photograph has more than {most_pixels / 1e6:g} megapixels; send a smaller one")
