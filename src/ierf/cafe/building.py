"""Building an index of latents: one pass over a data set, which a killed run goes on with (Sec. V)."""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.cafe.index import FORMAT, SETTINGS, STATE, VERSION, IndexState, LatentIndex, read_settings
from ierf.cafe.latents import Kind, LatentLayer
from ierf.cafe.top_examples import TopExamples, max_activations
from ierf.concepts.sae import SAE
from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.model import Captured, ImageLike, Values, VisionModel, capture, evaluating, logits_of
from ierf.progress import Progress
from ierf.store import Dtype, First, Images, only_writer, open_images, read_ahead, weights_hash, write, write_json

_READERS = 2
_LATER = ("preprocessing", "rules")
"""Settings that the first indices of this version do not name."""


Track = Callable[[Sequence[Any]], Iterable[Any]]


@renamed({True: "bfloat16", False: "float32"}, bfloat16="dtype")
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
    dtype: Dtype = "float32",
    seed: int = 0,
    progress: Progress | None = None,
    track: Track | None = None,
) -> LatentIndex:
    """One pass over the photographs for all layers; a killed run goes on from its last save.

    Args:
        saes: layer -> its autoencoder.
        top: photographs kept of each latent; sample: size of the uniform sample of those that activate it.
        limit: only the first so many photographs.
        batch: photographs at once, which with K, `top` and `sample` bounds the memory.
        save_every: batches between saves.
        dtype: see `max_activations`. In "bfloat16" what is kept is the same; `fired`, `total`, `of_class` are rounded.
        seed: of the samples.
        progress: called behind each batch, see `ierf.progress.Progress`.
        track: what `progress` was; goes through a sequence, batch by batch.

    Raises `IerfError` if the folder holds an index with other settings, or has a writer, or no photograph can be read.
    """
    if track is not None:
        warnings.warn("track= is called progress= now, see ierf.progress", DeprecationWarning, stacklevel=3)
    source = open_images(images) if limit is None else First(open_images(images), limit)
    layers = [LatentLayer(model, name, sae, values) for name, sae in saes.items()]
    folder, settings = Path(folder), _settings(model, layers, source, top, sample, batch, seed, dtype)
    with only_writer(folder):
        state = _begun(folder, settings) or IndexState(empty(model, layers, top, sample))
        batches = _batches(model, source, state.seen, batch)
        starts = range(state.seen, len(source.names), batch)
        with evaluating(model.net), torch.no_grad():
            for number, start in enumerate((track or iter)(starts)):
                numbers, x = next(batches)
                kept = state.kept
                if len(x):
                    random = np.random.default_rng([seed, start])
                    kept = add_batch(model, layers, kept, x, torch.tensor(numbers), random, dtype)
                state = IndexState(kept, min(start + batch, len(source.names)), state.photographs + len(x))
                if state.photographs and number % save_every == save_every - 1:
                    _write(folder, state, settings)
                if progress is not None:
                    progress("indexing", state.seen, len(source.names))
        if not state.photographs:
            raise IerfError(f"none of the {len(source.names)} photographs of {source.address!r} can be read")
        _write(folder, state, settings)
        return LatentIndex.open(folder)


@renamed({True: "bfloat16", False: "float32"}, bfloat16="dtype")
def add_batch(
    model: VisionModel,
    layers: Sequence[LatentLayer],
    kept: Mapping[tuple[str, Kind], TopExamples],
    x: Float[Tensor, "N 3 H W"],
    numbers: Int[Tensor, " N"],
    random: np.random.Generator,
    dtype: Dtype = "float32",
) -> dict[tuple[str, Kind], TopExamples]:
    """What is kept after one more batch: one forward pass, and every PFV of every layer encoded once."""
    classes, captured = _run(model, x, layers)
    found = dict(kept)
    for layer in layers:
        parts = [layer.positions(kind) for kind in layer.kinds]
        of_kinds = max_activations(layer.sae, captured[layer.layer].pfvs, parts, dtype)
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
    dtype: Dtype,
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
        "bfloat16": dtype == "bfloat16",
    }


def empty(
    model: VisionModel, layers: Sequence[LatentLayer], top: int, sample: int
) -> dict[tuple[str, Kind], TopExamples]:
    """What is kept of no photograph, by layer and kind of token."""
    with torch.no_grad(), evaluating(model.net):
        probe = torch.zeros(1, *model.preprocess.shape, device=model.device, dtype=model.dtype)
        classes = model(probe).shape[1]
    return {
        (layer.layer, kind): TopExamples.empty(layer.sae.n_latents, top, sample, classes)
        for layer in layers
        for kind in layer.kinds
    }


def _begun(folder: Path, settings: Mapping[str, Any]) -> IndexState | None:
    """What a run with the same settings has saved."""
    if not (folder / SETTINGS).exists() or not (folder / STATE).exists():
        return None
    found = read_settings(folder)
    wanted = json.loads(json.dumps(settings))
    unsaid = {name: wanted[name] for name in _LATER}
    differing = [name for name in wanted if {**unsaid, **found}.get(name) != wanted[name]]
    if differing:
        raise IerfError(
            f"{str(folder)!r} holds an index with other settings ({', '.join(differing)}); write to another folder"
        )
    return IndexState.read(folder / STATE)


def _write(folder: Path, state: IndexState, settings: Mapping[str, Any]) -> None:
    """The state as one file, which is replaced whole, and the settings."""
    write(folder / STATE, state.bytes())
    write_json(folder / SETTINGS, settings)
