"""The front door: a model from its address."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ierf.errors import IerfError, UnknownNameError
from ierf.model.loading.sources import SOURCES
from ierf.model.loading.spec import parse
from ierf.model.vision_model import VisionModel

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
    target = _device(device)
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


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise IerfError(f"the device {str(device)!r} cannot be used here: {reason}") from None
    return found
