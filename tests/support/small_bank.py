"""A linear network whose edges are known, and concepts by hand for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from ierf.concepts.codes import Codes
from ierf.concepts.layer_concepts import ClassShares
from ierf.concepts.relaxed_lasso import refit as least_squares
from ierf.concepts.sparse_coding import lasso
from ierf.concepts.tree import ConceptTree, cluster
from ierf.errors import IerfError
from ierf.model import Preprocess, VisionModel

SIZE = 4
CHANNELS = 5


class Linear(nn.Module):
    """Two 1 × 1 convolutions, a mean, a linear layer; `gate` adds a ReLU between the convolutions."""

    def __init__(self, gate: bool = False) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.a = nn.Conv2d(3, CHANNELS, 1)
        self.gate = nn.ReLU() if gate else nn.Identity()
        self.b = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.head = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor, until: str = "logits") -> Tensor:
        a = self.a(x)
        b = self.b(self.gate(a))
        found: Tensor = {"a": a, "b": b, "logits": self.head(b.mean((2, 3)))}[until]
        return found


def model(gate: bool = False) -> VisionModel:
    return VisionModel(Linear(gate).eval().double(), Preprocess((SIZE, SIZE), None), name="linear")


def photograph(seed: int = 0, count: int = 1) -> Float[Tensor, "N 3 4 4"]:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class SmallConcepts:
    """What a graph needs of a layer's concepts."""

    name: str
    atoms: Float[Tensor, "K C"]
    shift: Float[Tensor, " C"]
    lam: float = 1e-3
    positive: bool = False
    values: str = "output"
    map: tuple[int, int] = (SIZE, SIZE)
    prefix_tokens: int | None = None

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def frequencies(self) -> Float[Tensor, " K"]:
        return torch.arange(len(self)) / 8

    @property
    def strengths(self) -> Float[Tensor, " K"]:
        return torch.arange(len(self)) + 0.5

    @property
    def relevances(self) -> Float[Tensor, " K"]:
        return torch.arange(len(self)) / 16

    @property
    def cosines(self) -> Float[Tensor, "K E"]:
        return torch.tensor([0.875, 0.75]).expand(len(self), 2)

    @property
    def class_shares(self) -> ClassShares:
        """All of concept k in photographs of class k % 3."""
        rows = torch.arange(len(self) + 1)
        return ClassShares(rows, rows[:-1] % 3, torch.ones(len(self)))

    def nearest(self, concept: int, count: int = 5) -> list[tuple[int, float]]:
        return [((concept + 1) % len(self), 0.25)]

    def concept(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IerfError(f"there is no concept {index}")
        return index

    @property
    def hierarchy(self) -> ConceptTree:
        return cluster(self.atoms)

    def encode(self, pfvs: Float[Tensor, "N P C"], refit: bool = False) -> Codes:
        x = pfvs.reshape(-1, pfvs.shape[-1]) - self.shift
        found = lasso(x, self.atoms, self.lam, self.positive)
        flat = least_squares(x, self.atoms, found, self.positive).sparse if refit else found.sparse
        shape = *pfvs.shape[:-1], -1
        return Codes(flat.indices.view(shape), flat.values.view(shape), len(self))


def plan(**sampling: Any) -> Any:
    return SimpleNamespace(extractor="by hand", store=SimpleNamespace(sampling=sampling))


@dataclass(frozen=True, eq=False)
class SmallBank:
    """What a graph needs of a bank."""

    of: Mapping[str, SmallConcepts]
    plan: Any = field(default_factory=plan)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.of)

    @property
    def store(self) -> Any:
        raise IerfError("concepts by hand have no store")

    def pictures(self, layer: str, concepts: Sequence[int], n: int) -> list[list[Image.Image]]:
        return [self.exemplar_pictures(layer, concept, n) for concept in concepts]

    def layer(self, name: str) -> SmallConcepts:
        return self.of[name]

    def label(self, index: int) -> str:
        return f"class {index}"

    def exemplar_pictures(self, layer: str, concept: int, n: int) -> list[Image.Image]:
        return [Image.new("RGB", (8, 8), (20 * concept, 40, 60))] * min(n, 4)


def bank(permutation: Tensor | None = None, keep: int = CHANNELS) -> Any:
    """The first `keep` axes as concepts of "a", in another order if wanted; a rotation of all axes for "b"."""
    generator = torch.Generator().manual_seed(3)
    rotation = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator, dtype=torch.float64)).Q
    axes = 2.0 * torch.eye(CHANNELS, dtype=torch.float64)[:keep]
    zero = torch.zeros(CHANNELS, dtype=torch.float64)
    atoms = axes if permutation is None else axes[permutation]
    return SmallBank({"a": SmallConcepts("a", atoms, zero), "b": SmallConcepts("b", rotation, zero)})
