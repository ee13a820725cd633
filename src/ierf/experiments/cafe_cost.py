"""What CAFE costs, as ratios measured in turns: an iERF of a latent, and an index of all latents.

The floors. An iERF is a forward pass and a backward pass, as a gradient is; the encoder of one PFV adds C·K products.
The index multiplies every PFV of a layer with the encoder, 2CK operations, where a block of a transformer of width C
takes 24C² for the same PFV: with K = 8C on every block 1.67 forward passes in all, less what a stem costs.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ierf.attribution import usual_method
from ierf.cafe import LatentLayer, ierfs
from ierf.cafe.index import add_batch, empty
from ierf.cafe.kept import Kept
from ierf.cafe.layer import Kind
from ierf.experiments.cost import Cost, cost_of, noise, plain_gradient
from ierf.model import VisionModel, evaluating
from ierf.store.data import Images


def cafe_costs(
    model: VisionModel,
    layers: Sequence[LatentLayer],
    photographs: Images,
    batches: Sequence[int] = (1, 16),
    rounds: int = 7,
    warm_up: int = 16,
    batch: int = 64,
) -> Iterator[Cost]:
    """The costs one after the other. Photographs are read before the time is taken.

    warm_up: batches that the index has seen before it is timed: later on fewer photographs displace those kept.
    """
    method, last = usual_method(model), layers[-1]
    for n in batches:
        x = noise(model, n)
        latents, positions = torch.arange(n) % last.sae.n_latents, torch.arange(n) % last.grid.patches
        for layer in (layers[0], last):
            work = partial(ierfs, layer, x, latents, positions + layer.grid.prefix, method)
            what = f"iERF of a latent of {layer.layer}, batch {n}"
            yield cost_of(what, work, "forward + gradient", partial(plain_gradient, model, x), rounds)
    yield _index_cost(model, layers, photographs, rounds, warm_up, batch)


def _index_cost(
    model: VisionModel, layers: Sequence[LatentLayer], photographs: Images, rounds: int, warm_up: int, batch: int
) -> Cost:
    kept: dict[tuple[str, Kind], Kept] = empty(model, layers, 16, 32)
    pixels = _pixels(model, photographs, batch)
    seen = 0

    def add() -> None:
        nonlocal kept, seen
        numbers = torch.arange(seen, seen + len(pixels))
        kept = add_batch(model, layers, kept, pixels[torch.randperm(len(pixels))], numbers, np.random.default_rng(seen))
        seen += len(pixels)

    with evaluating(model.net), torch.no_grad():
        for _ in range(warm_up):
            add()
        what = f"index of {sum(layer.sae.n_latents for layer in layers)} latents of {len(layers)} layers"
        return cost_of(what, add, "forward", partial(model, pixels), rounds)


def _pixels(model: VisionModel, photographs: Images, count: int) -> Tensor:
    views = [model.preprocess(photographs.read(i)) for i in range(min(count, len(photographs.names)))]
    return torch.stack(views).to(model.device, model.dtype)
