"""The comparison with scikit-learn's bisecting k-means, on little data."""

import pytest
import torch

from ierf.errors import IerfError
from ierf.experiments.concept_costs import bisecting_costs, gaussian, mean_cosine, mixture


def test_both_are_measured_and_ours_is_nearer() -> None:
    pytest.importorskip("sklearn")
    (found,) = bisecting_costs("mixture", (60,), n=1500, channels=16, rounds=1)
    assert (found.data, found.concepts) == ("mixture", 60)
    assert found.seconds > 0
    assert found.ratio == found.peer_seconds / found.seconds
    assert 0 < found.peer_cosine < found.cosine < 1


def test_the_mean_cosine_of_known_clusters() -> None:
    x = torch.tensor([[2.0, 0], [0, 3], [5, 0], [0, -1]])
    assert mean_cosine(x, torch.tensor([0, 0, 1, 2])) == pytest.approx((2**0.5 + 1 + 1) / 4)


def test_the_mixture_has_its_directions() -> None:
    nearest = []
    for make in (mixture, gaussian):
        x = torch.nn.functional.normalize(make(4000, 64))
        nearest.append(float((x[:200] @ x.T).topk(2).values[:, 1].mean()))
    assert nearest[0] > nearest[1] + 0.2
    with pytest.raises(IerfError, match="gaussian"):
        next(bisecting_costs("gauss"))
