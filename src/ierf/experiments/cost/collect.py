"""What collecting PFVs and iERFs costs, as ratios to plain gradients measured in the same run.

The floor. With B layers the gradients of one number per layer are a forward pass and B backward passes, each from its
layer to the pixels. Collecting makes the same passes by SRD's rules, one more from the logit to place the draws, and
`bias="norm"` adds half a forward pass to the first of them.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from ierf.experiments.cost.ratio import Cost, cost_of, noise
from ierf.model import VisionModel
from ierf.store import Clock, Settings, collect_batch, sites


def collect_costs(
    model: VisionModel, layers: Sequence[str], batch: int = 4, resolution: int = 56, rounds: int = 5
) -> Iterator[Cost]:
    """A batch's PFVs with iERFs at `layers`, then each stage of it, against the plain gradients of the same layers."""
    x, settings = noise(model, batch), Settings(resolution=resolution, batch=batch)
    found, seconds = sites(model, layers, settings), dict[str, float]()
    names = [str(i) for i in range(batch)]
    work = partial(collect_batch, model, x, names, found, settings, Clock({}))
    peer = f"forward + {len(layers)} gradients"
    yield cost_of(
        f"collect, {len(layers)} layers, batch {batch}", work, peer, partial(gradients, model, x, layers), rounds
    )
    for _ in range(rounds):
        collect_batch(model, x, names, found, settings, Clock(seconds))
    for stage, of_stage in seconds.items():
        share = of_stage / sum(seconds.values())
        yield Cost(f"of this: {stage}", "the whole", share, share, share)


def gradients(model: VisionModel, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """The gradient by the pixels of one PFV's sum for each layer, by one forward pass, as one writes it by hand."""
    pixels, outputs = x.clone().requires_grad_(), list[Tensor]()
    hooks = [model.module(name).register_forward_hook(lambda *call: outputs.append(call[2])) for name in layers]
    try:
        model(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.autograd.grad(a[:, :, 0, 0].sum(), pixels, retain_graph=True)[0] for a in outputs]
