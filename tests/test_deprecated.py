"""What was renamed answers to its former name for one version, says so, and gives the same."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import write_photographs
from support.transformers import LAYER, autoencoder, model, photographs
from torch import Tensor, nn

import ierf
from ierf.attribution import METHODS
from ierf.cafe import build_index
from ierf.concepts import ConceptBank
from ierf.concepts.matrix_factors import DictionaryLearning
from ierf.concepts.sae import SAE, FromModel, InMemory, Training, train
from ierf.deprecated import renamed
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments import open_data, parse_methods
from ierf.experiments.extractors import parse_recipes
from ierf.experiments.local import LocalSettings, local
from ierf.graph import LayerObjective
from ierf.metrics import deletion, fidelity, insertion, stability
from ierf.store import PFVStore, Settings

CALLED = r"at_once= is called batch= now"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()


def pixels() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "fullgrad", "ablationcam", "scorecam"])
def test_attribute_takes_the_former_name_of_an_option(method: str) -> None:
    network, x = net(), pixels()
    with pytest.warns(DeprecationWarning, match=CALLED) as told:
        found = ierf.attribute(network, x, 1, method, at_once=3)
    assert told[0].filename == __file__
    assert torch.equal(found, ierf.attribute(network, x, 1, method, batch=3))


def test_so_does_the_function_itself_and_explain() -> None:
    network, x = ierf.VisionModel(net()), pixels()
    with pytest.warns(DeprecationWarning, match=CALLED) as told:
        found = METHODS["smoothgrad"](network, x, 1, samples=3, at_once=2)
    assert told[0].filename == __file__
    assert torch.equal(found, METHODS["smoothgrad"](network, x, 1, samples=3, batch=2))
    with pytest.warns(DeprecationWarning, match=CALLED):
        explained = ierf.explain(network, x[0], [1], method="smoothgrad", samples=3, at_once=2)
    assert explained.options == {"samples": 3, "batch": 2}


def test_metrics_take_the_former_name() -> None:
    network, x = net(), pixels()
    map = x.sum(1)
    calls: list[Any] = [
        lambda **o: insertion(network, x, 1, map, **o).scores,
        lambda **o: deletion(network, x, 1, map, **o).scores,
        lambda **o: fidelity(network, x, 1, map, runs=5, pixels=4, **o),
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


def of_precision() -> Any:
    return pytest.warns(DeprecationWarning, match=r"compute= is called dtype= now")


def test_the_precision_of_a_store_by_its_former_name() -> None:
    with of_precision():
        assert Settings(compute="bfloat16") == Settings(dtype="bfloat16")  # type: ignore[call-arg]
    with of_precision():
        assert Settings.of(compute="bfloat16", per_image=2) == Settings(dtype="bfloat16", per_image=2)
    with pytest.raises(UnknownNameError, match="no type to compute in 'float16'"):
        Settings.of(dtype="float16")


def test_the_precision_of_training_by_its_former_name_and_in_files(tmp_path: Path) -> None:
    with of_precision():
        former = Training(compute="bfloat16")  # type: ignore[call-arg]
    assert former == Training(dtype="bfloat16")
    sae = SAE("topk", 4, 8, 2, training=former)
    assert list(sae.config["training"])[-2:] == ["compute", "seed"]
    assert SAE.from_config(sae.config).schedule == former
    sae.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["training"]["compute"] == "bfloat16"
    assert SAE.load(tmp_path).schedule == former
    with of_precision():
        made = parse_recipes(["sae_topk?compute=bfloat16"])[0].make(8, 4, 0, None, 0.9)
    assert made.schedule.dtype == "bfloat16"  # type: ignore[attr-defined]


def test_the_precision_of_an_index_and_of_a_source_by_their_former_names(tmp_path: Path) -> None:
    network, photos = model(), photographs(3)
    with of_precision():
        FromModel(network, photos, [LAYER], compute="bfloat16")  # type: ignore[call-arg]
    with pytest.raises(UnknownNameError, match="no type to compute in 'bf16'"):
        FromModel(network, photos, [LAYER], dtype="bf16")  # type: ignore[arg-type]
    saes = {LAYER: autoencoder()}
    with pytest.warns(DeprecationWarning, match=r"bfloat16= is called dtype= now"):
        former = build_index(network, saes, photos, tmp_path / "a", bfloat16=True)  # type: ignore[call-arg]
    build_index(network, saes, photos, tmp_path / "b", dtype="bfloat16")
    assert former.settings["bfloat16"] is True
    for name in ("index.json", "index.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_estimator_by_a_former_name() -> None:
    called = r"batch_size= is called batch= now"
    with pytest.warns(DeprecationWarning, match=called):
        made = DictionaryLearning(4, batch_size=9)  # type: ignore[call-arg]
    assert (made.get_params()["batch"], made.config["batch_size"]) == (9, 9)
    assert "batch_size" not in made.get_params()
    with pytest.warns(DeprecationWarning, match=called):
        assert made.set_params(batch_size=7).batch == 7


def test_progress_is_still_told_to_what_takes_two_arguments(tmp_path: Path) -> None:
    def of_two() -> Any:
        return pytest.warns(DeprecationWarning, match=r"called with \(stage, done, total\) now")

    network, photos = model(), photographs(3)
    counts: list[tuple[int, int]] = []
    with of_two():
        store = PFVStore.collect(
            network,
            photos,
            ["blocks.0", "blocks.1"],
            tmp_path / "s",
            batch=2,
            per_image=4,
            progress=lambda done, total: counts.append((done, total)),  # type: ignore[arg-type, misc]
        )
    assert counts == [(2, 3), (3, 3)]
    told: list[tuple[str, str]] = []
    with of_two():
        ConceptBank.fit(store, "pca", 2, progress=lambda name, stage: told.append((name, stage)))  # type: ignore[arg-type, misc]
    assert told[0] == ("blocks.0", "finding concepts")
    assert len(told) == 8


def test_track_is_what_progress_was(tmp_path: Path) -> None:
    seen: list[int] = []

    def track(starts: Any) -> Any:
        for start in starts:
            seen.append(start)
            yield start

    with pytest.warns(DeprecationWarning, match="track= is called progress= now"):
        build_index(model(), {LAYER: autoencoder()}, photographs(3), tmp_path, batch=2, track=track)
    assert seen == [0, 2]


def test_experiments_take_what_progress_was(tmp_path: Path) -> None:
    photos = open_data(str(write_photographs(tmp_path / "photos", 3)))
    seen: list[int] = []

    def track(units: Any) -> Any:
        for unit in units:
            seen.append(unit)
            yield unit

    rows, settings = parse_methods(["random"]), LocalSettings(("sparseness",))
    network = ierf.VisionModel(net(), ierf.model.Preprocess((8, 8), None))
    with pytest.warns(DeprecationWarning, match="track= is called progress= now") as told:
        former = local(network, photos, rows, tmp_path / "a", settings, track=track)  # type: ignore[call-arg]
    assert told[0].filename == __file__
    assert seen == [0, 1, 2]
    calls: list[tuple[str, int, int]] = []
    present = local(network, photos, rows, tmp_path / "b", settings, progress=lambda *told: calls.append(told))
    assert calls == [("measuring", done, 3) for done in range(4)]
    assert former.values == present.values


def test_training_reports_by_the_former_name() -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(2))
    steps: list[tuple[int, int]] = []
    words: list[tuple[str, int, int]] = []

    def report(step: int, total: int, metrics: Any) -> None:
        steps.append((step, total))
        assert metrics[""].l0 == 2

    settings = Training(samples=40, batch=20)
    with pytest.warns(DeprecationWarning, match="report= is called progress= now"):
        train({"": SAE("topk", 4, 8, 2)}, InMemory(x, 0), settings, report=report)
    train({"": SAE("topk", 4, 8, 2)}, InMemory(x, 0), settings, progress=lambda *t: words.append(t))
    assert steps == [told[1:] for told in words] == [(1, 2), (2, 2)]
    assert all(re.fullmatch(r"FVU \d\.\d{3}, L0 2\.0, dead 0%", told[0]) for told in words)
