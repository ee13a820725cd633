"""Targets of metrics that are functions of the output, and what is no target."""

from typing import Any

import pytest
import torch
from torch import nn

import ierf
from ierf.errors import IerfError, UnknownNameError
from ierf.metrics import deletion, fidelity, insertion


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
MAP = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("metric", [insertion, deletion])
def test_a_function_scores_what_its_class_does(metric: Any, net: nn.Module) -> None:
    of_class = metric(net, X, [2, 0], MAP, patch=4).scores
    index = torch.tensor([2, 0])

    def score(y: torch.Tensor) -> torch.Tensor:
        return y.gather(1, index.repeat_interleave(len(y) // 2)[:, None])[:, 0]

    torch.testing.assert_close(metric(net, X, score, MAP, patch=4).scores, of_class)
    one, other = (metric(net, X, k, MAP, patch=4).scores for k in (0, 2))
    difference = metric(net, X, lambda y: y[:, 0] - y[:, 2], MAP, patch=4)
    torch.testing.assert_close(difference.scores, one - other)
    torch.testing.assert_close(metric(net, X, ierf.targets.Logit(2), MAP, patch=4).scores, other)


def test_fidelity_of_a_function(net: nn.Module) -> None:
    options: dict[str, Any] = {"runs": 20, "pixels": 9}
    expected = fidelity(net, X, 1, MAP, **options)
    torch.testing.assert_close(fidelity(net, X, lambda y: 5 * y[:, 1] + 2, MAP, **options), expected)


def test_classes_go_by_name(net: nn.Module) -> None:
    model = ierf.VisionModel(net, labels=["tench", "tabby, tabby cat", "crane"])
    for metric in (insertion, deletion):
        found = metric(model, X, ["crane", "tabby"], MAP, patch=4).scores
        torch.testing.assert_close(found, metric(model, X, [2, 1], MAP, patch=4).scores)
    options: dict[str, Any] = {"runs": 20, "pixels": 9}
    torch.testing.assert_close(fidelity(model, X, "tabby", MAP, **options), fidelity(model, X, 1, MAP, **options))
    for method in ("srd", "gradient", "gradcam"):
        found = ierf.attribute(model, X, "tabby", method)
        torch.testing.assert_close(found, ierf.attribute(model, X, 1, method))
        found = ierf.attribute(model, X, ["crane", 1], method)
        torch.testing.assert_close(found, ierf.attribute(model, X, [2, 1], method))
    with pytest.raises(UnknownNameError, match="tabby"):
        ierf.attribute(model, X, "tabbi")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (lambda y: y.sum(), "one number per picture"),
        (lambda y: y, "one number per picture"),
        (lambda y: 3.0, "one number per picture"),
        ("goldfish", "goldfish"),
        ({"goldfish"}, "a target of a metric is"),
        (ierf.targets.Channel("0", 1), "a target of a metric is"),
        ([0, 1, 2], "3 targets for 2 pictures"),
        ([], "0 targets for 2 pictures"),
        ([0.5, 1.0], "class index"),
        (3, "no class 3"),
        (-1, "no class -1"),
    ],
)
def test_what_is_no_target(target: Any, said: str, net: nn.Module) -> None:
    for metric in (insertion, deletion, fidelity):
        with pytest.raises(IerfError, match=said):
            metric(net, X, target, MAP, **({"pixels": 4} if metric is fidelity else {}))
    with pytest.raises(IerfError, match="is of a class"):
        insertion(net, X, lambda y: y[:, 0], MAP, score="probability")
