"""What the cost command measures, without a look at the clock."""

import torch

import ierf
from ierf.experiments import srd_costs
from ierf.experiments.costs import plain_gradient


def test_the_peer_is_the_plain_gradient() -> None:
    model = ierf.load("bundled:resnet18-tiny")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = ierf.attribute(model, x, method="gradient")
    torch.testing.assert_close(plain_gradient(model, x).abs().amax(1), expected)


def test_every_cost_names_what_was_measured_against_what() -> None:
    costs = {cost.what: cost for cost in srd_costs(ierf.load("bundled:resnet18-tiny"), batches=(2,), rounds=1)}
    assert {"SRD, bias drop, batch 2", "SRD, bias uniform, batch 2", "SRD, bias norm, batch 2"} <= costs.keys()
    assert costs["iERFs of 16 positions of layer4"].peer == "16 forwards + gradients"
    assert costs["iERFs of 256 positions of layer2"].peer == "256 forwards + gradients"
    assert all(0 < cost.lowest <= cost.ratio <= cost.highest for cost in costs.values())
