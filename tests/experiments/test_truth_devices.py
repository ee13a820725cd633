"""Edges against the truth with the network on another device, which is pretended: nothing there meets the CPU's."""

import copy
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import ierf
from ierf.experiments.truth import edges
from ierf.experiments.truth.concepts import ConceptSettings
from ierf.experiments.truth.scenes import Known
from ierf.graph import Edges
from ierf.model import VisionModel
from ierf.operations import operation_name, tensors_in
from ierf.world import HELD_OUT, Scenes

LAYERS = ("layer4", "layer5")
METHODS = ["gradient_x_input", "kernel_shap"]
SETTINGS = ConceptSettings(24, scenes=40)


class There(Tensor):
    """A tensor that is said to be on the other device."""

    __torch_function__ = torch._C._disabled_torch_function_impl


def moved(value: Any, kind: type[Tensor]) -> Any:
    """Every tensor in a value, said to be there (`There`) or on the CPU (`Tensor`)."""
    if isinstance(value, Tensor):
        return value.as_subclass(kind)
    if isinstance(value, SimpleNamespace):
        return SimpleNamespace(**moved(vars(value), kind))
    if isinstance(value, dict):
        return {name: moved(one, kind) for name, one in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)([moved(one, kind) for one in value])
    return value


class TwoDevices(TorchFunctionMode):
    """Refuses what CUDA refuses: tensors of both devices in one operation, other than single numbers and indices."""

    working = False
    """The network is at work, all of it there."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, operation_name(func)
        given = list(tensors_in((args, kwargs)))
        if self.working or not any(isinstance(t, There) for t in given):
            return func(*args, **kwargs)
        result = func(*moved(args, Tensor), **moved(kwargs, Tensor))
        if name == "cpu":
            return result
        if name == "__iter__":
            return iter(moved(list(result), There))
        if name == "to":
            return moved(result, There) if isinstance(given[-1], There) else result
        looks_up = name == "__getitem__" and isinstance(args[0], There)
        if not looks_up and any(t.ndim and not isinstance(t, There) for t in given):
            raise RuntimeError(f"{name} of tensors on two devices")
        return moved(result, There)

    def there(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the network, whose results are there."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.working = True
            try:
                return moved(function(*moved(args, Tensor), **moved(kwargs, Tensor)), There)
            finally:
                self.working = False

        return run


@pytest.fixture(scope="module")
def model() -> VisionModel:
    return ierf.load("bundled:world-cnn")


@pytest.fixture(scope="module")
def words(model: VisionModel) -> list[edges.Vocabulary]:
    found = [edges.vocabulary(model, layer, SETTINGS, seed=0) for layer in LAYERS]
    return [edges.Vocabulary(*moved((v.atoms, v.shift), There), v.lam, v.parts, v.meanings) for v in found]


@pytest.fixture
def known(model: VisionModel) -> Known:
    data = Scenes(20, HELD_OUT)
    found = next(known for known in (Known.of(model, data.scene(i)) for i in range(20)) if known is not None)
    return Known(found.scene, *moved((found.x, found.logits), There))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the network computes is there."""
    mode = TwoDevices()
    capture, icat, lasso, section = edges.capture, edges.icat, edges.lasso, edges.Section

    def captured(*args: Any) -> dict[str, SimpleNamespace]:
        return {name: SimpleNamespace(pfvs=one.pfvs, site=one.site) for name, one in capture(*args).items()}

    def attributed(*args: Any, **kwargs: Any) -> SimpleNamespace:
        found: Edges = icat(*args, **kwargs)
        parts = ("method", "active", "values", *(() if found.method in edges.WHOLE else ("by_position",)))
        return SimpleNamespace(**{part: getattr(found, part) for part in parts})

    def cut(*args: Any) -> Callable[..., Any]:
        return mode.there(section.of(*moved(args, Tensor)))

    monkeypatch.setattr(edges, "capture", mode.there(captured))
    monkeypatch.setattr(edges, "icat", mode.there(attributed))
    monkeypatch.setattr(edges, "patched", mode.there(edges.patched))
    monkeypatch.setattr(edges, "Section", SimpleNamespace(of=cut))
    solved = mode.there(lambda *args: SimpleNamespace(codes=lasso(*args).codes))
    monkeypatch.setattr(edges, "lasso", solved)
    call = mode.there(VisionModel.__call__)
    monkeypatch.setattr(VisionModel, "__call__", lambda self, x: call(self, x))
    with mode:
        yield


def test_a_vocabulary_is_on_the_networks_device(model: VisionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sample, shift = edges.sampled(model, Scenes(SETTINGS.scenes), "layer5", 0), edges.shift_of(model, "layer5")
    monkeypatch.setattr(edges, "sampled", lambda *_: sample)
    monkeypatch.setattr(edges, "shift_of", lambda *_: shift)
    elsewhere = VisionModel(copy.deepcopy(model.net).to("meta"))
    found = edges.vocabulary(elsewhere, "layer5", SETTINGS, seed=0)
    assert {found.atoms.device.type, found.shift.device.type} == {"meta"}
    assert {found.parts.device.type, found.meanings.device.type} == {"cpu"}


@pytest.mark.usefixtures("device")
def test_edges_to_classes(model: VisionModel, words: list[edges.Vocabulary], known: Known) -> None:
    found = edges._measured(model, known, words[0], METHODS, LAYERS[0])
    assert list(found) == [edges.TAKEN_OUT, *METHODS]
    assert found["gradient_x_input"]["removal"] is not None


@pytest.mark.usefixtures("device")
def test_edges_between_layers(model: VisionModel, words: list[edges.Vocabulary], known: Known) -> None:
    found = edges._measured_between(model, known, words, METHODS, LAYERS)
    assert found is not None
    assert list(found) == [edges.TAKEN_OUT, *METHODS]
    assert found["gradient_x_input"]["removal"] is not None


@pytest.mark.usefixtures("device")
def test_the_pretence_refuses_what_cuda_refuses() -> None:
    one, other = torch.ones(2), moved(torch.ones(2), There)
    index = torch.tensor([0])
    for refused in (lambda: one + other, lambda: torch.stack([one, other]), lambda: one[moved(index, There)]):
        with pytest.raises(RuntimeError, match="two devices"):
            refused()
    for there in (other + 1, other * one[0], other[index], one.to(other) + other):
        assert isinstance(there, There)
    assert not isinstance(other.cpu() + one, There)
