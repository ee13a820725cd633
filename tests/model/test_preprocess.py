import numpy as np
import pytest
import torch
from PIL import Image

from ierf.errors import IerfError, UnknownNameError
from ierf.model import Preprocess

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _resize_then_crop(image: Image.Image, resize: int, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """The ordinary way: the whole photograph first."""
    short = min(image.size)
    whole = image.resize((image.width * resize // short, image.height * resize // short), PILLOW[interpolation])
    left, top = round((whole.width - size[1]) / 2), round((whole.height - size[0]) / 2)
    return np.asarray(whole.crop((left, top, left + size[1], top + size[0])), dtype=int)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resize", "size"), [(256, (224, 224)), (235, (224, 160)), (64, (64, 64)), (300, (288, 288))])
@pytest.mark.parametrize("turned", [False, True])
def test_view_is_resize_then_crop(
    chelsea: Image.Image, interpolation: str, resize: int, size: tuple[int, int], turned: bool
) -> None:
    image = chelsea.rotate(90, expand=True) if turned else chelsea
    view = Preprocess(size=size, resize=resize, interpolation=interpolation).view(image)
    difference = np.abs(np.asarray(view, dtype=int) - _resize_then_crop(image, resize, size, interpolation))
    assert view.size == size[::-1]
    assert difference.max() <= 2
    assert difference.mean() < 0.3


def test_as_torchvision_does_it(chelsea: Image.Image) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    usual = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    torch.testing.assert_close(Preprocess()(chelsea), usual(chelsea), rtol=0, atol=1.01 / 255 / 0.224)


def test_squash(chelsea: Image.Image) -> None:
    view = Preprocess(size=(64, 96), resize=None).view(chelsea)
    assert np.array_equal(np.asarray(view), np.asarray(chelsea.resize((96, 64), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1), (20_000, 10), (3, 2), (100, 230)])
def test_any_shape_fills_the_view(shape: tuple[int, int]) -> None:
    image = Image.new("RGB", shape, (10, 120, 240))
    view = Preprocess().view(image)
    assert view.size == (224, 224)
    assert view.getcolors() == [(224 * 224, (10, 120, 240))]


def test_a_crop_larger_than_the_resized_photograph_is_filled() -> None:
    gradient = Image.fromarray(np.tile(np.linspace(0, 255, 300, dtype=np.uint8)[:, None, None], (1, 200, 3)))
    view = np.asarray(Preprocess(size=(100, 200), resize=100).view(gradient))
    assert view.shape == (100, 200, 3)
    assert abs(view[50].mean() - 127.5) < 2
    assert abs((view[-1].mean() - view[0].mean()) - 255 / 3) < 3


def test_to_tensor_normalises() -> None:
    x = Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3).to_tensor(Image.new("RGB", (2, 1), (0, 51, 255)))
    assert x.shape == (3, 1, 2)
    torch.testing.assert_close(x[:, 0, 0], torch.tensor([-1.0, -0.6, 1.0]))


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownNameError, match="bicubic"):
        Preprocess(interpolation="cubic")  # type: ignore[arg-type]
    with pytest.raises(IerfError, match="at least one pixel"):
        Preprocess(size=(0, 224))
