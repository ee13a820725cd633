"""What `source:name?option=value&option=value` stands for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ierf.errors import IerfError


@dataclass(frozen=True)
class Spec:
    """A model's address: where it comes from, its name there, and options."""

    text: str
    source: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)


def parse(text: str) -> Spec:
    """Take an address apart. Raises `IerfError` where the source or the name is missing or an option has no value."""
    source, colon, rest = text.strip().partition(":")
    name, _, query = rest.partition("?")
    if not colon or not source or not name:
        raise IerfError(
            f"a model is given as source:name, as in 'timm:resnet50' or 'bundled:resnet18-tiny', not {text!r}"
        )
    pairs = [option.partition("=") for option in query.split("&") if option]
    if any(not value for _, _, value in pairs):
        raise IerfError(f"an option of a model is given as ?name=value, which {text!r} does not do")
    return Spec(text.strip(), source, name, {key: value for key, _, value in pairs})
