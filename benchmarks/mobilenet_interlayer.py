"""Fig. 11 for MobileNet-V1: store, bank and interlayer curves between blocks 5, 9 and 13, on 700 ImageNet photographs.

    python benchmarks/mobilenet_interlayer.py --data PATH_TO_DEVELOPMENT_DATA --l0 0.97 --limit 36 --out DIR

What is finished lies in --out; a second run goes on.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

import ierf
from ierf.cli.app import measuring
from ierf.experiments import open_data, terminal_table
from ierf.experiments.concept_fidelity import areas
from ierf.experiments.interlayer import InterlayerSettings, interlayer, pairs_of
from ierf.model import Preprocess

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.networks import mobilenet_v1

LAYERS = ("features.10", "features.18", "features.26")
METHODS = ("ig", "gradient_x_input", "deeplift", "lrp", "random", "coefficient_size")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds data/ and models/")
    parser.add_argument("--l0", type=float, default=0.996, help="the share of coefficients that are zero")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("ierf-mobilenet"))
    arguments = parser.parse_args()
    photographs = arguments.data / "data/imagenet_photos.parquet"
    labels = [about["name"] for about in json.loads((arguments.data / "data/imagenet_classes.json").read_text())]
    half = (0.5, 0.5, 0.5)
    model = ierf.VisionModel(
        mobilenet_v1(arguments.data), Preprocess(mean=half, std=half), labels=labels, name="MobileNet-V1 0.75"
    )
    store = ierf.PFVStore.collect(model, photographs, LAYERS, arguments.out / "store", per_image=40, ierf=False)
    folder = arguments.out / "bank"
    bank = (
        ierf.ConceptBank.load(folder)
        if folder.exists()
        else ierf.ConceptBank.fit(store, l0_ratio=arguments.l0, path=folder)
    )
    with measuring() as progress:
        results = interlayer(
            model,
            bank,
            open_data(str(photographs)),
            arguments.out,
            InterlayerSettings(methods=METHODS),
            layers=LAYERS,
            limit=arguments.limit,
            progress=progress,
        )
    pairs = {pair: pair for pair in pairs_of(LAYERS)}
    for found in areas(results, pairs, results.title).values():
        Console(width=160).print(terminal_table(found))


if __name__ == "__main__":
    main()
