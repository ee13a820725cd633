"""Importing what only some installations have."""

import importlib
from types import ModuleType

from ierf.errors import IerfError
from ierf.model.loading.torchvision_operators import usable_torchvision

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
