"""What bisecting spherical k-means costs against scikit-learn's BisectingKMeans, measured in turns in the same run.

The floor. One step of Lloyd's algorithm on all clusters of a level reads the vectors once, for N · C multiplications:
50 000 × 512 in float32 are 100 MB, 5 to 10 ms of a core's memory bandwidth. A level needs three readings at least (the
distances to the first centroids, the first parts, their sums) and one more per step in which every vector is near the
border. With log₂ K levels, and the steps that the 2-means of the upper ones take to settle, K = 4096 costs some
120 readings and more: a second or two. How many clusters there are does not matter.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ierf.concepts import BisectingSphericalKMeans
from ierf.errors import UnknownNameError
from ierf.model.loading.extras import extra


@dataclass(frozen=True)
class Bisection:
    """Seconds of both, medians over the rounds, and the mean cosine of the vectors to their clusters' centroids."""

    data: str
    concepts: int
    seconds: float
    peer_seconds: float
    cosine: float
    peer_cosine: float

    @property
    def ratio(self) -> float:
        """How many times as long the peer takes."""
        return self.peer_seconds / self.seconds


def gaussian(n: int, channels: int, seed: int = 0) -> Float[Tensor, "N C"]:
    """No clusters at all."""
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(seed))


def mixture(n: int, channels: int, seed: int = 0) -> Float[Tensor, "N C"]:
    """Two thousand directions, vectors of uneven length around them."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(2000, channels, generator=random)
    which = torch.randint(2000, (n,), generator=random)
    lengths = -torch.rand(n, 2, generator=random).log().sum(1, keepdim=True)
    return centres[which] * lengths + 0.7 * torch.randn(n, channels, generator=random)


DATA: Mapping[str, Callable[[int, int], Float[Tensor, "N C"]]] = {"gaussian": gaussian, "mixture": mixture}
"""Name -> vectors `(n, channels)`."""


def bisecting_costs(
    data: str, counts: tuple[int, ...] = (4096, 8192), n: int = 50_000, channels: int = 512, rounds: int = 3
) -> Iterator[Bisection]:
    """Both in turns, largest cluster first, with the defaults of each otherwise; one for each number of clusters."""
    if data not in DATA:
        raise UnknownNameError("kind of data", data, DATA)
    x = DATA[data](n, channels)
    for count in counts:
        yield compared(data, x, count, rounds)


def compared(name: str, x: Float[Tensor, "N C"], count: int, rounds: int) -> Bisection:
    """One number of clusters."""
    peer_class: Any = extra("sklearn.cluster", "concepts").BisectingKMeans
    BisectingSphericalKMeans(2).fit(x[:1000]), peer_class(2).fit(x[:1000].numpy())
    ours, peers = list[float](), list[float]()
    for seed in range(rounds):
        km, seconds = _timed(partial(BisectingSphericalKMeans(count, seed).fit, x))
        ours.append(seconds)
        peer = peer_class(count, bisecting_strategy="largest_cluster", random_state=seed)
        peer, seconds = _timed(partial(peer.fit, x.numpy()))
        peers.append(seconds)
    labels = torch.from_numpy(np.asarray(peer.labels_)).long()
    return Bisection(name, count, median(ours), median(peers), mean_cosine(x, km.labels_), mean_cosine(x, labels))


def mean_cosine(x: Float[Tensor, "N C"], labels: Int[Tensor, " N"]) -> float:
    """Mean over vectors of the cosine to the centroid of their cluster on the sphere, `Σ_k ‖Σ_{x in k} x/‖x‖‖ / N`."""
    units = normalize(x)
    sums = torch.zeros(int(labels.max()) + 1, x.shape[1]).index_add_(0, labels, units)
    return float(sums.norm(dim=1).sum() / len(x))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = perf_counter()
    result = work()
    return result, perf_counter() - start
