"""Models by name: `bundled:`, `timm:`, `torchvision:`, `hf:`, `open_clip:` and `file:`."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch

from ierf.errors import IerfError, UnknownNameError
from ierf.model.loading.from_disk import BUNDLED, file_source
from ierf.model.loading.from_open_clip import OPEN_CLIP
from ierf.model.loading.from_timm import TIMM
from ierf.model.loading.from_torchvision import TORCHVISION
from ierf.model.loading.from_transformers import TRANSFORMERS
from ierf.model.loading.source import Source, parse
from ierf.model.vision_model import VisionModel, usable_device

__all__ = ["Offer", "available", "find_models", "load"]

_NAMED: dict[str, Source] = {
    "bundled": BUNDLED,
    "timm": TIMM,
    "torchvision": TORCHVISION,
    "hf": TRANSFORMERS,
    "open_clip": OPEN_CLIP,
}

SOURCES: dict[str, Source] = {**_NAMED, "file": file_source(_NAMED)}

SEED = 0


def load(spec: str, device: str | torch.device = "cpu") -> VisionModel:
    """The model at `source:name`, in eval mode, with its own preprocessing and labels.

    Sources: `bundled:resnet18-tiny`, `timm:NAME[.TAG]`, `torchvision:NAME`, `hf:OWNER/NAME` or `hf:FOLDER`,
    `open_clip:NAME[/TAG]`, and `file:PATH?arch=SOURCE:NAME[&labels=FILE]` for a state dict in `.safetensors` or `.pt`.
    `?weights=random` behind a name of timm, torchvision, hf or open_clip gives that network untrained, the same at
    every call. The caller's random numbers are not disturbed. Raises `IerfError` in one sentence for whatever is
    missing.
    """
    parsed = parse(spec)
    if parsed.source not in SOURCES:
        raise UnknownNameError("source of models", parsed.source, SOURCES)
    source = SOURCES[parsed.source]
    for option in parsed.options:
        if option not in source.options:
            raise UnknownNameError(f"option of {parsed.source} models", option, source.options)
    target = usable_device(device)
    with _own_random_numbers():
        model = source.load(parsed)
    model.net.eval().to(target)
    model.name = parsed.text
    return model


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """The same random numbers for every model that is built on the CPU, and none taken from the caller."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        yield


class Offer(NamedTuple):
    """One row of the table of models: the word before the colon, what it gives, how many or which, where from."""

    source: str
    what: str
    examples: str
    home: str


def available() -> list[Offer]:
    """One row per source of models; a source whose package is missing says how to install it."""
    return [Offer(name, source.what, _examples(name), source.home) for name, source in SOURCES.items()]


def _examples(name: str) -> str:
    try:
        return SOURCES[name].examples()
    except IerfError as error:
        return str(error)


def find_models(text: str, source: str | None = None) -> list[str]:
    """Addresses that contain `text`, as `load` takes them.

    Of all sources, those whose package cannot be used have none; if it is the one that is asked for, its `IerfError`
    is raised.
    """
    return [
        f"{name}:{model}"
        for name in SOURCES
        if source in (None, name)
        for model in (_names(name) if source is None else SOURCES[name].names())
        if text.casefold() in f"{name}:{model}".casefold()
    ]


def _names(source: str) -> list[str]:
    with suppress(IerfError):
        return SOURCES[source].names()
    return []
