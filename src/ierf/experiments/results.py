"""What an experiment found: every value, means with intervals, differences; as tables, as pictures, as files."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from torch import Tensor

from ierf.errors import IerfError, UnknownNameError
from ierf.experiments.journal import Values
from ierf.experiments.statistics import Interval, confidence_interval, shown
from ierf.extras import extra
from ierf.files import write

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


def plot(results: Results) -> bytes | None:
    """A panel for each column, a dot with its 95 % interval for each row, as PNG; None without matplotlib."""
    figure_of = figure_class()
    if figure_of is None or not results.rows:
        return None
    rows, columns = results.rows, list(results.columns)
    figure = figure_of(figsize=(2.2 * len(columns) + 2.2, 0.28 * len(rows) + 1.2), layout="constrained")
    for panel, column in zip(np.atleast_1d(figure.subplots(1, len(columns), sharey=True)), columns, strict=True):
        intervals = [results.summary[row][column] for row in rows]
        for at, interval in enumerate(intervals):
            panel.plot([interval.low, interval.high], [at, at], color="#8899aa", linewidth=1.5)
        best = results.best(column)
        colours = ["#c0392b" if row == best else "#22313f" for row in rows]
        panel.scatter([i.mean for i in intervals], range(len(rows)), c=colours, s=14, zorder=3)
        panel.set_title(column + ARROWS[results.columns[column]], fontsize=9)
        panel.tick_params(labelsize=7)
        panel.grid(axis="x", alpha=0.3)
    figure.axes[0].set_yticks(range(len(rows)), rows)
    figure.axes[0].invert_yaxis()
    return png(figure)


def curves(lines: Mapping[str, Sequence[float]], at: Sequence[str], title: str) -> bytes | None:
    """A line for each name over the named points `at`, as PNG; None without matplotlib."""
    figure_of = figure_class()
    if figure_of is None:
        return None
    figure = figure_of(figsize=(0.45 * len(at) + 4, 4), layout="constrained")
    panel = figure.subplots()
    for name, values in lines.items():
        panel.plot(range(len(at)), values, marker="o", markersize=3, linewidth=1.2, label=name)
    panel.set_xticks(range(len(at)), at, rotation=45, ha="right", fontsize=7)
    panel.set_title(title, fontsize=9)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def figure_class() -> Any:
    """Matplotlib's figure; None without matplotlib."""
    try:
        return extra("matplotlib.figure", "plot").Figure
    except IerfError:
        return None


def png(figure: Any) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def terminal_table(results: Results) -> Table:
    """Means, each with half the width of its 95 % interval, and n where that is not all; the best in bold."""
    table = Table(title=f"{results.title}, {len(results.values)} {results.unit}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(results.corner, no_wrap=True)
    for column, better in results.columns.items():
        table.add_column(column + ARROWS[better], justify="right", no_wrap=True)
    best = {column: results.best(column) for column in results.columns}
    n = len(results.values)
    for row, cells in results.summary.items():
        texts = [Text(_short(i, n), style="bold" if best[column] == row else "") for column, i in cells.items()]
        table.add_row(Text(row), *texts)
    return table


def markdown(results: Results) -> str:
    """The same for a document; a cell whose mean is of fewer values than there are images says of how many."""
    heads = [results.corner, *(column + ARROWS[better] for column, better in results.columns.items())]
    best = {column: results.best(column) for column in results.columns}
    lines = [heads, ["---", *["---:"] * len(results.columns)]]
    for row, cells in results.summary.items():
        texts = {column: shown(i, len(results.values)) for column, i in cells.items()}
        lines.append([f"`{row}`", *(f"**{text}**" if best[c] == row else text for c, text in texts.items())])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def comma_separated(results: Results) -> str:
    """A line for each row and column: mean, interval, number of images."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([results.corner, "column", "mean", "low", "high", results.unit])
    for row, cells in results.summary.items():
        for column, i in cells.items():
            known = int((~results.of(row, column).isnan()).sum())
            writer.writerow([row, column, *(_exact(value) for value in (i.mean, i.low, i.high)), known])
    return buffer.getvalue()


def save(results: Results, folder: Path, name: str) -> list[Path]:
    """`name`.csv, .md and .json in `folder`, and .png where matplotlib is installed; returns what was written."""
    texts = {".csv": comma_separated(results), ".md": markdown(results), ".json": results.json()}
    for suffix, text in texts.items():
        write(folder / f"{name}{suffix}", text.encode())
    paths = [folder / f"{name}{suffix}" for suffix in texts]
    picture = plot(results)
    if picture is not None:
        write(folder / f"{name}.png", picture)
        paths.append(folder / f"{name}.png")
    return paths


def check_out(folder: Path) -> None:
    """Raise `IerfError` where `folder` cannot be written to, before the work and not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IerfError(f"cannot write to {str(folder)!r}: {error.strerror or error}") from error


def _short(interval: Interval, of: int) -> str:
    half = (interval.high - interval.low) / 2
    if math.isnan(interval.mean):
        return "–"
    fewer = "" if interval.n == of else f", n={interval.n}"
    return f"{interval.mean:.3f}{'' if math.isnan(half) else f' ±{half:.2f}'}{fewer}"


def _exact(value: float) -> str:
    return "" if math.isnan(value) else repr(value)
