"""What the command measures: that both sides of each ratio compute the same edges."""

import torch

import ierf
from ierf.experiments.costs import hooked, icat_costs, one_by_one
from ierf.graph import Alignment, Reconstruction, integrated_gradients
from ierf.graph import LayerObjective as Question
from ierf.model import Section, capture


def test_the_loop_gives_the_same_edges() -> None:
    model = ierf.load("bundled:resnet18-tiny")
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 64, 64, generator=g)
    codes, atoms = torch.rand(64, 20, generator=g), torch.randn(20, 128, generator=g)
    score = Alignment(torch.randn(2, 256, generator=g), torch.rand(16, 2, generator=g))
    section = Section.of(model, x, "layer3", "layer4")
    expected = one_by_one(codes, atoms, score, section, 4)
    question = Question(section, score)
    found = integrated_gradients(
        Reconstruction.of(codes, atoms), question, rule="midpoints", steps=4, tolerance=torch.inf
    )
    torch.testing.assert_close(found.values.T, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_hooked_network_is_the_section() -> None:
    model = ierf.load("bundled:resnet18-tiny")
    x = torch.randn(1, 3, 64, 64)
    pfvs = capture(model, x, ["layer3"], "output")["layer3"].pfvs
    section = Section.of(model, x, "layer3", "layer4", "output")
    torch.testing.assert_close(hooked(model, x, "layer3", "layer4", pfvs), section(pfvs))


def test_every_cost_names_both_sides() -> None:
    model = ierf.load("bundled:resnet18-tiny")
    costs = list(icat_costs(model, "layer3", "layer4", targets=2, ratio=1, steps=3, rounds=1))
    assert [cost.what for cost in costs[:2]] == [
        "ICAT layer3 → layer4, midpoints, 3 steps",
        "ICAT layer3 → layer4, secants, 1 steps",
    ]
    assert {cost.peer for cost in costs} == {
        "2 targets one by one, between, 3 steps",
        "2 targets one by one, whole network, 3 steps",
    }
    assert all(0 < cost.lowest <= cost.ratio <= cost.highest for cost in costs)
