"""Photographs written with concepts: each layer's PFVs, their codes, and what the codes give back (Eq. 11–12)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from ierf.concepts import lasso, refit
from ierf.errors import IerfError
from ierf.graph.building.tree_cut import membership
from ierf.graph.influence.layer_objective import Reconstruction
from ierf.graph.picture.drawing import png
from ierf.model import ImageLike, Values, VisionModel, capture

if TYPE_CHECKING:
    from ierf.concepts import ConceptBank, LayerConcepts


Photographs = Tensor | ImageLike | Sequence[ImageLike]
"""Prepared pixels (N, 3, H, W), a photograph, or several."""


class OpenedPhotographs:
    """Photographs of a model by number; those from files are read when they are asked for."""

    def __init__(self, model: VisionModel, photographs: Tensor | Sequence[ImageLike]) -> None:
        self._model, self._photographs = model, photographs

    def __len__(self) -> int:
        return len(self._photographs)

    def x(self, index: int) -> Float[Tensor, "1 3 H W"]:
        """The pixels as the network takes them."""
        if isinstance(self._photographs, Tensor):
            return self._photographs[index : index + 1].to(self._model.device, self._model.dtype)
        return self._model.prepare(self._photographs[index])

    @property
    def name(self) -> str:
        """The file's name, or how many there are."""
        if len(self) > 1:
            return f"{len(self)} photographs"
        one = self._photographs[0]
        return Path(one).name if isinstance(one, str | Path) else "photograph"

    @property
    def view(self) -> bytes:
        """A single photograph as the network sees it, a PNG file; nothing for several."""
        if len(self) > 1:
            return b""
        return png(self._model.preprocess.picture(self.x(0)[0]))


def open_photographs(model: VisionModel, photographs: Photographs) -> OpenedPhotographs:
    """Raises `IerfError` where there are none, or for pixels of another shape."""
    if isinstance(photographs, Tensor):
        if photographs.ndim != 4 or not len(photographs):
            raise IerfError(f"prepared pixels are (N, 3, H, W) with N ≥ 1, not {tuple(photographs.shape)}")
        return OpenedPhotographs(model, photographs)
    several = [photographs] if isinstance(photographs, str | Path | Image.Image | np.ndarray) else list(photographs)
    if not several:
        raise IerfError("a graph needs at least one photograph")
    return OpenedPhotographs(model, several)


@dataclass(frozen=True, eq=False)
class EncodedLayer:
    """One layer of one photograph, written with concepts."""

    concepts: "LayerConcepts"
    pfvs: Float[Tensor, "P C"]
    made: Reconstruction
    """`X̂ = U V + shift`."""
    l0: float
    """Concepts with a coefficient at a position, on average."""
    kkt: float
    """The largest KKT residual of a code, relative to λ."""
    own: Float[Tensor, "E C"]
    """Principal directions of the residual, concepts of this photograph alone."""

    @cached_property
    def whole(self) -> Reconstruction:
        """X itself, `shift + U V + (X − X̂)`: the residual is scaled with the concepts, so that the way ends at X.

        Behind the dictionary's concepts stand the own directions, `K` to `K + E − 1`, and the rest, `K + E`.
        """
        made, residual = self.made, self.pfvs - self.made.full
        along = residual @ self.own.T
        codes, atoms = _factors(residual - along @ self.own)
        first = made.n_concepts + len(self.own)
        numbers = [torch.arange(made.n_concepts, first), torch.full((len(atoms),), first)]
        return Reconstruction(
            torch.cat([made.active, *(number.to(made.active.device) for number in numbers)]),
            torch.cat([made.codes, along, codes], 1),
            torch.cat([made.atoms, self.own, atoms]),
            made.shift,
            first + 1,
        )

    @property
    def residual_share(self) -> float:
        """`‖X − X̂‖ / ‖X − shift‖`."""
        return residual_share(self.pfvs, self.made.full, self.made.shift)

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return self.pfvs.nbytes + self.made.codes.nbytes + self.made.atoms.nbytes

    @property
    def strengths(self) -> Float[Tensor, " K"]:
        """`Σ_p |u_pk|`."""
        return self.made.spread(self.made.codes.abs().sum(0))

    @property
    def prefix_strengths(self) -> Float[Tensor, " K"]:
        """The part of `strengths` that lies at tokens in front of the patches."""
        return self.made.spread(self.made.codes[: self.concepts.prefix_tokens or 0].abs().sum(0))

    def columns(self, concepts: Int[Tensor, " Q"]) -> Float[Tensor, "P Q"]:
        """The coefficients of some concepts at all positions; 0 for those that are not active."""
        places = self.made.active[:, None] == concepts.to(self.made.active.device)
        return self.made.codes @ places.to(self.made.codes)

    def parts(self, groups: Sequence[Sequence[int]]) -> Float[Tensor, "G P C"]:
        """`Σ_{k∈g} u_pk v_k` of groups of concepts."""
        table = membership(groups, self.made.active).to(self.made.codes)
        found: Tensor = (table[:, None] * self.made.codes) @ self.made.atoms
        return found

    def on_map(self, values: Float[Tensor, " P"]) -> Float[Tensor, "h w"]:
        """Numbers of all positions as rows and columns, without prefix tokens; one row where rows are unknown."""
        size = self.concepts.map
        return values[self.concepts.prefix_tokens or 0 :].reshape(size if len(size) == 2 else (1, -1))


EncodedLayers = Mapping[str, EncodedLayer]
"""By the layers' names."""


def encode(
    model: VisionModel,
    bank: "ConceptBank",
    x: Float[Tensor, "1 3 H W"],
    layers: Sequence[str],
    refitted: bool = False,
    own: int = 0,
) -> dict[str, EncodedLayer]:
    """The codes of every layer, from one forward pass; the Lasso's, or those of least squares on the atoms it chose.

    own: principal directions of the residual that become concepts of this photograph.
    """
    with torch.no_grad():
        found = capture(model, x, layers, values_of(bank))
        return {layer: _coded(bank.layer(layer), found[layer].pfvs[0], refitted, own) for layer in layers}


def values_of(bank: "ConceptBank") -> Values:
    """What the bank's PFVs are; layers without an activation at their end have "output" in any bank."""
    return "pre-activation" if any(bank.layer(n).values == "pre-activation" for n in bank.layers) else "output"


def _coded(concepts: "LayerConcepts", pfvs: Float[Tensor, "P C"], refitted: bool, own: int) -> EncodedLayer:
    atoms, shift = concepts.atoms.to(pfvs), concepts.shift.to(pfvs)
    found = lasso(pfvs - shift, atoms, concepts.lam, concepts.positive)
    codes = refit(pfvs - shift, atoms, found, concepts.positive).sparse if refitted else found.sparse
    made = Reconstruction.of(codes, atoms, shift)
    directions = principal_directions(pfvs - made.full, own)
    return EncodedLayer(concepts, pfvs, made, float(found.l0.mean()), float(found.kkt.max()), directions)


def _factors(x: Float[Tensor, "P C"]) -> tuple[Float[Tensor, "P R"], Float[Tensor, "R C"]]:
    """x as a product of two matrices: of its rows or of its channels, whichever are fewer."""
    rows, channels = x.shape
    if rows <= channels:
        return torch.eye(rows, dtype=x.dtype, device=x.device), x
    return x, torch.eye(channels, dtype=x.dtype, device=x.device)


def patches_only(bank: "ConceptBank", layers: Sequence[str]) -> bool:
    """Whether there are tokens in front of patches, and concepts were found without them."""
    there = any(bank.layer(layer).prefix_tokens for layer in layers)
    return there and not bank.plan.store.sampling.get("prefix_tokens", False)


def principal_directions(x: Float[Tensor, "P C"], count: int) -> Float[Tensor, "E C"]:
    """The unit vectors along which x is largest, `E ≤ count`; each points where most of x does."""
    if not count:
        return x[:0]
    _, sizes, directions = torch.linalg.svd(x.double(), full_matrices=False)
    directions = directions[:count][sizes[:count] > 0]
    side = torch.where(directions @ x.double().sum(0) < 0, -1.0, 1.0)
    found: Tensor = (side[:, None] * directions).to(x)
    return found


def residual_share(
    x: Float[Tensor, "*N C"], reconstruction: Float[Tensor, "*N C"], shift: Float[Tensor, " C"]
) -> float:
    """`‖X − X̂‖ / ‖X − shift‖`; 0 for a layer without anything."""
    whole = (x - shift).norm()
    return float((x - reconstruction).norm() / whole) if whole > 0 else 0.0
