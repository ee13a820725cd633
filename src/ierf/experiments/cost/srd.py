"""What Sharing Ratio Decomposition costs, as ratios to plain gradients measured in the same run.

The floor. A forward pass and a gradient by the pixels are two passes of matrix products, F each. SRD makes the same
two; its rules add a few reads of each activation. `bias="norm"` adds the products of every convolution with several
taps once more: 0.45 F for a ResNet-50, so 1.22 in all. iERFs of P positions would be P backward passes, at least P/2 of
"P gradients"; by stencils they are some ten to twenty, whatever P is.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from ierf.attribution import attribute, effective_receptive_fields
from ierf.attribution.srd import SRDPass
from ierf.experiments.cost.ratio import Cost, cost_of, noise, plain_gradient
from ierf.model import VisionModel
from ierf.rules import SRDRules


def srd_costs(model: VisionModel, batches: Sequence[int] = (1, 8), rounds: int = 7, seed: int = 0) -> Iterator[Cost]:
    """The costs one after the other, on noise of the model's input size; every ratio comes from interleaved runs."""
    for n in batches:
        x = noise(model, n, seed)
        peer = "forward + gradient"
        for bias in ("drop", "uniform", "norm"):
            work = partial(attribute, model, x, bias=bias)
            yield cost_of(f"SRD, bias {bias}, batch {n}", work, peer, partial(plain_gradient, model, x), rounds)
    x = noise(model, 1, seed)
    for layer, positions in _layers(model, x):
        p = len(positions)
        yield cost_of(
            f"iERFs of {p} positions of {layer}",
            partial(effective_receptive_fields, model, x, layer, positions),
            f"{p} forwards + gradients",
            partial(plain_gradient, model, x),
            max(1, rounds // 3),
            p,
        )


def _layers(model: VisionModel, x: Tensor) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """All positions of the encoder output, and a block of up to 16 × 16 of the last map of a quarter of the side."""
    with SRDPass.of(model, x, SRDRules("drop")) as run:
        cuts = {k: next(run.tape.layer_names(k), None) for k in run.tape.cuts() if 0 < k <= run.encoder}
        named = {k: name for k, name in cuts.items() if name is not None}
        nodes, side = run.tape.nodes, x.shape[-1]
    late = max(named)
    early = max((k for k in named if 4 * nodes[k].map_shape[-1] >= side), default=late)
    for k in (late, early):
        corner = [max(0, (size - 16) // 2) for size in nodes[k].map_shape]
        block = [range(c, min(c + 16, size)) for c, size in zip(corner, nodes[k].map_shape, strict=True)]
        yield named[k], [tuple(p) for p in torch.cartesian_prod(*map(torch.tensor, map(list, block))).tolist()]
