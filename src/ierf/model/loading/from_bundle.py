"""`bundled:` — the checkpoints inside the package: no network needed."""

import json
from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any

from torch import nn

from ierf.errors import UnknownNameError
from ierf.model.bundled.resnet import resnet18_tiny
from ierf.model.bundled.vit import vit_tiny
from ierf.model.bundled.world_cnn import world_cnn
from ierf.model.bundled.world_vit import world_vit
from ierf.model.loading.source import Source
from ierf.model.loading.spec import Spec
from ierf.model.preprocess import Preprocess
from ierf.model.vision_model import VisionModel

_FOLDER = files("ierf.model.bundled")
_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet18-tiny": resnet18_tiny,
    "vit-tiny": vit_tiny,
    "world-cnn": world_cnn,
    "world-cnn-cue": world_cnn,
    "world-vit": world_vit,
    "world-vit-cue": world_vit,
}


def load(spec: Spec) -> VisionModel:
    """The bundled checkpoint, in float32."""
    from safetensors.torch import load_file

    model = untrained(spec.name, None)
    with as_file(_FOLDER / f"{_stem(spec.name)}.safetensors") as path:
        weights = load_file(path)
    model.net.load_state_dict({**model.net.state_dict(), **weights})
    return model


def untrained(name: str, n_classes: int | None) -> VisionModel:
    """The checkpoint's network with random weights; with its labels if it has as many classes."""
    if name not in _NETWORKS:
        raise UnknownNameError("bundled model", name, _NETWORKS)
    card = _card(name)
    labels = [entry["name"] for entry in card["classes"]]
    net = _NETWORKS[name](n_classes or len(labels))
    return VisionModel(net, _preprocess(card["input"]), labels if n_classes in (None, len(labels)) else None, name)


def _preprocess(config: dict[str, Any]) -> Preprocess:
    return Preprocess(
        size=(config["size"], config["size"]),
        resize=config["resize"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
    )


def _card(name: str) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((_FOLDER / f"{_stem(name)}.json").read_text())
    return card


def _stem(name: str) -> str:
    return name.replace("-", "_")


BUNDLED = Source(
    load=load,
    untrained=untrained,
    options=(),
    what="checkpoints inside the package",
    names=lambda: list(_NETWORKS),
    examples=lambda: ", ".join(_NETWORKS),
    home="this package",
)
