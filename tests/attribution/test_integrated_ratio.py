"""The head "integrated": what each PFV adds to the logit on the way from the grey picture, then SRD."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from support.srd_by_hand import BruteForce
from support.transformers import TinyTransformer
from test_srd_by_hand import NETS, build, close, pictures
from torch import Tensor, nn

import ierf
import ierf.attribution.srd
from ierf.attribution.srd import STEPS, SRDPass
from ierf.attribution.targets import Target
from ierf.experiments import parse_methods
from ierf.experiments.truth.local import truth_local
from ierf.rules import SRDRules

BELOW, LAST = 4, 8


class Chain(nn.Module):
    """Three smooth layers of which the first acts on each pixel alone, and a head; in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.pixelwise = nn.Conv2d(3, 5, 1, bias=False)
        self.below = nn.Sequential(nn.Tanh(), nn.Conv2d(5, BELOW, 3, stride=2), nn.SiLU())
        self.above = nn.Sequential(nn.Conv2d(BELOW, LAST, 2), nn.Tanh(), nn.Flatten(2))
        self.head = nn.Linear(LAST, 4)
        self.double()

    def from_below(self, pfvs: Tensor) -> Tensor:
        """The logits, from the PFVs of `below`."""
        logits: Tensor = self.head(self.above(pfvs).mean(2))
        return 5 * logits

    def forward(self, x: Tensor) -> Tensor:
        return self.from_below(self.below(self.pixelwise(x)))


@pytest.fixture(name="chain")
def make_chain() -> Chain:
    return Chain().eval()


def integrated(net: nn.Module, x: Tensor, target: Target, encoder: str, resolution: str = "low") -> Tensor:
    return ierf.attribute(net, x, target, resolution=resolution, head="integrated", encoder=encoder)


@pytest.mark.parametrize("steps", NETS, ids=lambda f: f.__name__)
def test_below_a_linear_head_it_is_the_difference_to_the_grey_picture(steps: Callable[..., object]) -> None:
    """`⟨w_c, A_i(x) − A_i(0)⟩ / HW`, whatever the number of steps; below, the sharing ratios of the picture."""
    net, x = build(steps), pictures(2)  # type: ignore[arg-type]
    found = ierf.attribute(net, x, [4, 1], head="integrated")
    for one, picture, index in zip(found, x, (4, 1), strict=True):
        by_hand = BruteForce(net, picture)
        grey = BruteForce(net, torch.zeros_like(picture)).final_ratio(index, "raw")
        close(one, by_hand.carried(net.steps[-1].name, by_hand.final_ratio(index, "raw") - grey))


def test_it_is_the_integral_of_what_replacing_one_pfv_does(chain: Chain) -> None:
    """`Σ_s y(A(α_s) with A_i(α_s+1)) − y(A(α_s))`, by interventions alone and in finer steps."""
    x, steps = pictures(), 2000
    with torch.no_grad():
        way = chain.below(chain.pixelwise(torch.linspace(0, 1, steps + 1).double().view(-1, 1, 1, 1) * x))
        before, after = way[:-1], way[1:]
        ratio = torch.zeros(way.shape[2:], dtype=torch.float64)
        for i, j in torch.cartesian_prod(*(torch.arange(side) for side in way.shape[2:])).tolist():
            changed = before.clone()
            changed[:, :, i, j] = after[:, :, i, j]
            ratio[i, j] = (chain.from_below(changed) - chain.from_below(before))[:, 2].sum()
    found = integrated(chain, x, 2, "below")[0]
    close(found, ratio, 0.02 * float(ratio.abs().max()))
    assert not torch.allclose(found, ierf.attribute(chain, x, 2, resolution="low", head="raw", encoder="below")[0])


@pytest.mark.parametrize("target", [1, None, lambda y: y[:, 0] * y[:, 3]], ids=["class", "predicted", "function"])
def test_it_sums_to_what_the_picture_adds(chain: Chain, target: Target) -> None:
    x = pictures(2)
    with torch.no_grad():
        y, grey = chain(x), chain(torch.zeros_like(x))
    index = torch.tensor([1, 1]) if target == 1 else y.argmax(1)
    value = target if callable(target) else (lambda logits: logits[torch.arange(2), index])
    for layer in ("pixelwise", "below", "above.1"):
        close(integrated(chain, x, target, layer).flatten(1).sum(1), value(y) - value(grey), 0.02)


def test_more_steps_bring_the_sum_nearer(chain: Chain) -> None:
    x = pictures(2)
    with torch.no_grad():
        added = (chain(x) - chain(torch.zeros_like(x)))[:, 1]
    options = {"resolution": "low", "head": "integrated", "encoder": "below"}
    off = [
        float((ierf.attribute(chain, x, 1, steps=n, **options).flatten(1).sum(1) - added).abs().max())
        for n in (2, 8, 32)
    ]
    assert off[0] > 8 * off[1] > 64 * off[2] > 0


@pytest.mark.parametrize("target", [2, ierf.targets.Channel("below", 1)])
@pytest.mark.parametrize("options", [{"head": "nonsense"}, {"head": "integrated", "steps": 0}])
def test_mistakes_are_named(chain: Chain, target: Target, options: dict[str, object]) -> None:
    with pytest.raises(ierf.IerfError, match=r"nonsense|needs a step"):
        ierf.attribute(chain, pictures(1), target, **options)


def test_what_it_starts_with_arrives_at_the_pixels(chain: Chain) -> None:
    x = pictures(2)
    for layer in ("below", "above.1"):
        sums = [integrated(chain, x, 2, layer, resolution).flatten(1).sum(1) for resolution in ("low", "input")]
        close(sums[0], sums[1])


def test_at_the_pixels_it_is_integrated_gradients(chain: Chain) -> None:
    """Where the encoder is linear in each pixel alone, nothing is left for SRD to share."""
    x = pictures(2)
    slopes = []
    for alpha in torch.linspace(0, 1, STEPS + 1).double():
        point = (alpha * x).requires_grad_()
        slopes.append(torch.autograd.grad(chain(point)[:, 3].sum(), point)[0])
    trapezium = sum((x * (g + h)).sum(1) / (2 * STEPS) for g, h in pairwise(slopes))
    for resolution in ("low", "input"):
        close(integrated(chain, x, 3, "pixelwise", resolution), trapezium)


def test_the_class_is_that_of_the_picture_all_the_way(chain: Chain) -> None:
    x = pictures()
    with torch.no_grad():
        chain.head.bias -= chain(0 * x)[0] / 5
        index = int(chain(x).argmax())
        chain.head.bias[index] -= 0.001
        assert index == int(chain(x).argmax()) != int(chain(0 * x).argmax())
    assert torch.equal(integrated(chain, x, None, "below"), integrated(chain, x, index, "below"))


def test_batch_mates_do_not_change_it(chain: Chain) -> None:
    x = pictures(3)
    together = integrated(chain, x, [0, 1, 2], "below", "input")
    for k in range(3):
        close(integrated(chain, x[k : k + 1], k, "below", "input")[0], together[k], 1e-12)


def test_tokens_have_their_own() -> None:
    """At a block of a transformer, class token included, it sums to what the picture adds."""
    net = TinyTransformer(prefix=1).double().eval()
    x = pictures(2, seed=2)[:, :, :4, :4].repeat(1, 1, 2, 2)
    with SRDPass.of(ierf.VisionModel(net), x, SRDRules(), "blocks.0") as run:
        ratio = run.final_ratio(2, "integrated")
    with torch.no_grad():
        added = (net(x) - net(0 * x))[:, 2]
    assert ratio.shape == (2, 5)
    close(ratio.sum(1), added, 0.02)


def test_it_ranks_the_parts_of_scenes_by_what_their_removal_costs(tmp_path: Path) -> None:
    """What it is for: beyond SRD's own head by 0.05 in rank correlation, and no less on the parts that decide."""
    methods = parse_methods(["srd", "srd?head=integrated&encoder=layer3"])
    found = truth_local(ierf.load("bundled:world-cnn"), methods, tmp_path, scenes=16).summary
    before, after = ({column: cell.mean for column, cell in found[method.text].items()} for method in methods)
    assert after["removal"] > before["removal"] + 0.05
    assert after["on deciding parts"] > before["on deciding parts"]
