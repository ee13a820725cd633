"""What a user can do wrong, said in one sentence with the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class IerfError(Exception):
    """A mistake or a limit that the message explains; the command prints it without a traceback."""


class UnknownNameError(IerfError, KeyError):
    """A model, layer, class or method that does not exist; the message suggests the nearest names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"there is no {kind} {name!r}{suggestion(name, known)}")

    def __str__(self) -> str:
        return str(self.args[0])


class UnsupportedOperationError(IerfError):
    """A network does something for which the chosen method has no rule."""


def suggestion(name: str, known: Iterable[str], at_most: int = 4) -> str:
    """The end of an error message: the known names nearest to `name`, or the first few."""
    known = [str(k) for k in known]
    by_lower = {k.lower(): k for k in known}
    near = [by_lower[k] for k in get_close_matches(name.lower(), by_lower, n=at_most, cutoff=0.5)]
    near += [k for k in known if name and name.lower() in k.lower() and k not in near]
    if near:
        return f"; did you mean {', '.join(near[:at_most])}?"
    return (
        f"; there are {len(known)}: {', '.join(known[:at_most])}{', …' if len(known) > at_most else ''}"
        if known
        else ""
    )
