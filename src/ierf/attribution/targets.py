"""What to explain: a class, a channel, a PFV, a direction, a latent of an autoencoder, a relevance map."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

Position = tuple[int, ...]
"""(row, column) of a feature map or a patch, or (index,) of a token, prefix tokens included."""


@dataclass(frozen=True)
class Logit:
    """The logit of a class; a list has one class index per sample."""

    index: int | Sequence[int]


@dataclass(frozen=True)
class Channel:
    """One channel of a layer's output, summed over positions: the PFV at `i` has the relevance `a_i[index]`."""

    layer: str
    index: int | Sequence[int]


@dataclass(frozen=True)
class PFV:
    """One pointwise feature vector with relevance 1: its iERF. A list has one position per sample."""

    layer: str
    position: int | Position | Sequence[Position]


@dataclass(frozen=True)
class Direction:
    """A linear direction `d` at a layer: the PFV at `i` has the relevance `⟨a_i, d⟩`.

    `vector` is (C,), or (N, C) with one direction per sample; `position` restricts it to one PFV (of each sample).
    """

    layer: str
    vector: Float[Tensor, "*N C"]
    position: int | Position | Sequence[Position] | None = None


@dataclass(frozen=True)
class Relevance:
    """A given relevance map at a layer, (N, H, W): one scalar for each PFV.

    For tokens (N, T), or (N, rows, columns) of the patches: then prefix tokens have none.
    """

    layer: str
    map: Float[Tensor, "N ..."]


class Encoder(Protocol):
    """What a sparse autoencoder has to offer to be explained."""

    def pre_activations(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """Each latent before anything is set to 0, differentiable."""


@dataclass(frozen=True)
class Latent:
    """A latent of a sparse autoencoder at a layer: the pre-activation `π_k` of one PFV of each sample.

    A list `index` has one latent per sample. `position` None is where the latent is strongest in the sample, at class
    and register tokens too. PFVs are what entered the layer's last activation function, if it ends with one.
    """

    layer: str
    sae: Encoder
    index: int | Sequence[int]
    position: int | Position | Sequence[Position] | None = None


LogitFunction = Callable[[Float[Tensor, "N K"]], Float[Tensor, " N"]]
"""Any differentiable function of the logits, one number per sample."""

Target = None | int | Sequence[int] | Logit | Channel | PFV | Direction | Latent | Relevance | LogitFunction
"""None is the predicted class."""
