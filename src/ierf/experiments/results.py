"""What an experiment found, with every single value, and how to read it: means, intervals, differences."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ierf.errors import UnknownNameError
from ierf.experiments.bootstrap import Interval, confidence_interval
from ierf.experiments.journal import Values

Better = Literal["higher", "lower", ""]
ARROWS: Mapping[Better, str] = {"higher": " ↑", "lower": " ↓", "": ""}


@dataclass(frozen=True)
class Results:
    """Values image by image, in rows (methods) and columns (metrics)."""

    title: str
    columns: Mapping[str, Better]
    """Column -> which values are better."""
    values: Mapping[str, Values]
    """Image -> row -> column -> value."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    corner: str = "method"
    """What the rows are."""
    seed: int = 0
    """Of the bootstrap, where the intervals are one."""
    unit: str = "images"
    """What the intervals are over."""
    apart: Sequence[str] = ()
    """Rows to compare with, of which none is the best."""

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """The rows in the order in which they were asked for."""
        return tuple(dict.fromkeys(row for image in self.values.values() for row in image))

    def of(self, row: str, column: str) -> Float[Tensor, " N"]:
        """One number per image; NaN where it is not defined."""
        found = [image.get(row, {}).get(column) for image in self.values.values()]
        return torch.tensor([math.nan if value is None else value for value in found], dtype=torch.float64)

    def interval(self, row: str, column: str) -> Interval:
        """The mean over the images, with its 95 % interval, see `confidence_interval`."""
        return confidence_interval(self.of(row, column), seed=self.seed)

    @cached_property
    def summary(self) -> Mapping[str, Mapping[str, Interval]]:
        """Row -> column -> mean and interval."""
        return {row: {column: self.interval(row, column) for column in self.columns} for row in self.rows}

    def best(self, column: str) -> str | None:
        """The row with the best mean; None where no direction is better or nothing is defined."""
        sign = {"higher": 1, "lower": -1, "": 0}[self.columns[column]]
        means = {row: sign * self.summary[row][column].mean for row in self.rows if row not in self.apart}
        known = {row: mean for row, mean in means.items() if not math.isnan(mean)}
        return max(known, key=known.__getitem__) if sign and known else None

    def only(self, rows: Sequence[str], title: str) -> "Results":
        """Some of the rows, in this order."""
        kept = {image: {row: found[row] for row in rows if row in found} for image, found in self.values.items()}
        return replace(self, title=title, values=kept)

    def minus(self, reference: str) -> "Results":
        """Every row minus the row `reference`, image by image: the interval of a mean says whether two rows differ."""
        if reference not in self.rows:
            raise UnknownNameError("row", reference, self.rows)
        others = [row for row in self.rows if row != reference]
        values = {
            image: {row: {c: _difference(found, row, reference, c) for c in self.columns} for row in others}
            for image, found in self.values.items()
        }
        return replace(self, title=f"{self.title}, minus {reference}", values=values)

    def json(self) -> str:
        """Settings, summary and every single value; NaN is null."""
        summary = {
            row: {column: {**as_values(vars(cell)), "n": cell.n} for column, cell in cells.items()}
            for row, cells in self.summary.items()
        }
        whole = {
            "title": self.title,
            "settings": self.settings,
            "columns": self.columns,
            "summary": summary,
            self.unit: self.values,
        }
        return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _difference(found: Values, row: str, reference: str, column: str) -> float | None:
    one, other = (found.get(name, {}).get(column) for name in (row, reference))
    return None if one is None or other is None else one - other


def as_values(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Scores as a journal keeps them: None for NaN."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}
