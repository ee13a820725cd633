"""Which concepts of a layer become nodes: the most important of each class, and those that all classes share."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

TOP = 5
SHARED = 3


@dataclass(frozen=True)
class Choice:
    """Concepts of one layer, in the order in which they were chosen."""

    own: tuple[int, ...]
    """Among the most important of a class."""
    shared: tuple[int, ...]
    """Important to every class; may be among `own` too."""

    @property
    def all(self) -> tuple[int, ...]:
        """Each concept once."""
        return tuple(dict.fromkeys(self.own + self.shared))


def choose(importance: Float[Tensor, "T K"], top: int = TOP, shared: int = SHARED) -> Choice:
    """The `top` concepts of each class by importance, and the `shared` ones by their least importance over classes.

    A concept without positive importance is not chosen. With one class nothing is shared. (VI, Fig. 9)
    """
    own = tuple(dict.fromkeys(k for of_class in importance for k in _best(of_class, top)))
    common = _best(importance.amin(0), shared) if len(importance) > 1 else ()
    return Choice(own, common)


def _best(values: Float[Tensor, " K"], count: int) -> tuple[int, ...]:
    """The places of the largest positive values, the largest first."""
    found = values.topk(min(count, len(values)))
    return tuple(k for k, value in zip(found.indices.tolist(), found.values.tolist(), strict=True) if value > 0)
