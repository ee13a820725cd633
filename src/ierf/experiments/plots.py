"""Results as pictures; needs matplotlib."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ierf.errors import IerfError
from ierf.experiments.results import ARROWS, Results
from ierf.model.loading.extras import extra


def plot(results: Results) -> bytes | None:
    """A panel for each column, a dot with its 95 % interval for each row, as PNG; None without matplotlib."""
    figure_of = _figure_class()
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
    return _png(figure)


def curves(lines: Mapping[str, Sequence[float]], at: Sequence[str], title: str) -> bytes | None:
    """A line for each name over the named points `at`, as PNG; None without matplotlib."""
    figure_of = _figure_class()
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
    return _png(figure)


def _figure_class() -> Any:
    try:
        return extra("matplotlib.figure", "plot").Figure
    except IerfError:
        return None


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
