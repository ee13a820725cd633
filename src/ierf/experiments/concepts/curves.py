"""Insertion and deletion curves of many photographs: brought to the same shares of concepts, averaged, drawn."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ierf.errors import IerfError
from ierf.experiments.results import Better, Results
from ierf.graph import area
from ierf.model.loading.extras import extra

GRID = 33
"""Points of a curve, from no concept to all active ones."""
KINDS = ("insertion", "deletion")
AREAS: Mapping[str, Better] = {"insertion": "higher", "deletion": "lower", "difference": "higher"}
"""Areas under the two curves, and insertion less deletion."""


def on_grid(counts: Int[Tensor, " S"], heights: Float[Tensor, " S"]) -> list[float]:
    """The heights at GRID equal steps of the share of concepts, linear between the measured ones."""
    shares = (counts.double() / counts[-1]).numpy()
    found: list[float] = np.interp(np.linspace(0, 1, GRID), shares, heights.double().numpy()).tolist()
    return found


def cells(
    prefix: str, counts: Int[Tensor, " S"], insertion: Float[Tensor, " S"], deletion: Float[Tensor, " S"]
) -> dict[str, float]:
    """Areas and curves as a journal keeps them: `PREFIX/insertion/area`, `PREFIX/insertion/7` and so on."""
    found: dict[str, float] = {}
    for kind, heights in zip(KINDS, (insertion, deletion), strict=True):
        found[f"{prefix}/{kind}/area"] = float(area(counts, heights.cpu()))
        found |= {f"{prefix}/{kind}/{i}": height for i, height in enumerate(on_grid(counts, heights.cpu()))}
    inserted, deleted = (found[f"{prefix}/{kind}/area"] for kind in KINDS)
    return found | {f"{prefix}/difference/area": inserted - deleted}


def areas(everything: Results, prefixes: Mapping[str, str], title: str) -> dict[str, Results]:
    """Insertion, deletion, difference -> the areas, photograph by photograph; column -> prefix."""
    return {
        kind: picked(everything, {c: f"{p}/{kind}/area" for c, p in prefixes.items()}, better, f"{title}, {kind}")
        for kind, better in AREAS.items()
    }


def curves_json(everything: Results, prefixes: Sequence[str]) -> str:
    """Every curve at the `shares`: image -> row -> prefix -> "insertion" and "deletion", where concepts are active."""
    images = {
        image: {
            row: {
                prefix: {kind: [found[f"{prefix}/{kind}/{i}"] for i in range(GRID)] for kind in KINDS}
                for prefix in prefixes
                if f"{prefix}/{KINDS[0]}/0" in found
            }
            for row, found in rows.items()
        }
        for image, rows in everything.values.items()
    }
    shares = np.linspace(0, 1, GRID).tolist()
    whole = {"title": everything.title, "settings": everything.settings, "shares": shares, "images": images}
    return json.dumps(whole, ensure_ascii=False) + "\n"


def picked(everything: Results, columns: Mapping[str, str], better: Better, title: str) -> Results:
    """Some of the columns, under the names that are given to them."""
    values = {
        image: {row: {new: found.get(old) for new, old in columns.items()} for row, found in rows.items()}
        for image, rows in everything.values.items()
    }
    return replace(everything, title=title, columns=dict.fromkeys(columns, better), values=values)


def panels(everything: Results, prefixes: Mapping[str, str], height: str) -> bytes | None:
    """A panel for each prefix, insertion above deletion: mean ± standard error over photographs, a line for each row.

    prefixes: the panel's title -> prefix. None without matplotlib.
    """
    try:
        figure_of = extra("matplotlib.figure", "plot").Figure
    except IerfError:
        return None
    figure = figure_of(figsize=(2.6 * len(prefixes) + 1.8, 5), layout="constrained")
    axes = figure.subplots(2, len(prefixes), sharex=True, squeeze=False)
    shares = np.linspace(0, 100, GRID)
    for row_of_axes, kind in zip(axes, KINDS, strict=True):
        for panel, prefix in zip(row_of_axes, prefixes.values(), strict=True):
            for i, row in enumerate(everything.rows):
                mean, error = _mean_and_error(everything, row, f"{prefix}/{kind}")
                panel.plot(shares, mean, linewidth=1.2, label=row, color=f"C{i}")
                panel.fill_between(shares, mean - error, mean + error, alpha=0.2, linewidth=0, color=f"C{i}")
            panel.tick_params(labelsize=7)
            panel.grid(alpha=0.3)
        row_of_axes[0].set_ylabel(f"{height} on {kind}", fontsize=8)
    for panel, prefix in zip(axes[0], prefixes, strict=True):
        panel.set_title(prefix, fontsize=8)
    for panel in axes[1]:
        panel.set_xlabel("concepts, %", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside right center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _mean_and_error(everything: Results, row: str, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    points = torch.stack([everything.of(row, f"{prefix}/{i}") for i in range(GRID)])
    known = points[:, ~points.isnan().any(0)]
    if not known.shape[1]:
        return np.full(GRID, math.nan), np.full(GRID, math.nan)
    error = known.std(1, correction=min(1, known.shape[1] - 1)) / math.sqrt(known.shape[1])
    return known.mean(1).numpy(), error.numpy()
