"""What `ierf.explain` returns: the maps, features and account of one photograph."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ierf.attribution import Ledger
from ierf.attribution.strongest import RelevantPFV
from ierf.attribution.targets import PFV
from ierf.attribution.token_grid import TokenGrid

RESOLUTIONS = ("low", "high", "input")


class Prediction(NamedTuple):
    """A class and the model's probability for it (softmax of the logits)."""

    class_index: int
    label: str
    probability: float


@dataclass(frozen=True, eq=False)
class PFVField:
    """A PFV that matters for a class, and the pixels that caused it."""

    pfv: RelevantPFV
    map_shape: tuple[int, ...]
    """Of the layer: (rows, columns), or (tokens,)."""
    ierf: Float[Tensor, "H W"]
    """Sums to 1."""
    grid: TokenGrid | None = None
    """Where the patches are among tokens."""

    @property
    def cell(self) -> tuple[int, int] | None:
        """(row, column) of its place in the picture; None for a token of no patch."""
        if self.grid is not None:
            return self.grid.cell(self.position[0])
        return (self.position[0], self.position[1]) if len(self.position) == 2 else None

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the layer's map; of tokens those of the patches, (1, 1) where they are unknown."""
        if self.grid is not None:
            return self.grid.rows, self.grid.columns
        return (self.map_shape[0], self.map_shape[1]) if len(self.map_shape) == 2 else (1, 1)

    @property
    def layer(self) -> str:
        return self.pfv.layer

    @property
    def position(self) -> tuple[int, ...]:
        """(row, column) in the layer's map, or (token,)."""
        return self.pfv.position

    @property
    def relevance(self) -> float:
        """What the PFV is worth to the first class explained."""
        return self.pfv.relevance

    @property
    def share(self) -> float:
        """Its relevance as a share of the layer's positive relevance, in [0, 1] for a PFV that speaks for the class."""
        return self.pfv.share


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model sees what it sees in one photograph."""

    name: str
    """Of the photograph: its file name."""
    photo: Image.Image
    """The photograph as the model sees it: resized, cropped, RGB, of the input's size."""
    scene: Image.Image
    """The same part of the photograph in more pixels, to lie beneath maps."""
    model_name: str
    top: list[Prediction]
    """The five most probable classes."""
    classes: list[Prediction]
    """The classes explained, the first of which `fields` and `ledger` are about."""
    method: str
    options: Mapping[str, Any]
    """Of the method, as far as they were given."""
    maps: dict[int, dict[str, Float[Tensor, "h w"]]]
    """Class index → resolution → map, the very one that `ierf.attribute` returns; on the CPU."""
    fields: list[PFVField] = field(default_factory=list)
    """PFVs of several layers, from shallow to deep, with their iERFs; method "srd" only."""
    ledger: Ledger | None = None
    """What was conserved on the way to the pixels; method "srd" only."""
    pfvs: tuple[PFV, ...] | None = None
    """The PFVs that were asked for; None: `fields` are the strongest."""
    source: Path | None = None
    """The photograph's file."""

    def save(self, path: str | Path = "report.html", pngs: bool = True) -> Path:
        """Write one HTML file that holds everything, and beside it (`pngs`) the folder NAME_pictures with the figures.

        Nothing is left half-written, and a file of the same name is replaced. Missing folders are made. Returns the
        path of the HTML file. Raises `IerfError` where writing is not possible.
        """
        from ierf.report.html import save_report

        return save_report(self, Path(path), pngs)
