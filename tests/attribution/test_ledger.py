"""The ledger adds up, and names what leaks."""

from typing import Any

import pytest
import torch
from support.srd_by_hand import BruteForce, Step, Wired
from torch import Tensor, nn

import ierf
from ierf.attribution import Ledger


def folded() -> Wired:
    """Convolutions with biases, each followed by a batch-norm, and a shortcut."""
    torch.manual_seed(0)
    steps = [
        Step("c0", nn.Conv2d(3, 5, 3, padding=1), ("x",)),
        Step("b0", nn.BatchNorm2d(5), ("c0",)),
        Step("a0", nn.Tanh(), ("b0",)),
        Step("c1", nn.Conv2d(5, 5, 3, padding=1), ("a0",)),
        Step("b1", nn.BatchNorm2d(5), ("c1",)),
        Step("sum", "add", ("b1", "a0")),
        Step("a1", nn.Tanh(), ("sum",)),
        Step("c2", nn.Conv2d(5, 4, 3, stride=2), ("a1",)),
        Step("a2", nn.Tanh(), ("c2",)),
    ]
    net = Wired(steps, nn.Linear(4, 6)).double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


def unfolded() -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3),
            nn.ReLU(),
            nn.Conv2d(6, 4, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 5),
        )
        .double()
        .eval()
    )


def picture(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def ledger_of(net: nn.Module, x: Tensor | None = None, **options: Any) -> Ledger:
    return ierf.check_conservation(net, picture() if x is None else x, **options)


def leaks_by_module(ledger: Ledger) -> dict[str, float]:
    sums: dict[str, float] = {}
    for entry in ledger.entries:
        for leak in entry.leaks:
            sums[leak.module] = sums.get(leak.module, 0) + leak.amount
    return {module: amount for module, amount in sums.items() if abs(amount) > 1e-9}


NETS = {"folded": (folded, "a2"), "unfolded": (unfolded, "4")}
each_net = pytest.mark.parametrize("net", NETS)
each_bias = pytest.mark.parametrize("bias", ["norm", "uniform", "drop"])


@each_net
@each_bias
def test_stages_follow_one_another(net: str, bias: str) -> None:
    make, layer = NETS[net]
    ledger = ledger_of(make(), layer=layer, bias=bias)
    for upper, lower in zip(ledger.entries[:-1], ledger.entries[1:], strict=True):
        assert upper.relevance_out == lower.relevance_in
    assert sum(entry.leaked for entry in ledger.entries) == pytest.approx(ledger.leaked, abs=1e-12)


@each_net
def test_every_sample_of_a_layer_starts_with_relevance_one(net: str) -> None:
    make, layer = NETS[net]
    assert ledger_of(make(), picture(3), layer=layer).relevance_in == pytest.approx(3, rel=1e-12)


@each_net
@each_bias
def test_the_named_leaks_of_every_stage_are_all_that_leaked(net: str, bias: str) -> None:
    make, layer = NETS[net]
    for entry in ledger_of(make(), layer=layer, bias=bias).entries:
        assert entry.unexplained == pytest.approx(0, abs=1e-11), entry


def test_sharing_the_bias_by_norms_leaks_nothing_at_any_stage() -> None:
    ledger = ledger_of(folded(), layer="a2")
    assert ledger.conserved(1e-12)
    assert all(abs(entry.leaked) < 1e-11 for entry in ledger.entries)


def test_the_pixels_hold_what_the_ledger_says() -> None:
    net, x = folded(), picture()
    for head_target in (0, 3):
        ledger = ledger_of(net, x, target=head_target)
        assert ledger.relevance_in == pytest.approx(
            float(ierf.attribute(net, x, head_target, resolution="low").sum()), rel=1e-12
        )
        assert ledger.relevance_out == pytest.approx(float(ierf.attribute(net, x, head_target).sum()), rel=1e-12)


def test_dropped_biases_leak_what_the_formula_gives_them() -> None:
    net, x = folded(), picture(1)
    by_hand = BruteForce(net, x[0], "drop")
    shape = by_hand.maps["a2"].values.shape[1:]
    even = torch.full(shape, 1 / (shape[0] * shape[1]), dtype=torch.float64).numpy()
    ledger = ledger_of(net, x, layer="a2", bias="drop")
    assert ledger.leaked / ledger.relevance_in == pytest.approx(by_hand.bias_relevance("a2", even), rel=1e-10)
    assert abs(ledger.leaked) > 0.01


def test_dropped_biases_are_named_by_the_operations_that_had_them() -> None:
    net = folded()
    ledger = ledger_of(net, layer="a2", bias="drop")
    leaks = leaks_by_module(ledger)
    assert set(leaks) <= {"c0", "b0", "c1", "b1", "c2"}
    assert {"c2"} <= set(leaks)
    assert sum(leaks.values()) == pytest.approx(ledger.leaked, rel=1e-10)


def test_the_dropped_bias_of_the_last_convolution_is_what_its_output_says() -> None:
    """One affine operation: the bias's part is `⟨b, v_j⟩ / ‖v_j‖²` of each position, summed."""
    net, x = unfolded(), picture(1)
    v = net[:1](x).detach()
    part = float(((v * net[0].bias.detach().view(-1, 1, 1)).sum(1) / v.square().sum(1)).mean())
    ledger = ledger_of(net, x, layer="0", bias="drop")
    assert ledger.leaked / ledger.relevance_in == pytest.approx(part, rel=1e-10)
    assert leaks_by_module(ledger) == pytest.approx({"0": part}, rel=1e-6)


def test_dead_pfvs_are_named_where_their_relevance_is_lost() -> None:
    """A bias's share for an input that is zero has nowhere to go; with `uniform` there are such shares."""
    net, x = unfolded(), picture(1)
    with torch.no_grad():
        net[0].bias -= 1.5
    dead = net[:2](x).square().sum(1) == 0
    assert bool(dead.any())
    ledger = ledger_of(net, x, layer="4", bias="uniform")
    leaks = leaks_by_module(ledger)
    assert leaks["2"] != 0
    assert sum(leaks.values()) == pytest.approx(ledger.leaked, rel=1e-10)


def test_a_dead_start_holds_no_relevance() -> None:
    net, x = unfolded(), picture(1)
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].bias.fill_(-1)
    ledger = ledger_of(net, x, layer="3")
    assert ledger.relevance_out == 0
    assert not ledger.conserved()


def test_relative_leak_and_conserved_agree_with_the_sums() -> None:
    ledger = ledger_of(unfolded(), layer="4", bias="drop")
    assert ledger.relative_leak == pytest.approx(abs(ledger.leaked) / abs(ledger.relevance_in))
    assert ledger.conserved(ledger.relative_leak * 1.01)
    assert not ledger.conserved(ledger.relative_leak * 0.99)


def test_the_ledger_is_per_sample_additive() -> None:
    net, x = folded(), picture(3)
    together = ledger_of(net, x, layer="a2", bias="drop")
    alone = [ledger_of(net, x[i : i + 1], layer="a2", bias="drop") for i in range(3)]
    assert together.relevance_out == pytest.approx(sum(one.relevance_out for one in alone), rel=1e-11)


def test_other_methods_have_no_ledger() -> None:
    with pytest.raises(ierf.IerfError, match="gradient"):
        ledger_of(folded(), method="gradient")


def test_a_single_picture_needs_no_batch_axis() -> None:
    net, x = folded(), picture(1)
    assert ledger_of(net, x[0], layer="a2").relevance_out == pytest.approx(ledger_of(net, x, layer="a2").relevance_out)
