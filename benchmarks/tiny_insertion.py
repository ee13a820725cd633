"""Insertion and deletion on Tiny-ImageNet photographs with the bundled vision transformer, by method.

    python benchmarks/tiny_insertion.py --data PATH_TO_DEVELOPMENT_DATA [--photos 500] [--pictures FOLDER]

The patches are the transformer's, 8 × 8 of 8 pixels; four at a time appear on the mean colour (insertion) or vanish to
it (deletion), those with the largest sum of the map first. AttnLRP and CP-LRP by default have γ 0.25 in convolutions
behind another layer. The score is the probability of the predicted class. With
--pictures, maps of the first twenty photographs are drawn as well.
"""

import argparse
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ierf
from ierf.experiments import Interval, confidence_interval
from ierf.experiments.local import Areas, insertion_deletion
from ierf.report import overlay

EPSILON: dict[str, Any] = {"conv_gamma": 0.0, "linear_gamma": 0.0}
METHODS: dict[str, dict[str, Any]] = {
    "AttnLRP": {"method": "attnlrp"},
    "AttnLRP, ε": {"method": "attnlrp"} | EPSILON,
    "AttnLRP, γ 0.25 in all convolutions": {"method": "attnlrp", "conv_gamma": 0.25, "linear_gamma": 0.0},
    "AttnLRP, γ 1 in all convolutions": {"method": "attnlrp", "conv_gamma": 1.0, "linear_gamma": 0.0},
    "AttnLRP, γ 0.25 in all convolutions, 0.05 in linear layers": {
        "method": "attnlrp",
        "conv_gamma": 0.25,
        "linear_gamma": 0.05,
    },
    "CP-LRP": {"method": "cp_lrp"},
    "CP-LRP, ε": {"method": "cp_lrp"} | EPSILON,
    "CP-LRP, γ 0.25 in all convolutions": {"method": "cp_lrp", "conv_gamma": 0.25, "linear_gamma": 0.0},
    "SRD, attention constant": {"method": "srd"},
    "SRD, attention constant, head raw": {"method": "srd", "head": "raw"},
    "gradient × input": {"method": "gradient_x_input"},
    "gradient": {"method": "gradient"},
    "integrated gradients, 16 steps": {"method": "integrated_gradients", "steps": 16},
    "SmoothGrad, 16 samples": {"method": "smoothgrad", "samples": 16},
    "Grad-CAM": {"method": "gradcam"},
    "random": {"method": "random"},
}
SHOWN = (
    "AttnLRP",
    "AttnLRP, ε",
    "CP-LRP",
    "SRD, attention constant",
    "gradient × input",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds data/")
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--model", default="bundled:vit-tiny")
    parser.add_argument("--pictures", type=Path, help="where to draw maps of the first twenty photographs")
    arguments = parser.parse_args()
    model = ierf.load(arguments.model)
    images = photographs(arguments.data, arguments.photos)
    x = torch.stack([model.preprocess(image) for image in images])
    explainers = {name: partial(explain, model, options) for name, options in METHODS.items()}
    if arguments.pictures:
        draw(model, images[:20], {name: explainers[name] for name in SHOWN}, arguments.pictures)
    table = Table("method", "insertion", "deletion", "difference", title=f"{len(x)} photographs, {model.name}")
    console = Console(width=120)
    with console.status("measuring"):
        for areas in insertion_deletion(model, x, explainers, patch=8, steps=16, score="probability"):
            console.print(areas.method, style="dim")
            table.add_row(*row(areas))
    console.print(table)


def photographs(data: Path, count: int) -> list[Image.Image]:
    """Validation photographs, spread evenly over the file and so over the classes."""
    rows = pq.read_table(data / "data/tiny_imagenet100_val.parquet", columns=["image"])["image"].to_pylist()
    chosen = [rows[i * len(rows) // count] for i in range(count)]
    return [Image.open(io.BytesIO(row)).convert("RGB") for row in chosen]


def explain(model: ierf.VisionModel, options: dict[str, Any], x: Tensor, classes: list[int]) -> Tensor:
    return ierf.attribute(model, x, classes, **options)


def row(areas: Areas) -> tuple[str, ...]:
    difference = confidence_interval(areas.insertion - areas.deletion)
    return areas.method, *(cell(i) for i in (areas.mean_insertion, areas.mean_deletion, difference))


def cell(interval: Interval) -> str:
    return f"{interval.mean:.3f} ({interval.low:.3f} – {interval.high:.3f})"


def draw(
    model: ierf.VisionModel, images: list[Image.Image], explainers: dict[str, Callable[..., Tensor]], out: Path
) -> None:
    """A row for each photograph: itself, then its maps."""
    side = 160
    x = torch.stack([model.preprocess(image) for image in images])
    with torch.no_grad():
        classes = model(x).argmax(1).tolist()
    sheet = Image.new("RGB", (side * (len(explainers) + 1), side * len(images)), "white")
    for column, explain_all in enumerate(explainers.values(), 1):
        for index, relevance in enumerate(explain_all(x, classes)):
            photo = images[index].resize((side, side))
            if column == 1:
                sheet.paste(photo, (0, side * index))
            sheet.paste(overlay(photo, relevance.numpy()).resize((side, side)), (side * column, side * index))
    out.mkdir(parents=True, exist_ok=True)
    sheet.save(out / "maps.png")
    print(out / "maps.png", [model.label(c) for c in classes])


if __name__ == "__main__":
    main()
