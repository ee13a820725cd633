"""What finding and using concepts costs, against peers in the same run: bisecting k-means, the Lasso, autoencoders.

The floors.

- One step of Lloyd's algorithm on all clusters of a level reads the vectors once, for N · C multiplications: 50 000 ×
  512 in float32 are 100 MB, 5 to 10 ms of a core's memory bandwidth. A level needs three readings at least (the
  distances to the first centroids, the first parts, their sums) and one more per step in which every vector is near
  the border. With log₂ K levels, and the steps that the 2-means of the upper ones take to settle, K = 4096 costs some
  120 readings and more: a second or two. How many clusters there are does not matter.
- The Lasso. To know that a code is the right one takes its correlations with all atoms: 2KC operations for a vector,
  one row of a matrix product. A solver that adds atoms to those in use looks several times; the floor is one look.
- A training step of a TopK autoencoder. Which latents are the k largest is not known before all N·K pre-activations
  are, so one dense product of 2·N·C·K operations cannot be avoided. Nothing else has to be dense: codes have N·k
  entries that are not zero, so the decoder and all four gradients cost 2·N·C·k each. Beside that the choice reads N·K
  numbers, and Adam its 2·C·K. A dense implementation makes five such products: both passes of the decoder, the
  encoder, and its weights' gradient.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ierf.concepts import BisectingSphericalKMeans, choose_lam, lasso
from ierf.concepts.sae import SAE, Training
from ierf.concepts.sae.training import Run
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments.costs import Cost, cost_of, seconds_of
from ierf.extras import extra
from ierf.muted import muted
from ierf.store import StoredLayer


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
    data: str,
    counts: tuple[int, ...] = (4096, 8192),
    n: int = 50_000,
    channels: int = 512,
    rounds: int = 3,
    device: str = "cpu",
) -> Iterator[Bisection]:
    """Both in turns, largest cluster first, with the defaults of each otherwise; one for each number of clusters.

    scikit-learn's computes on the CPU, whatever `device` is.
    """
    if data not in DATA:
        raise UnknownNameError("kind of data", data, DATA)
    x = DATA[data](n, channels).to(device)
    for count in counts:
        yield compared(data, x, count, rounds)


def compared(name: str, x: Float[Tensor, "N C"], count: int, rounds: int) -> Bisection:
    """One number of clusters."""
    peer_class: Any = extra("sklearn.cluster", "concepts").BisectingKMeans
    on_cpu = x.cpu()
    BisectingSphericalKMeans(2).fit(x[:1000]), peer_class(2).fit(on_cpu[:1000].numpy())
    ours, peers = list[float](), list[float]()
    for seed in range(rounds):
        km, seconds = _timed(partial(BisectingSphericalKMeans(count, seed).fit, x))
        ours.append(seconds)
        peer = peer_class(count, bisecting_strategy="largest_cluster", random_state=seed)
        peer, seconds = _timed(partial(peer.fit, on_cpu.numpy()))
        peers.append(seconds)
    labels = torch.from_numpy(np.asarray(peer.labels_)).long()
    return Bisection(
        name, count, median(ours), median(peers), mean_cosine(on_cpu, km.labels_.cpu()), mean_cosine(on_cpu, labels)
    )


def mean_cosine(x: Float[Tensor, "N C"], labels: Int[Tensor, " N"]) -> float:
    """Mean over vectors of the cosine to the centroid of their cluster on the sphere, `Σ_k ‖Σ_{x in k} x/‖x‖‖ / N`."""
    units = normalize(x)
    sums = torch.zeros(int(labels.max()) + 1, x.shape[1]).index_add_(0, labels, units)
    return float(sums.norm(dim=1).sum() / len(x))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    results = list[Any]()
    seconds = seconds_of(lambda: results.append(work()))
    return results[0], seconds


SIZES = ((256, 2048), (1024, 8192))
_TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


@dataclass(frozen=True)
class LassoCost:
    """Vectors per second of this Lasso, of scikit-learn's, and of a matrix product with all atoms.

    Seconds are those of the processor, summed over threads: other programs disturb them less than those of the clock.
    Of another device they are the clock's.
    """

    channels: int
    atoms: int
    active: float
    """Coefficients that are not zero, in the mean."""
    rate: float
    peer_rate: float
    floor: float
    ratio: float
    """The median of `rate / peer_rate` over neighbouring runs."""
    kkt: float
    """The largest violation relative to λ, worked out in float64."""
    peer_kkt: float
    objective: float
    """The largest of `(objective − o) / o`, o that of scikit-learn in float64 with the tolerance 1e-8."""


def correlated_case(
    channels: int, n_atoms: int, n: int, seed: int = 0
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "K C"]]:
    """Vectors, and atoms that resemble each other as the mean PFVs of clusters do.

    Atoms are the leaves of a binary tree, each step a normal vector with the variances 1, 1/2, 1/3 … over the
    channels, 1.2 times as large from level to level; vectors scatter about them in the same way. Of 2048 atoms with 256
    channels the largest cosines to another are 0.58, 0.70, 0.81 (10th, 50th, 90th percentile); of as many cluster means
    of PFVs of the bundled ResNet's `layer4` 0.58, 0.68, 0.78.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, channels + 1).rsqrt()
    atoms, size = torch.randn(1, channels, generator=generator) * scale, 1.0
    while len(atoms) < n_atoms:
        size *= 1.2
        atoms = atoms.repeat_interleave(2, 0)
        atoms += size * scale * torch.randn(atoms.shape, generator=generator)
    atoms = atoms[:n_atoms]
    near = atoms[torch.randint(n_atoms, (n,), generator=generator)]
    return near + 1.5 * size * scale * torch.randn(n, channels, generator=generator), atoms


def stored_case(layer: StoredLayer, n: int, seed: int = 0) -> tuple[Float[Tensor, "N C"], Float[Tensor, "K C"]]:
    """The last n PFVs of a store's layer, and the concepts that bisecting k-means finds in the others: 8 per channel.

    Raises `IerfError` for a layer with too few PFVs.
    """
    pfvs = torch.from_numpy(layer.pfvs[:]).float()
    if len(pfvs) < 8 * pfvs.shape[1] + n:
        raise IerfError(f"{len(pfvs)} PFVs are too few for {8 * pfvs.shape[1]} concepts and {n} vectors; collect more")
    found = BisectingSphericalKMeans(8 * pfvs.shape[1], seed=seed, shift="mean").fit(pfvs[:-n])
    return pfvs[-n:] - found.shift_, found.components_


def lasso_costs(
    sizes: Sequence[tuple[int, int]] = SIZES,
    active: float = 40,
    n: int = 256,
    n_peer: int = 64,
    rounds: int = 3,
    device: str = "cpu",
) -> Iterator[LassoCost]:
    """The cost for each number of channels and atoms, on `correlated_case`.

    n, n_peer: how many vectors this Lasso and scikit-learn's get in a run.
    """
    for channels, n_atoms in sizes:
        x, atoms = (part.to(device) for part in correlated_case(channels, n_atoms, n))
        yield lasso_cost(x, atoms, active, n_peer, rounds)


def lasso_cost(
    x: Float[Tensor, "N C"], atoms: Float[Tensor, "K C"], active: float, n_peer: int = 64, rounds: int = 3
) -> LassoCost:
    """Both solvers in turns, λ such that `active` coefficients are left, this one where x is, in its type.

    scikit-learn's, on the CPU, is coordinate descent with the Gram matrix, worked out beforehand: in float32 or
    float64, with the loosest of the tolerances 1e-4 … 1e-8 with which no violation is above 1e-3 λ, whichever is
    faster.
    """
    lam = choose_lam(x, atoms, active)
    some, of_peer = x[:n_peer].cpu(), atoms.cpu()
    make = extra("sklearn.linear_model", "concepts").Lasso

    def peer_of(dtype: torch.dtype, tol: float) -> Callable[[], Tensor]:
        design, targets = (np.asfortranarray(part.to(dtype).T.numpy()) for part in (of_peer, some))
        options = {"alpha": lam / len(design), "precompute": design.T @ design, "fit_intercept": False}

        def solve() -> Tensor:
            with muted():
                found = make(**options, tol=tol).fit(design, targets)
            return torch.from_numpy(np.atleast_2d(found.coef_))

        return solve

    peers = {}
    for dtype in (torch.float32, torch.float64):
        for tol in _TOLERANCES:
            solve = peer_of(dtype, tol)
            taken, violation = _seconds(solve), _violation(some, of_peer, solve(), lam)
            if violation <= 1e-3:
                peers[taken] = solve, violation
                break
    if not peers:
        raise IerfError("scikit-learn's coordinate descent reaches 1e-3 λ with none of the tolerances; lower active=")
    peer, peer_kkt = peers[min(peers)]
    ours = lasso(x, atoms, lam)
    seconds = _seconds if x.device.type == "cpu" else seconds_of
    rates, peer_rates, floors = [], [], []
    for _ in range(rounds):
        rates.append(len(x) / seconds(partial(lasso, x, atoms, lam)))
        peer_rates.append(n_peer / _seconds(peer))
        floors.append(len(x) / seconds(partial(torch.matmul, x, atoms.T)))
    reference = peer_of(torch.float64, 1e-8)()
    codes = ours.codes
    best, mine = (_objective(some, of_peer, u, lam) for u in (reference, codes[:n_peer].cpu()))
    return LassoCost(
        atoms.shape[1],
        len(atoms),
        float(ours.l0.mean()),
        median(rates),
        median(peer_rates),
        median(floors),
        median(a / b for a, b in zip(rates, peer_rates, strict=True)),
        _violation(x, atoms, codes, lam),
        peer_kkt,
        float(((mine - best) / best).max()),
    )


def _objective(x: Tensor, atoms: Tensor, codes: Tensor, lam: float) -> Float[Tensor, " N"]:
    codes = codes.double()
    return 0.5 * (x.double() - codes @ atoms.double()).square().sum(1) + lam * codes.abs().sum(1)


def _violation(x: Tensor, atoms: Tensor, codes: Tensor, lam: float) -> float:
    codes, atoms = codes.double(), atoms.double()
    slopes = (x.double() - codes @ atoms) @ atoms.T
    inside, outside = (slopes - lam * codes.sign()).abs(), (slopes.abs() - lam).clamp(min=0)
    return float(torch.where(codes != 0, inside, outside).max()) / lam


def _seconds(work: Callable[[], object]) -> float:
    start = process_time()
    work()
    return process_time() - start


def sae_costs(
    channels: int = 768,
    latents: int = 6144,
    batch: int = 4096,
    k: int = 32,
    kinds: Sequence[str] = ("topk", "batchtopk", "matryoshka"),
    rounds: int = 7,
    device: str = "cpu",
) -> Iterator[Cost]:
    """A whole training step (loss, gradients, Adam, norms, metrics) against products of the same size, in turns."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, generator=generator).to(device)
    weights, codes = torch.randn(latents, channels).to(device), torch.randn(batch, latents).to(device)

    def encoder() -> None:
        torch.mm(x, weights.T)

    def encoder_and_gradient() -> None:
        encoder()
        torch.mm(codes.T, x)

    def dense() -> None:
        for _ in range(2):
            encoder_and_gradient()
        torch.mm(codes, weights)

    for kind in kinds:
        run = Run({"x": SAE(kind, channels, latents, k).to(device)}, Training(samples=10**9, batch=batch))
        step = partial(run.advance, {"x": x})
        size = f"{kind} step, C {channels}, K {latents}, k {k}, batch {batch}"
        yield cost_of(size, step, "encoder product", encoder, rounds)
        yield cost_of(size, step, "encoder product + its weight gradient", encoder_and_gradient, rounds)
        yield cost_of(size, step, "five dense products", dense, max(1, rounds // 2))
