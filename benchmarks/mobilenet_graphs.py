"""Graphs of groups beside graphs of concepts for MobileNet-V1: store and bank of 600 ImageNet photographs, 50 others.

    python benchmarks/mobilenet_graphs.py --data PATH_TO_DEVELOPMENT_DATA --limit 50 --out DIR

What is finished lies in --out; a second run goes on.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

import ierf
from ierf.cli.app import measuring
from ierf.experiments import open_data, save, terminal_table
from ierf.experiments.graphs import graphs, tables
from ierf.model import Preprocess

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.networks import mobilenet_v1

LAYERS = ("features.14", "features.18", "features.22", "features.26")
FITTED = 600
"""Photographs of the bank; graphs are of others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds data/ and models/")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("ierf-mobilenet-graphs"))
    arguments = parser.parse_args()
    fitted, others = _halves(arguments.data / "data/imagenet_photos.parquet", arguments.out)
    labels = [about["name"] for about in json.loads((arguments.data / "data/imagenet_classes.json").read_text())]
    half = (0.5, 0.5, 0.5)
    model = ierf.VisionModel(
        mobilenet_v1(arguments.data), Preprocess(mean=half, std=half), labels=labels, name="MobileNet-V1 0.75"
    )
    store = ierf.PFVStore.collect(model, fitted, LAYERS, arguments.out / "store", per_image=16, ierf=False)
    bank = ierf.ConceptBank.fit(store, n_concepts=1536, l0_ratio=0.97, encoded=1000, path=arguments.out / "bank")
    with measuring() as progress:
        found = graphs(model, bank, open_data(str(others)), arguments.out, limit=arguments.limit, progress=progress)
    for name, table in tables(found, bank.layers).items():
        Console(width=200).print(terminal_table(table))
        save(table, arguments.out, name.replace(" ", "-"))


def _halves(photographs: Path, out: Path) -> tuple[Path, Path]:
    """The photographs of the bank and the others, drawn once."""
    table = pq.read_table(photographs)
    order = np.random.default_rng(0).permutation(len(table))
    out.mkdir(parents=True, exist_ok=True)
    files = out / "fitted.parquet", out / "others.parquet"
    for file, rows in zip(files, (order[:FITTED], order[FITTED:]), strict=True):
        pq.write_table(table.take(np.sort(rows)), file)
    return files


if __name__ == "__main__":
    main()
