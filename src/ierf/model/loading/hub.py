"""Weights that live elsewhere: quick to find out whether that place answers, and quiet about it."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ierf.errors import IerfError
from ierf.model.loading.extras import extra

SECONDS = 5.0


def not_here(spec: str, place: str) -> IerfError:
    """The error for weights that are neither on this machine nor within reach."""
    return IerfError(
        f"the weights of {spec!r} are not cached on this machine and {place} cannot be reached; "
        "connect once to fetch them, or use an untrained network (timm:resnet18?weights=random), "
        "weights of your own (file:PATH?arch=timm:resnet18), or bundled:resnet18-tiny"
    )


def answers(url: str) -> bool:
    """Whether the server of `url` answers within a few seconds, whatever it says."""
    try:
        urlopen(Request(url, method="HEAD"), timeout=SECONDS).close()
    except HTTPError:
        return True
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False
    return True


@contextmanager
def hub() -> Iterator[None]:
    """The Hugging Face hub without log noise: offline, that is from the cache alone, where it does not answer."""
    constants: Any = extra("huggingface_hub.constants", "timm")
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm", "transformers", "httpx")]
    levels = [logger.level for logger in loggers]
    offline = constants.HF_HUB_OFFLINE
    try:
        constants.HF_HUB_OFFLINE = offline or not answers(constants.ENDPOINT)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
