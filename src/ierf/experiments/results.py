"""What an experiment found: every value, means with intervals, differences; as tables, as pictures, as files."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import atan, cos, isnan, nan, pi, sin, sqrt
from pathlib import Path
from statistics import NormalDist
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
from ierf.extras import extra
from ierf.files import write
from ierf.metrics import normalise_map

_AT_ONCE = 1 << 20
"""At most this many drawn values in memory."""
_FEW = 30
"""Fewer values than that say too little of their spread for a bootstrap."""


@dataclass(frozen=True)
class Interval:
    """A mean, and between which values it lies."""

    mean: float
    low: float
    high: float
    n: int = 0
    """Of how many values."""


def confidence_interval(
    values: Float[Tensor, " N"], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean of `values`, and an interval that holds the true one in about `level` of all samples.

    | values | interval |
    |---|---|
    | only 0 and 1: hits and misses | Wilson's (1927), which is no point for 53 of 53 |
    | fewer than 30 others | `mean ± t s/√n`, with Student's t of n − 1 degrees of freedom |
    | 30 and more | between the `(1 ∓ level) / 2` quantiles of the means of `resamples` draws of N with replacement |

    The last is the bootstrap's percentile interval (Efron & Tibshirani 1993, Sec. 13.3); of 3 to 20 values it holds
    the mean in 69 to 93 % where it says 95. An interval answers for the choice of images only. For two methods on the
    same images take the interval of the differences. NaN values are left out; one value has no interval (NaN), and
    without any value all three numbers are NaN.
    """
    known = values[~values.isnan()].double().cpu()
    n = len(known)
    if n == 0:
        return Interval(nan, nan, nan)
    mean = float(known.mean())
    if bool(((known == 0) | (known == 1)).all()):
        return Interval(mean, *wilson(int(known.sum()), n, level), n)
    if n == 1:
        return Interval(mean, nan, nan, 1)
    if n < _FEW:
        half = student_quantile((1 + level) / 2, n - 1) * float(known.std()) / sqrt(n)
        return Interval(mean, mean - half, mean + half, n)
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, _AT_ONCE // n)
    draws = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    means = torch.cat([known[torch.randint(n, (draw, n), generator=generator)].mean(1) for draw in draws])
    low, high = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(mean, low, high, n)


def wilson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The shares p for which `|hits/n − p| ≤ z √(p (1 − p) / n)` (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * sqrt(hits * (n - hits) / n + z * z / 4)
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == n else middle + half)


def student_quantile(p: float, degrees: int) -> float:
    """Where Student's distribution has the share p < 1 below, p ≥ ½ (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    low, high = 0.0, 1.0
    while _student_share(high, degrees) < 2 * p - 1:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, degrees) < 2 * p - 1 else (low, middle)
    return high


def _student_share(t: float, degrees: int) -> float:
    """P(|T| ≤ t)."""
    angle = atan(t / sqrt(degrees))
    odd = degrees % 2
    term, total = (cos(angle) if odd else 1.0), 0.0
    for j in range((degrees - odd) // 2):
        total += term
        term *= cos(angle) ** 2 * (2 * j + 1 + odd) / (2 * j + 2 + odd)
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def shown(interval: Interval, of: int | None = None) -> str:
    """`0.382 (0.341 – 0.420)`, with `n = 12` where that is not the number `of` values one expects; or a dash."""
    if isnan(interval.mean):
        return "–"
    fewer = f"n = {interval.n}" if interval.n and interval.n != of else ""
    span = "" if isnan(interval.low) else f"{interval.low:.3f} – {interval.high:.3f}"
    inside = ", ".join(part for part in (span, fewer) if part)
    return f"{interval.mean:.3f} ({inside})" if inside else f"{interval.mean:.3f}"


def spearman(a: Float[Tensor, "H W"], b: Float[Tensor, "H W"]) -> float:
    """The correlation of the ranks; equal values share the mean of theirs. NaN where a map is constant."""
    return pearson(ranks(a), ranks(b))


def pearson(a: Float[Tensor, "*P"], b: Float[Tensor, "*P"]) -> float:
    """The correlation of the values. NaN where a map is constant or not finite."""
    centred = [t.double().flatten() - t.double().mean() for t in (a, b)]
    spread = centred[0].norm() * centred[1].norm()
    return float(centred[0] @ centred[1] / spread) if spread > 0 else torch.nan


def ranks(map: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Each value's place in ascending order, from 0; equal values have the mean of their places."""
    values = map.flatten()
    ascending = values.sort().values
    below, up_to = (torch.searchsorted(ascending, values, right=right) for right in (False, True))
    return ((below + up_to - 1) / 2).view(map.shape).double()


def ssim(a: Float[Tensor, "H W"], b: Float[Tensor, "H W"]) -> float:
    """Structural similarity of two maps, each divided by its own max |·| and taken absolutely: values in [0, 1].

    Wang et al., IEEE TIP 2004, by scikit-image with its usual 7 × 7 window. NaN where a map is zero or not finite.
    """
    maps = [normalise_map(t.detach().double().cpu()).abs() for t in (a, b)]
    if not all(bool(t.isfinite().all()) and bool(t.any()) for t in maps):
        return torch.nan
    one, other = (t.numpy() for t in maps)
    return float(extra("skimage.metrics", "demo").structural_similarity(one, other, data_range=1.0))


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
