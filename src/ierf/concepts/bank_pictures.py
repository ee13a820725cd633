"""Exemplars as pictures: cut from the photographs of a store, or kept in the bank."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from ierf.concepts.bank_files import PICTURES, reading
from ierf.concepts.layer_concepts import LayerConcepts
from ierf.errors import IerfError
from ierf.model import VisionModel
from ierf.store import PFVStore, covered, lit, part, position_of, write

SIDE = 96
"""Of a crop, in pixels."""
_QUALITY = 80
_AT_ONCE = 512
"""iERFs in memory at once."""


def exemplar_pictures(
    layer: LayerConcepts,
    concepts: Sequence[int],
    n: int,
    side: int,
    model: VisionModel | nn.Module | None,
    store: Callable[[], PFVStore],
    folder: Path | None,
) -> list[list[Image.Image]]:
    """The `n` nearest PFVs of each concept as crops of the store's photographs, else those kept in the bank's folder.

    Raises `IerfError` where there is neither.
    """
    kept = layer.exemplars.shape[1]
    count = min(n, kept)
    places = [layer.concept(concept) * kept + i for concept in concepts for i in range(count)]
    try:
        rows = layer.exemplars.flatten()[places].tolist()
        found = dict(crops(store(), layer.name, rows, side, model))
    except IerfError:
        if folder is None or not has_pictures(folder, layer.name):
            raise
        found = dict(enumerate(read_pictures(folder, layer.name, places)))
    ordered = [found[place] for place in range(len(places))]
    return [ordered[i * count : (i + 1) * count] for i in range(len(concepts))]


def crops(
    store: PFVStore, layer: str, rows: Sequence[int], side: int = SIDE, model: VisionModel | nn.Module | None = None
) -> Iterator[tuple[int, Image.Image]]:
    """For each row the part of its photograph that its iERF covers: bright where it is positive, dim elsewhere.

    Of a token that is no patch it is the whole photograph, with the token's name. Comes with the row's place in `rows`,
    in the order of the photographs, so that each is read once. With a model, iERFs are computed at full resolution.
    """
    stored = store.layer(layer)
    order = np.argsort(rows, kind="stable")
    for places in np.split(order, range(_AT_ONCE, len(order), _AT_ONCE)):
        some = np.asarray(rows, dtype=np.int64)[places]
        ierfs = stored.ierfs[some] if model is None else (stored.ierf(int(row), model).numpy() for row in some)
        for place, ierf, image, at in zip(places, ierfs, stored.images[some], stored.positions[some], strict=True):
            picture, position = lit(store.view(int(image)), ierf), position_of(at)
            box = covered(picture, ierf, position, stored.plan.map)
            yield int(place), part(picture, box, side, position, stored.plan.map)


def write_pictures(folder: Path, layer: str, pictures: Iterable[tuple[int, Image.Image]]) -> None:
    """One file of WebP pictures end to end; that of place i lies between `starts[i]` and `starts[i + 1]`."""
    encoded = {place: webp(picture) for place, picture in pictures}
    ordered = [encoded[place] for place in range(len(encoded))]
    starts = torch.tensor([0, *np.cumsum([len(content) for content in ordered])], dtype=torch.int64)
    content = torch.frombuffer(bytearray(b"".join(ordered)), dtype=torch.uint8)
    write(_path(folder, layer), save({"content": content, "starts": starts}))


def webp(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def read_pictures(folder: Path, layer: str, numbers: Sequence[int]) -> list[Image.Image]:
    """Some of the pictures; the rest of the file is not read. Raises `IerfError` if they are missing or damaged."""
    with reading(_path(folder, layer)) as file:
        starts, content = file.get_tensor("starts"), file.get_slice("content")
        spans = [(int(starts[number]), int(starts[number + 1])) for number in numbers]
        return [_decoded(bytes(content[low:high].numpy())) for low, high in spans]


def has_pictures(folder: Path, layer: str) -> bool:
    return _path(folder, layer).exists()


def _path(folder: Path, layer: str) -> Path:
    return folder / PICTURES / f"{layer}.safetensors"


def _decoded(content: bytes) -> Image.Image:
    try:
        with Image.open(BytesIO(content)) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise IerfError(f"a picture in the bank is damaged ({error}); fit the bank anew") from None
