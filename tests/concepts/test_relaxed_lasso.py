"""Least squares on the atoms that the Lasso chose: against torch's lstsq, scipy's nnls; atoms that coincide."""

import numpy as np
import pytest
import torch
from support.concepts_by_hand import correlated, largest_lam
from torch import Tensor

from ierf.concepts import Codes, LassoCodes, active_set, lasso, refit
from ierf.errors import IerfError


def one_by_one(x: Tensor, atoms: Tensor, codes: Tensor) -> Tensor:
    """Least squares of each vector on the atoms that it uses."""
    found = torch.zeros_like(codes)
    for row, (vector, code) in enumerate(zip(x, codes, strict=True)):
        used = code.nonzero()[:, 0]
        if len(used):
            found[row, used] = torch.linalg.lstsq(atoms[used].T, vector).solution
    return found


def errors(x: Tensor, atoms: Tensor, codes: Tensor) -> Tensor:
    lengths = x.norm(dim=1)
    return (x - codes @ atoms).norm(dim=1) / lengths.where(lengths > 0, 1)


def test_orthonormal_atoms_lose_their_shrinkage() -> None:
    x = torch.tensor([[3.0, -0.5, -2.0]])
    found = refit(x, torch.eye(3), lasso(x, torch.eye(3), 1.0))
    torch.testing.assert_close(found.codes, torch.tensor([[3.0, 0.0, -2.0]]))
    torch.testing.assert_close(found.relative_error, torch.tensor([0.5 / 13.25**0.5]))
    assert found.normal.item() < 1e-6
    assert not found.kept.item()


@pytest.mark.parametrize("share", [0.3, 0.05, 0.01])
def test_it_is_least_squares_on_the_chosen_atoms(share: float) -> None:
    x, atoms = correlated(60, 24, 120)
    chosen = lasso(x, atoms, share * largest_lam(x, atoms))
    found, expected = refit(x, atoms, chosen), one_by_one(x, atoms, chosen.codes)
    assert not bool(found.kept.any())
    torch.testing.assert_close(found.codes, expected, rtol=1e-8, atol=1e-8)
    assert float(found.normal.max()) < 1e-13
    torch.testing.assert_close(found.relative_error, errors(x, atoms, expected))
    assert torch.equal(found.sparse.counts(), chosen.sparse.counts())
    before = errors(x, atoms, chosen.codes)
    assert bool((found.relative_error <= before).all())
    assert float((before - found.relative_error).mean()) > 0.01
    assert found.chosen is chosen


def test_the_certificate_is_that_of_the_definition() -> None:
    x, atoms = (part.float() for part in correlated(40, 32, 200))
    chosen = lasso(x, atoms, 0.05 * largest_lam(x, atoms))
    found = refit(x, atoms, chosen)
    slopes = (x - found.codes @ atoms) @ (atoms / atoms.norm(dim=1, keepdim=True)).T
    worst = (slopes.abs() * (chosen.codes != 0)).amax(1) / x.norm(dim=1)
    assert float(found.normal.max()) < 1e-6
    torch.testing.assert_close(found.normal, worst, rtol=0, atol=5e-7)
    assert found.codes.dtype == torch.float32
    torch.testing.assert_close(found.codes, one_by_one(x, atoms, chosen.codes), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.05, 0.0003])
def test_atoms_that_coincide_share_and_nothing_explodes(dtype: torch.dtype, share: float) -> None:
    x, atoms = (part.to(dtype) for part in correlated(30, 16, 40))
    twice = torch.cat([atoms, atoms, -2 * atoms])
    lam = share * largest_lam(x, atoms)
    once = lasso(x, atoms, lam)
    # Codes that use every copy, with the reconstruction of the Lasso.
    halves = torch.cat([once.codes / 2, once.codes / 4, -once.codes / 8], 1)
    spread = _codes(halves, once)
    found, alone = refit(x, twice, spread), refit(x, atoms, once)
    assert int(spread.l0.sum()) == 3 * int(once.l0.sum())
    assert bool(torch.isfinite(found.codes).all())
    both = ~(found.kept | alone.kept)
    assert float(both.float().mean()) > 0.5
    tight = 1e-9 if dtype == torch.float64 else 2e-3
    torch.testing.assert_close(found.reconstruct(twice)[both], alone.reconstruct(atoms)[both], rtol=tight, atol=tight)
    assert bool((found.relative_error <= errors(x, twice, spread.codes) * (1 + 1e-5)).all())
    assert float(found.normal[both].max()) < (1e-12 if dtype == torch.float64 else 1e-5)
    even = 1e-6 if dtype == torch.float64 else 2e-2
    gains = found.codes - spread.codes
    torch.testing.assert_close(gains[both][:, :40], gains[both][:, 40:80], rtol=even, atol=even)


def _codes(dense: Tensor, like: LassoCodes) -> LassoCodes:
    return LassoCodes(Codes.of(dense), like.lam, like.kkt, like.objective, like.gap, like.converged)


@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_coefficients_would_explode_the_lassos_are_kept(apart: float, dtype: torch.dtype) -> None:
    """v₁ = e₁ and v₂ ∥ e₁ + apart·e₂ make x = e₁ + e₂ with about ∓1/apart; e₃ beside it is refitted as ever."""
    atoms = torch.tensor([[1.0, 0, 0], [1, apart, 0], [0, 0, 1]], dtype=dtype)
    x = torch.tensor([[1.0, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=dtype)
    dense = torch.tensor([[0.4, 0.4, 0], [0, 0, 0.5], [0.4, 0.4, 0.5]], dtype=dtype)
    chosen = _codes(dense, lasso(x, atoms, 0.1))
    found = refit(x, atoms, chosen)
    resolved = apart > torch.finfo(dtype).eps ** 0.5
    if resolved:
        assert found.kept.tolist() == [True, False, True]
        torch.testing.assert_close(found.codes[[0, 2]], dense[[0, 2]])
    torch.testing.assert_close(found.codes[1], torch.tensor([0.0, 0, 1], dtype=dtype))
    assert bool(torch.isfinite(found.codes).all())
    assert float(found.codes.abs().max()) < 10
    assert bool((found.relative_error <= errors(x, atoms, dense) + torch.finfo(dtype).eps).all())
    assert bool((found.normal[found.kept] > 0.05).all())


def test_a_small_coefficient_may_grow() -> None:
    """What the Lasso had all but shrunk away is no explosion."""
    x = torch.tensor([[1.0, 0.501]])
    found = refit(x, torch.eye(2), lasso(x, torch.eye(2), 0.5))
    assert not found.kept.item()
    torch.testing.assert_close(found.codes, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.1, 0.01])
def test_non_negative_least_squares(dtype: torch.dtype, share: float) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    x, atoms = correlated(60, 24, 120)
    lam = share * largest_lam(x, atoms)
    chosen = lasso(x.to(dtype), atoms.to(dtype), lam, positive=True)
    found = refit(x.to(dtype), atoms.to(dtype), chosen, positive=True)
    assert not bool(found.kept.any())
    dropped = 0
    for row, code in enumerate(chosen.codes):
        used = code.nonzero()[:, 0]
        if not len(used):
            continue
        coefficients, left = optimize.nnls(atoms[used].T.numpy(), x[row].numpy(), maxiter=1000)
        dropped += int((coefficients == 0).sum())
        assert float(found.relative_error[row]) == pytest.approx(left / float(x[row].norm()), rel=1e-6)
        if dtype == torch.float64:
            np.testing.assert_allclose(found.codes[row, used], coefficients, rtol=1e-7, atol=1e-8)
    assert dropped > 3
    assert bool((found.sparse.values >= 0).all())
    assert float(found.normal.max()) < 2048 * torch.finfo(dtype).eps
    assert bool((found.relative_error <= errors(x, atoms, chosen.codes.double()).to(dtype) * (1 + 1e-6)).all())
    ascending = found.sparse.indices.masked_fill(found.sparse.values == 0, 120)
    assert bool((ascending.diff(dim=1) >= 0).all())


def test_lengths_do_not_matter() -> None:
    x, atoms = correlated(20, 16, 60)
    chosen = lasso(x, atoms, 0.05 * largest_lam(x, atoms))
    lengths = torch.logspace(-6, 6, 60, dtype=torch.float64)
    scaled = _codes(chosen.codes / lengths * 1e5, chosen)
    found = refit(1e5 * x, atoms * lengths[:, None], scaled)
    expected = refit(x, atoms, chosen)
    torch.testing.assert_close(found.codes * lengths / 1e5, expected.codes, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.relative_error, expected.relative_error)


@pytest.mark.parametrize("positive", [False, True])
def test_vectors_do_not_meet(monkeypatch: pytest.MonkeyPatch, positive: bool) -> None:
    x, atoms = correlated(30, 16, 60)
    chosen = lasso(x, atoms, 0.03 * largest_lam(x, atoms), positive)
    together = refit(x, atoms, chosen, positive)
    alone = [refit(x[row : row + 1], atoms, chosen[row : row + 1], positive) for row in range(30)]
    torch.testing.assert_close(together.codes, torch.cat([one.codes for one in alone]))
    torch.testing.assert_close(together.relative_error, torch.cat([one.relative_error for one in alone]))
    monkeypatch.setattr(active_set, "_MEMORY", 1 << 14)
    torch.testing.assert_close(refit(x, atoms, chosen, positive).codes, together.codes)


def test_zero_vectors_zero_atoms_and_zero_codes() -> None:
    x, atoms = correlated(5, 8, 20)
    x[2], atoms[7] = 0, 0
    for share in (0.05, 1.0):
        found = refit(x, atoms, lasso(x, atoms, share * largest_lam(x, atoms)))
        assert bool(torch.isfinite(found.codes).all())
        assert (found.sparse.counts()[2], found.relative_error[2], found.normal[2]) == (0, 0, 0)
        assert not bool(found.kept.any())
    assert found.codes.count_nonzero() == 0
    torch.testing.assert_close(found.relative_error, (x.norm(dim=1) > 0).double())
    none = refit(x[:0], atoms, lasso(x[:0], atoms, 0.1))
    assert none.codes.shape == (0, 20)
    assert none.normal.shape == none.kept.shape == none.relative_error.shape == (0,)


def test_what_makes_no_sense_is_refused() -> None:
    x, atoms = correlated(5, 8, 20)
    chosen = lasso(x, atoms, 0.1)
    with pytest.raises(IerfError, match="negative coefficients; refit with positive=False"):
        refit(x, atoms, chosen, positive=True)
    with pytest.raises(IerfError, match=r"\(5, 20\), those of the vectors \(4, 20\)"):
        refit(x[:4], atoms, chosen)
    with pytest.raises(IerfError, match=r"\(5, 20\), those of the vectors \(5, 19\)"):
        refit(x, atoms[:19], chosen)
    with pytest.raises(IerfError, match="1 of the vectors hold NaN"):
        refit(torch.where(torch.arange(5)[:, None] == 2, torch.nan, x), atoms, chosen)
