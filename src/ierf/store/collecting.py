"""Filling a store: block by block, from wherever the last run ended."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.model import ImageLike, VisionModel, as_vision_model, shift_of
from ierf.progress import Progress, of_two
from ierf.store.batch_collection import Clock, Sample, Site, collect_batch, method_of, sites
from ierf.store.files import (
    RECORDS,
    Shard,
    alone,
    checksum,
    explained,
    read_json,
    wait_for_all,
    write,
    write_json,
    writing,
)
from ierf.store.layout import (
    IMAGE_ARRAYS,
    MANIFEST,
    NAMES,
    PLAN,
    arrays,
    as_json,
    group,
    identity,
    layer_arrays,
    marker,
    metadata,
    shift_bytes,
    shift_path,
)
from ierf.store.photographs import First, Images, open_images, read_ahead
from ierf.store.plan import Plan, Settings, SourcePlan, differences

CHUNK_BYTES = 1 << 24
"""At most so many bytes in a chunk of PFVs, where one image does not need more."""


Shifts = dict[str, Float[np.ndarray, " C"]]
"""μ_BN of the layers that have one."""
_MOST_READERS = 4
Photo = tuple[int, Float[Tensor, "3 H W"] | IerfError]
"""Index and pixels of a photograph, or why it cannot be read."""


def found_shifts(model: VisionModel, found: Sequence[Site]) -> Shifts:
    """μ_BN of each layer for the kind of PFVs that is kept of it."""
    shifts = {site.plan.name: shift_of(model, site.plan.name, site.plan.values) for site in found}
    return {name: shift.float().cpu().numpy() for name, shift in shifts.items() if shift is not None}


def planned(model: VisionModel, source: Images, found: Sequence[Site], settings: Settings, shifts: Shifts) -> Plan:
    """What a run with these arguments writes into an empty folder."""
    from ierf import __version__

    itemsize = np.dtype(settings.pfv_type).itemsize
    sums = {name: checksum(shift_bytes(shift)) for name, shift in shifts.items()}
    largest = max(site.plan.rows_per_image * site.plan.channels * itemsize for site in found)
    return Plan(
        model=identity(model),
        method=method_of(model, settings),
        options=dict(settings.options),
        sampling=_sampling(settings),
        pfv_type=settings.pfv_type,
        compute={"device": model.device.type, "type": settings.dtype},
        batch=settings.batch,
        block=max(1, min(settings.block, CHUNK_BYTES // largest)),
        versions={"ierf": __version__, "torch": str(torch.__version__)},
        layers=tuple(replace(site.plan, shift=sums.get(site.plan.name)) for site in found),
        sources=(SourcePlan(source.address, source.fingerprint, 0, len(source.names)),),
    )


def claim(folder: Path) -> None:
    """Make the folder of a store. Raises `IerfError` if something else lies there."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / RECORDS).is_dir():
            raise IerfError(f"{str(folder)!r} is not empty and holds no store; choose another folder")
        (folder / RECORDS).mkdir(exist_ok=True)


def begin(folder: Path, wanted: Plan, source: Images, append: bool, shifts: Shifts) -> Plan:
    """The plan to follow, with its metadata in the folder: the wanted one, or what continues the one that is there."""
    if (folder / PLAN).exists():
        there = Plan.from_json(read_json(folder / PLAN), str(folder))
        plan = _continued(folder, there, wanted, append)
        if plan == there:
            return plan
        names = [json.loads(line) for line in (folder / NAMES).read_text(encoding="utf-8").splitlines()]
        names = names[: there.images] + [None] * (plan.sources[-1].first - there.images)
    else:
        plan, names = wanted, []
    for path, content in metadata(plan):
        write_json(folder / path, content)
    for layer in plan.layers:
        if layer.shift is not None:
            write(folder / shift_path(layer) / "c" / "0", shift_bytes(shifts[layer.name]))
    lines = (f"{json.dumps(name, ensure_ascii=False)}\n" for name in [*names, *source.names])
    write(folder / NAMES, "".join(lines).encode())
    write_json(folder / PLAN, plan.to_json())
    return plan


def _continued(folder: Path, there: Plan, wanted: Plan, append: bool) -> Plan:
    """The store that is there, to be finished, or with other photographs behind those that it has."""
    (source,), last = wanted.sources, there.sources[-1]
    same = replace(source, first=last.first) == last
    differs = list(_differences(there, wanted))
    if not append and not same:
        differs += differences({**asdict(last), "first": 0}, asdict(source), "images")
    if differs:
        raise IerfError(
            f"the store {str(folder)!r} was begun otherwise: {'; '.join(differs)}; give the same or another folder"
        )
    if same:
        return there
    if any(not marker(folder, b).exists() for b in range(there.blocks)):
        raise IerfError(f"the store {str(folder)!r} is not complete; finish it before appending to it")
    return replace(there, sources=(*there.sources, replace(source, first=there.blocks * there.block)))


def _differences(there: Plan, wanted: Plan) -> Iterator[str]:
    """In everything but the photographs, and μ_BN, which the model and the layers decide and old stores lack."""
    one, other = (
        replace(plan, sources=(), layers=tuple(replace(layer, shift=None) for layer in plan.layers))
        for plan in (there, wanted)
    )
    return differences(as_json(one.to_json()), as_json(other.to_json()))


def _sampling(settings: Settings) -> dict[str, Any]:
    """As the manifest has it; stores from before prefix tokens were kept say nothing of them."""
    kept = {"prefix_tokens": True} if settings.prefix_tokens else {}
    return {"kind": settings.sampling, "per_image": settings.per_image, "seed": settings.seed, **kept}


@dataclass
class Collected:
    """What a run did."""

    images: int = 0
    """Collected now."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Names of images that could not be read now, with the reason."""
    missing: int = 0
    """Blocks that other shards still have to write; 0 if the store is complete."""
    seconds: dict[str, float] = field(default_factory=dict)
    """The time of each stage; "reading" is what the network waited for photographs."""


def collect(
    model: VisionModel | nn.Module,
    images: str | Path | Sequence[ImageLike] | Images,
    layers: Sequence[str],
    path: str | Path,
    settings: Settings | None = None,
    *,
    limit: int | None = None,
    append: bool = False,
    shard: Shard | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Collected:
    """Write PFVs of `layers` with their iERFs for all `images` to the store at `path`, or finish what was begun there.

    Args:
        images: a folder, a parquet file or a folder of them, `hf:OWNER/NAME?split=…`, or a list of pictures.
        limit: only the first so many images.
        progress: called behind each batch with the images that are done, and all that this run has to do, see
            `ierf.progress.Progress`.
        append: put the images behind those of a complete store.
        shard: the part of the work to do; None: that of this rank, everything if there is one process.
        workers: threads that read photographs; None: one per core, at most 4.

    Memory is bounded by a block, whatever the number of images. Raises `IerfError` if the store at `path` was begun
    with another model, other images or settings (it names what differs), has a writer, or cannot be written.
    """
    vision_model, settings, folder = as_vision_model(model), settings or Settings(), Path(path)
    shard = shard or Shard.of_this_process()
    told = of_two(progress, lambda _, done, total: (done, total))
    source = open_images(images) if limit is None else First(open_images(images), limit)
    found = sites(vision_model, layers, settings)
    shifts = found_shifts(vision_model, found)
    wanted = planned(vision_model, source, found, settings, shifts)
    claim(folder)
    with writing(folder, shard):
        with alone(folder):
            plan = begin(folder, wanted, source, append, shifts)
        done = Collected()
        run = _Run(vision_model, source, plan, found, settings, done)
        for block, chunks, skipped in run.blocks(_lacking(folder, plan, shard), workers, told):
            _write_block(folder, plan, block, chunks, skipped)
        wait_for_all()
        with alone(folder):
            done.missing = sum(not marker(folder, b).exists() for b in range(plan.blocks))
            if not done.missing:
                _publish(folder, plan)
    wait_for_all()
    return done


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same from block to block."""

    model: VisionModel
    source: Images
    plan: Plan
    sites: Sequence[Site]
    settings: Settings
    done: Collected

    def blocks(
        self, work: Sequence[int], workers: int | None, progress: Progress | None
    ) -> Iterator[tuple[int, dict[str, np.ndarray], list[tuple[int, str]]]]:
        """For each block the chunks by their arrays' paths, and the images that were skipped with the reason."""
        size, clock = self.plan.block, Clock(self.done.seconds)
        indices = [i for b in work for i in range(b * size, min((b + 1) * size, self.plan.images))]
        readers = workers or min(_MOST_READERS, os.cpu_count() or 1)
        photos = read_ahead(self._read, indices, readers, 2 * self.plan.batch + readers)
        for block, of_block in groupby(photos, key=lambda photo: photo[0] // size):
            chunks = {array.path: array.empty(self.plan) for array in arrays(self.plan)}
            skipped: list[tuple[int, str]] = []
            for batch in self._batches(of_block, skipped):
                clock.lap("reading")
                self._fill(chunks, batch, clock)
                if progress is not None:
                    progress("collecting", self.done.images + len(self.done.skipped), len(indices))
            clock.lap("reading")
            yield block, chunks, skipped
            clock.lap("writing")

    def _batches(
        self, photos: Iterator[Photo], skipped: list[tuple[int, str]]
    ) -> Iterator[list[tuple[int, Float[Tensor, "3 H W"]]]]:
        """The photographs that can be read, a batch at a time; the others are put on the list."""
        batch: list[tuple[int, Tensor]] = []
        for index, photo in photos:
            if isinstance(photo, IerfError):
                skipped.append((index, str(photo)))
                self.done.skipped.append((self.source.names[self._own(index)], str(photo)))
                continue
            batch.append((index, photo))
            if len(batch) == self.plan.batch:
                yield batch
                batch = []
        if batch:
            yield batch

    def _fill(self, chunks: dict[str, np.ndarray], batch: Sequence[tuple[int, Tensor]], clock: Clock) -> None:
        """Put what a batch gives into the chunks of its block."""
        indices = [index for index, _ in batch]
        names = [self.source.names[self._own(index)] for index in indices]
        x = torch.stack([photo for _, photo in batch]).to(self.model.device)
        samples, predictions = collect_batch(self.model, x, names, self.sites, self.settings, clock)
        places = np.array(indices) % self.plan.block
        chunks[IMAGE_ARRAYS["predictions"].path][places] = predictions
        chunks[IMAGE_ARRAYS["labels"].path][places] = [self.source.label(self._own(index)) for index in indices]
        for layer in self.plan.layers:
            sample, n = samples[layer.name], layer.rows_per_image
            _check_range(sample, self.plan.pfv_type, layer.name)
            rows = (places[:, None] * n + np.arange(n)).ravel()
            for name, array in layer_arrays(layer, self.plan.pfv_type).items():
                chunks[array.path][rows] = getattr(sample, name).reshape(len(rows), *array.shape)
        self.done.images += len(batch)

    def _read(self, index: int) -> Float[Tensor, "3 H W"]:
        return self.model.preprocess(self.source.read(self._own(index)))

    def _own(self, index: int) -> int:
        """From the store's numbering of images to that of the source."""
        return index - self.plan.sources[-1].first


def _lacking(folder: Path, plan: Plan, shard: Shard) -> list[int]:
    """The blocks that this shard has to write."""
    lacking = [b for b in range(plan.blocks) if not marker(folder, b).exists()]
    if lacking and lacking[0] * plan.block < plan.sources[-1].first:
        raise IerfError(f"block {lacking[0]} of earlier images is missing from {str(folder)!r}; collect the store anew")
    return [b for b in lacking if shard.owns(b)]


def _check_range(sample: Sample, pfv_type: str, layer: str) -> None:
    largest = np.abs(sample.pfvs).max()
    if not largest <= np.finfo(pfv_type).max:
        raise IerfError(
            f"a PFV of {layer!r} has the value {largest:g}, which {pfv_type} cannot hold; store them as float32"
        )


def _write_block(
    folder: Path, plan: Plan, block: int, chunks: dict[str, np.ndarray], skipped: list[tuple[int, str]]
) -> None:
    """The chunks, then the marker that makes them count."""
    checksums = {}
    for array in arrays(plan):
        content = array.encoded(chunks[array.path])
        checksums[array.chunk_path(block)] = checksum(content)
        write(folder / array.chunk_path(block), content)
    write_json(marker(folder, block), {"skipped": skipped, "checksums": checksums})


def _publish(folder: Path, plan: Plan) -> None:
    """The manifest, last: from now on the folder is a Zarr group that others can open."""
    skipped = [entry for b in range(plan.blocks) for entry in read_json(marker(folder, b))["skipped"]]
    names = checksum((folder / NAMES).read_bytes())
    manifest = {**json.loads(json.dumps(plan.to_json())), "images": plan.images, "skipped": skipped}
    write_json(folder / MANIFEST, group({**manifest, "names_checksum": names}))
