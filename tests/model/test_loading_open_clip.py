import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.model import find_models, load
from ierf.model.loading import from_open_clip

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
}
TAGS = {
    "first": {"hf_hub": "me/first/", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "resize_mode": "squash"},
    "quick": {"hf_hub": "me/quick/", "quick_gelu": True},
}


@pytest.fixture(scope="module")
def open_clip() -> ModuleType:
    module: ModuleType = pytest.importorskip("open_clip")
    return module


@pytest.fixture
def tiny(open_clip: ModuleType, unreachable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models of one size: `tiny` with two tags, `tiny-bare` without any."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-bare", TINY)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", TAGS)


def _cached(open_clip: ModuleType, folder: Path, tag: str, seed: int, **options: Any) -> Any:
    """A model whose weights lie in the hub's cache under a tag's repository."""
    torch.manual_seed(seed)
    clip = open_clip.create_model("tiny", **options).eval()
    repository = folder / f"models--me--{tag}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    save_file(clip.state_dict(), repository / "snapshots" / "abc" / "open_clip_model.safetensors")
    return clip


def _pictures() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_image_tower_of_a_tag(open_clip: ModuleType, tiny: None, tmp_path: Path) -> None:
    first, quick = (
        _cached(open_clip, tmp_path, "first", 1),
        _cached(open_clip, tmp_path, "quick", 2, force_quick_gelu=True),
    )
    x = _pictures()
    torch.testing.assert_close(load("open_clip:tiny/first")(x), first.encode_image(x))
    torch.testing.assert_close(load("open_clip:tiny")(x), first.encode_image(x))
    model = load("open_clip:tiny/quick")
    torch.testing.assert_close(model(x), quick.encode_image(x))
    plain = open_clip.create_model("tiny").eval()
    plain.load_state_dict(quick.state_dict())
    assert (plain.encode_image(x) - quick.encode_image(x)).abs().max() > 1e-4
    assert model.labels is None
    assert not any(module.training for module in model.net.modules())
    assert sum(p.numel() for p in model.net.parameters()) == sum(p.numel() for p in quick.visual.parameters())


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize(("size", "interpolation"), [(32, "bilinear"), ((32, 32), "bicubic"), ((24, 40), "bicubic")])
def test_preprocessing_is_open_clips_own(
    open_clip: ModuleType, mode: str, size: Any, interpolation: str, chelsea: Image.Image
) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    config = {"size": size, "mean": mean, "std": std, "interpolation": interpolation, "resize_mode": mode}
    theirs = open_clip.image_transform(size, False, mean, std, mode, interpolation)(chelsea)
    ours = from_open_clip.preprocess_from(config)(chelsea)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2.01 / 255 / 0.2)


def test_padding_is_refused() -> None:
    with pytest.raises(IerfError, match="padded photographs"):
        from_open_clip.preprocess_from({"resize_mode": "longest"})


def test_untrained(open_clip: ModuleType, tiny: None) -> None:
    model = load("open_clip:tiny?weights=random")
    x = _pictures()
    assert torch.equal(model(x), load("open_clip:tiny/first?weights=random")(x))
    assert (model.preprocess.mean, model.preprocess.resize) == ((0.5, 0.4, 0.3), None)
    quick = load("open_clip:tiny/quick?weights=random")
    assert quick.preprocess.mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert quick.preprocess.resize == 32
    assert (model(x) - quick(x)).abs().max() > 1e-4
    assert load("open_clip:tiny-bare?weights=random").preprocess.size == (32, 32)


def test_open_clip_is_quiet_and_leaves_the_root_logger_alone(tiny: None, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    load("open_clip:tiny?weights=random")
    with pytest.raises(IerfError):
        load("open_clip:tiny/first")
    assert (root.level, root.handlers) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ViT-B-33", "no open_clip model 'ViT-B-33'; did you mean ViT-B-32"),
        ("ViT-B-32/laion2b", r"no open_clip model 'ViT-B-32/laion2b'; did you mean .*ViT-B-32/laion2b_s34b_b79k"),
        ("tiny-bare/first", "no open_clip model 'tiny-bare/first'; did you mean tiny-bare"),
        ("tiny?weights=none", "no kind of weights 'none'"),
        ("tiny?weight=random", "no option of open_clip models 'weight'; did you mean weights"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(tiny: None, spec: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        load(f"open_clip:{spec}")


def test_weights_that_cannot_be_had(open_clip: ModuleType, tiny: None, tmp_path: Path) -> None:
    with pytest.raises(IerfError, match=r"'open_clip:tiny/quick' are not cached .* cannot be reached"):
        load("open_clip:tiny/quick")
    with pytest.raises(IerfError, match=r"no weights for 'tiny-bare'; \?weights=random"):
        load("open_clip:tiny-bare")
    clip = _cached(open_clip, tmp_path, "first", 1)
    weights = tmp_path / "models--me--first" / "snapshots" / "abc" / "open_clip_model.safetensors"
    save_file({name: tensor for name, tensor in clip.state_dict().items() if name != "visual.proj"}, weights)
    with pytest.raises(IerfError, match=r"open_clip cannot build 'tiny': .*visual\.proj") as caught:
        load("open_clip:tiny")
    assert "\n" not in str(caught.value)


def test_names(open_clip: ModuleType) -> None:
    assert "open_clip:ViT-B-32/laion2b_s34b_b79k" in find_models("laion2b_s34b", "open_clip")
