"""`torchvision:` — torchvision's classification models with their default weights."""

from pathlib import Path
from typing import Any

import torch

from ierf.errors import UnknownNameError
from ierf.extras import answers, extra, not_here
from ierf.model.loading.source import Source, Spec, wants_random_weights
from ierf.model.preprocess import Preprocess
from ierf.model.vision_model import VisionModel


def load(spec: Spec) -> VisionModel:
    """The network of that name with its default weights, or untrained if the address asks for it."""
    if wants_random_weights(spec):
        return untrained(spec.name, None)
    models = _models(spec.name)
    weights = models.get_model_weights(spec.name).DEFAULT
    if not _cached(weights.url) and not answers(weights.url):
        raise not_here(spec.text, "PyTorch's server")
    try:
        net = models.get_model(spec.name, weights=weights)
    except OSError:
        raise not_here(spec.text, "PyTorch's server") from None
    return _wrapped(net, weights, None, spec.name)


def untrained(name: str, n_classes: int | None) -> VisionModel:
    """The network of that name with random weights and the preprocessing of its default weights."""
    models = _models(name)
    weights = models.get_model_weights(name).DEFAULT
    classes = {} if n_classes is None else {"num_classes": n_classes}
    auxiliary = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return _wrapped(models.get_model(name, weights=None, **classes, **auxiliary), weights, n_classes, name)


def preprocess_from(transforms: Any) -> Preprocess:
    """torchvision's classification preset."""
    crop = transforms.crop_size * 2 if len(transforms.crop_size) == 1 else transforms.crop_size
    return Preprocess(
        size=(crop[0], crop[1]),
        resize=transforms.resize_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


def _models(name: str) -> Any:
    models = extra("torchvision.models", "torchvision")
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownNameError("torchvision model", name, known)
    return models


def _wrapped(net: Any, weights: Any, n_classes: int | None, name: str) -> VisionModel:
    labels = weights.meta["categories"]
    fitting = labels if n_classes in (None, len(labels)) else None
    return VisionModel(net, preprocess_from(weights.transforms()), fitting, name)


def _cached(url: str) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file()


def _names() -> list[str]:
    models = extra("torchvision.models", "torchvision")
    return list(models.list_models(module=models))


def _examples() -> str:
    return f"{len(_names())}: resnet50, convnext_tiny, vit_b_16, …"


TORCHVISION = Source(
    load=load,
    untrained=untrained,
    options=("weights",),
    what="torchvision's classifiers",
    names=_names,
    examples=_examples,
    home="download.pytorch.org",
)
