"""Every extractor is one of scikit-learn's estimators: parameters, clones, lists, codes and back, not fitted."""

from typing import Any

import numpy as np
import pytest
import torch

from ierf.concepts import EXTRACTORS, NMF, PCA, SAE, BisectingSphericalKMeans, DictionaryLearning, Extractor
from ierf.concepts.extractor import NotFittedError
from ierf.errors import IerfError, UnknownNameError

TRAINING = {"samples": 400, "batch": 50, "buffer": 200}
MADE: dict[str, tuple[type, dict[str, Any]]] = {
    "bisecting": (BisectingSphericalKMeans, {"n_concepts": 5, "seed": 3, "tol": 0.01}),
    "dictionary": (DictionaryLearning, {"n_concepts": 5, "lam": 0.2}),
    "nmf": (NMF, {"n_concepts": 4, "max_iter": 50}),
    "pca": (PCA, {"n_concepts": 3, "shift": None}),
    "sae": (SAE, {"kind": "l1", "n_latents": 8, "lam": 0.3, "training": TRAINING}),
    "matryoshka": (SAE, {"kind": "matryoshka", "n_latents": 8, "k": 2, "prefixes": [2, 8], "training": TRAINING}),
}

every = pytest.mark.parametrize("name", MADE)


def made(name: str) -> Any:
    kind, params = MADE[name]
    return kind(**params)


def data(count: int = 60) -> torch.Tensor:
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(0))


def test_every_kind_of_extractor_is_here() -> None:
    kinds = {type(EXTRACTORS[name](4)) for name in EXTRACTORS}
    assert kinds == {kind for kind, _ in MADE.values()}


@every
def test_a_clone_has_the_parameters_and_nothing_that_was_found(name: str) -> None:
    base = pytest.importorskip("sklearn.base")
    one = made(name).fit(data())
    params = one.get_params()
    assert MADE[name][1].items() <= params.items()
    other = base.clone(one)
    assert type(other) is type(one)
    assert other.get_params() == params
    with pytest.raises(IerfError):
        other.transform(data())
    torch.testing.assert_close(other.fit(data()).components_, one.components_, rtol=0, atol=0)


@every
def test_codes_and_back_by_their_formula(name: str) -> None:
    x = data()
    one, other = made(name), made(name)
    codes = one.fit_transform(x, None)
    torch.testing.assert_close(codes, other.fit(x, y=None).transform(x), rtol=0, atol=0)
    expected = codes.numpy() @ one.components_.numpy() + one.shift_.numpy()
    np.testing.assert_allclose(one.inverse_transform(codes).numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.inverse_transform(codes.tolist()).numpy(), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(IerfError, match=rf"of shape \(N, {len(one.components_)}\), not \(2, 1\)"):
        one.inverse_transform([[1.0], [2.0]])


@every
def test_lists_and_arrays_are_as_good_as_tensors(name: str) -> None:
    x = data()
    expected = made(name).fit(x).transform(x)
    for given in (x.tolist(), x.numpy(), x.numpy()[:, ::-1][:, ::-1], [row.numpy() for row in x]):
        codes = made(name).fit(given).transform(given)
        assert isinstance(codes, torch.Tensor)
        torch.testing.assert_close(codes, expected, rtol=0, atol=0)
    assert made(name).fit(x.double().numpy()).components_.dtype == torch.float64
    assert made(name).fit((100 * x).int().numpy()).components_.dtype == torch.float32


@pytest.mark.parametrize("given", [[["a", "b"]], [[1.0], [1.0, 2.0]], [[1j, 2.0]], torch.ones(3, 2) * 1j, [], [1.0]])
@every
def test_what_is_no_matrix_of_numbers_is_refused(name: str, given: Any) -> None:
    with pytest.raises(IerfError, match="PFVs"):
        made(name).fit(given)


@every
def test_not_fitted_is_said_in_a_sentence(name: str) -> None:
    one: Extractor = made(name)
    asked = {
        "transform": lambda: one.transform(data()),
        "inverse_transform": lambda: one.inverse_transform(data()),
        "components_": lambda: one.components_,
        "shift_": lambda: one.shift_,
    }
    for ask in asked.values():
        with pytest.raises(IerfError, match="fit"):
            ask()


def test_not_fitted_as_python_knows_it() -> None:
    one = BisectingSphericalKMeans(3)
    assert not hasattr(one, "labels_")
    assert not hasattr(one, "parents_")
    with pytest.raises(NotFittedError, match=r"this BisectingSphericalKMeans is not fitted.*call fit\(X\) first"):
        one.cut(2)
    with pytest.raises(AttributeError, match="no attribute 'lables'"):
        one.lables  # noqa: B018
    for ask in (SAE().encode, SAE().decode, SAE().pre_activations, SAE()):
        with pytest.raises(IerfError, match="has no weights yet"):
            ask(data())


@every
def test_parameters_are_set_by_name_and_checked(name: str) -> None:
    one = made(name)
    assert one.set_params(seed=7) is one
    assert one.get_params()["seed"] == 7
    torch.testing.assert_close(one.fit(data()).components_, type(one)(**one.get_params()).fit(data()).components_)
    with pytest.raises(UnknownNameError, match="sede"):
        one.set_params(sede=1)


def test_a_parameter_is_checked_when_it_is_set() -> None:
    one = BisectingSphericalKMeans(3).fit(data())
    with pytest.raises(IerfError, match="at least 1"):
        one.set_params(n_concepts=0)
    assert one.n_concepts == 3
    one.set_params(n_concepts=2)
    assert len(one.components_) == 3
    assert len(one.fit(data()).components_) == 2


def test_other_channels_than_those_that_were_fitted() -> None:
    for name in ("bisecting", "dictionary", "nmf", "pca"):
        with pytest.raises(IerfError, match="concepts have 6 channels, the PFVs 5"):
            made(name).fit(data()).transform(data()[:, :5])
    sae = made("sae").fit(data())
    assert sae.get_params()["n_features"] is None
    assert sae.fit(data()[:, :5]).n_features == 5


def test_pipelines_and_searches_take_them() -> None:
    pytest.importorskip("sklearn")
    from sklearn.cluster import KMeans
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.utils.validation import check_is_fitted

    x = data().numpy()
    labels = (x[:, 0] > 0.5).astype(int)
    pipeline = make_pipeline(PCA(3), KMeans(2, n_init=1, random_state=0)).fit(x)
    plain = KMeans(2, n_init=1, random_state=0).fit(PCA(3).fit_transform(x).numpy())
    np.testing.assert_array_equal(pipeline.predict(x), plain.predict(PCA(3).fit_transform(x).numpy()))
    check_is_fitted(pipeline[0])

    def lost(extractor: Extractor, x: np.ndarray, y: Any = None) -> float:
        return -float((extractor.inverse_transform(extractor.transform(x)) - torch.from_numpy(x)).square().sum())

    search = GridSearchCV(PCA(1), {"n_concepts": [1, 4, 2]}, scoring=lost, cv=2).fit(x, labels)
    assert search.best_params_ == {"n_concepts": 4}
