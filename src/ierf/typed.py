"""JSON that must have the types of dataclasses: what a file says is believed field by field, or refused by name."""

import json
import math
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    bool: "true or false",
    bytes: "base64",
    NoneType: "null",
}


class FieldError(ValueError):
    """A field that is missing, unknown or of another type; the message names it."""


def parsed(content: bytes | str) -> Any:
    """What JSON says. Raises `FieldError` for what is none, has NaN in it, or is nested without end."""
    try:
        return json.loads(content, parse_constant=_refused)
    except FieldError:
        raise
    except RecursionError:
        raise FieldError("it is nested too deeply") from None
    except ValueError:
        raise FieldError("it is not JSON") from None


def typed(content: Any, cls: type[T], name: str = "") -> T:
    """What was read as a dataclass: lists become tuples, base64 becomes bytes. Raises `FieldError`."""
    found: T = _typed(content, cls, name)
    return found


def recorded(value: Any) -> dict[str, Any]:
    """A dataclass as `typed` reads it, by the names that files have: `metadata={"in files": NAME}`, or fields' own."""
    names = {one.name: _in_files(one) for one in fields(value)}
    return {names[name]: content for name, content in asdict(value).items()}


def _in_files(one: Field[Any]) -> str:
    return str(one.metadata.get("in files", one.name))


def _typed(value: Any, hint: Any, name: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _one_of(value, args, name)
    if origin is Literal:
        if not any(type(value) is type(one) and value == one for one in args):
            raise _wrong(value, name, " or ".join(map(repr, args)))
        return value
    if origin in (tuple, list, Sequence):
        return _items(value, args, name)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _wrong(value, name, "an object")
        return {key: _typed(one, args[1], _under(name, key)) for key, one in value.items()}
    if is_dataclass(hint) and isinstance(hint, type):
        return _object(value, hint, name)
    return _plain(value, hint, name)


def _one_of(value: Any, hints: Sequence[Any], name: str) -> Any:
    if value is None and NoneType in hints:
        return None
    others = [hint for hint in hints if hint is not NoneType]
    for hint in others[:-1]:
        try:
            return _typed(value, hint, name)
        except FieldError:
            continue
    return _typed(value, others[-1], name)


def _items(value: Any, hints: Sequence[Any], name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(value, name, "a list")
    each = [hints[0]] * len(value) if len(hints) == 1 or hints[-1] is Ellipsis else hints
    if len(each) != len(value):
        raise FieldError(f"{name or 'it'} has {len(value)} entries, not {len(each)}")
    return tuple(_typed(one, hint, f"{name}[{i}]") for i, (one, hint) in enumerate(zip(value, each, strict=True)))


def _object(value: Any, cls: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(value, name, "an object")
    hints = get_type_hints(cls)
    known = {_in_files(one): one for one in fields(cls) if one.init}
    for key in value:
        if key not in known:
            raise FieldError(f"{_under(name, key)} is unknown")
    for key, one in known.items():
        if key not in value and one.default is MISSING and one.default_factory is MISSING:
            raise FieldError(f"{_under(name, key)} is missing")
    return cls(
        **{known[key].name: _typed(one, hints[known[key].name], _under(name, key)) for key, one in value.items()}
    )


def _plain(value: Any, hint: Any, name: str) -> Any:
    good = {
        int: type(value) is int and abs(value) < 2**63,
        float: type(value) in (int, float) and abs(value) < 2**1000 and math.isfinite(value),
        str: isinstance(value, str),
        bool: isinstance(value, bool),
        bytes: isinstance(value, str),
        NoneType: value is None,
    }
    if not good[hint]:
        raise _wrong(value, name, _WORDS[hint])
    if hint is bytes:
        try:
            return b64decode(value, validate=True)
        except ValueError:
            raise _wrong(value, name, _WORDS[bytes]) from None
    return float(value) if hint is float else value


def _wrong(value: Any, name: str, expected: str) -> FieldError:
    shown = repr(value)
    return FieldError(f"{name or 'it'} is {shown if len(shown) <= 40 else shown[:39] + '…'}, not {expected}")


def _under(name: str, key: str) -> str:
    return f"{name}.{key}" if name else str(key)


def _refused(constant: str) -> None:
    raise FieldError(f"it has {constant} where a number must be")
