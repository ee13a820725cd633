"""What CAFE costs, as ratios measured in turns: an iERF of a latent, and an index of all latents.

The floors. An iERF is a forward pass and a backward pass, as a gradient is; the encoder of one PFV adds C·K products.
The index multiplies every PFV of a layer with the encoder, 2CK operations, where a block of a transformer of width C
takes 24C² for the same PFV: with K = 8C on every block 1.67 forward passes in all, less what a stem costs.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from ierf.attribution import usual_method
from ierf.cafe import LatentLayer, add_batch, empty, ierfs
from ierf.experiments.cost.ratio import Cost, cost_of, noise, plain_gradient, seconds_of
from ierf.model import VisionModel, evaluating
from ierf.store import Images

_TIMED = 8
"""Every so manieth batch of an index is timed."""


def cafe_costs(
    model: VisionModel,
    layers: Sequence[LatentLayer],
    photographs: Images,
    batches: Sequence[int] = (1, 16),
    rounds: int = 7,
    batch: int = 64,
) -> Iterator[Cost]:
    """The costs one after the other. Photographs are read before the time is taken."""
    method, last = usual_method(model), layers[-1]
    for n in batches:
        x = noise(model, n)
        latents, positions = torch.arange(n) % last.sae.n_latents, torch.arange(n) % last.grid.patches
        for layer in (layers[0], last):
            work = partial(ierfs, layer, x, latents, positions + layer.grid.prefix, method)
            what = f"iERF of a latent of {layer.layer}, batch {n}"
            yield cost_of(what, work, "forward + gradient", partial(plain_gradient, model, x), rounds)
    yield from index_costs(model, layers, photographs, batch)


def index_costs(
    model: VisionModel, layers: Sequence[LatentLayer], photographs: Images, batch: int, seed: int = 0
) -> list[Cost]:
    """An index of all photographs, in a random order: the time of every eighth batch over that of its forward pass.

    The first batches displace most of what is kept, the last ones little; both count as often as they come.
    """
    kept = empty(model, layers, 16, 32)
    order = torch.randperm(len(photographs.names), generator=torch.Generator().manual_seed(seed))
    forward: list[float] = []
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    with evaluating(model.net), torch.no_grad():
        for number, numbers in enumerate(torch.split(order, batch)):
            x = torch.stack([model.preprocess(photographs.read(int(i))) for i in numbers])
            x = x.to(model.device, model.dtype)
            add = partial(add_batch, model, layers, kept, x, numbers)
            if number % _TIMED == 0:
                forward.append(seconds_of(partial(model, x)))
                for precision, found in seconds.items():
                    found.append(seconds_of(partial(add, np.random.default_rng(number), precision == "bfloat16")))
            kept = add(np.random.default_rng(number), bfloat16=True)
    what = f"index of {sum(layer.sae.n_latents for layer in layers)} latents of {len(layers)} layers"
    return [
        _over(f"{what}, {len(order)} photographs, {precision}", found, forward) for precision, found in seconds.items()
    ]


def _over(what: str, seconds: Sequence[float], forward: Sequence[float]) -> Cost:
    ratios = [one / other for one, other in zip(seconds, forward, strict=True)]
    return Cost(what, "forward", sum(seconds) / sum(forward), min(ratios), max(ratios))
