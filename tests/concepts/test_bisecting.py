"""Bisecting spherical k-means, against the sequential algorithm and against what must hold of any result."""

import warnings

import numpy as np
import pytest
import torch
from support.concepts_by_hand import bisect
from torch import Tensor

from ierf.concepts import EXTRACTORS, BisectingSphericalKMeans, make_extractor
from ierf.concepts.two_means import Directions, halve
from ierf.errors import IerfError


def clustered(n: int, c: int, seed: int) -> np.ndarray:
    """Directions of uneven frequency with lengths that vary."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((12, c))
    which = random.choice(12, n, p=np.arange(1, 13) / 78)
    return (centres[which] + 0.6 * random.standard_normal((n, c))) * random.gamma(2, 1, (n, 1))


def with_repeats(n: int, c: int, seed: int) -> np.ndarray:
    """Small whole numbers: many equal directions, zero vectors, opposite vectors."""
    return np.random.default_rng(seed).integers(-1, 2, (n, c)).astype(float)


def row_sets(labels: Tensor) -> list[set[int]]:
    return [set((labels == k).nonzero()[:, 0].tolist()) for k in range(int(labels.max()) + 1)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("data", "c", "k"), [(clustered, 9, 60), (with_repeats, 4, 45)])
def test_the_tree_of_the_sequential_algorithm(data, c: int, k: int, seed: int) -> None:  # type: ignore[no-untyped-def]
    x = data(400, c, seed)
    parents, sizes, rows = bisect(x, k, seed)
    km = BisectingSphericalKMeans(k, seed).fit(x)
    assert km.parents_.tolist() == parents
    assert km.sizes_.tolist() == sizes
    assert sorted(map(sorted, row_sets(km.labels_))) == sorted(map(sorted, rows))


def test_many_steps_and_few_clusters_as_well() -> None:
    """Long runs of 2-means, where rows far from the border are not looked at."""
    x = np.random.default_rng(0).standard_normal((3000, 24))
    parents, sizes, _ = bisect(x, 3, seed=5, max_iter=500, tol=0)
    km = BisectingSphericalKMeans(3, seed=5, max_iter=500, tol=0).fit(x)
    assert (km.parents_.tolist(), km.sizes_.tolist()) == (parents, sizes)


@pytest.mark.parametrize("shift", [None, "mean", "given"])
def test_a_concept_is_the_mean_of_its_shifted_vectors(shift: str | None) -> None:
    x = torch.from_numpy(clustered(300, 7, 1))
    mu = torch.linspace(-1, 1, 7, dtype=torch.float64)
    km = BisectingSphericalKMeans(20, shift=mu if shift == "given" else shift).fit(x)
    expected = {None: torch.zeros(7), "mean": x.mean(0), "given": mu}[shift]
    torch.testing.assert_close(km.shift_, expected.double())
    for k, rows in enumerate(row_sets(km.labels_)):
        torch.testing.assert_close(km.components_[k], (x[sorted(rows)] - expected).mean(0))


def test_the_split_is_a_fixed_point_and_better_than_its_start() -> None:
    units = torch.nn.functional.normalize(torch.from_numpy(clustered(500, 6, 2)))
    rows = torch.arange(500)
    draws = torch.tensor([[11], [12]])
    right = halve(
        Directions(units, torch.zeros(6)), rows, torch.zeros(500, dtype=torch.long), draws, max_iter=300, tol=0
    ).right
    parts = torch.stack([units[~right].sum(0), units[right].sum(0)])
    assert torch.equal((units @ torch.nn.functional.normalize(parts).T).argmax(1).bool(), right)
    once = halve(
        Directions(units, torch.zeros(6)), rows, torch.zeros(500, dtype=torch.long), draws, max_iter=1, tol=0
    ).right
    before = units[~once].sum(0).norm() + units[once].sum(0).norm()
    assert parts.norm(dim=1).sum() > before


def test_lengths_do_not_matter_to_the_clusters() -> None:
    x = clustered(300, 8, 3)
    factors = np.random.default_rng(0).uniform(0.01, 100, (300, 1))
    one, other = (BisectingSphericalKMeans(25).fit(data).labels_ for data in (x, x * factors))
    assert torch.equal(one, other)


def test_a_cut_is_the_fit_with_fewer_concepts() -> None:
    x = torch.from_numpy(clustered(400, 8, 4)).float()
    fine = BisectingSphericalKMeans(50, seed=2, shift="mean").fit(x)
    for n in (1, 2, 7, 33, 50):
        coarse, cut = BisectingSphericalKMeans(n, seed=2, shift="mean").fit(x), fine.cut(n)
        assert torch.equal(cut.labels, coarse.labels_)
        torch.testing.assert_close(cut.components, coarse.components_)
        assert torch.equal(cut.nodes, coarse.leaves_)
        assert bool((cut.of_concepts.diff() >= 0).all()), "neighbours from left to right"
    for n in (0, 51):
        with pytest.raises(IerfError, match="1 to 50"):
            fine.cut(n)


def test_the_tree_adds_up() -> None:
    km = BisectingSphericalKMeans(40).fit(clustered(300, 5, 5))
    inner = (km.children_ >= 0).all(1)
    assert int(inner.sum()) == 39
    assert torch.equal(km.sizes_[km.children_[inner]].sum(1), km.sizes_[inner])
    assert torch.equal(km.sizes_[km.leaves_], km.labels_.bincount())
    assert torch.equal(km.parents_[km.children_[inner]], inner.nonzero().expand(-1, 2))
    assert int(km.sizes_[inner].min()) >= int(km.sizes_[km.leaves_].max()), "the largest was always split"


def weakly_clustered(n: int, c: int, seed: int) -> Tensor:
    """Forty directions that noise nearly hides, behind a ReLU."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(40, c, generator=random)[torch.randint(40, (n,), generator=random)]
    return (0.3 * centres + torch.randn(n, c, generator=random)).clamp_min(0)


def whole_numbers(n: int, c: int, seed: int) -> Tensor:
    """Many equal vectors, and many that are as near to one half as to the other."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-1, 3, (n, c))).float()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("data", [weakly_clustered, whole_numbers, lambda *a: torch.from_numpy(clustered(*a)).float()])
def test_the_last_bit_changes_no_concept(data, seed: int) -> None:  # type: ignore[no-untyped-def]
    """Another precision, scale or basis, noise of the size of rounding: the same clusters and numbers."""
    x = data(3000, 32, seed)
    expected = BisectingSphericalKMeans(128, seed).fit(x).labels_
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    turned = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(8)))[0]
    for other in (x.double(), x * (1 + 1e-7 * noise), 3 * x, (x.double() @ turned).float()):
        assert torch.equal(BisectingSphericalKMeans(128, seed).fit(other).labels_, expected)


def test_a_row_more_changes_little() -> None:
    """Draws belong to rows: one that comes last leaves the others' draws alone."""
    x = torch.from_numpy(clustered(3000, 16, 3)).float()
    one, more = (BisectingSphericalKMeans(12).fit(rows).labels_[:2999] for rows in (x, x[:2999]))
    assert float((one == more).float().mean()) > 0.95


def test_no_worse_than_scikit_learn_on_weak_clusters() -> None:
    """Mean cosine to the centroid over three seeds; 12 steps of 2-means end below it."""
    cluster = pytest.importorskip("sklearn.cluster")
    random = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 12, generator=random) @ torch.randn(12, 64, generator=random)
    units = torch.nn.functional.normalize(x + 0.3 * torch.randn(20_000, 64, generator=random))

    def mean_cosine(labels: Tensor) -> float:
        parts = torch.zeros(128, 64).index_add_(0, labels, units)
        return float(parts.norm(dim=1).sum()) / len(units)

    ours = [mean_cosine(BisectingSphericalKMeans(128, seed).fit(units).labels_) for seed in range(3)]
    theirs = []
    for seed in range(3):
        peer = cluster.BisectingKMeans(128, bisecting_strategy="largest_cluster", random_state=seed).fit(units.numpy())
        theirs.append(mean_cosine(torch.from_numpy(peer.labels_).long()))
    assert np.mean(ours) > np.mean(theirs)


def test_the_seed_decides() -> None:
    x = clustered(300, 6, 6)
    one, same, other = (BisectingSphericalKMeans(30, seed).fit(x).labels_ for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("n_concepts", [3, 5, 400])
def test_fewer_directions_than_concepts(n_concepts: int) -> None:
    """Four directions with lengths and zero vectors: four concepts, and a warning if more were asked for."""
    directions = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [1, 1, 1]])
    x = torch.cat([directions.repeat(20, 1) * torch.arange(1, 81)[:, None], torch.zeros(7, 3)])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        km = BisectingSphericalKMeans(n_concepts).fit(x)
    assert len(km.components_) == min(n_concepts, 4)
    if n_concepts > 4:
        assert "4 different directions" in str(said[0].message)
        found = torch.nn.functional.normalize(km.components_) @ torch.nn.functional.normalize(directions).T
        torch.testing.assert_close(found.max(0).values, torch.ones(4))
    else:
        assert not said


def test_one_concept_is_the_mean() -> None:
    x = torch.from_numpy(clustered(50, 4, 7))
    km = BisectingSphericalKMeans(1).fit(x)
    torch.testing.assert_close(km.components_, x.mean(0, keepdim=True))
    assert km.parents_.tolist() == [-1]
    assert km.labels_.unique().tolist() == [0]


@pytest.mark.parametrize("x", [torch.zeros(9, 3), torch.full((9, 3), 2.0), torch.randn(1, 3)])
def test_nothing_to_split_gives_one_concept(x: Tensor) -> None:
    with pytest.warns(UserWarning, match="1 concepts instead of 4"):
        km = BisectingSphericalKMeans(4).fit(x)
    torch.testing.assert_close(km.components_, x.mean(0, keepdim=True))
    assert torch.isfinite(km.transform(x)).all()


def test_directions_that_differ_by_rounding_are_one() -> None:
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)).repeat(200, 1)
    x *= 1 + 1e-5 * torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    with pytest.warns(UserWarning, match="1 different"):
        assert len(BisectingSphericalKMeans(8).fit(x).components_) == 1


def test_own_codes_are_the_projection_on_the_nearest_concept() -> None:
    x = torch.from_numpy(clustered(200, 6, 8))
    km = BisectingSphericalKMeans(15, shift="mean").fit(x)
    new = torch.cat([torch.from_numpy(clustered(40, 6, 9)), km.shift_[None]])
    codes, labels = km.transform(new), km.predict(new)
    for row, x_row in enumerate(new - km.shift_):
        cosines = [float(x_row @ v / v.norm() / x_row.norm().clamp_min(1e-30)) for v in km.components_]
        nearest = int(np.argmax(cosines))
        assert labels[row] == nearest
        assert codes[row].nonzero()[:, 0].tolist() in ([nearest], [])
        rest = x_row - codes[row] @ km.components_
        assert abs(float(rest @ km.components_[nearest])) < 1e-9, "the best multiple"
    assert not codes[-1].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_types_of_input(dtype: type) -> None:
    x = clustered(200, 6, 10).astype(dtype)
    km = BisectingSphericalKMeans(12).fit(x)
    expected = torch.float64 if dtype == np.float64 else torch.float32
    assert km.components_.dtype == km.transform(x).dtype == expected
    again = BisectingSphericalKMeans(12).fit(torch.from_numpy(x))
    assert torch.equal(km.labels_, again.labels_)


def test_how_the_rows_lie_in_memory_does_not_matter() -> None:
    x = torch.randn(6, 500, generator=torch.Generator().manual_seed(0)).T
    fixed = x.contiguous().numpy().copy()
    fixed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [BisectingSphericalKMeans(20).fit(data).labels_ for data in (x, x.contiguous(), fixed)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_what_is_refused() -> None:
    x = torch.randn(20, 3)
    x[7, 1] = torch.nan
    with pytest.raises(IerfError, match="PFV 7 holds NaN"):
        BisectingSphericalKMeans(2).fit(x)
    with pytest.raises(IerfError, match="shape"):
        BisectingSphericalKMeans(2).fit(torch.randn(4, 3, 2))
    with pytest.raises(IerfError, match="per channel"):
        BisectingSphericalKMeans(2, shift=torch.zeros(4)).fit(torch.randn(20, 3))
    with pytest.raises(IerfError, match="not 'median'"):
        BisectingSphericalKMeans(2, shift="median").fit(torch.randn(20, 3))
    with pytest.raises(IerfError, match="at least 1"):
        BisectingSphericalKMeans(0)
    with pytest.raises(IerfError, match="3 channels, the PFVs 5"):
        BisectingSphericalKMeans(2).fit(torch.randn(20, 3)).transform(torch.randn(2, 5))


def test_by_name() -> None:
    made = make_extractor("bisecting", 6, seed=3, shift="mean", max_iter=7, tol=0.01)
    assert made.config == {"name": "bisecting", "n_concepts": 6, "seed": 3, "shift": "mean", "max_iter": 7, "tol": 0.01}
    assert "bisecting" in EXTRACTORS
    with pytest.raises(IerfError, match="bisecting"):
        make_extractor("bisection", 6)
