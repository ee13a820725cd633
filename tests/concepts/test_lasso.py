"""The Lasso against closed forms, scikit-learn, its own optimality conditions, and inputs that are out of the way."""

import warnings

import numpy as np
import pytest
import torch
from support.concepts_by_hand import correlated, largest_lam, objective, violation
from torch import Tensor

from ierf.concepts import active_set, choose_lam, lasso, lasso_path
from ierf.errors import IerfError


def test_orthonormal_atoms_shrink_by_lambda() -> None:
    x = torch.tensor([[3.0, -0.5, -2.0]])
    torch.testing.assert_close(lasso(x, torch.eye(3), 1.0).codes, torch.tensor([[2.0, 0.0, -1.0]]))
    torch.testing.assert_close(lasso(x, torch.eye(3), 1.0, positive=True).codes, torch.tensor([[2.0, 0.0, 0.0]]))


def test_a_single_atom_by_hand() -> None:
    """u = (⟨x, v⟩ − λ)/‖v‖²; ½‖x − uv‖² + λu with x = (3, 1), v = (2, 0), λ = 2 is ½·2 + 2·1 = 3."""
    found = lasso(torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0, 0.0]]), 2.0)
    assert found.codes.item() == pytest.approx(1.0)
    assert found.objective.item() == pytest.approx(3.0)
    assert found.gap.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.05, 0.003])
def test_it_reaches_the_objective_of_coordinate_descent(share: float, positive: bool) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, atoms = correlated(12, 24, 120)
    lam = share * largest_lam(x, atoms)
    peer = linear_model.Lasso(
        alpha=lam / 24, precompute=True, fit_intercept=False, max_iter=200_000, tol=1e-10, positive=positive
    )
    peer.fit(np.asfortranarray(atoms.T.numpy()), x.T.numpy())
    best = objective(x, atoms, torch.from_numpy(peer.coef_), lam)
    found = lasso(x, atoms, lam, positive, tol=1e-6)
    assert not positive or bool((found.codes >= 0).all())
    torch.testing.assert_close(objective(x, atoms, found.codes, lam), best, rtol=1e-7, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("positive", [False, True])
def test_certificates_are_those_of_the_definition(dtype: torch.dtype, positive: bool) -> None:
    x, atoms = (part.to(dtype) for part in correlated(40, 32, 200))
    lam = 0.03 * largest_lam(x, atoms)
    found = lasso(x, atoms, lam, positive)
    assert found.codes.dtype == dtype
    assert bool(found.converged.all())
    worst = violation(x, atoms, found.codes, lam, positive)
    assert worst.max() <= 1e-3 + 1e-5
    torch.testing.assert_close(found.kkt.double(), worst, rtol=1e-2, atol=2e-5)
    torch.testing.assert_close(found.objective.double(), objective(x, atoms, found.codes, lam), rtol=1e-5, atol=0)


def test_the_gap_bounds_how_much_better_one_could_do() -> None:
    x, atoms = correlated(30, 16, 100)
    lam = 0.02 * largest_lam(x, atoms)
    rough, exact = lasso(x, atoms, lam, tol=0.3), lasso(x, atoms, lam, tol=1e-9)
    above = rough.objective - exact.objective
    assert above.max() > 1e-6
    assert bool((above <= rough.gap + 1e-9).all())
    assert float(exact.gap.max()) < 1e-6


@pytest.mark.parametrize("share", [0.03, 0.0003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicate_atoms_change_nothing_but_who_gets_the_coefficient(share: float, dtype: torch.dtype) -> None:
    x, atoms = (part.to(dtype) for part in correlated(10, 16, 60))
    lam = share * largest_lam(x, atoms)
    once, twice = lasso(x, atoms, lam), lasso(x, torch.cat([atoms, atoms, -atoms]), lam)
    assert bool(twice.converged.all())
    torch.testing.assert_close(twice.objective, once.objective, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        twice.reconstruct(torch.cat([atoms, atoms, -atoms])), once.reconstruct(atoms), rtol=1e-3, atol=1e-3
    )


def test_signs_and_lengths_of_atoms_go_into_the_codes() -> None:
    x, atoms = correlated(20, 16, 60)
    lam = 0.1 * largest_lam(x, atoms)
    expected = lasso(x, atoms, lam, tol=1e-9).codes
    torch.testing.assert_close(lasso(x, -atoms, lam, tol=1e-9).codes, -expected)
    torch.testing.assert_close(lasso(3 * x, 3 * atoms, 9 * lam, tol=1e-9).codes, expected)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(lasso(x, atoms[order], lam, tol=1e-9).codes, expected[:, order])


def test_vectors_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time, all at once, or in small blocks: the same codes."""
    x, atoms = correlated(30, 16, 60)
    lam = 0.05 * largest_lam(x, atoms)
    together = lasso(x, atoms, lam, tol=1e-8).codes
    torch.testing.assert_close(together, torch.cat([lasso(row[None], atoms, lam, tol=1e-8).codes for row in x]))
    monkeypatch.setattr(active_set, "_MEMORY", 1 << 14)
    torch.testing.assert_close(together, lasso(x, atoms, lam, tol=1e-8).codes)


def test_zero_vectors_zero_atoms_and_a_large_lambda_give_zero() -> None:
    x, atoms = correlated(5, 8, 20)
    x[2], atoms[7] = 0, 0
    found = lasso(x, atoms, 0.05 * largest_lam(x, atoms))
    assert bool(found.converged.all())
    assert found.l0[2] == 0
    assert bool((found.codes[:, 7] == 0).all())
    assert bool(torch.isfinite(found.codes).all())
    largest = lasso(x, atoms, largest_lam(x, atoms))
    assert largest.codes.count_nonzero() == 0
    assert largest.kkt.max() < 1e-12
    torch.testing.assert_close(largest.objective, 0.5 * x.square().sum(1))


@pytest.mark.parametrize("n", [0, 1])
def test_no_vector_or_one(n: int) -> None:
    x, atoms = correlated(1, 8, 20)
    found = lasso(x[:n], atoms, 0.1)
    assert found.codes.shape == (n, 20)
    assert found.kkt.shape == found.gap.shape == (n,)


def test_numpy_and_halves_come_out_as_float32() -> None:
    x, atoms = correlated(4, 8, 20)
    halves = lasso(x.half().numpy(), atoms.half(), 1.0)
    assert halves.codes.dtype == torch.float32
    torch.testing.assert_close(halves.codes, lasso(x.half().float(), atoms.half().float(), 1.0).codes)


def _nan() -> Tensor:
    return torch.tensor([[1.0, float("nan")]])


@pytest.mark.parametrize(
    ("x", "atoms", "lam", "says"),
    [
        (torch.ones(1, 2), torch.eye(2), 0.0, "positive λ"),
        (torch.ones(1, 2), torch.eye(2), float("nan"), "positive λ"),
        (_nan(), torch.eye(2), 1.0, "1 of the vectors hold NaN"),
        (torch.ones(1, 2), _nan(), 1.0, "1 of the atoms hold NaN"),
        (torch.ones(1, 3), torch.eye(2), 1.0, "as many channels"),
        (torch.ones(1, 2), torch.empty(0, 2), 1.0, "at least one atom"),
    ],
)
def test_what_makes_no_sense_is_refused(x: Tensor, atoms: Tensor, lam: float, says: str) -> None:
    with pytest.raises(IerfError, match=says):
        lasso(x, atoms, lam)


def test_who_is_not_done_is_told() -> None:
    x, atoms = correlated(20, 32, 200)
    lam = 1e-3 * largest_lam(x, atoms)
    with pytest.warns(UserWarning, match="of 20 vectors did not reach"):
        found = lasso(x, atoms, lam, max_rounds=1)
    assert not bool(found.converged.all())
    assert torch.equal(found.converged, violation(x, atoms, found.codes, lam) <= 1e-3)


def test_a_path_is_the_lasso_of_each_lambda() -> None:
    x, atoms = correlated(20, 16, 60)
    lams = [share * largest_lam(x, atoms) for share in (0.02, 0.5, 0.1)]
    for found, lam in zip(lasso_path(x, atoms, lams, tol=1e-9), lams, strict=True):
        assert found.lam == lam
        torch.testing.assert_close(found.codes, lasso(x, atoms, lam, tol=1e-9).codes)


def test_a_warm_start_ends_where_a_cold_one_does() -> None:
    x, atoms = correlated(20, 16, 60)
    lam = 0.05 * largest_lam(x, atoms)
    cold = lasso(x, atoms, lam, tol=1e-9)
    warm = lasso(x, atoms, lam, tol=1e-9, start=lasso(x, atoms, 0.5 * lam))
    torch.testing.assert_close(warm.codes, cold.codes)
    assert torch.equal(lasso(x, atoms, lam, tol=1e-6, start=cold).codes, cold.codes)
    with pytest.raises(IerfError, match="start from"):
        lasso(x, atoms[:5], lam, start=cold)


@pytest.mark.parametrize("wanted", [3.0, 10.0, 0.9])
@pytest.mark.parametrize("positive", [False, True])
def test_lambda_by_how_many_coefficients_are_left(wanted: float, positive: bool) -> None:
    x, atoms = correlated(200, 24, 120)
    found = lasso(x, atoms, target_l0=wanted, positive=positive)
    count = wanted if wanted >= 1 else 120 * (1 - wanted)
    assert float(found.l0.mean()) == pytest.approx(count, rel=0.03)
    assert found.lam == pytest.approx(choose_lam(x, atoms, wanted, positive))
    assert float(found.l0_ratio.mean()) == pytest.approx(1 - count / 120, abs=0.003)


def test_counts_that_cannot_be_had_are_refused() -> None:
    x, atoms = correlated(10, 8, 20)
    for count in (-1.0, 9.0, 1e-3):
        with pytest.raises(IerfError, match="can be had"):
            choose_lam(x, atoms, count)
    with pytest.raises(IerfError, match="no vector"):
        choose_lam(torch.zeros(3, 8), atoms, 2)


@pytest.mark.parametrize("k", [1, 2, 16, 64])
@pytest.mark.parametrize("positive", [False, True])
def test_a_ratio_that_leaves_nothing_is_read_as_one_coefficient(k: int, positive: bool) -> None:
    random = torch.Generator().manual_seed(k)
    atoms, x = torch.randn(k, 24, generator=random), torch.randn(200, 24, generator=random)
    x = x + 2 * atoms[torch.randint(k, (200,), generator=random)]
    with pytest.warns(UserWarning, match=r"most would have none; .* --l0-ratio"):
        lam = choose_lam(x, atoms, 0.996, positive)
    found = lasso(x, atoms, lam, positive).l0.float().mean()
    assert (0.85 if k <= 2 else 0.97) <= float(found) <= 1.05


def test_a_ratio_that_leaves_one_is_taken_as_it_is() -> None:
    random = torch.Generator().manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lam = choose_lam(torch.randn(100, 24, generator=random), torch.randn(20, 24, generator=random), 0.9)
    assert lam > 0
