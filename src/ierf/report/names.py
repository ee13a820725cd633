"""File names for the reports of many photographs."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

RESERVED = "index"
"""The page that leads to all reports."""


def distinct_stems(photos: Sequence[Path]) -> Iterator[str]:
    """A name for each photograph's report: the photograph's own without suffix, numbered where it comes again.

    Names that differ in case only count as the same, as some file systems have it.
    """
    taken = {RESERVED}
    for photo in photos:
        numbered = (f"{photo.stem}-{number}" if number > 1 else photo.stem for number in count(1))
        stem = next(name for name in numbered if name.casefold() not in taken)
        taken.add(stem.casefold())
        yield stem
