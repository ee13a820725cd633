"""Table II: networks by activation, and the cells that stay empty."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.runs import write_photographs
from torch import nn

from ierf.errors import IerfError
from ierf.experiments import open_data, parse_methods
from ierf.experiments.local import LocalSettings, measured
from ierf.experiments.networks import ACTIVATIONS, TABLE, CifarResNet, activations, load_checkpoints


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    for name in ("relu", "tanh"):
        torch.manual_seed(3)
        weights = CifarResNet(name).state_dict()
        half = {key: tensor.half() for key, tensor in weights.items() if tensor.is_floating_point()}
        save_file(half, tmp_path / f"{name}.safetensors")
    return tmp_path


def test_every_activation_is_where_it_should_be() -> None:
    for name, activation in ACTIVATIONS.items():
        kinds = [type(m) for m in CifarResNet(name).modules() if type(m).__module__ == "torch.nn.modules.activation"]
        assert kinds == [type(activation())] * 13
    assert len(TABLE) == 14


def test_each_cell_is_the_fidelity_on_that_network(checkpoints: Path, tmp_path: Path) -> None:
    models = load_checkpoints(checkpoints)
    assert list(models) == ["relu", "tanh"]
    table = write_photographs(tmp_path / "photos", 1)
    table.write_text(table.read_text().replace(".png,30", ".png,7"))
    data, settings = open_data(str(table)), LocalSettings(("fidelity",), fidelity_runs=20)
    methods = parse_methods(["gradient_x_input,guided_backprop,lrp_zplus,srd"])
    results = activations(models, data, methods, tmp_path, settings)
    assert results.best("relu") is not None
    for activation, model in models.items():
        rows = [m for m in methods if activation == "relu" or m.text in ("gradient_x_input", "srd")]
        expected = measured(model, data.read("0.png"), rows, settings)
        assert expected is not None
        for method in rows:
            cell = results.values["0.png"][method.text][activation]
            assert cell == pytest.approx(expected[method.text]["fidelity"], abs=1e-6)
    assert results.values["0.png"]["lrp_zplus"]["tanh"] is None
    assert results.values["0.png"]["guided_backprop"]["tanh"] is None


def test_other_files_are_no_checkpoints(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(IerfError, match="train_cifar_activations"):
        load_checkpoints(tmp_path / "none")
    save_file(nn.Linear(2, 2).state_dict(), checkpoints / "elu.safetensors")
    with pytest.raises(IerfError, match=r"elu\.safetensors"):
        load_checkpoints(checkpoints)
