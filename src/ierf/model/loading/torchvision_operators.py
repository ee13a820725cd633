"""A torchvision that was built for another torch than the installed one, made to import all the same."""

import importlib
import sys
import warnings
from functools import cache

import torch

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
