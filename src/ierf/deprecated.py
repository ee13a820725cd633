"""Keywords by their former names: taken for one version, with a warning that says what they are called now."""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from ierf.errors import IerfError

_F = TypeVar("_F", bound=Callable[..., Any])


def renamed(_values: Mapping[Any, Any] | None = None, /, **names: str) -> Callable[[_F], _F]:
    """A function, or a class by its fields, that takes keywords by their former names too: `renamed(old="new")`.

    A class also answers to the former names of its fields. Signatures show the new names alone.

    Args:
        _values: what former values are called, where these changed with the name; values not among them stay.
        names: what each former keyword is called.
    """

    def decorate(named: _F) -> _F:
        if isinstance(named, type):
            cls: Any = named
            cls.__init__ = _taking(cls.__init__, names, _values or {})
            cls.__renamed__ = cls.__init__.__renamed__
            for old, new in names.items():
                setattr(cls, old, property(_former(old, new)))
            return named
        return _taking(named, names, _values or {})

    return decorate


def by_present_names(function: Callable[..., Any], options: Mapping[str, Any], stacklevel: int = 2) -> dict[str, Any]:
    """The options of a function under the names that it has for them now, with a warning for each former one."""
    names, values = getattr(function, "__renamed__", ({}, {}))
    found = {name: value for name, value in options.items() if name not in names}
    for old, new in names.items():
        if old not in options:
            continue
        if new in options:
            raise IerfError(f"{old} is what {new} was called; give {new} alone")
        warnings.warn(f"{old}= is called {new}= now", DeprecationWarning, stacklevel=stacklevel + 1)
        value = options[old]
        found[new] = values.get(value, value) if values else value
    return found


def _taking(function: _F, names: Mapping[str, str], values: Mapping[Any, Any]) -> _F:
    @wraps(function)
    def taking(*args: Any, **options: Any) -> Any:
        return function(*args, **by_present_names(taking, options))

    taking.__renamed__ = (names, values)  # type: ignore[attr-defined]
    return taking  # type: ignore[return-value]


def _former(old: str, new: str) -> Callable[[Any], Any]:
    def read(self: Any) -> Any:
        warnings.warn(f"{old} is called {new} now", DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    return read
