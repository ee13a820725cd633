import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ierf import extras
from ierf.errors import IerfError, UnknownNameError
from ierf.model import Preprocess, available, load
from ierf.model.loading import from_timm, from_torchvision, from_transformers
from ierf.model.loading.bundled import resnet18_tiny
from ierf.model.loading.from_disk import read_labels
from ierf.model.loading.source import parse

ARCH = "arch=bundled:resnet18-tiny"


def test_parse() -> None:
    spec = parse("file:a/b.pt?arch=timm:resnet18&labels=x.txt")
    assert (spec.source, spec.name) == ("file", "a/b.pt")
    assert spec.options == {"arch": "timm:resnet18", "labels": "x.txt"}
    for wrong in ["resnet18", "timm:", ":x", "timm:x?weights", "timm:x?weights="]:
        with pytest.raises(IerfError):
            parse(wrong)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tim:resnet18", "no source of models 'tim'; did you mean timm"),
        ("bundled:resnet18", "no bundled model 'resnet18'; did you mean resnet18-tiny"),
        ("timm:resnet18x", "no timm model 'resnet18x'; did you mean resnet18"),
        ("timm:resnet18.a1", r"no timm model 'resnet18\.a1'; did you mean .*resnet18\.a1_in1k"),
        ("torchvision:resnet19", "no torchvision model 'resnet19'; did you mean resnet1"),
        ("timm:test_vit?weights=none", "no kind of weights 'none'"),
        ("timm:test_vit?weight=random", "no option of timm models 'weight'; did you mean weights"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(spec: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        load(spec)


@pytest.mark.parametrize("name", ["resnet18-tiny", "vit-tiny"])
def test_bundled(name: str) -> None:
    coffee = Image.fromarray(pytest.importorskip("skimage.data").coffee())
    model = load(f"bundled:{name}")
    assert model.dtype == torch.float32
    assert not any(module.training for module in model.net.modules())
    assert model.labels is not None
    assert len(model.labels) == 100
    with torch.no_grad():
        best = int(model(model.prepare(coffee)).argmax())
    assert model.label(best) == "espresso"
    assert model.class_index("goldfish") == 0
    assert sum(p.numel() for p in model.net.parameters()) == pytest.approx(2.8e6, rel=0.02)


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(IerfError, match="device 'toaster' cannot be used here"):
        load("bundled:resnet18-tiny", device="toaster")


def test_loading_leaves_the_random_numbers_alone_and_repeats_itself() -> None:
    state = torch.get_rng_state()
    first = load("timm:test_resnet?weights=random").net.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    again = load("timm:test_resnet?weights=random").net.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_timm() -> None:
    model = load("timm:test_vit?weights=random")
    assert model.preprocess == Preprocess((160, 160), 168, (0.5,) * 3, (0.5,) * 3, "bicubic")
    assert model.class_index("tabby cat") == 281
    assert not model.net.training
    assert model(model.prepare(Image.new("RGB", (30, 40)))).shape == (1, 1000)


def test_timm_preprocessing_is_timms_own(chelsea: Image.Image) -> None:
    data = pytest.importorskip("timm.data")
    model = load("timm:test_convnext?weights=random")
    theirs = data.create_transform(**data.resolve_model_data_config(model.net))(chelsea)
    torch.testing.assert_close(model.preprocess(chelsea), theirs, rtol=0, atol=2.01 / 255 / 0.5)


def test_torchvision(chelsea: Image.Image) -> None:
    models = pytest.importorskip("torchvision.models")
    model = load("torchvision:mobilenet_v3_small?weights=random")
    theirs = models.MobileNet_V3_Small_Weights.DEFAULT.transforms()(chelsea)
    torch.testing.assert_close(model.preprocess(chelsea), theirs, rtol=0, atol=2.01 / 255 / 0.224)
    assert model.class_index("tabby") == 281


@pytest.mark.parametrize("spec", ["timm:resnet18.a1_in1k", "torchvision:resnet18"])
def test_weights_out_of_reach(unreachable: None, spec: str, capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("huggingface_hub").level
    start = time.perf_counter()
    with pytest.raises(IerfError, match=r"not cached on this machine and .* cannot be reached") as caught:
        load(spec)
    assert time.perf_counter() - start < 10
    assert all(way in str(caught.value) for way in ("?weights=random", "file:PATH", "bundled:resnet18-tiny"))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("huggingface_hub").level == level


def test_cached_weights_load_without_the_hub(unreachable: None, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet.r160_in1k").eval()
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    save_file(net.state_dict(), repository / "snapshots" / "abc" / "model.safetensors")
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(load("timm:test_resnet.r160_in1k")(x), net(x))


def test_nobody_answers_at_a_closed_port() -> None:
    assert not extras.answers("http://127.0.0.1:9/")


def test_a_missing_extra_says_how_to_install_it() -> None:
    with pytest.raises(IerfError, match=r"no_such_package is not installed; .*pip install 'ierf\[timm\]'"):
        extras.extra("no_such_package.part", "timm")


def test_builds_that_do_not_match_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_vision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(IerfError, match=r"built for another torch .* pip install"):
        extras.extra("broken_vision", "torchvision")


@pytest.mark.parametrize("package", ["torchvision", "timm", "transformers", "open_clip"])
def test_a_torchvision_built_for_another_torch_is_made_to_import(package: str, tmp_path: Path) -> None:
    """In a process of its own, with a torchvision that ends as PyPI's does beside a CPU torch."""
    fake = tmp_path / "torchvision"
    fake.mkdir()
    (fake / "__init__.py").write_text("from torchvision import _meta")
    (fake / "_meta.py").write_text(
        "import torch\n"
        "for name in ('nms', 'qnms'):\n"
        "    torch.library.register_fake(f'torchvision::{name}')(lambda dets, scores, iou: dets)\n"
    )
    for other in {"timm", "transformers", "open_clip"} - {"torchvision"}:
        (tmp_path / f"{other}.py").write_text("import torchvision")
    code = (
        "import warnings, sys\n"
        "from ierf.extras import extra\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        f"    extra({package!r}, {package!r}), extra('torchvision', 'torchvision')\n"
        "print(sum('built for another torch' in str(one.message) for one in said))\n"
        "print(sys.modules['torchvision'].__file__)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["1", str(fake / "__init__.py")], done.stderr


def test_deep_json_is_one_sentence(tmp_path: Path) -> None:
    labels, header = tmp_path / "labels.json", b'{"a":' * 200_000
    labels.write_text("[" * 200_000)
    with pytest.raises(IerfError, match="holds no labels"):
        read_labels(labels)
    (tmp_path / "net.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(IerfError, match=r"net\.safetensors"):
        load(f"file:{tmp_path}/net.safetensors?{ARCH}")


def test_available_names_every_source_even_without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = {offer.source: offer for offer in available()}
    assert list(offers) == ["bundled", "timm", "torchvision", "hf", "open_clip", "file"]
    assert "resnet18-tiny" in offers["bundled"].examples

    def without(name: str, package: str | None = None) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras.importlib, "import_module", without)
    offers = {offer.source: offer for offer in available()}
    assert "pip install 'ierf[timm]'" in offers["timm"].examples
    assert "pip install 'ierf[torchvision]'" in offers["torchvision"].examples
    assert "pip install 'ierf[open_clip]'" in offers["open_clip"].examples


def test_hf_processors() -> None:
    half = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    vit = half | {"size": {"height": 224, "width": 192}}
    dino = half | {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
    convnext = half | {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}
    large = half | {"size": {"shortest_edge": 384}, "crop_pct": 1.0}
    edge = half | {"size": {"shortest_edge": 224}}
    read = from_transformers.preprocess_from
    triple = (0.5, 0.5, 0.5)
    assert read(vit) == Preprocess((224, 192), None, triple, triple, "bilinear")
    assert read(dino) == Preprocess((224, 224), 256, triple, triple, "bilinear")
    assert read(convnext) == Preprocess((224, 224), 256, triple, triple, "bicubic")
    assert read(large) == Preprocess((384, 384), None, triple, triple, "bilinear")
    assert read(edge) == Preprocess((224, 224), 224, triple, triple, "bilinear")
    assert read(half | {"size": 32}) == Preprocess((32, 32), None, triple, triple, "bilinear")
    with pytest.raises(IerfError, match="BGR"):
        read(vit | {"do_flip_channel_order": True})


def test_hf_pixels_on_another_scale() -> None:
    config = {
        "size": 8,
        "do_normalize": True,
        "image_mean": [1, 1, 1],
        "image_std": [1, 1, 1],
        "rescale_factor": 1 / 127.5,
    }
    x = from_transformers.preprocess_from(config)(Image.new("RGB", (8, 8), (0, 255, 51)))
    torch.testing.assert_close(x[:, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))


def test_hf_from_a_folder(tmp_path: Path, chelsea: Image.Image) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "fish"},
    )
    net = transformers.ViTForImageClassification(config).eval()
    net.save_pretrained(tmp_path)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    model = load(f"hf:{tmp_path}")
    x = processor(chelsea, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(model.prepare(chelsea), x, rtol=0, atol=2.01 / 255 / 0.5)
    torch.testing.assert_close(model(x), net(x).logits)
    assert model.labels == ("cat", "dog", "fish")
    with pytest.raises(IerfError, match="no file"):
        load(f"hf:{tmp_path / 'nothing'}")


def _filled(n_classes: int = 100) -> nn.Module:
    torch.manual_seed(1)
    return resnet18_tiny(n_classes).eval()


@pytest.mark.parametrize("kind", ["safetensors", "pt", "wrapped", "parallel"])
def test_file(tmp_path: Path, kind: str) -> None:
    net = _filled(7)
    state = net.state_dict()
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file({name: tensor for name, tensor in state.items() if "num_batches" not in name}, path)
    elif kind == "pt":
        torch.save(state, path)
    elif kind == "wrapped":
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        torch.save({"model": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    model = load(f"file:{path}?{ARCH}")
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model(x), net(x))
    assert model.labels is None
    assert model.preprocess.size == (64, 64)


def test_file_for_a_network_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet", num_classes=3).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "labels.txt").write_text("cat\ndog\nfish\n")
    model = load(f"file:{tmp_path}/w.safetensors?arch=timm:test_resnet&labels={tmp_path}/labels.txt")
    x = torch.rand(1, 3, 96, 96)
    torch.testing.assert_close(model(x), net(x))
    assert model.labels == ("cat", "dog", "fish")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(IerfError, match="names 2 classes, the network has 3"):
        load(f"file:{tmp_path}/w.safetensors?arch=timm:test_resnet&labels={tmp_path}/labels.txt")


def test_file_that_does_not_fit(tmp_path: Path) -> None:
    state = _filled().state_dict()
    state["stem.weight"] = state.pop("conv1.weight")
    state["bn1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(IerfError) as caught:
        load(f"file:{tmp_path}/w.pt?{ARCH}")
    for part in ["lacks conv1.weight", "unexpected stem.weight", "other shapes for bn1.bias (3 for 32)"]:
        assert part in str(caught.value)
    torch.save({"layer1": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(IerfError, match=r"lacks conv1\.weight, bn1\.weight, bn1\.bias and \d+ more"):
        load(f"file:{tmp_path}/w.pt?{ARCH}")


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"conv1.weight": _Evil()}}, "evil.pt")
    with pytest.raises(IerfError, match="would run code when read, so it is refused"):
        load(f"file:evil.pt?{ARCH}")
    assert not Path("ran").exists()
    torch.save(nn.Linear(1, 1), "module.pt")
    with pytest.raises(IerfError, match="would run code"):
        load(f"file:module.pt?{ARCH}")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"junk", b"PK\x03\x04broken"])
def test_a_file_that_is_no_weights(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(IerfError, match="is not a") as caught:
        load(f"file:{tmp_path / name}?{ARCH}")
    assert "\n" not in str(caught.value)


def test_file_mistakes(tmp_path: Path) -> None:
    torch.save({"accuracy": 0.5}, tmp_path / "w.pt")
    with pytest.raises(IerfError, match="holds no state dict"):
        load(f"file:{tmp_path}/w.pt?{ARCH}")
    with pytest.raises(IerfError, match=r"did you mean w\.pt"):
        load(f"file:{tmp_path}/v.pt?{ARCH}")
    torch.save(_filled().state_dict(), tmp_path / "w.pt")
    with pytest.raises(IerfError, match="needs its network's name"):
        load(f"file:{tmp_path}/w.pt")
    with pytest.raises(UnknownNameError, match="no source of networks 'hf'"):
        load(f"file:{tmp_path}/w.pt?arch=hf:x/y")


@pytest.mark.parametrize(
    "content", [["a", "b"], {"0": "a", "1": "b"}, {"1": "b", "0": "a"}, {"classes": [{"name": "a"}, {"name": "b"}]}]
)
def test_labels_in_json(tmp_path: Path, content: object) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert read_labels(tmp_path / "labels.json") == ["a", "b"]


@pytest.mark.parametrize("content", ["{", '{"a": "b"}', "[1, 2]", "3"])
def test_labels_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(IerfError, match="holds no labels"):
        read_labels(tmp_path / "labels.json")


def test_timm_crops() -> None:
    config = {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    assert from_timm.preprocess_from(config | {"crop_pct": 0.875, "crop_mode": "center"}).resize == 256
    assert from_timm.preprocess_from(config | {"crop_pct": 1.0, "crop_mode": "squash"}).resize is None


def test_torchvision_presets() -> None:
    preset = SimpleNamespace(
        crop_size=[224],
        resize_size=[232],
        mean=[0.1] * 3,
        std=[0.2] * 3,
        interpolation=SimpleNamespace(value="bilinear"),
    )
    expected = Preprocess((224, 224), 232, (0.1,) * 3, (0.2,) * 3, "bilinear")
    assert from_torchvision.preprocess_from(preset) == expected
