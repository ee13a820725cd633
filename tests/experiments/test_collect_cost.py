"""What the cost command measures, without a look at the clock."""

import torch

import ierf
from ierf.experiments import collect_costs
from ierf.experiments.costs import gradients


def test_the_peer_is_the_gradient_of_one_pfv() -> None:
    model = ierf.load("bundled:resnet18-tiny")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = gradients(model, x, ["layer1.0", "layer3.1"])
    assert len(found) == 2
    net = torch.nn.Sequential(model.net.conv1, model.net.bn1, model.net.relu, model.net.layer1[0]).eval()
    wanted = torch.autograd.functional.jacobian(lambda pixels: net(pixels)[:, :, 0, 0].sum(), x)
    torch.testing.assert_close(found[0], wanted)


def test_the_shares_of_the_stages_sum_to_one() -> None:
    costs = list(collect_costs(ierf.load("bundled:resnet18-tiny"), ["layer1.0", "layer3.1"], 2, 16, rounds=1))
    assert costs[0].what == "collect, 2 layers, batch 2"
    assert costs[0].peer == "forward + 2 gradients"
    stages = {cost.what: cost.ratio for cost in costs[1:]}
    assert {"of this: forward", "of this: iERFs"} <= stages.keys()
    assert abs(sum(stages.values()) - 1) < 1e-9
