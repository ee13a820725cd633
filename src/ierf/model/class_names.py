"""From what a person calls a class to its index."""

from collections.abc import Callable, Sequence

from ierf.errors import IerfError, UnknownNameError


def find_class(name: str, labels: Sequence[str]) -> int:
    """The index of the label called `name`: whole or one of its comma-separated synonyms, exact spelling first.

    Case, and spaces or underscores, do not matter where the exact spelling finds nothing. A whole label goes before a
    synonym. Raises `UnknownNameError` for no match and `IerfError` for a name that several classes share.
    """
    for spelling in (str.strip, _fold):
        for names_of in (_whole, _synonyms):
            found = _matches(spelling(name), labels, spelling, names_of)
            if len(found) > 1:
                raise IerfError(
                    f"the class name {name!r} is shared by classes {_listed(found)}; give the index instead"
                )
            if found:
                return found[0]
    raise UnknownNameError("class", name, [synonym.strip() for label in labels for synonym in _synonyms(label)])


def _matches(
    name: str, labels: Sequence[str], spelling: Callable[[str], str], names_of: Callable[[str], list[str]]
) -> list[int]:
    return [index for index, label in enumerate(labels) if name in map(spelling, names_of(label))]


def _fold(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _whole(label: str) -> list[str]:
    return [label]


def _synonyms(label: str) -> list[str]:
    return label.split(",")


def _listed(indices: Sequence[int]) -> str:
    return f"{', '.join(map(str, indices[:-1]))} and {indices[-1]}"
