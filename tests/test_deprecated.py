"""What was renamed answers to its former name for one version, says so, and gives the same."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ierf
from ierf.attribution import METHODS
from ierf.deprecated import renamed
from ierf.errors import IerfError
from ierf.graph import LayerObjective
from ierf.metrics import deletion, fidelity, insertion, stability

CALLED = r"at_once= is called batch= now"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()


def pixels() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "fullgrad", "ablationcam", "scorecam"])
def test_attribute_takes_the_former_name_of_an_option(method: str) -> None:
    model, x = net(), pixels()
    with pytest.warns(DeprecationWarning, match=CALLED) as told:
        found = ierf.attribute(model, x, 1, method, at_once=3)
    assert told[0].filename == __file__
    assert torch.equal(found, ierf.attribute(model, x, 1, method, batch=3))


def test_so_does_the_function_itself_and_explain() -> None:
    model, x = ierf.VisionModel(net()), pixels()
    with pytest.warns(DeprecationWarning, match=CALLED) as told:
        found = METHODS["smoothgrad"](model, x, 1, samples=3, at_once=2)
    assert told[0].filename == __file__
    assert torch.equal(found, METHODS["smoothgrad"](model, x, 1, samples=3, batch=2))
    with pytest.warns(DeprecationWarning, match=CALLED):
        explained = ierf.explain(model, x[0], [1], method="smoothgrad", samples=3, at_once=2)
    assert explained.options == {"samples": 3, "batch": 2}


def test_metrics_take_the_former_name() -> None:
    model, x = net(), pixels()
    map = x.sum(1)
    calls: list[Any] = [
        lambda **o: insertion(model, x, 1, map, **o).scores,
        lambda **o: deletion(model, x, 1, map, **o).scores,
        lambda **o: fidelity(model, x, 1, map, runs=5, pixels=4, **o),
        lambda **o: stability(lambda some: some.sum(1), x, samples=4, **o),
    ]
    for call in calls:
        with pytest.warns(DeprecationWarning, match=CALLED):
            assert torch.equal(call(at_once=3), call(batch=3))


def test_the_former_name_of_a_field_is_taken_and_read() -> None:
    with pytest.warns(DeprecationWarning, match=CALLED):
        objective = LayerObjective(lambda x: x, lambda y: y[:, :, 0], at_once=5)  # type: ignore[arg-type, call-arg]
    assert objective.batch == 5
    with pytest.warns(DeprecationWarning, match="at_once is called batch now"):
        assert objective.at_once == 5  # type: ignore[attr-defined]


def test_former_values_are_translated_and_signatures_are_new() -> None:
    @renamed({True: "low", False: "high"}, lowly="level")
    def told(x: int, *, level: str = "high") -> str:
        return f"{x} {level}"

    assert list(inspect.signature(told).parameters) == ["x", "level"]
    with pytest.warns(DeprecationWarning, match=r"lowly= is called level= now"):
        assert told(1, lowly=True) == "1 low"  # type: ignore[call-arg]
    with pytest.raises(IerfError, match="lowly is what level was called; give level alone"):
        told(1, lowly=True, level="low")  # type: ignore[call-arg]


def test_both_names_together_are_refused() -> None:
    with pytest.raises(IerfError, match="at_once is what batch was called"):
        ierf.attribute(net(), pixels(), 1, "smoothgrad", at_once=1, batch=1)
