"""The photographs that activate each latent of each layer: one pass over a data set, resumable, found again on disk."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.cafe.kept import Kept
from ierf.cafe.layer import Kind, LatentLayer
from ierf.cafe.peaks import peaks
from ierf.concepts.sae import SAE
from ierf.errors import IerfError, UnknownNameError
from ierf.model import Captured, VisionModel, capture, evaluating
from ierf.model.following import Values
from ierf.model.forward import logits_of
from ierf.model.images import ImageLike
from ierf.store.data import First, Images, open_images
from ierf.store.files import read_json, write, write_json
from ierf.store.lock import only_writer
from ierf.store.reading_ahead import read_ahead
from ierf.store.weights import weights_hash
from ierf.typed import FieldError, typed

FORMAT, VERSION = "ierf-latent-index", 2
SETTINGS, STATE = "index.json", "index.safetensors"
_READERS = 2
_MOST_TOKENS = 1 << 16
"""In front of the patches."""
_LATER = ("preprocessing", "rules")
"""Settings that the first indices of this version do not name."""

Track = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class _Needed:
    """Settings that an index is read with."""

    model: str
    values: Values
    prefix: Mapping[str, int]


class Example(NamedTuple):
    """A photograph that activates a latent."""

    image: int
    position: int
    """Among all positions of the layer, tokens in front of the patches included."""
    activation: float


@dataclass(frozen=True, eq=False)
class IndexedLayer:
    """The latents of one layer, read at one kind of token."""

    name: str
    kind: Kind
    kept: Kept
    photographs: int
    prefix: int

    def __len__(self) -> int:
        return len(self.kept.fired)

    @property
    def frequency(self) -> Float[Tensor, " K"]:
        """The share of photographs that activate a latent."""
        return self.kept.fired / max(self.photographs, 1)

    @property
    def entropy(self) -> Float[Tensor, " K"]:
        """The mean normalised collision entropy of the activation map, over the sample; NaN of a silent latent."""
        active = self.kept.sample > 0
        return (self.kept.sample_entropy * active).sum(1) / active.sum(1)

    @property
    def selectivity(self) -> Float[Tensor, " K"]:
        """The share of a latent's activation that the predicted class with most of it has."""
        return self.kept.of_class.amax(1) / self.kept.total.where(self.kept.total > 0, 1)

    def classes(self, latent: int, count: int = 4) -> list[tuple[int, float]]:
        """The predicted classes with most of a latent's activation, and their shares of it."""
        shares = self.kept.of_class[latent] / self.kept.total[latent].clamp_min(torch.finfo(torch.float64).tiny)
        best = shares.topk(min(count, len(shares)))
        return [(int(i), float(share)) for share, i in zip(*best, strict=True) if share > 0]

    def top(self, latent: int, count: int | None = None) -> list[Example]:
        """The photographs that activate a latent most, the strongest first."""
        kept = self.kept
        return self._examples(kept.top[latent], kept.top_images[latent], kept.top_places[latent])[:count]

    def quantiles(self, latent: int, count: int = 5) -> list[Example]:
        """Photographs at even quantiles of the activation, the weakest first, of a uniform sample of active ones."""
        kept = self.kept
        found = self._examples(kept.sample[latent], kept.sample_images[latent], kept.sample_places[latent])
        found.sort(key=lambda example: example.activation)
        count = min(count, len(found))
        return [found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count)]

    def _examples(self, values: Tensor, images: Tensor, places: Tensor) -> list[Example]:
        shift = self.prefix if self.kind == "patch" else 0
        rows = zip(images.tolist(), places.tolist(), values.tolist(), strict=True)
        return [Example(image, place + shift, value) for image, place, value in rows if value > 0]


@dataclass(frozen=True, eq=False)
class LatentIndex:
    """Top activations and uniform samples of all latents over a data set."""

    settings: Mapping[str, Any]
    layers: Mapping[tuple[str, Kind], IndexedLayer]
    photographs: int
    """Read so far; those that cannot be read do not count."""

    @classmethod
    def open(cls, folder: str | Path) -> "LatentIndex":
        """What `build` wrote. Raises `IerfError` if it is missing or damaged."""
        folder = Path(folder)
        if not (folder / SETTINGS).exists():
            raise IerfError(f"there is no index of latents in {str(folder)!r}; `ierf cafe` makes one")
        settings = _settings_in(folder)
        state = _State.read(folder / STATE)
        prefix, known = settings["prefix"], {name for name, _ in state.kept}
        if set(prefix) != known or any(not 0 <= prefix[name] < _MOST_TOKENS for name in known):
            raise IerfError(f"{str(folder / SETTINGS)!r} is damaged: prefix is {prefix}; build the index anew")
        layers = {
            (name, kind): IndexedLayer(name, kind, one, state.photographs, settings["prefix"][name])
            for (name, kind), one in state.kept.items()
        }
        return cls(settings, layers, state.photographs)

    def layer(self, name: str, kind: Kind = "patch") -> IndexedLayer:
        if (name, kind) not in self.layers:
            known = [" ".join(key) for key in self.layers]
            raise UnknownNameError("layer and kind of token", f"{name} {kind}", known)
        return self.layers[name, kind]


def build_index(
    model: VisionModel,
    saes: Mapping[str, SAE],
    images: str | Path | Sequence[ImageLike],
    folder: str | Path,
    *,
    values: Values = "pre-activation",
    top: int = 16,
    sample: int = 32,
    limit: int | None = None,
    batch: int = 64,
    save_every: int = 32,
    bfloat16: bool = False,
    seed: int = 0,
    track: Track = iter,
) -> LatentIndex:
    """One pass over the photographs for all layers; a killed run goes on from its last save.

    Args:
        saes: layer -> its autoencoder.
        top: photographs kept of each latent; sample: size of the uniform sample of those that activate it.
        limit: only the first so many photographs.
        batch: photographs at once, which with K, `top` and `sample` bounds the memory.
        save_every: batches between saves.
        bfloat16: see `ierf.cafe.peaks`: what is kept is the same, `fired`, `total` and `of_class` are rounded.
        seed: of the samples.

    Raises `IerfError` if the folder holds an index with other settings, or has a writer, or no photograph can be read.
    """
    source = open_images(images) if limit is None else First(open_images(images), limit)
    layers = [LatentLayer(model, name, sae, values) for name, sae in saes.items()]
    folder, settings = Path(folder), _settings(model, layers, source, top, sample, batch, seed, bfloat16)
    with only_writer(folder):
        state = _begun(folder, settings) or _State(empty(model, layers, top, sample))
        batches = _batches(model, source, state.seen, batch)
        starts = range(state.seen, len(source.names), batch)
        with evaluating(model.net), torch.no_grad():
            for number, start in enumerate(track(starts)):
                numbers, x = next(batches)
                kept = state.kept
                if len(x):
                    random = np.random.default_rng([seed, start])
                    kept = add_batch(model, layers, kept, x, torch.tensor(numbers), random, bfloat16)
                state = _State(kept, min(start + batch, len(source.names)), state.photographs + len(x))
                if state.photographs and number % save_every == save_every - 1:
                    _write(folder, state, settings)
        if not state.photographs:
            raise IerfError(f"none of the {len(source.names)} photographs of {source.address!r} can be read")
        _write(folder, state, settings)
        return LatentIndex.open(folder)


def add_batch(
    model: VisionModel,
    layers: Sequence[LatentLayer],
    kept: Mapping[tuple[str, Kind], Kept],
    x: Float[Tensor, "N 3 H W"],
    numbers: Int[Tensor, " N"],
    random: np.random.Generator,
    bfloat16: bool = False,
) -> dict[tuple[str, Kind], Kept]:
    """What is kept after one more batch: one forward pass, and every PFV of every layer encoded once."""
    classes, captured = _run(model, x, layers)
    found = dict(kept)
    for layer in layers:
        parts = [layer.positions(kind) for kind in layer.kinds]
        of_kinds = peaks(layer.sae, captured[layer.layer].pfvs, parts, bfloat16)
        for kind, those in zip(layer.kinds, of_kinds, strict=True):
            keys = torch.from_numpy(random.random(those.values.shape, dtype=np.float32)).clamp_min(1e-9)
            found[layer.layer, kind] = found[layer.layer, kind].with_more(those, numbers, keys, classes)
    return found


def _run(
    model: VisionModel, x: Float[Tensor, "N 3 H W"], layers: Sequence[LatentLayer]
) -> tuple[Int[Tensor, " N"], dict[str, Captured]]:
    """Predicted classes and the PFVs of the layers, in one forward pass."""
    classes: list[Tensor] = []
    handle = model.net.register_forward_hook(lambda *call: classes.append(logits_of(call[2]).argmax(1).cpu()))
    try:
        captured = capture(model, x, [layer.layer for layer in layers], layers[0].values)
    finally:
        handle.remove()
    return classes[0], captured


def _batches(
    model: VisionModel, source: Images, start: int, batch: int
) -> Iterator[tuple[list[int], Float[Tensor, "N 3 H W"]]]:
    """Photographs with their numbers; unreadable ones are left out."""
    count = len(source.names)
    photos = read_ahead(lambda i: model.preprocess(source.read(i)), range(start, count), _READERS, 2 * batch)
    for first in range(start, count, batch):
        rows = [next(photos) for _ in range(first, min(first + batch, count))]
        good = [(i, photo) for i, photo in rows if not isinstance(photo, IerfError)]
        x = torch.stack([photo for _, photo in good]) if good else torch.empty(0, *model.preprocess.shape)
        yield [i for i, _ in good], x.to(model.device, model.dtype)


def _settings(
    model: VisionModel,
    layers: Sequence[LatentLayer],
    source: Images,
    top: int,
    sample: int,
    batch: int,
    seed: int,
    bfloat16: bool,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": model.name,
        "weights": weights_hash(model.net),
        "preprocessing": asdict(model.preprocess),
        "layers": {layer.layer: weights_hash(layer.sae) for layer in layers},
        "rules": {layer.layer: [layer.sae.kind, layer.sae.k, dict(layer.sae.options)] for layer in layers},
        "prefix": {layer.layer: layer.grid.prefix for layer in layers},
        "kinds": {layer.layer: list(layer.kinds) for layer in layers},
        "values": layers[0].values,
        "data": source.address,
        "images": source.fingerprint,
        "count": len(source.names),
        "top": top,
        "sample": sample,
        "batch": batch,
        "seed": seed,
        "bfloat16": bfloat16,
    }


def empty(model: VisionModel, layers: Sequence[LatentLayer], top: int, sample: int) -> dict[tuple[str, Kind], Kept]:
    """What is kept of no photograph, by layer and kind of token."""
    with torch.no_grad(), evaluating(model.net):
        probe = torch.zeros(1, *model.preprocess.shape, device=model.device, dtype=model.dtype)
        classes = model(probe).shape[1]
    return {
        (layer.layer, kind): Kept.empty(layer.sae.n_latents, top, sample, classes)
        for layer in layers
        for kind in layer.kinds
    }


@dataclass(frozen=True, eq=False)
class _State:
    """What a run has so far."""

    kept: dict[tuple[str, Kind], Kept]
    seen: int = 0
    """Where in the data set it goes on."""
    photographs: int = 0
    """How many of those could be read."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises `IerfError` if the file is missing or damaged."""
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata()
                known = json.loads(metadata["counts"]) if "counts" in metadata else metadata
                counts = {name: int(known[name]) for name in ("seen", "photographs")}
                found: dict[tuple[str, Kind], dict[str, Tensor]] = {}
                for key in file.keys():  # noqa: SIM118
                    name, kind, field = key.rsplit("/", 2)
                    found.setdefault((name, kind), {})[field] = file.get_tensor(key)
            kept = {key: Kept(**{f.name: tensors[f.name] for f in fields(Kept)}) for key, tensors in found.items()}
            for key, one in kept.items():
                _check(one, " ".join(key))
        except (safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise IerfError(f"{str(path)!r} is missing or damaged ({reason}); build the index anew") from None
        return cls(kept, **counts)

    def bytes(self) -> bytes:
        """All tensors as one file; safetensors writes several names of metadata in random order, so there is one."""
        tensors = {
            f"{name}/{kind}/{field}": tensor.contiguous()
            for (name, kind), one in self.kept.items()
            for field, tensor in one.tensors().items()
        }
        counts = {"seen": self.seen, "photographs": self.photographs}
        return safetensors.torch.save(tensors, {"counts": json.dumps(counts)})


def _check(kept: Kept, name: str) -> None:
    """Raises `FieldError` for tensors of other sizes or types, or with numbers that are not finite."""
    latents, classes = len(kept.top), kept.of_class.shape[-1]
    like = Kept.empty(latents, kept.top.shape[-1], kept.sample.shape[-1], classes)
    for field, expected in like.tensors().items():
        found = kept.tensors()[field]
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise FieldError(f"{field} of {name} is {tuple(found.shape)}, {found.dtype}, not as the others have it")
        if not bool(found.isfinite().all()):
            raise FieldError(f"{field} of {name} has values that are not finite")


def _settings_in(folder: Path) -> dict[str, Any]:
    """Raises `IerfError` for an index of another version."""
    settings: Any = read_json(folder / SETTINGS)
    if not isinstance(settings, dict) or settings.get("format") != FORMAT or settings.get("version") != VERSION:
        raise IerfError(
            f"{str(folder / SETTINGS)!r} is not that of an index of version {VERSION}; write one to another folder"
        )
    try:
        typed({name: settings[name] for name in ("prefix", "values", "model") if name in settings}, _Needed)
    except FieldError as error:
        raise IerfError(f"{str(folder / SETTINGS)!r} is damaged: {error}; build the index anew") from None
    return settings


def _begun(folder: Path, settings: Mapping[str, Any]) -> _State | None:
    """What a run with the same settings has saved."""
    if not (folder / SETTINGS).exists() or not (folder / STATE).exists():
        return None
    found = _settings_in(folder)
    wanted = json.loads(json.dumps(settings))
    unsaid = {name: wanted[name] for name in _LATER}
    differing = [name for name in wanted if {**unsaid, **found}.get(name) != wanted[name]]
    if differing:
        raise IerfError(
            f"{str(folder)!r} holds an index with other settings ({', '.join(differing)}); write to another folder"
        )
    return _State.read(folder / STATE)


def _write(folder: Path, state: _State, settings: Mapping[str, Any]) -> None:
    """The state as one file, which is replaced whole, and the settings."""
    write(folder / STATE, state.bytes())
    write_json(folder / SETTINGS, settings)
