"""Results as tables: for the terminal, for spreadsheets, for documents; and all of them in a folder."""

import csv
import io
import math
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ierf.errors import IerfError
from ierf.experiments.bootstrap import Interval, shown
from ierf.experiments.plots import plot
from ierf.experiments.results import ARROWS, Results
from ierf.files import write


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
