"""Localisation of MobileNet-V1's evidence on COCO photographs, by method.

    python benchmarks/coco_localization.py --data PATH_TO_DEVELOPMENT_DATA

A triple is a photograph, the highest-scored of the top five classes that maps to a COCO category present in it, and the
union of that category's masks after the same resize and crop.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track
from rich.table import Table

import ierf
from ierf.model import Preprocess

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.networks import mobilenet_v1

METHODS: dict[str, dict[str, Any]] = {
    "SRD, input": {},
    "SRD, high": {"resolution": "high"},
    "SRD, low": {"resolution": "low"},
    "SRD, input, bias uniform": {"bias": "uniform"},
    "SRD, input, bias dropped": {"bias": "drop"},
    "SRD, input, head mean": {"head": "mean"},
    "SRD, input, head raw": {"head": "raw"},
    "Grad-CAM": {"method": "gradcam"},
    "gradient": {"method": "gradient"},
    "gradient × input": {"method": "gradient_x_input"},
}


def triples(model: ierf.VisionModel, data: Path) -> Iterator[tuple[torch.Tensor, int, torch.Tensor]]:
    """(pixels, class, mask) for every photograph that has one."""
    category_of = {int(k): v for k, v in json.loads((data / "data/imagenet_to_coco.json").read_text()).items()}
    for row in pq.read_table(data / "data/coco_masks.parquet").to_pylist():
        image = Image.open(io.BytesIO(row["image"])).convert("RGB")
        annotations = [a for a in json.loads(row["annotations"]) if not a["iscrowd"]]
        x = model.prepare(image)
        with torch.no_grad():
            top = model(x)[0].topk(5).indices.tolist()
        present = {a["category"] for a in annotations}
        chosen = next((c for c in top if category_of.get(c) in present), None)
        if chosen is None:
            continue
        mask = Image.new("L", image.size)
        for annotation in annotations:
            if annotation["category"] == category_of[chosen]:
                for polygon in annotation["segmentation"]:
                    ImageDraw.Draw(mask).polygon(polygon, fill=255)
        seen = np.asarray(model.view(mask.convert("RGB")))[..., 0] > 127
        if seen.any():
            yield x, chosen, torch.from_numpy(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds data/ and models/")
    data = parser.parse_args().data
    preprocess = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    model = ierf.VisionModel(mobilenet_v1(data), preprocess, name="MobileNet-V1 0.75")
    found = list(triples(model, data))
    table = Table("method", "pointing game", "attribution localisation", "sparseness", title=f"{len(found)} triples")
    for name, options in METHODS.items():
        scores = []
        for x, target, mask in track(found, description=name, transient=True):
            heat = ierf.attribute(model, x, target, **options)[0]
            scores.append(
                [
                    ierf.metrics.pointing_game(heat, mask),
                    ierf.metrics.attribution_localization(heat, mask),
                    ierf.metrics.sparseness(heat),
                ]
            )
        table.add_row(name, *(f"{value:.3f}" for value in torch.tensor(scores).nanmean(0).tolist()))
    Console().print(table)


if __name__ == "__main__":
    main()
