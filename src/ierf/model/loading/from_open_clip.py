"""`open_clip:` — the image towers of OpenCLIP's image-text models, with weights from the Hugging Face hub."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ierf.errors import IerfError, UnknownNameError
from ierf.extras import extra, hub, not_here
from ierf.model.loading.source import Source, Spec, wants_random_weights
from ierf.model.preprocess import Preprocess
from ierf.model.vision_model import VisionModel
from ierf.muted import muted


def load(spec: Spec) -> VisionModel:
    """The image tower of `MODEL/TAG`; without a tag, of the first one that open_clip lists for the model.

    The embedding, before it is scaled to length one, takes the place of logits.
    """
    open_clip = extra("open_clip", "open_clip")
    random = wants_random_weights(spec)
    name, tag = _name_and_tag(open_clip, spec.name)
    if not (tag or random):
        raise IerfError(f"open_clip has no weights for {name!r}; ?weights=random behind the name gives it untrained")
    config = open_clip.get_pretrained_cfg(name, tag)
    with hub(), _quiet():
        try:
            if not random:
                open_clip.download_pretrained(config)
            clip = open_clip.create_model(
                name,
                None if random else tag,
                force_quick_gelu=config.get("quick_gelu", False),
                force_preprocess_cfg=config,
                pretrained_hf=False,
            )
        except OSError:
            raise not_here(spec.text, "the server that has them") from None
        except RuntimeError as error:
            raise IerfError(f"open_clip cannot build {spec.name!r}: {' '.join(str(error).split())}") from None
    return VisionModel(clip.visual, preprocess_from(open_clip.get_model_preprocess_cfg(clip)), None, spec.name)


def preprocess_from(config: Mapping[str, Any]) -> Preprocess:
    """open_clip's preprocessing: the short side resized to the input's, or both sides squashed.

    Raises `IerfError` for a photograph padded to a square, which `Preprocess` cannot express.
    """
    if config["resize_mode"] == "longest":
        raise IerfError("this checkpoint takes padded photographs, which ierf does not offer; crop them and use timm:")
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return Preprocess(
        size=(height, width),
        resize=None if config["resize_mode"] == "squash" else min(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation="bicubic" if config["interpolation"] == "random" else config["interpolation"],
    )


def _name_and_tag(open_clip: Any, text: str) -> tuple[str, str]:
    """The model and its tag, "" where it has none. Raises `UnknownNameError` where open_clip knows no such pair."""
    name, _, tag = text.partition("/")
    known = open_clip.list_models()
    if name not in known:
        raise UnknownNameError("open_clip model", text, known)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag and not open_clip.is_pretrained_cfg(name, tag):
        raise UnknownNameError("open_clip model", text, [f"{name}/{known}" for known in tags] or [name])
    return name, tag or next(iter(tags), "")


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip logs by the root logger, which sets it up: it is kept silent and handed back as it was."""
    root, handler = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.CRITICAL)
    try:
        with muted():
            yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _names() -> list[str]:
    return [f"{name}/{tag}" for name, tag in extra("open_clip", "open_clip").list_pretrained()]


def _examples() -> str:
    return f"{len(_names())}: ViT-B-32/laion2b_s34b_b79k, ViT-B-16-SigLIP/webli, …"


OPEN_CLIP = Source(
    load=load,
    untrained=None,
    options=("weights",),
    what="the image towers of OpenCLIP",
    names=_names,
    examples=_examples,
    home="Hugging Face hub",
)
