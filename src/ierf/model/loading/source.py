"""What every place that models come from has to offer."""

from collections.abc import Callable
from dataclasses import dataclass

from ierf.errors import UnknownNameError
from ierf.model.loading.spec import Spec
from ierf.model.vision_model import VisionModel


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
