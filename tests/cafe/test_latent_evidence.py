"""Scores of patches, and the curves of insertion and deletion, against one photograph at a time."""

import pytest
import torch
from support.transformers import LAYER, TinyTransformer, autoencoder, codes_by_hook, latent_layer, photographs, prepared
from torch import Tensor, nn

from ierf.cafe import METHODS, LatentLayer, evidence, latent_curves
from ierf.cafe.latents import on_grid
from ierf.errors import IerfError, UnknownNameError
from ierf.model import Preprocess, VisionModel

FAST = [method for method in METHODS if method != "kernel_shap"]


def setting() -> tuple[LatentLayer, Tensor, Tensor, Tensor]:
    """Three photographs, each with its strongest latent at a patch, a patch, and the class token."""
    layer = latent_layer()
    x = prepared(layer, photographs(3))
    codes = codes_by_hook(layer, x)
    positions = torch.tensor([4, 9, 0])
    return layer, x, codes[torch.arange(3), positions].argmax(1), positions


@pytest.mark.parametrize("method", METHODS)
def test_a_photograph_gets_what_it_gets_alone(method: str) -> None:
    layer, x, latents, positions = setting()
    together = evidence(layer, x, latents, positions, method)
    assert together.shape == (3, 3, 3)
    assert bool((together.abs().amax((1, 2)) > 1e-6).all()) or method == "activation"
    for n in range(3):
        one = slice(n, n + 1)
        alone = evidence(layer, x[one], latents[one], positions[one], method)
        torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)


def test_shapley_values_add_up_to_the_pre_activation() -> None:
    layer, x, latents, positions = setting()
    found = evidence(layer, x, latents, positions, "kernel_shap").sum((1, 2))

    def pre_activation(at: Tensor) -> Tensor:
        tokens: list[Tensor] = []
        handle = layer.model.net.get_submodule(layer.layer).register_forward_hook(lambda *call: tokens.append(call[2]))
        layer.model.net(at)
        handle.remove()
        return layer.sae.pre_activations(tokens[0][torch.arange(3), positions]).gather(1, latents[:, None])[:, 0]

    expected = (pre_activation(x) - pre_activation(0 * x)).detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_activation_is_the_map_of_the_patches() -> None:
    layer, x, latents, positions = setting()
    codes = codes_by_hook(layer, x)[:, 1:10]
    expected = torch.stack([codes[n, :, latent] for n, latent in enumerate(latents.tolist())]).view(3, 3, 3)
    torch.testing.assert_close(evidence(layer, x, latents, positions, "activation"), expected)


def test_curves_are_those_of_a_loop_over_patches() -> None:
    layer, x, latents, positions = setting()
    scores = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(4))
    scores[1, 0, 0] = scores[1, 2, 2] = 5.0
    found = latent_curves(layer, x, latents, positions, scores, points=10)
    for n in range(3):
        order = sorted(range(9), key=lambda p: (-float(scores[n].flatten()[p]), p))
        for inserting, curve in ((True, found.insertion[n]), (False, found.deletion[n])):
            values = []
            for count in range(10):
                shown = set(order[:count]) if inserting else set(order[count:])
                canvas = torch.zeros_like(x[n : n + 1])
                for p in shown:
                    cell = (..., slice(4 * (p // 3), 4 * (p // 3) + 4), slice(4 * (p % 3), 4 * (p % 3) + 4))
                    canvas[cell] = x[n : n + 1][cell]
                values.append(float(codes_by_hook(layer, canvas)[0, positions[n], latents[n]]))
            full = values[-1] if inserting else values[0]
            assert curve.tolist() == pytest.approx([value / full for value in values], rel=1e-4, abs=1e-5)
    mean = (found.insertion[:, 1:] + found.insertion[:, :-1]).mean(1) / 2
    torch.testing.assert_close(found.areas()[0], mean)


def test_a_latent_that_is_not_active_has_no_curve() -> None:
    layer, x, latents, positions = setting()
    silent = codes_by_hook(layer, x)[0, positions[0]].argmin()
    latents[0] = silent
    found = latent_curves(layer, x, latents, positions, torch.rand(3, 3, 3))
    assert bool(found.insertion[0].isnan().all())
    assert not bool(found.insertion[1:].isnan().any())


def test_cells_of_a_grid_keep_the_sum() -> None:
    scores = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0))
    cells = on_grid(scores, (3, 2))
    torch.testing.assert_close(cells[1, 2, 1], scores[1, 8:, 4:].sum())
    assert on_grid(cells, (3, 2)) is cells


def test_mistakes_are_named() -> None:
    layer, x, latents, positions = setting()
    with pytest.raises(UnknownNameError, match="attribution of latents"):
        evidence(layer, x, latents, positions, "attnlpr")
    headless = latent_layer(prefix=0)
    assert headless.kinds == ("patch",)
    with pytest.raises(IerfError, match="has no class token"):
        headless.of_kind(torch.zeros(1, 9, 16), "class")


def test_of_a_convolutional_layer_srd_sums_to_the_pre_activation() -> None:
    torch.manual_seed(6)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(),
        nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU()), nn.Flatten(), nn.Linear(72, 4),
    )  # fmt: skip
    layer = LatentLayer(VisionModel(net.eval(), Preprocess(size=(12, 12), resize=None)), "2", autoencoder())
    x = prepared(layer, photographs(2))
    assert layer.address(torch.tensor([7, 2])) == [(2, 1), (0, 2)]
    found = evidence(layer, x, torch.tensor([3, 11]), torch.tensor([7, 2]), "srd").sum((1, 2))
    entering = net[2][0](net[:2](x)).flatten(2)
    expected = [layer.sae.pre_activations(entering[n, :, p][None])[0, k] for n, p, k in ((0, 7, 3), (1, 2, 11))]
    torch.testing.assert_close(found, torch.stack(expected).detach(), rtol=1e-4, atol=1e-5)


def test_patches_are_where_the_network_puts_them() -> None:
    """Nine patches in front of seven other tokens: as many as a grid of 4 × 4 without any."""
    net = TinyTransformer(prefix=0, suffix=7, head="mean").eval()
    layer = LatentLayer(VisionModel(net, Preprocess((12, 12), None)), LAYER, autoencoder())
    assert (layer.grid.prefix, layer.grid.rows, layer.grid.columns) == (0, 3, 3)
    x, latents = torch.randn(2, 3, 12, 12), torch.tensor([1, 2])
    expected = codes_by_hook(layer, x)[torch.arange(2), :9, latents].view(2, 3, 3)
    torch.testing.assert_close(layer.maps(x, latents), expected)
