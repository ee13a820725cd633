"""Banks in repositories of the Hugging Face hub."""

from pathlib import Path
from typing import Any

from ierf.errors import IerfError
from ierf.model.loading.extras import extra, hub

PREFIX = "hf:"


def download(address: str) -> Path:
    """The folder of the bank at `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, from the cache where nothing changed.

    Raises `IerfError` for a repository that does not exist or cannot be reached.
    """
    name, _, revision = address.removeprefix(PREFIX).partition("@")
    package: Any = extra("huggingface_hub", "timm")
    try:
        with hub():
            return Path(package.snapshot_download(name, revision=revision or None))
    except Exception as error:
        raise _explained(f"cannot fetch the bank {address!r}", error) from None


def upload(folder: Path, name: str, message: str) -> str:
    """Put a folder into the repository OWNER/NAME, made where it is missing; returns its address.

    Raises `IerfError` where that is not possible: no token, no right to write, no network.
    """
    package: Any = extra("huggingface_hub", "timm")
    try:
        with hub():
            package.create_repo(name, exist_ok=True)
            package.upload_folder(repo_id=name, folder_path=str(folder), commit_message=message)
    except Exception as error:
        raise _explained(f"cannot put the bank into {name!r}", error) from None
    return f"{PREFIX}{name}"


def _explained(what: str, error: Exception) -> IerfError:
    return IerfError(f"{what}: {' '.join(str(error).split()) or type(error).__name__}")
