"""The concept bank (arXiv 2605.00474, Sec. VI-A1): concepts of several layers, with exemplars to make them readable."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from ierf.concepts import bank_files as files
from ierf.concepts.bank_files import PICTURES, BankPlan, reading
from ierf.concepts.bank_fitting import L0_RATIO, STAGES, fit_layer
from ierf.concepts.layer_concepts import LayerConcepts
from ierf.errors import IerfError, UnknownNameError
from ierf.model import VisionModel, as_vision_model
from ierf.progress import Progress, StepCounter, of_two
from ierf.store import PFVStore, covered, differences, lit, only_writer, part, position_of, weights_hash, write

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


class ConceptBank:
    """Concepts of several layers of one model. Layers in a folder are read when they are asked for."""

    def __init__(self, plan: BankPlan, layers: dict[str, LayerConcepts], folder: Path | None = None) -> None:
        self.plan, self.folder = plan, folder
        self._layers = layers
        self._store: PFVStore | None = None

    @classmethod
    def fit(
        cls,
        store: PFVStore,
        extractor: str = "bisecting",
        n_concepts: int | None = None,
        layers: Sequence[str] | None = None,
        seed: int = 0,
        *,
        l0_ratio: float = L0_RATIO,
        positive: bool = False,
        encoded: int | None = 10_000,
        model: VisionModel | nn.Module | None = None,
        path: str | Path | None = None,
        device: str = "cpu",
        progress: Progress | None = None,
        **options: Any,
    ) -> "ConceptBank":
        """Find concepts in the PFVs of a store, layer by layer.

        PFVs are shifted first: by μ_BN where the store has it, else by their mean if they are tokens, else not.

        Args:
            extractor: one of `ierf.concepts.EXTRACTORS`; `options` are its own.
            n_concepts: of each layer; None: 8 for each channel, and one for three PFVs at most (with a warning).
            layers: None: all that the store holds.
            l0_ratio: `1 − ‖u‖₀ / K`; λ of each layer is chosen so that codes have it; the paper's is 0.996 (Table III).
            positive: codes have no negative coefficients.
            encoded: PFVs, drawn evenly, that are coded for frequencies, strengths, relevance and classes; None: all.
            model: must be the store's; gives the names of the classes.
            path: a folder that each layer is written to when it is found. A fit that was killed goes on from there when
                it is called with the same arguments.
            progress: called before each step, "LAYER: what is done with it now", see `ierf.progress.Progress`.

        Raises `IerfError` where the folder holds something else, a bank that was fitted otherwise, or has a writer.
        """
        labels = None
        if model is not None:
            vision_model = as_vision_model(model)
            store.check_model(vision_model)
            labels = vision_model.labels
        settings = files.FitSettings(extractor, options, n_concepts, seed, l0_ratio, positive, encoded, device)
        plan = files.planned(store, layers or store.layers, settings, labels)
        told = of_two(progress, lambda stage, *_: tuple(stage.split(": ", 1)))
        if path is None:
            counted = StepCounter(told, STAGES * len(plan.layers))
            found = {n: fit_layer(store.layer(n), store.predictions, settings, counted) for n in plan.layers}
            return cls._of_store(plan, found, None, store)
        folder = Path(path)
        with only_writer(folder):
            if not files.begin(folder, plan):
                lacking = [name for name in plan.layers if not files.layer_path(folder, name).exists()]
                counted = StepCounter(told, STAGES * len(lacking))
                for name in lacking:
                    files.write_layer(folder, fit_layer(store.layer(name), store.predictions, settings, counted))
                files.publish(folder)
        return cls._of_store(plan, {}, folder, store)

    @classmethod
    def load(cls, path: str | Path, store: PFVStore | str | Path | None = None) -> "ConceptBank":
        """The bank in a folder, or in a repository of the hub, `hf:OWNER/NAME`.

        `store` is where the store lies now, if it was moved. Raises `IerfError` for a folder without a bank, a bank
        that is not complete, damaged or of a newer version, and for a store that is not the bank's.
        """
        folder = files.download(str(path)) if str(path).startswith(files.PREFIX) else Path(path)
        if not (folder / files.MANIFEST).exists():
            raise IerfError(
                f"the bank {str(path)!r} is not complete; `ierf concepts fit` with the same arguments finishes it"
                if (folder / files.BEGUN).exists()
                else f"there is no concept bank at {str(path)!r}; `ierf concepts fit` makes one"
            )
        bank = cls(files.read_plan(folder / files.MANIFEST, str(path)), {}, folder)
        if store is not None:
            bank._store = bank._checked(store if isinstance(store, PFVStore) else PFVStore(store))
        return bank

    @classmethod
    def _of_store(
        cls, plan: BankPlan, layers: dict[str, LayerConcepts], folder: Path | None, store: PFVStore
    ) -> "ConceptBank":
        bank = cls(plan, layers, folder)
        bank._store = store
        return bank

    def __repr__(self) -> str:
        where = "" if self.folder is None else f"{str(self.folder)!r}, "
        return f"ConceptBank({where}{len(self.layers)} layers of {self.plan.model['name']!r}, {self.plan.extractor})"

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers."""
        return self.plan.layers

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the model's classes, if they were known."""
        return self.plan.labels

    def label(self, index: int) -> str:
        """The name of a class, "class 7" where there is none."""
        known = self.labels is not None and 0 <= index < len(self.labels)
        return self.labels[index] if known and self.labels is not None else f"class {index}"

    def layer(self, name: str) -> LayerConcepts:
        """The concepts of one layer. Raises `UnknownNameError` with the nearest names."""
        if name not in self.layers:
            raise UnknownNameError("layer in the bank", name, self.layers)
        if name not in self._layers and self.folder is not None:
            self._layers[name] = files.read_layer(self.folder, name)
        return self._layers[name]

    def check_model(self, model: VisionModel | nn.Module) -> None:
        """Raises an `IerfError` that says how a model differs from the one whose concepts these are.

        The weights must be the same and, for a `VisionModel`, the preprocessing. A bare network has none.
        """
        vision_model = as_vision_model(model)
        here: dict[str, Any] = {"weights": weights_hash(vision_model.net)}
        if isinstance(model, VisionModel):
            here["preprocessing"] = asdict(vision_model.preprocess)
        there = {name: self.plan.model[name] for name in here}
        if differs := list(differences(there, here, "model")):
            raise IerfError(
                f"these are the concepts of another model, {self.plan.model['name']!r}: {'; '.join(differs)}; "
                "give that model, or fit a bank to a store of yours"
            )

    @property
    def store(self) -> PFVStore:
        """The store that the concepts come from. Raises `IerfError` where it is gone or is another one."""
        if self._store is None:
            if self.plan.store.address is None:
                raise IerfError("this bank was published without its store; load it with store= to give one")
            self._store = self._checked(PFVStore(self.plan.store.address))
        return self._store

    def exemplar_pictures(
        self,
        layer: str,
        concept: int,
        n: int = 10,
        side: int = SIDE,
        model: VisionModel | nn.Module | None = None,
    ) -> list[Image.Image]:
        """The `n` nearest PFVs of a concept: the parts of photographs that their iERFs cover, bright where they are.

        They are cut from the store's photographs, and where the store is out of reach those kept in the bank are taken.
        With a model, iERFs are computed anew at full resolution. Raises `IerfError` where there is neither.
        """
        return self.pictures(layer, [concept], n, side, model)[0]

    def pictures(
        self,
        layer: str,
        concepts: Sequence[int],
        n: int = 10,
        side: int = SIDE,
        model: VisionModel | nn.Module | None = None,
    ) -> list[list[Image.Image]]:
        """The same for several concepts of a layer; each photograph is read once."""
        return exemplar_pictures(self.layer(layer), concepts, n, side, model, lambda: self.store, self.folder)

    def keep_pictures(self) -> None:
        """Put a crop of each exemplar into the bank's folder, where they are not yet; then it needs no store."""
        if self.folder is None:
            raise IerfError("this bank lies in memory; bank.save(path, pictures=True) writes it with its pictures")
        with only_writer(self.folder):
            for name in self.layers:
                if not has_pictures(self.folder, name):
                    self._write_pictures(self.folder, name)

    def save(self, path: str | Path, pictures: bool = False) -> Path:
        """Write the bank to a folder; with `pictures` also a crop of each exemplar, so that it needs no store.

        Raises `IerfError` if something else lies there.
        """
        folder = Path(path)
        with only_writer(folder):
            if files.begin(folder, self.plan):
                raise IerfError(f"there is a bank at {str(path)!r} already; choose another folder")
            for name in self.layers:
                files.write_layer(folder, self.layer(name))
                if pictures:
                    self._write_pictures(folder, name)
            files.publish(folder)
        return folder

    def push(self, name: str, pictures: bool = True) -> str:
        """Publish the bank, without the address of its store, as the repository OWNER/NAME of the files.

        Returns the address that `load` takes.
        """
        public = ConceptBank(replace(self.plan, store=replace(self.plan.store, address=None)), {}, self.folder)
        public._layers, public._store = self._layers, self._store
        if pictures:
            public._store = self.store
        with TemporaryDirectory() as folder:
            public.save(Path(folder) / "bank", pictures)
            return files.upload(Path(folder) / "bank", name, f"Concepts of {self.plan.model['name']}")

    def _write_pictures(self, folder: Path, name: str) -> None:
        rows = self.layer(name).exemplars.flatten().tolist()
        write_pictures(folder, name, crops(self.store, name, rows))

    def _checked(self, store: PFVStore) -> PFVStore:
        """Raises `IerfError` if a store is not the one that the concepts come from."""
        there, here = asdict(self.plan.store), asdict(files.store_record(store))
        del there["address"], here["address"]
        if differs := list(differences(there, here, "store")):
            raise IerfError(f"{str(store.path)!r} is not the store of this bank: {'; '.join(differs)}")
        return store
