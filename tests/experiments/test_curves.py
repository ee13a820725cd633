"""The comparison of methods by insertion and deletion, on a linear model whose best order is known."""

import pytest
import torch
from torch import Tensor, nn

from ierf.experiments import confidence_interval
from ierf.experiments.local import Areas, insertion_deletion
from ierf.metrics import deletion, insertion


@pytest.fixture
def linear() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4, dtype=torch.float64)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(4, 108, generator=generator, dtype=torch.float64))
    return net


@pytest.fixture
def images() -> Tensor:
    return torch.randn(7, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def compared(net: nn.Module, images: Tensor, **options: object) -> dict[str, Areas]:
    weight = net[1].weight.detach().view(4, 3, 6, 6)  # type: ignore[index]
    explainers = {
        "terms": lambda x, classes: (weight[classes] * x).sum(1),
        "their opposite": lambda x, classes: -(weight[classes] * x).sum(1),
        "nothing": lambda x, classes: torch.zeros(len(x), 6, 6),
    }
    return {one.method: one for one in insertion_deletion(net, images, explainers, **options)}


def test_the_terms_of_a_linear_model_are_the_best_order(linear: nn.Module, images: Tensor) -> None:
    areas = compared(linear, images, patch=1)
    assert list(areas) == ["terms", "their opposite", "nothing"]
    best, worst, middle = areas.values()
    assert (best.insertion > middle.insertion).all()
    assert (middle.insertion > worst.insertion).all()
    assert (best.deletion < middle.deletion).all()
    assert (middle.deletion < worst.deletion).all()
    # The opposite order, from the other end, passes the same pictures.
    torch.testing.assert_close(best.insertion, worst.deletion, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_they_are_the_metrics_areas_of_the_predicted_class(linear: nn.Module, images: Tensor, batch: int) -> None:
    terms = compared(linear, images, batch=batch, patch=2, score="probability")["terms"]
    map = (linear[1].weight.detach().view(4, 3, 6, 6)[linear(images).argmax(1)] * images).sum(1)  # type: ignore[index]
    for metric, found in ((insertion, terms.insertion), (deletion, terms.deletion)):
        expected = metric(linear, images, None, map, patch=2, score="probability").auc
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert terms.mean_insertion == confidence_interval(terms.insertion)
    assert terms.mean_deletion == confidence_interval(terms.deletion)


def test_normalised_areas_of_both_ends_sum_to_one(linear: nn.Module, images: Tensor) -> None:
    for one in compared(linear, images, normalised=True, patch=1).values():
        torch.testing.assert_close(one.insertion + one.deletion, torch.ones(7, dtype=torch.float64))
