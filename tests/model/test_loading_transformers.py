"""Every family of transformers that `hf:` is meant for, as tiny checkpoints in a folder."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from ierf.errors import IerfError
from ierf.model import load

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
VISION = SIZES | {"intermediate_size": 48}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
BOTH = {"text_config": TEXT, "vision_config": VISION}
LABELS = {0: "cat", 1: "dog", 2: "fish"}


def _pooled(net: Any, x: Tensor) -> Tensor:
    return net(x).pooler_output


def _logits(net: Any, x: Tensor) -> Tensor:
    return net(x).logits


def _projected(net: Any, x: Tensor) -> Tensor:
    return net.visual_projection(net.vision_model(x).pooler_output)


def _of_the_image_tower(net: Any, x: Tensor) -> Tensor:
    return net.vision_model(x).pooler_output


FAMILIES: dict[str, tuple[str, str, dict[str, Any], Callable[[Any, Tensor], Tensor]]] = {
    "ViT": ("ViTModel", "ViTConfig", VISION, _pooled),
    "ViT classifier": ("ViTForImageClassification", "ViTConfig", VISION | {"id2label": LABELS}, _logits),
    "DeiT": ("DeiTModel", "DeiTConfig", VISION, _pooled),
    "DeiT, two heads": (
        "DeiTForImageClassificationWithTeacher",
        "DeiTConfig",
        VISION | {"id2label": LABELS},
        _logits,
    ),
    "CLIP, image tower": ("CLIPVisionModel", "CLIPVisionConfig", VISION, _pooled),
    "CLIP, projected": (
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        VISION | {"projection_dim": 24},
        _projected,
    ),
    "CLIP": ("CLIPModel", "CLIPConfig", BOTH | {"projection_dim": 24}, _projected),
    "CLIP classifier": ("CLIPForImageClassification", "CLIPConfig", BOTH | {"id2label": LABELS}, _logits),
    "SigLIP, image tower": ("SiglipVisionModel", "SiglipVisionConfig", VISION, _pooled),
    "SigLIP": ("SiglipModel", "SiglipConfig", BOTH, _of_the_image_tower),
    "DINOv2": ("Dinov2Model", "Dinov2Config", SIZES, _pooled),
    "DINOv2, registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", SIZES, _pooled),
    "DINOv3": ("DINOv3ViTModel", "DINOv3ViTConfig", VISION | {"num_register_tokens": 2}, _pooled),
}


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    module: ModuleType = pytest.importorskip("transformers")
    module.utils.logging.disable_progress_bar()
    return module


def _saved(transformers: ModuleType, folder: Path, net: str, config: str, sizes: dict[str, Any], **options: Any) -> Any:
    """A network with random weights, all of them far from zero, and its checkpoint in `folder`."""
    torch.manual_seed(5)
    made = getattr(transformers, net)(getattr(transformers, config)(**sizes), **options).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_checkpoint(transformers: ModuleType, tmp_path: Path, family: str) -> None:
    kind, config, sizes, answer = FAMILIES[family]
    net = _saved(transformers, tmp_path, kind, config, sizes)
    model = load(f"hf:{tmp_path}")
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), answer(net, x))
    assert not any("text" in name for name, _ in model.net.named_parameters())
    assert model.labels == (("cat", "dog", "fish") if answer is _logits else None)
    assert (model.preprocess.size, model.preprocess.mean) == ((32, 32), (0.5, 0.4, 0.3))
    untrained = load(f"hf:{tmp_path}?weights=random")
    assert type(untrained.net) is type(model.net)
    assert untrained(x).shape == model(x).shape
    assert (untrained(x) - model(x)).abs().max() > 0.01


def test_without_weights_for_a_pooler_the_class_token_counts(transformers: ModuleType, tmp_path: Path) -> None:
    net = _saved(transformers, tmp_path, "ViTModel", "ViTConfig", VISION, add_pooling_layer=False)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(load(f"hf:{tmp_path}")(x), net(x).last_hidden_state[:, 0])


def test_a_checkpoint_that_lacks_weights_is_refused(transformers: ModuleType, tmp_path: Path) -> None:
    _saved(transformers, tmp_path, "ViTForImageClassification", "ViTConfig", VISION | {"id2label": LABELS})
    weights = load_file(tmp_path / "model.safetensors")
    save_file({n: t for n, t in weights.items() if not n.startswith("classifier")}, tmp_path / "model.safetensors")
    with pytest.raises(IerfError, match=r"ViTForImageClassification: it lacks classifier\.bias, classifier\.weight"):
        load(f"hf:{tmp_path}")


def test_a_checkpoint_that_takes_patches_is_refused(transformers: ModuleType, tmp_path: Path) -> None:
    transformers.Siglip2ImageProcessor().save_pretrained(tmp_path)
    transformers.Siglip2VisionConfig(**(VISION | {"num_patches": 16})).save_pretrained(tmp_path)
    with pytest.raises(IerfError, match="takes patches in place of pixels"):
        load(f"hf:{tmp_path}?weights=random")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ViTImageProcessor", {"size": {"height": 32, "width": 40}}),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
        ("SiglipImageProcessor", {"size": {"height": 32, "width": 32}}),
        ("BitImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}),
        ("DINOv3ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    ],
)
def test_preprocessing_is_the_processors_own(
    transformers: ModuleType, tmp_path: Path, chelsea: Image.Image, kind: str, options: dict[str, Any]
) -> None:
    _saved(transformers, tmp_path, "ViTModel", "ViTConfig", VISION)
    processor = getattr(transformers, kind)(**options)
    processor.save_pretrained(tmp_path)
    theirs = processor(chelsea, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(load(f"hf:{tmp_path}").prepare(chelsea), theirs, rtol=0, atol=3.01 / 255 / 0.224)
