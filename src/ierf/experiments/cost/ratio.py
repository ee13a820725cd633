"""What an explanation costs, as the ratio of two times measured in turns."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from ierf.model import VisionModel

Work = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """Time of `what` over the time of `peer`; median, smallest and largest ratio of neighbouring runs."""

    what: str
    peer: str
    ratio: float
    lowest: float
    highest: float


def plain_gradient(model: VisionModel, x: Tensor) -> Tensor:
    """The gradient of the predicted logits by the pixels, as one writes it by hand."""
    pixels = x.clone().requires_grad_()
    return torch.autograd.grad(model(pixels).amax(1).sum(), pixels)[0]


def noise(model: VisionModel, n: int, seed: int = 0) -> Tensor:
    """A batch of the model's input size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *model.preprocess.shape, generator=generator).to(model.device, model.dtype)


def cost_of(what: str, work: Work, peer: str, peer_work: Work, rounds: int, times: int = 1) -> Cost:
    """`work` against `times` runs of `peer_work`."""
    seconds_of(work), seconds_of(peer_work)
    ratios = [seconds_of(work) / (times * seconds_of(peer_work)) for _ in range(rounds)]
    return Cost(what, peer, median(ratios), min(ratios), max(ratios))


def seconds_of(work: Work) -> float:
    """Of one run, with what a device still had to do."""
    _finish()
    start = perf_counter()
    work()
    _finish()
    return perf_counter() - start


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
