"""Cascading randomisation, on networks where the answer is known."""

import copy
from pathlib import Path

import pytest
import torch
from support.runs import write_photographs
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.experiments import open_data, parse_methods
from ierf.experiments.networks import SIMILARITIES, cascade, sanity, stages_of
from ierf.model import Preprocess, VisionModel

pytest.importorskip("skimage")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
            self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return logits


@pytest.fixture
def model() -> VisionModel:
    return VisionModel(Net().eval(), Preprocess(size=(16, 16), resize=16))


def test_stages_go_from_the_logits_down(model: VisionModel) -> None:
    assert list(stages_of(model.net, 1)) == ["head", "body", "stem"]
    assert list(stages_of(model.net, 2)) == ["head", "body.0", "stem.1", "stem.0"]
    assert sum(len(p) for p in stages_of(model.net, 1).values()) == len(list(model.net.parameters()))
    with pytest.raises(IerfError, match="at least one part"):
        stages_of(model.net, 0)


def test_weights_are_lost_stage_by_stage_in_a_copy(model: VisionModel) -> None:
    before = copy.deepcopy(model.net.state_dict())
    lost = []
    for randomised in cascade(model, 1, seed=0):
        after = randomised.net.state_dict()
        lost.append({name.split(".")[0] for name, old in before.items() if not torch.equal(old, after[name])})
    assert lost == [{"head"}, {"head", "body"}, {"head", "body", "stem"}]
    assert all(torch.equal(old, model.net.state_dict()[name]) for name, old in before.items())
    assert not model.net.training


def test_new_weights_have_the_old_ones_spread(model: VisionModel) -> None:
    (*_, last) = cascade(model, 1, seed=0)
    old, new = model.net.body[0].weight, last.net.body[0].weight  # type: ignore[index,union-attr,operator]
    assert torch.corrcoef(torch.stack([old.flatten(), new.flatten()]))[0, 1].abs() < 0.2
    torch.testing.assert_close(new.std(), old.std(), rtol=0.15, atol=0)


def test_noise_stays_and_gradients_change(model: VisionModel, tmp_path: Path) -> None:
    table = write_photographs(tmp_path / "photos", 3)
    methods = parse_methods(["random", "gradient_x_input", "gradcam"])
    found = sanity(model, open_data(str(table)), methods, tmp_path, depth=1)
    assert list(found) == list(SIMILARITIES)
    for similarity, results in found.items():
        assert list(results.columns) == ["head", "body", "stem"]
        for stage in results.columns:
            assert results.interval("random", stage).mean == pytest.approx(1), similarity
        assert results.interval("gradient_x_input", "stem").mean < 0.8, similarity
    assert found["spearman"].interval("gradient_x_input", "stem").mean < 0.5


def test_a_head_of_one_direction_survives_the_loss_of_its_scale(model: VisionModel, tmp_path: Path) -> None:
    """All classes weigh the channels alike, so randomising the head changes the gradient by a factor at most."""
    model.net.head = nn.Linear(8, 5)
    with torch.no_grad():
        model.net.head.weight.fill_(0.5)
        model.net.head.bias.zero_()
    table = write_photographs(tmp_path / "photos", 2)
    found = sanity(model, open_data(str(table)), parse_methods(["gradient_x_input"]), tmp_path, depth=1)
    assert found["spearman"].interval("gradient_x_input", "head").mean == pytest.approx(1)
    assert found["spearman"].interval("gradient_x_input", "stem").mean < 0.8
