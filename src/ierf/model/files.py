"""Finding files, and saying which ones are near where one is missing."""

from collections.abc import Sequence
from pathlib import Path

from ierf.errors import IerfError, suggestion

IMAGE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    }
)


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """The image files that `paths` stand for: files as they are, folders searched recursively, each folder sorted.

    Hidden files are left out of a folder. Raises `IerfError` for a folder without images and for a path that does not
    exist, with the names nearest to it.
    """
    return [image for path in paths for image in _images_at(Path(path))]


def missing(path: Path) -> IerfError:
    """The error for a path that does not exist, with the names nearest to it in the folder where it should be."""
    folder = path.parent
    if not folder.is_dir():
        return IerfError(f"there is no file {str(path)!r}: its folder does not exist")
    names = sorted(entry.name for entry in folder.iterdir())
    return IerfError(f"there is no file {str(path)!r}{suggestion(path.name, names)}")


def _images_at(path: Path) -> list[Path]:
    if not path.exists():
        raise missing(path)
    if not path.is_dir():
        return [path]
    images = sorted(file for file in path.rglob("*") if _is_image(file))
    if not images:
        raise IerfError(f"the folder {str(path)!r} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
