"""A store on disk, read: what is in it, one layer at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from ierf.attribution import effective_receptive_fields
from ierf.errors import IerfError
from ierf.model import ImageLike, VisionModel, as_vision_model
from ierf.progress import Progress
from ierf.store.arrays import Column, StoredArray
from ierf.store.collecting import collect
from ierf.store.files import Shard, checksum
from ierf.store.layout import MANIFEST, PLAN, check_model, layer_arrays, manifest, shift_path
from ierf.store.photographs import StoredPhotographs
from ierf.store.pictures import covered, everything, lit, part
from ierf.store.plan import LayerPlan, Plan, Settings, position_of, restored

_SHUFFLED = 1 << 26
"""Bytes of PFVs that are shuffled at once."""
_COSINES = 1 << 24
"""Cosines of PFVs with vectors in memory at once."""


@dataclass(frozen=True)
class Exemplar:
    """One row of a layer: a PFV's place, and what is known of it."""

    layer: str
    row: int
    image: int
    name: str
    """The photograph's, relative to its folder or file."""
    position: tuple[int, ...]
    """(row, column) of a map or a patch, (index,) of a token: `ierf.effective_receptive_fields` takes it as it is."""
    label: int
    prediction: int
    relevance: float
    norm: float


@dataclass(frozen=True)
class Nearest:
    """The rows whose PFVs point most nearly where each of `Q` vectors points, best first."""

    rows: Int[Tensor, "Q k"]
    cosines: Float[Tensor, "Q k"]


class StoredLayer:
    """The rows of one layer; every column is read from the disk where it is indexed.

    `pfvs` (R, C), `positions` (R, axes), `relevances`, `norms`, `images` (R,) and, where they were kept, `ierfs`
    (R, h, w) as float32.
    """

    def __init__(self, folder: Path, store: Plan, plan: LayerPlan, photographs: StoredPhotographs) -> None:
        self._folder, self._of_store, self._photographs = folder, store, photographs
        self.plan, self.name = plan, plan.name
        n = plan.rows_per_image
        places = (photographs.kept[:, None] * n + np.arange(n)).ravel()
        specs = layer_arrays(plan, store.pfv_type)
        self._arrays = {name: StoredArray(folder, store, spec) for name, spec in specs.items()}
        self.pfvs = Column(self._arrays["pfvs"], places)
        self.positions = Column(self._arrays["positions"], places)
        self.relevances = Column(self._arrays["relevances"], places)
        self.norms = Column(self._arrays["norms"], places)
        self._places = places

    def __len__(self) -> int:
        return len(self.pfvs)

    def __repr__(self) -> str:
        return f"StoredLayer({self.name!r}, {len(self)} PFVs of {self.plan.channels} channels)"

    @property
    def shift(self) -> Float[Tensor, " C"] | None:
        """μ_BN of the kept PFVs, see `ierf.model.shift_of`; None if there is none, or the store does not keep it."""
        if self.plan.shift is None:
            return None
        path = self._folder / shift_path(self.plan) / "c" / "0"
        content = path.read_bytes() if path.is_file() else b""
        if checksum(content) != self.plan.shift:
            raise IerfError(f"{str(path)!r} is missing or was changed; collect the store anew")
        return torch.from_numpy(np.frombuffer(content, "<f4").astype(np.float32))

    @property
    def images(self) -> Int[np.ndarray, " R"]:
        """The index of each row's photograph."""
        return self._places // self.plan.rows_per_image

    @property
    def ierfs(self) -> Column:
        """The kept iERFs, reduced; each cell holds the sum of its pixels. Raises `IerfError` if none were kept."""
        if self.plan.ierf_size is None:
            raise IerfError("this store keeps no iERFs; StoredLayer.ierf(row, model) computes one anew")
        scales = self._arrays["ierf_scales"]

        def restore(quantised: np.ndarray, places: np.ndarray) -> np.ndarray:
            scale = Column(scales, places)[:]
            values: np.ndarray = restored(torch.from_numpy(quantised), torch.from_numpy(scale)).numpy()
            return values

        return Column(self._arrays["ierfs"], self._places, restore)

    def exemplar(self, row: int) -> Exemplar:
        """What belongs to a row."""
        if not -len(self) <= row < len(self):
            raise IerfError(f"there is no row {row} of {self.name!r}; it has {len(self)}")
        row %= len(self)
        image = int(self.images[row])
        return Exemplar(
            self.name,
            row,
            image,
            self._photographs.name(image),
            position_of(self.positions[row]),
            int(self._photographs.labels[image]),
            int(self._photographs.predictions[image]),
            float(self.relevances[row]),
            float(self.norms[row]),
        )

    def batches(self, size: int, seed: int = 0, epoch: int = 0) -> Iterator[Float[Tensor, "size C"]]:
        """All PFVs once, in batches for training: chunks in random order, shuffled among the next few of them.

        The last batch may be smaller. The order depends on `seed` and `epoch` alone.
        """
        random = np.random.default_rng([seed, epoch])
        chunks = self.pfvs.chunks()
        order = random.permutation(len(chunks))
        row_bytes = self.plan.channels * self.pfvs.dtype.itemsize
        at_once = max(1, _SHUFFLED // (row_bytes * self.pfvs.chunk))
        left = np.empty((0, self.plan.channels), self.pfvs.dtype)
        for some in np.split(order, range(at_once, len(order), at_once)):
            pool = np.concatenate([left, *(self.pfvs[chunks[c]] for c in some)])
            pool = pool.take(random.permutation(len(pool)), axis=0)
            whole = len(pool) // size * size
            for start in range(0, whole, size):
                yield torch.from_numpy(pool[start : start + size])
            left = pool[whole:]
        if len(left):
            yield torch.from_numpy(left)

    def nearest(
        self, vectors: Float[Tensor, "Q C"] | np.ndarray, k: int = 10, shift: Float[Tensor, " C"] | None = None
    ) -> Nearest:
        """The `k` rows with the largest cosine to each vector, exactly, by one pass over the layer.

        `shift` is subtracted from the PFVs first, not from the vectors. A PFV or a vector of norm 0 has the cosine 0.
        Memory does not grow with the layer.
        """
        queries = torch.nn.functional.normalize(torch.as_tensor(vectors).float().cpu().reshape(-1, self.plan.channels))
        rows, best = torch.empty(len(queries), 0, dtype=torch.long), torch.empty(len(queries), 0)
        at_once = max(1, _COSINES // max(1, len(queries)))
        for chunk in self.pfvs.chunks():
            for some in np.split(chunk, range(at_once, len(chunk), at_once)):
                pfvs = self.pfvs.torch(some).float()
                pfvs = torch.nn.functional.normalize(pfvs if shift is None else pfvs - shift.to(pfvs))
                found = (queries @ pfvs.T).topk(min(k, len(some)))
                rows = torch.cat([rows, torch.from_numpy(some)[found.indices]], 1)
                best, order = torch.cat([best, found.values], 1).topk(min(k, rows.shape[1]))
                rows = rows.gather(1, order)
        return Nearest(rows, best)

    def ierf(self, row: int, model: VisionModel | nn.Module) -> Float[Tensor, "H W"]:
        """The iERF of a row at the resolution of the pixels, computed anew from its photograph."""
        vision_model = as_vision_model(model)
        check_model(self._folder, self._of_store, vision_model)
        exemplar = self.exemplar(row)
        x = vision_model.prepare(self._photographs.photo(exemplar.image))
        plan = self._of_store
        found = effective_receptive_fields(
            vision_model, x, self.name, [exemplar.position], method=plan.method, **plan.options
        )
        return found[0, 0].detach().cpu()

    def pictures(
        self, row: int, model: VisionModel | nn.Module | None = None, side: int = 224
    ) -> tuple[Image.Image, Image.Image]:
        """The photograph of a row, bright where its iERF is positive, the PFV's cell outlined; and the part it covers.

        A token that is no patch has no cell: the photograph says which token it is, and both pictures show it all.
        With a model the iERF is computed anew at full resolution, else the kept one is enlarged.
        """
        values = self.ierfs[row] if model is None else self.ierf(row, model).numpy()
        position, cells = position_of(self.positions[row]), self.plan.map
        picture = lit(self._photographs.view(int(self.images[row])), values)
        boxes = everything(picture), covered(picture, values, position, cells)
        whole, some = (part(picture, box, side, position, cells) for box in boxes)
        return whole, some


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
