"""The photographs that activate each latent of each layer, as an index on disk has them (Sec. V)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from ierf.cafe.latents import Kind
from ierf.cafe.top_examples import TopExamples
from ierf.errors import IerfError, UnknownNameError
from ierf.model import Values
from ierf.store import read_json
from ierf.typed import FieldError, typed

FORMAT, VERSION = "ierf-latent-index", 2
SETTINGS, STATE = "index.json", "index.safetensors"
_MOST_TOKENS = 1 << 16
"""In front of the patches."""


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
    kept: TopExamples
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
        settings = read_settings(folder)
        state = IndexState.read(folder / STATE)
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


@dataclass(frozen=True, eq=False)
class IndexState:
    """What a run has so far."""

    kept: dict[tuple[str, Kind], TopExamples]
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
            kept = {
                key: TopExamples(**{f.name: tensors[f.name] for f in fields(TopExamples)})
                for key, tensors in found.items()
            }
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


def _check(kept: TopExamples, name: str) -> None:
    """Raises `FieldError` for tensors of other sizes or types, or with numbers that are not finite."""
    latents, classes = len(kept.top), kept.of_class.shape[-1]
    like = TopExamples.empty(latents, kept.top.shape[-1], kept.sample.shape[-1], classes)
    for field, expected in like.tensors().items():
        found = kept.tensors()[field]
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise FieldError(f"{field} of {name} is {tuple(found.shape)}, {found.dtype}, not as the others have it")
        if not bool(found.isfinite().all()):
            raise FieldError(f"{field} of {name} has values that are not finite")


def read_settings(folder: Path) -> dict[str, Any]:
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
