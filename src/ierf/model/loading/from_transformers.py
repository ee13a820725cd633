"""`hf:` — image classifiers and backbones of the transformers library, from the hub or from a folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.extras import explained, extra, hub, not_here
from ierf.files import missing
from ierf.model.loading.source import Source, Spec, wants_random_weights
from ierf.model.preprocess import Channels, Interpolation, Preprocess
from ierf.model.vision_model import VisionModel

_INTERPOLATIONS: dict[int, Interpolation] = {
    Image.Resampling.NEAREST: "nearest",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
    Image.Resampling.LANCZOS: "lanczos",
}
_SQUASHED_FROM = 384  # ConvNeXt's processor crops below this edge and squashes from there on


def load(spec: Spec) -> VisionModel:
    """The network of `OWNER/NAME` or of a local folder.

    A checkpoint without a classifier is loaded as a backbone, whose pooled features take the place of logits; of one
    for images and text, the image tower. Raises `IerfError` for a checkpoint that leaves part of the network unfilled.
    """
    transformers = extra("transformers", "transformers")
    name = _repository_or_folder(spec.name)
    random = wants_random_weights(spec)
    try:
        with hub(), _without_bars(transformers):
            return _fetched(transformers, name, random)
    except OSError as error:
        raise _not_loaded(spec, str(error)) from None
    except ValueError as error:
        raise IerfError(f"transformers cannot load {spec.name!r} as a vision model: {_first(str(error))}") from None
    except (ImportError, RuntimeError) as error:
        raise explained(error, "transformers") from None


def preprocess_from(config: dict[str, Any]) -> Preprocess:
    """An image processor's configuration; a short edge without a crop becomes a square from the centre.

    Raises `IerfError` for a processor that reorders the channels or cuts the picture into patches, which `Preprocess`
    cannot express.
    """
    if config.get("do_flip_channel_order"):
        raise IerfError("this checkpoint takes BGR pixels, which ierf does not offer; look for the network at timm:")
    if "max_num_patches" in config:
        raise IerfError("this checkpoint takes patches in place of pixels; choose the one of a fixed size in pixels")
    size, resize = _geometry(config)
    white = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0
    normalised = config.get("do_normalize", True)
    return Preprocess(
        size,
        resize,
        mean=_scaled(config["image_mean"] if normalised else (0, 0, 0), white),
        std=_scaled(config["image_std"] if normalised else (1, 1, 1), white),
        interpolation=_INTERPOLATIONS.get(config.get("resample", Image.Resampling.BILINEAR), "bilinear"),
    )


def labels_of(id2label: dict[int, str]) -> list[str]:
    """The class names in the order of their indices."""
    return [id2label[index] for index in sorted(id2label)]


def _geometry(config: dict[str, Any]) -> tuple[tuple[int, int], int | None]:
    """(height, width) of the input, and the length of the short side before the crop (None: squashed)."""
    edge, sides = _edge_and_sides(config.get("size") or 224)
    crop_pct = config.get("crop_pct")
    if crop_pct and edge < _SQUASHED_FROM:
        return sides, int(edge / crop_pct)
    if config.get("do_center_crop") and config.get("crop_size"):
        return _edge_and_sides(config["crop_size"])[1], edge
    keeps_aspect = isinstance(config.get("size"), dict) and "shortest_edge" in config["size"]
    return sides, edge if keeps_aspect and not crop_pct else None


def _edge_and_sides(size: int | dict[str, int]) -> tuple[int, tuple[int, int]]:
    """The short edge and (height, width) of a size given as a number, a short edge, or both sides."""
    if isinstance(size, dict) and "height" in size:
        return min(size["height"], size["width"]), (size["height"], size["width"])
    edge = size["shortest_edge"] if isinstance(size, dict) else size
    return edge, (edge, edge)


def _scaled(values: Sequence[float], white: float) -> Channels:
    """Per-channel values on the scale where white is 1."""
    return tuple(value / white for value in values)


def _fetched(transformers: Any, name: str, random: bool) -> VisionModel:
    config = transformers.AutoConfig.from_pretrained(name)
    preprocess = preprocess_from(transformers.AutoImageProcessor.from_pretrained(name).to_dict())
    labels = None
    if any("ForImageClassification" in saved for saved in config.architectures or ()):
        kind, labels = transformers.AutoModelForImageClassification, labels_of(config.id2label)
    else:
        kind, config = _backbone(transformers, config)
    net = getattr(kind, "from_config", kind)(config) if random else _filled(kind, name, config)
    return VisionModel(net.float(), preprocess, labels, name)


def _backbone(transformers: Any, config: Any) -> tuple[Any, Any]:
    """The class that turns pictures into features, with its configuration: of an image-text model, the image tower."""
    vision = getattr(config, "vision_config", None)
    if vision is None:
        vision = config
        names = [saved for saved in config.architectures or () if saved.endswith("VisionModelWithProjection")]
    else:
        vision.projection_dim = getattr(config, "projection_dim", None)
        family = type(config).__name__.removesuffix("Config")
        names = [f"{family}VisionModelWithProjection", f"{family}VisionModel"]
    kinds = (getattr(transformers, name) for name in names if hasattr(transformers, name))
    return next(kinds, transformers.AutoModel), vision


def _filled(kind: Any, name: str, config: Any) -> Any:
    """The network with the checkpoint's weights; a pooler that the checkpoint lacks gives way to the class token."""
    net, report = kind.from_pretrained(name, config=config, output_loading_info=True)
    lacks = sorted(report["missing_keys"])
    if lacks == ["pooler.dense.bias", "pooler.dense.weight"]:
        net.pooler = _ClassToken()
    elif lacks:
        raise IerfError(f"{name!r} does not fill {type(net).__name__}: it lacks {', '.join(lacks[:3])}")
    return net


class _ClassToken(nn.Module):
    """The first token, as features of the whole picture. (N, P, C) → (N, C)."""

    def forward(self, tokens: Float[Tensor, "N P C"]) -> Float[Tensor, "N C"]:
        return tokens[:, 0]


def _repository_or_folder(name: str) -> str:
    """A repository's name as it is; a name that can only be a path must exist."""
    path = Path(name).expanduser()
    if (name.startswith(".") or path.is_absolute()) and not path.exists():
        raise missing(path)
    return str(path) if path.exists() else name


@contextmanager
def _without_bars(transformers: Any) -> Iterator[None]:
    """No progress bar for filling the network; downloads keep theirs."""
    log = transformers.utils.logging
    enabled = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    extra("huggingface_hub.utils", "transformers").enable_progress_bars()
    try:
        yield
    finally:
        if enabled:
            log.enable_progress_bar()


def _not_loaded(spec: Spec, message: str) -> IerfError:
    if "connect" in message or "cached" in message:
        return not_here(spec.text, "the Hugging Face hub")
    return IerfError(f"transformers cannot load {spec.name!r}: {_first(message)}")


def _first(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else "no reason given"


TRANSFORMERS = Source(
    load=load,
    untrained=None,
    options=("weights",),
    what="transformers' image classifiers and backbones",
    names=list,
    examples=lambda: "google/vit-base-patch16-224, facebook/dinov2-small, a local folder, …",
    home="Hugging Face hub",
)
