"""What only some installations have: optional packages, a torchvision that fits, weights that live elsewhere."""

import importlib
import logging
import ssl
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch

from ierf.errors import IerfError

_ON_TORCHVISION = ("torchvision", "timm", "transformers", "open_clip")
"""Packages that import torchvision."""


def extra(module: str, name: str) -> ModuleType:
    """The optional package `module`, which `pip install 'ierf[name]'` brings.

    Raises `IerfError` where it is missing, or where torchvision and torch are builds that do not match and
    `usable_torchvision` cannot help.
    """
    package = module.partition(".")[0]
    if package in _ON_TORCHVISION:
        usable_torchvision()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise explained(error, package) from None
        raise IerfError(f"{package} is not installed; install it with: pip install 'ierf[{name}]'") from None
    except (ImportError, RuntimeError, OSError) as error:
        raise explained(error, package) from None


def explained(error: Exception, package: str) -> IerfError:
    """One sentence for an import that failed although the package is there."""
    causes = " ".join(str(cause) for cause in _chain(error))
    if "torchvision::" in causes or _torchvision_is_broken():
        return IerfError(
            f"{package} cannot be used: the installed torchvision was built for another torch than the installed one; "
            "install a pair that matches, such as: pip install --force-reinstall torch torchvision "
            "--index-url https://download.pytorch.org/whl/cpu"
        )
    return IerfError(f"{package} is installed but its import fails: {' '.join(str(error).split())}")


def _chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_chain(error.__cause__ or error.__context__)]


def _torchvision_is_broken() -> bool:
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return False
    except (ImportError, RuntimeError, OSError):
        return True
    return False


OPERATORS = ("nms", "qnms")
"""What torchvision describes to torch on import and does not bring where its compiled part cannot be loaded."""
_DEFINED: list[torch.library.Library] = []
"""Kept: an operator is gone with its library."""


@cache
def usable_torchvision() -> bool:
    """Whether torchvision can be imported, which PyPI's cannot beside a CPU torch.

    Its compiled part does not load there, and its import ends at a description of `torchvision::nms`, an operator that
    is then unknown. It, and `qnms`, are declared, with a warning, and torchvision is imported again: networks need
    neither, and what calls them fails then. Other causes are left to whoever imports it.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            return False
    except (ImportError, OSError):
        return False
    else:
        return True
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    _DEFINED.append(library)
    for name in OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError):
        return False
    warnings.warn(
        "the installed torchvision was built for another torch than the installed one: networks run, its compiled "
        "operators (non-maximum suppression, RoI pooling) do not; for those install a pair that matches, such as: pip "
        "install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu",
        stacklevel=2,
    )
    return True


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
