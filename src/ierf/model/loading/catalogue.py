"""What can be loaded here."""

from contextlib import suppress
from typing import NamedTuple

from ierf.errors import IerfError
from ierf.model.loading.sources import SOURCES


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


def find(text: str, source: str | None = None) -> list[str]:
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
