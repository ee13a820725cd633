"""What every source of models shares: the address `source:name?option=value`, and what a source has to offer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ierf.errors import IerfError, UnknownNameError
from ierf.model.vision_model import VisionModel


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


@dataclass(frozen=True)
class Source:
    """A place that models come from.

    `load` gets the model that an address names. `untrained` builds one with random weights and the given number of
    classes (None: as many as the name implies); None where networks cannot be built by name alone. `options` are the
    names that may follow the question mark. `names` lists what can be loaded, as far as that is known here; `what`,
    `examples` and `home` fill its row in a table.
    """

    load: Callable[[Spec], VisionModel]
    untrained: Callable[[str, int | None], VisionModel] | None
    options: tuple[str, ...]
    what: str
    names: Callable[[], list[str]]
    examples: Callable[[], str]
    home: str


def wants_random_weights(spec: Spec) -> bool:
    """Whether the address ends in `?weights=random`. Raises `IerfError` for any other value."""
    weights = spec.options.get("weights")
    if weights not in (None, "random"):
        raise UnknownNameError("kind of weights", weights, ["random"])
    return weights == "random"
