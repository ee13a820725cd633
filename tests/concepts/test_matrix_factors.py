"""Dictionary learning, NMF and PCA: what each promises of its vectors and codes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ierf.concepts import NMF, PCA, DictionaryLearning, lasso, make_extractor
from ierf.errors import IerfError
from ierf.metrics import l0_ratio, relative_error


def _mixtures(n: int = 300, channels: int = 12, atoms: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Vectors that are each a positive mixture of two of few non-negative atoms of norm 1; and the atoms."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.nn.functional.normalize(torch.rand(atoms, channels, generator=generator) ** 4)
    codes = torch.zeros(n, atoms)
    which = torch.rand(n, atoms, generator=generator).topk(2).indices
    codes.scatter_(1, which, 1 + 4 * torch.rand(n, 2, generator=generator))
    return codes @ truth, truth


@pytest.mark.parametrize(
    ("name", "options"), [("pca", {}), ("nmf", {"max_iter": 1000}), ("dictionary", {"lam": 0.2, "max_iter": 4})]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_and_vectors_make_the_pfvs(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    pytest.importorskip("sklearn")
    x = _mixtures()[0].to(dtype)
    found = make_extractor(name, 8, seed=1, **options).fit(x)
    codes = found.transform(x)
    assert codes.dtype == found.components_.dtype == dtype
    made = codes @ found.components_ + found.shift_
    assert float(relative_error(x, made).mean()) < 0.15
    again = make_extractor(name, 8, seed=1, **options).fit(x.numpy())
    assert torch.equal(again.components_, found.components_)
    assert found.config["name"] == name


def test_pca_is_that_of_scikit_learn_up_to_signs() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = _mixtures()[0].double()
    found, peer = PCA(5).fit(x), decomposition.PCA(5).fit(x.numpy())
    signs = np.sign((peer.components_ * found.components_.numpy()).sum(1, keepdims=True))
    np.testing.assert_allclose(found.components_.numpy(), signs * peer.components_, atol=1e-9)
    np.testing.assert_allclose(found.explained_.numpy(), peer.explained_variance_ratio_, atol=1e-9)
    np.testing.assert_allclose(found.transform(x).numpy(), signs[:, 0] * peer.transform(x.numpy()), atol=1e-9)


def test_pca_through_a_given_point_explains_what_it_reconstructs() -> None:
    x = _mixtures()[0].double()
    shift = torch.full((12,), 0.3, dtype=torch.float64)
    found = PCA(4, shift=shift).fit(x)
    torch.testing.assert_close(found.components_ @ found.components_.T, torch.eye(4, dtype=torch.float64))
    left = x - shift - found.transform(x) @ found.components_
    share = 1 - left.square().sum() / (x - shift).square().sum()
    torch.testing.assert_close(found.explained_.sum(), share)


def test_nmf_finds_non_negative_factors_and_refuses_negative_pfvs() -> None:
    pytest.importorskip("sklearn")
    x, _ = _mixtures()
    found = NMF(8, max_iter=2000).fit(x)
    assert bool((found.components_ >= 0).all())
    assert bool((found.transform(x) >= 0).all())
    for bad, shift in ((x - 0.5, None), (x, "mean")):
        with pytest.raises(IerfError, match='values="output"'):
            NMF(8, shift=shift).fit(bad)
    with pytest.raises(IerfError, match="1 of 2"):
        found.transform(torch.stack([x[0], -x[0]]))


def test_dictionary_learning_betters_the_objective_of_pfvs_as_atoms() -> None:
    """On the way from some PFVs to the atoms that made the data it comes most of the way."""
    pytest.importorskip("sklearn")
    x, truth = _mixtures()
    found = DictionaryLearning(8, lam=0.2).fit(x)
    drawn = torch.nn.functional.normalize(x[torch.randperm(300, generator=torch.Generator().manual_seed(0))[:8]])
    start, learnt, best = (float(lasso(x, v, 0.2).objective.mean()) for v in (drawn, found.components_, truth))
    assert best < learnt < start
    assert learnt - best < 0.3 * (start - best)
    torch.testing.assert_close(found.components_.norm(dim=1), torch.ones(8))


def test_dictionary_codes_are_sparse_encodes() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = _mixtures()[0].double()
    found = DictionaryLearning(8, lam=0.3, shift="mean", max_iter=2).fit(x)
    expected = decomposition.sparse_encode(
        (x - found.shift_).numpy(), found.components_.numpy(), algorithm="lasso_lars", alpha=0.3
    )
    np.testing.assert_allclose(found.transform(x).numpy(), expected, atol=1e-3)


def test_dictionary_learning_chooses_lambda_by_sparsity() -> None:
    pytest.importorskip("sklearn")
    x, _ = _mixtures()
    found = DictionaryLearning(20, l0_ratio=0.9, max_iter=2).fit(x)
    assert 0.8 < float(l0_ratio(found.transform(x)).mean()) < 0.97
    torch.testing.assert_close(found.transform(x), lasso(x, found.components_, found.lam_).codes)


@pytest.mark.parametrize("make", [lambda: PCA(13), lambda: DictionaryLearning(400)])
def test_more_concepts_than_the_data_allows_are_refused(make: Any) -> None:
    with pytest.raises(IerfError, match="PFVs"):
        make().fit(_mixtures()[0])
