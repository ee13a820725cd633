"""`timm:` — pytorch-image-models, with weights from the Hugging Face hub."""

from typing import Any

from ierf.errors import IerfError, UnknownNameError
from ierf.extras import answers, extra, hub, not_here
from ierf.model.loading.source import Source, Spec, wants_random_weights
from ierf.model.preprocess import Preprocess
from ierf.model.vision_model import VisionModel


def load(spec: Spec) -> VisionModel:
    """The pretrained network of that name, or the untrained one if the address asks for it."""
    if wants_random_weights(spec):
        return untrained(spec.name, None)
    timm = extra("timm", "timm")
    config = _config(timm, spec.name)
    if not (config.hf_hub_id or config.url):
        raise IerfError(f"timm has no weights for {spec.name!r}; ?weights=random behind the name gives it untrained")
    with hub():
        if not config.hf_hub_id and not answers(config.url):
            raise not_here(spec.text, "the server that has them")
        try:
            net = timm.create_model(spec.name, pretrained=True)
        except OSError:
            raise not_here(spec.text, "the Hugging Face hub") from None
    return _wrapped(net, spec.name)


def untrained(name: str, n_classes: int | None) -> VisionModel:
    """The network of that name with random weights."""
    timm = extra("timm", "timm")
    _config(timm, name)
    return _wrapped(timm.create_model(name, **({} if n_classes is None else {"num_classes": n_classes})), name)


def preprocess_from(config: dict[str, Any]) -> Preprocess:
    """timm's data configuration: `crop_pct` is the part of the resized short side that is kept."""
    _, height, width = config["input_size"]
    squash = config["crop_mode"] == "squash"
    return Preprocess(
        size=(height, width),
        resize=None if squash else int(min(height, width) / config["crop_pct"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation="bicubic" if config["interpolation"] == "random" else config["interpolation"],
    )


def _config(timm: Any, name: str) -> Any:
    """The configuration of a name with or without a tag. Raises `UnknownNameError` where there is none."""
    known = timm.list_models()
    architecture, _, tag = name.partition(".")
    if architecture not in known:
        raise UnknownNameError("timm model", name, known)
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in tagged:
        raise UnknownNameError("timm model", name, tagged or [architecture])
    return timm.models.get_pretrained_cfg(name, allow_unregistered=True) or timm.models.PretrainedCfg()


def _wrapped(net: Any, name: str) -> VisionModel:
    data = extra("timm.data", "timm")
    labels = data.ImageNetInfo().label_descriptions() if net.num_classes == 1000 else None
    return VisionModel(net, preprocess_from(data.resolve_model_data_config(net)), labels, name)


def _names() -> list[str]:
    return list(extra("timm", "timm").list_models(pretrained=True))


def _examples() -> str:
    return f"{len(_names())}: resnet50.a1_in1k, vit_base_patch16_224.augreg_in21k_ft_in1k, …"


TIMM = Source(
    load=load,
    untrained=untrained,
    options=("weights",),
    what="pytorch-image-models",
    names=_names,
    examples=_examples,
    home="Hugging Face hub",
)
