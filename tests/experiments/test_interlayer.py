"""The interlayer experiment on random concepts: what it averages, and that it does not mix images."""

from types import SimpleNamespace

import torch
from torch import Tensor

import ierf
from ierf.concepts import Codes, lasso
from ierf.experiments.interlayer import interlayer_areas


def layer(channels: int, concepts: int) -> SimpleNamespace:
    atoms = 5 * torch.nn.functional.normalize(
        torch.randn(concepts, channels, generator=torch.Generator().manual_seed(channels))
    )
    shift = torch.zeros(channels)

    def encode(pfvs: Tensor) -> Codes:
        return lasso(pfvs, atoms, 5.0).sparse

    return SimpleNamespace(atoms=atoms, shift=shift, values="pre-activation", encode=encode)


def test_areas_of_images_stand_one_after_the_other() -> None:
    model = ierf.load("bundled:resnet18-tiny")
    layers = {"layer3": layer(128, 40), "layer4": layer(256, 30)}
    bank = SimpleNamespace(layer=layers.__getitem__)
    images = list(torch.randn(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    options = {"methods": ("ig", "random"), "targets": 2, "points": 5}
    both = interlayer_areas(model, bank, images, "layer3", "layer4", **options)
    second = interlayer_areas(model, bank, images[1:], "layer3", "layer4", **options)
    assert [areas.method for areas in both] == ["ig", "random"]
    for areas, alone in zip(both, second, strict=True):
        assert areas.deletion.shape == (4,)
        torch.testing.assert_close(areas.deletion[2:], alone.deletion)
        torch.testing.assert_close(areas.insertion[2:], alone.insertion)
    assert float(both[0].completeness_error.max()) <= 1e-3
