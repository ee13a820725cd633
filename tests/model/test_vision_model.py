import subprocess
import sys
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ierf.errors import IerfError, UnknownNameError
from ierf.model import Preprocess, VisionModel, as_vision_model, logits_of

LABELS = ("tench, Tinca tinca", "Cardigan, Cardigan Welsh corgi", "tabby, tabby cat", "cardigan", "crane", "crane")


def _net() -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 3), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        (2, 2),
        ("2", 2),
        (" 0 ", 0),
        ("tabby", 2),
        ("TABBY_CAT", 2),
        ("tabby, tabby cat", 2),
        ("tinca  tinca", 0),
        ("Cardigan", 1),
        ("cardigan", 3),
        ("cardigan welsh corgi", 1),
        ("CARDIGAN", 3),
    ],
)
def test_class_index(name: str | int, index: int) -> None:
    assert VisionModel(_net(), labels=LABELS).class_index(name) == index


def test_class_index_says_what_is_wrong() -> None:
    model = VisionModel(_net(), labels=LABELS, name="net")
    with pytest.raises(UnknownNameError, match="no class 'tabbi'; did you mean tabby"):
        model.class_index("tabbi")
    with pytest.raises(IerfError, match="shared by classes 4 and 5"):
        model.class_index("crane")
    with pytest.raises(IerfError, match="no class 6: the model 'net' has classes 0 to 5"):
        model.class_index("6")
    with pytest.raises(IerfError, match="no class -1"):
        model.class_index(-1)


def test_class_index_without_labels() -> None:
    model = VisionModel(_net())
    assert model.class_index(123) == 123
    assert model.label(7) == "class 7"
    with pytest.raises(IerfError, match="0 to 9"):
        model.class_index(10, n_classes=10)
    with pytest.raises(UnknownNameError):
        model.class_index("cat")


def test_layers_and_modules() -> None:
    net = nn.Sequential(OrderedDict(a=_net(), b=nn.ReLU()))
    model = VisionModel(net)
    assert model.layers == ("a", "a.conv1", "a.pool", "a.flat", "b")
    assert model.module("a.conv1") is net.a.conv1
    with pytest.raises(UnknownNameError, match=r"did you mean a\.conv1"):
        model.module("a.conv2")
    with pytest.raises(UnknownNameError):
        model.module("")


def test_device_and_type_are_those_of_the_first_floating_tensor() -> None:
    net = nn.Module()
    net.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
    assert (VisionModel(net).device.type, VisionModel(net).dtype) == ("cpu", torch.float32)
    net.register_buffer("scale", torch.zeros(1, dtype=torch.float64, device="meta"))
    assert (VisionModel(net).device.type, VisionModel(net).dtype) == ("meta", torch.float64)
    net.weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    assert (VisionModel(net).device.type, VisionModel(net).dtype) == ("cpu", torch.bfloat16)


def test_prepare_and_call() -> None:
    model = VisionModel(_net().double(), Preprocess(size=(8, 12), resize=None, mean=(0.5,) * 3, std=(0.25,) * 3))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    x = model.prepare(pixels)
    expected = (torch.from_numpy(pixels).double() / 255 - 0.5) / 0.25
    assert x.shape == (1, 3, 8, 12)
    assert x.dtype == torch.float64
    torch.testing.assert_close(x[0], expected.permute(2, 0, 1), rtol=0, atol=1e-6)
    assert np.array_equal(np.asarray(model.view(Image.fromarray(pixels))), pixels)
    torch.testing.assert_close(model(x), model.net(x))
    with pytest.raises(IerfError, match="uint8"):
        model.prepare(pixels.astype(np.float32))


def test_logits_of_all_kinds_of_output() -> None:
    logits, other = torch.rand(1, 2), torch.rand(3)
    outputs = [logits, (logits, other), [logits], {"aux": other, "logits": logits}, SimpleNamespace(logits=logits)]
    assert all(logits_of(output) is logits for output in outputs)
    assert logits_of(SimpleNamespace(pooler_output=logits)) is logits
    for output in [None, (), ("a", logits), {"x": logits}]:
        with pytest.raises(IerfError, match="class scores"):
            logits_of(output)


def test_a_compiled_network_is_unwrapped() -> None:
    net = _net()
    assert VisionModel(torch.compile(net)).net is net


def test_as_vision_model() -> None:
    net = _net()
    model = as_vision_model(net)
    assert model.net is net
    assert as_vision_model(model) is model
    for wrong in ["timm:resnet18", None, _net]:
        with pytest.raises(IerfError, match="VisionModel or a"):
            as_vision_model(wrong)


def test_the_room_is_light() -> None:
    heavy = "torchvision timm transformers huggingface_hub safetensors pyarrow skimage"
    code = f"import sys, ierf.model; print([m for m in {heavy.split()!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_moving_moves_the_users_network() -> None:
    net = _net()
    model = VisionModel(net)
    assert model.to("cpu", "bfloat16") is model
    assert (model.net, net.conv1.weight.dtype, model.dtype) == (net, torch.bfloat16, torch.bfloat16)
    assert model(model.prepare(np.zeros((8, 8, 3), np.uint8))).dtype == torch.bfloat16
    assert model.to(dtype=torch.float32).to("cpu").dtype == torch.float32
    with pytest.raises(UnknownNameError, match=r"no type to compute in 'torch.int8'"):
        model.to(dtype=torch.int8)
    with pytest.raises(IerfError, match="the device 'nowhere' cannot be used here"):
        model.to("nowhere")


def test_targets_by_names_are_indices() -> None:
    model = VisionModel(_net(), labels=LABELS)
    assert model.indexed("tabby") == 2
    assert model.indexed(["tabby", 0, "tench"]) == [2, 0, 0]
    assert model.indexed(None) is None
    with pytest.raises(UnknownNameError):
        model.indexed("tabbi")
