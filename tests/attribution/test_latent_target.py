"""Latents of autoencoders as targets: against directions, sums that must come out, and finite differences."""

from typing import Any

import pytest
import torch
from support.transformers import TinyTransformer
from torch import Tensor, nn
from torch.nn import functional as F

import ierf
from ierf.attribution.targets import Direction, Latent
from ierf.errors import IerfError

ALL = ["attnlrp", "cp_lrp", "srd", "gradient", "gradient_x_input", "integrated_gradients", "kernel_shap"]
OPTIONS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 4},
    "kernel_shap": {"patch": 4, "samples": 64},
}


class Encoder(nn.Module):
    """π = W norm(x) + b with 7 latents."""

    def __init__(self, width: int, biased: bool = True, normalising: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(7, width, generator=generator, dtype=torch.float64))
        self.bias = 0.3 * torch.randn(7, generator=generator, dtype=torch.float64) * biased
        self.normalising = normalising

    def pre_activations(self, x: Tensor) -> Tensor:
        return F.linear(F.layer_norm(x, x.shape[1:]) if self.normalising else x, self.weight, self.bias)


def transformer(**options: Any) -> nn.Module:
    torch.manual_seed(5)
    net = TinyTransformer(**options).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4)
    return net


def pictures(n: int = 2, side: int = 12) -> Tensor:
    return torch.randn(n, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def tokens(net: nn.Module, x: Tensor, layer: str) -> Tensor:
    """A layer's tokens by a hook."""
    found: list[Tensor] = []
    handle = net.get_submodule(layer).register_forward_hook(lambda module, given, output: found.append(output))
    net(x)
    handle.remove()
    return found[0]


def convolutions() -> nn.Sequential:
    torch.manual_seed(6)
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
        nn.Sequential(nn.Conv2d(6, 5, 3, stride=2, padding=1), nn.ReLU()), nn.Flatten(), nn.Linear(45, 4),
    )  # fmt: skip
    return layers.double().eval()


@pytest.mark.parametrize("method", ALL)
def test_a_latent_without_bias_is_the_direction_of_its_encoder_row(method: str) -> None:
    net, x, sae = transformer(), pictures(), Encoder(8, biased=method == "kernel_shap")
    as_latent = Latent("blocks.1", sae, [4, 2], [(3,), (0,)])
    as_direction = Direction("blocks.1", sae.weight.detach()[[4, 2]], [(3,), (0,)])
    options = OPTIONS.get(method, {})
    found = ierf.attribute(net, x, as_latent, method=method, **options)
    expected = ierf.attribute(net, x, as_direction, method=method, **options)
    assert found.abs().amax() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_what_the_encoder_divides_by_is_a_constant() -> None:
    net, x, sae = transformer(), pictures(1), Encoder(8, normalising=True)
    pfv = tokens(net, x, "blocks.0")[0, 2].detach()
    row = sae.weight.detach()[5]
    constant = (row - row.mean()) / (pfv.var(correction=0) + 1e-5).sqrt()
    found = ierf.attribute(net, x, Latent("blocks.0", sae, 5, 2), method="attnlrp")
    expected = ierf.attribute(net, x, Direction("blocks.0", constant, 2), method="attnlrp")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().amax() > 1e-3


def test_integrated_gradients_add_up_at_the_strongest_token() -> None:
    net, x, sae = transformer(), pictures(3), Encoder(8)
    before, after = (sae.pre_activations(tokens(net, at, "blocks.1").flatten(0, 1)) for at in (0 * x, x))
    before, after = (codes.unflatten(0, (3, -1))[..., 6].detach() for codes in (before, after))
    best = after.argmax(1, keepdim=True)
    maps = ierf.attribute(net, x, Latent("blocks.1", sae, 6), method="integrated_gradients", steps=256)
    torch.testing.assert_close(maps.sum((1, 2)), (after - before).gather(1, best)[:, 0], rtol=1e-6, atol=1e-9)


def test_without_biases_cp_lrp_sums_to_the_pre_activation() -> None:
    net, x, sae = transformer(prefix=0, head="mean"), pictures(), Encoder(8, biased=False)
    for name, parameter in net.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
    maps = ierf.attribute(net, x, Latent("blocks.1", sae, 1, 4), method="cp_lrp")
    expected = (tokens(net, x, "blocks.1")[:, 4] @ sae.weight[1]).detach()
    torch.testing.assert_close(maps.sum((1, 2)), expected, rtol=1e-9, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    net, x, sae = transformer(), pictures(1), Encoder(8, normalising=True)
    maps = ierf.attribute(net, x, Latent("blocks.1", sae, 3, 5), method="gradient_x_input")

    def pre_activation(at: Tensor) -> Tensor:
        return sae.pre_activations(tokens(net, at, "blocks.1")[:, 5])[0, 3].detach()

    for row, column in ((0, 0), (5, 7), (11, 2)):
        total = torch.zeros((), dtype=torch.float64)
        for channel in range(3):
            step = torch.zeros_like(x)
            step[0, channel, row, column] = 1e-5
            slope = (pre_activation(x + step) - pre_activation(x - step)) / 2e-5
            total += slope * x[0, channel, row, column]
        torch.testing.assert_close(maps[0, row, column], total, rtol=1e-5, atol=1e-8)


def test_srd_sums_to_what_enters_the_last_activation_function() -> None:
    net, x, sae = convolutions(), pictures(), Encoder(5)
    maps = ierf.attribute(net, x, Latent("3", sae, [2, 0], [(1, 2), (0, 1)]), method="srd")
    entering = net[3][0](net[:3](x.clone()))
    expected = torch.stack(
        [sae.pre_activations(entering[[0], :, 1, 2])[0, 2], sae.pre_activations(entering[[1], :, 0, 1])[0, 0]]
    )
    torch.testing.assert_close(maps.sum((1, 2)), expected.detach(), rtol=1e-9, atol=1e-12)


def test_gradients_go_by_what_enters_the_last_activation_function() -> None:
    net, x, sae = convolutions(), pictures(1), Encoder(5)
    maps = ierf.attribute(net, x, Latent("3", sae, 2, (1, 1)), method="gradient_x_input")
    pixels = x.clone().requires_grad_()
    value = sae.pre_activations(net[3][0](net[:3](pixels * 1.0))[:, :, 1, 1])[0, 2]
    (slope,) = torch.autograd.grad(value, pixels)
    torch.testing.assert_close(maps, (slope * x).sum(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["attnlrp", "srd", "gradient"])
def test_the_strongest_position_is_taken_in_each_sample_alone(method: str) -> None:
    net, x, sae = transformer(), pictures(4), Encoder(8)
    together = ierf.attribute(net, x, Latent("blocks.0", sae, [0, 1, 2, 6]), method=method)
    codes = sae.pre_activations(tokens(net, x, "blocks.0").flatten(0, 1)).unflatten(0, (4, -1))
    for n, index in enumerate([0, 1, 2, 6]):
        best = int(codes[n, :, index].argmax())
        alone = ierf.attribute(net, x[n : n + 1], Latent("blocks.0", sae, index, best), method=method)
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-9, atol=1e-12)


def test_an_autoencoder_of_the_library_is_read_in_its_own_precision() -> None:
    net, x = transformer(), pictures(1)
    sae = ierf.concepts.SAE("topk", 8, 16, 2)
    maps = ierf.attribute(net, x, Latent("blocks.1", sae, 3, 1), method="attnlrp")
    expected = ierf.attribute(net, x, Direction("blocks.1", sae.encoder[3].detach().double(), 1), method="attnlrp")
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", ["attnlrp", "gradient"])
def test_a_latent_that_does_not_exist_is_named(method: str) -> None:
    with pytest.raises(IerfError, match=r"latent 7 of 'blocks.1': the autoencoder has latents 0 … 6"):
        ierf.attribute(transformer(), pictures(), Latent("blocks.1", Encoder(8), 7), method=method)


def test_a_method_that_knows_logits_only_says_so() -> None:
    with pytest.raises(IerfError, match="explains logits, not a Latent"):
        ierf.attribute(convolutions(), pictures(), Latent("3", Encoder(5), 0), method="scorecam")
