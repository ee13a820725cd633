"""Class scores out of whatever a network returns."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ierf.errors import IerfError


def logits_of(output: Any) -> Float[Tensor, "N T"]:
    """The scores in a network's output: a tensor, the first of a tuple or list, or `.logits` of an object or mapping.

    A backbone without a classifier gives `.image_embeds` or `.pooler_output`: its features stand for classes.
    Raises `IerfError` where the output holds none of these.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    for name in ("logits", "image_embeds", "pooler_output"):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    raise IerfError(
        f"the network returned {type(output).__name__}, where a tensor of class scores was expected; "
        "wrap the network in a module whose forward returns that tensor"
    )
