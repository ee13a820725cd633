"""Where PFVs to train on come from: memory, a store, or a model that runs over photographs; mixed on the way."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.model import ImageLike, Values, VisionModel, as_vision_model, capture
from ierf.store import Dtype, First, PFVStore, Shard, check_dtype, open_images, read_ahead, weights_hash

Rows = Mapping[str, Float[Tensor, "R C"]]
"""Tensors with the same number of rows, which stay together."""

_SPLIT, _ORDER = 0, 1


@dataclass(frozen=True)
class Position:
    """Where a mixing buffer is; what it gives next depends on this, its seed and its input alone."""

    pool: int = 0
    chunk: int = 0
    """The chunk of the input in which the older of the pool's two blocks begins,"""
    row: int = 0
    """and the row of it."""
    batch: int = 0
    """Batches of the pool that were given."""


def mixed(
    chunks: Callable[[int], Iterator[Rows]], rows: int, batch: int, seed: int = 0, start: Position | None = None
) -> Iterator[tuple[Rows, Position]]:
    """Every row once, in mixed batches, each with the position behind it; from `start` on the rest, bit for bit.

    The input is cut into blocks of `rows`. A pool is a random half of one block and the other half of the block before
    it, shuffled: rows of neighbouring blocks meet, and nothing older is needed to go on from a position than two
    blocks. Memory: two blocks and a pool. Only the last batches of an input that ends may be smaller.

    Args:
        chunks: the input from its n-th chunk on, the same in every call; chunks may differ in size.
        rows: in a block; rounded up to pools of whole batches.
    """
    start = start or Position()
    size = -(-rows // (2 * batch)) * 2 * batch
    reader = _Reader(chunks, start.chunk, start.row)
    number, first, place, waiting = start.pool, start.batch, reader.place, None
    if number:
        older = reader.take(size)
        waiting = None if older is None else _halves(older, seed, number - 1)[1]
    while True:
        next_place = reader.place
        block = reader.take(size)
        now, later = (None, None) if block is None else _halves(block, seed, number)
        pool = _joined([half for half in (waiting, now) if half is not None])
        if pool is None:
            return
        pool = _pick(pool, np.random.default_rng([seed, _ORDER, number]).permutation(_length(pool)))
        count = -(-_length(pool) // batch)
        for b in range(first, count):
            behind = Position(number, place[0], place[1], b + 1)
            if b + 1 == count:
                behind = Position(number + 1, *next_place, 0)
            yield {name: values[b * batch : (b + 1) * batch] for name, values in pool.items()}, behind
        number, first, place, waiting = number + 1, 0, next_place, later


class _Reader:
    """Blocks of a given size from chunks of any size."""

    def __init__(self, chunks: Callable[[int], Iterator[Rows]], chunk: int, row: int) -> None:
        self.place = chunk, row
        self._chunks = chunks(chunk)
        self._left: Rows | None = None

    def take(self, size: int) -> Rows | None:
        """The next `size` rows, fewer at the end, None behind it."""
        parts, wanted = [], size
        while wanted and self._fill():
            assert self._left is not None
            (chunk, row), length = self.place, _length(self._left)
            end = min(row + wanted, length)
            parts.append({name: values[row:end] for name, values in self._left.items()})
            wanted -= end - row
            self.place = (chunk, end) if end < length else (chunk + 1, 0)
            if end == length:
                self._left = None
        return _joined(parts)

    def _fill(self) -> bool:
        while self._left is None:
            self._left = next(self._chunks, None)
            if self._left is None:
                return False
            if self.place[1] >= _length(self._left):
                self.place, self._left = (self.place[0] + 1, 0), None
        return True


def _halves(block: Rows, seed: int, number: int) -> tuple[Rows, Rows]:
    """A random half of a block for its own pool, and the other one for the next."""
    order = np.random.default_rng([seed, _SPLIT, number]).permutation(_length(block))
    middle = len(order) // 2
    return _pick(block, order[:middle]), _pick(block, order[middle:])


def _pick(rows: Rows, index: np.ndarray) -> Rows:
    return {name: values[torch.from_numpy(index).to(values.device)] for name, values in rows.items()}


def _joined(parts: Sequence[Rows]) -> Rows | None:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else None


def _length(rows: Rows) -> int:
    return len(next(iter(rows.values())))


_CHUNK = 1 << 14
"""PFVs in a chunk from memory or a store."""
_FEW = 1 << 8
"""Of fewer PFVs than half of this a chunk holds several epochs."""
_MOST_READERS = 4


class Source(Protocol):
    """An endless stream of PFVs that can be entered at any chunk."""

    @property
    def channels(self) -> Mapping[str, int]:
        """Of each layer."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a run that is resumed has to find again, as JSON can hold it."""

    def chunks(self, start: int) -> Iterator[Rows]:
        """The chunks from number `start` on, the same in every call; all layers have the same number of rows."""


class InMemory:
    """PFVs of one layer, called ""; each epoch in another order, several to a chunk where there are few PFVs."""

    def __init__(self, vectors: Float[Tensor, "N C"], seed: int) -> None:
        self._vectors, self._seed = vectors, seed
        self.channels = {"": vectors.shape[1]}
        self.rows = len(vectors)
        self.identity: dict[str, Any] = {"pfvs": list(vectors.shape)}

    def chunks(self, start: int) -> Iterator[Rows]:
        n = len(self._vectors)
        size, epochs = min(_CHUNK, n), max(1, _FEW // n)
        while True:
            epoch, first = divmod(start, -(-n // size))
            random = np.random.default_rng([self._seed, epoch])
            order = random.permutation(n)[first * size : (first + 1) * size]
            if epochs > 1:
                order = random.permuted(np.tile(np.arange(n), (epochs, 1)), axis=1).ravel()
            yield {"": self._vectors[torch.from_numpy(order).to(self._vectors.device)]}
            start += 1


class FromStore:
    """Layers of a PFV–iERF store. A layer with more rows than another goes through them in fewer epochs.

    Rows that do not fill a chunk at the end of an epoch wait for the next, which has another order.
    """

    def __init__(self, store: PFVStore, layers: Sequence[str], seed: int, device: torch.device | str = "cpu") -> None:
        self._layers = {name: store.layer(name) for name in layers}
        if not all(len(layer) for layer in self._layers.values()):
            raise IerfError(f"the store {str(store.path)!r} holds no PFVs: all of its images were skipped")
        self.rows = max(len(layer) for layer in self._layers.values())
        self._size = min(_CHUNK, *(len(layer) for layer in self._layers.values()))
        self._seed, self._device = seed, device
        self.channels = {name: layer.plan.channels for name, layer in self._layers.items()}
        self.identity: dict[str, Any] = {
            "store": str(store.path),
            "model": store.plan.model["name"],
            "weights": store.plan.model["weights"],
            "values": {name: layer.plan.values for name, layer in self._layers.items()},
        }

    def chunks(self, start: int) -> Iterator[Rows]:
        streams = {name: self._stream(name, start) for name in self._layers}
        while True:
            yield {name: next(stream) for name, stream in streams.items()}

    def _stream(self, name: str, start: int) -> Iterator[Float[Tensor, "R C"]]:
        layer = self._layers[name]
        epoch, first = divmod(start, len(layer) // self._size)
        while True:
            whole = (rows for rows in layer.batches(self._size, self._seed, epoch) if len(rows) == self._size)
            yield from (rows.to(self._device).float() for rows in islice(whole, first, None))
            epoch, first = epoch + 1, 0


class FromModel:
    """PFVs of several layers from one forward pass per batch of photographs, in another order in every epoch.

    Args:
        images: a folder, a parquet file or a folder of them, `hf:OWNER/NAME?split=…`, or a list of pictures.
        per_image: positions of each photograph, drawn anew for each layer and epoch; None: as many as the layer with
            the fewest positions has. Class and register tokens count as positions.
        shard: the photographs of this rank; None: by rank under torchrun.
        limit: only the first so many photographs.
        batch: photographs at once.
    """

    @renamed(compute="dtype")
    def __init__(
        self,
        model: VisionModel | nn.Module,
        images: str | Path | Sequence[ImageLike],
        layers: Sequence[str],
        *,
        per_image: int | None = None,
        values: Values = "pre-activation",
        seed: int = 0,
        batch: int = 64,
        limit: int | None = None,
        shard: Shard | None = None,
        dtype: Dtype = "float32",
    ) -> None:
        check_dtype(dtype)
        if not layers or len(set(layers)) < len(layers):
            raise IerfError("name the layers to train on, each once, as in layers=['layer2.1', 'layer3.1']")
        self._model, self._layers, self._values = as_vision_model(model), tuple(layers), values
        self._images = open_images(images) if limit is None else First(open_images(images), limit)
        self._seed, self._batch, self._half = seed, batch, dtype == "bfloat16"
        shard = shard or Shard.of_this_process()
        self._mine = np.arange(len(self._images.names))[shard.index :: shard.count]
        if not len(self._mine):
            raise IerfError(f"there are {len(self._images.names)} photographs, too few for {shard.count} processes")
        probe = self._pfvs(torch.zeros(1, *self._model.preprocess.shape))
        self.channels = {name: pfvs.shape[2] for name, pfvs in probe.items()}
        fewest = min(pfvs.shape[1] for pfvs in probe.values())
        self._per_image = per_image or fewest
        if not 1 <= self._per_image <= fewest:
            raise IerfError(f"a layer has {fewest} positions, so {self._per_image} per image cannot be taken")
        self.identity: dict[str, Any] = {
            "model": self._model.name,
            "weights": weights_hash(self._model.net),
            "data": self._images.address,
            "images": self._images.fingerprint,
            "count": len(self._images.names),
            "per_image": self._per_image,
            "photographs": batch,
            "values": values,
            "seed": seed,
        }
        self.skipped: dict[str, str] = {}
        """Photographs that could not be read, with the reason."""

    def chunks(self, start: int) -> Iterator[Rows]:
        per_epoch = -(-len(self._mine) // self._batch)
        epoch, first = divmod(start, per_epoch)
        while True:
            order = self._mine[np.random.default_rng([self._seed, epoch]).permutation(len(self._mine))]
            yield from self._epoch(order, epoch, first)
            epoch, first = epoch + 1, 0

    def _epoch(self, order: np.ndarray, epoch: int, first: int) -> Iterator[Rows]:
        readers = min(_MOST_READERS, os.cpu_count() or 1)
        photos = read_ahead(
            lambda i: self._model.preprocess(self._images.read(i)),
            order[first * self._batch :].tolist(),
            readers,
            2 * self._batch,
        )
        for number in range(first, -(-len(order) // self._batch)):
            batch = []
            for index, photo in islice(photos, self._batch):
                if isinstance(photo, IerfError):
                    self.skipped[self._images.names[index]] = str(photo)
                else:
                    batch.append(photo)
            if len(self.skipped) == len(self._mine):
                raise IerfError(
                    f"none of the {len(self._mine)} photographs can be read: {next(iter(self.skipped.values()))}"
                )
            yield self._drawn(batch, np.random.default_rng([self._seed, epoch, number]))

    def _drawn(self, batch: list[Tensor], random: np.random.Generator) -> Rows:
        if not batch:
            return {
                name: torch.empty(0, channels, device=self._model.device) for name, channels in self.channels.items()
            }
        rows = {}
        for name, pfvs in self._pfvs(torch.stack(batch)).items():
            n, p, c = pfvs.shape
            if p > self._per_image:
                taken = random.random((n, p)).argpartition(self._per_image, axis=1)[:, : self._per_image]
                pfvs = pfvs.take_along_dim(torch.from_numpy(taken).to(pfvs.device)[..., None], 1)
            rows[name] = pfvs.reshape(-1, c)
        return rows

    @torch.no_grad()
    def _pfvs(self, x: Float[Tensor, "N 3 H W"]) -> dict[str, Float[Tensor, "N P C"]]:
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._half):
            found = capture(self._model, x.to(self._model.device, self._model.dtype), self._layers, self._values)
        return {name: one.pfvs.float() for name, one in found.items()}
