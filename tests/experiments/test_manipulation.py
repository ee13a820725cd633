"""The attack on explanations: its bound, what it moves, and what it leaves."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from support.runs import write_photographs
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.experiments import open_data, pearson
from ierf.experiments.manipulation import (
    COLUMNS,
    Attack,
    absolute_map,
    allowed,
    drawn_pairs,
    manipulate,
    manipulation,
)
from ierf.model import Preprocess, VisionModel

pytest.importorskip("skimage")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.features = nn.Sequential(
                nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()
            )
            self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


@pytest.fixture
def model() -> VisionModel:
    return VisionModel(Net().eval(), Preprocess(size=(16, 16), resize=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)))


def photographs(model: VisionModel, folder: Path) -> list[Tensor]:
    table = write_photographs(folder, 2)
    return [model.prepare(table.parent / f"{i}.png") for i in range(2)]


@pytest.mark.parametrize("method", ["srd", "gradient"])
def test_no_channel_moves_by_more_than_8_of_255(model: VisionModel, method: str, tmp_path: Path) -> None:
    x, towards = photographs(model, tmp_path)
    attack = Attack(rate=0.1, mse=math.inf, steps=12)
    adversary = manipulate(model, x, towards, method, attack)
    std = torch.tensor(model.preprocess.std).view(3, 1, 1)
    moved = ((adversary - x) * std).abs()
    assert moved.max() <= 8 / 255 + 1e-6
    assert (moved > 7.99 / 255).any()
    colours = adversary * std + torch.tensor(model.preprocess.mean).view(3, 1, 1)
    assert colours.min() >= -1e-6
    assert colours.max() <= 1 + 1e-6


def test_black_gets_no_blacker(model: VisionModel) -> None:
    black = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.preprocess.mean, model.preprocess.std))
    low, high = (t * std + mean for t in allowed((black - mean) / std, model.preprocess, 8 / 255))
    torch.testing.assert_close(low.flatten(), torch.tensor([0.0, 0.0, 1 - 8 / 255]))
    torch.testing.assert_close(high.flatten(), torch.tensor([8 / 255, 8 / 255, 1.0]))


def test_it_stops_before_the_mse_is_passed(model: VisionModel, tmp_path: Path) -> None:
    x, towards = photographs(model, tmp_path)
    for steps in (3, 200):
        mse = float((manipulate(model, x, towards, "gradient", Attack(mse=1e-4, steps=steps)) - x).square().mean())
        assert 0 < mse < 1e-4
    assert mse > 0.8e-4


def test_the_map_moves_towards_the_other_and_the_logits_stay(model: VisionModel, tmp_path: Path) -> None:
    x, towards = photographs(model, tmp_path)
    attack = Attack(explanation=1e8, output=1e4, rate=0.01, mse=0.05, steps=80)
    adversary = manipulate(model, x, towards, "gradient_x_input", attack)
    with torch.no_grad():
        c, d = int(model(x).argmax()), int(model(towards).argmax())
        assert (model(adversary) - model(x)).abs().max() < 0.1
    aim = absolute_map(model, towards, [d], "gradient_x_input")
    before, after = (absolute_map(model, pixels, [c], "gradient_x_input") for pixels in (x, adversary))
    assert pearson(after, aim) > pearson(before, aim) + 0.05


def test_a_table_of_pairs_that_can_go_on(model: VisionModel, tmp_path: Path) -> None:
    data = open_data(str(write_photographs(tmp_path / "photos", 4)))
    methods, attack = ["srd", "gradient"], Attack(steps=2)
    results = manipulation(model, data, methods, tmp_path, attack, limit=1)
    assert results.rows == ("srd", "gradient")
    assert list(results.columns) == list(COLUMNS)
    again = manipulation(model, data, methods, tmp_path, attack, limit=2)
    assert results.values.items() < again.values.items()
    assert sorted(path.name for path in (tmp_path / "pairs").iterdir()) == ["000.png", "001.png"]
    for row in again.rows:
        assert again.interval(row, "pcc").mean > 0.9
    with pytest.raises(IerfError, match="explanation"):
        manipulation(model, data, methods, tmp_path, Attack(steps=2, explanation=1.0), limit=1)
    with pytest.raises(IerfError, match="6 photographs"):
        manipulation(model, data, methods, tmp_path, attack, limit=3)


def test_no_photograph_is_in_two_pairs(tmp_path: Path) -> None:
    data = open_data(str(write_photographs(tmp_path, 9)))
    pairs = list(drawn_pairs(data, 4, 0))
    assert len(set(itertools.chain(*pairs))) == 8
    assert list(drawn_pairs(data, 2, 0)) == pairs[:2]


def test_the_softplus_grows(model: VisionModel) -> None:
    attack = Attack(steps=3)
    assert [attack.beta(i) for i in range(3)] == pytest.approx([10, 1000**0.5, 100])
    with pytest.raises(IerfError):
        Attack(steps=0)


def test_a_prepared_picture_can_be_seen_again(model: VisionModel, tmp_path: Path) -> None:
    table = write_photographs(tmp_path, 1)
    view = model.view(table.parent / "0.png")
    assert model.preprocess.picture(model.preprocess(view)).tobytes() == view.tobytes()
