"""Table I for MobileNet-V1 on COCO photographs: by default localisation and sparseness of SRD and a few others.

    python benchmarks/coco_localization.py --data PATH_TO_DEVELOPMENT_DATA

A triple is a photograph, the highest-scored of the top five classes that maps to a COCO category present in it, and the
union of that category's masks after the same resize and crop. What is finished lies in --out; a second run goes on.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

import ierf
from ierf.cli.app import measuring
from ierf.experiments import open_data, parse_methods, save, terminal_table
from ierf.experiments.local import LocalSettings, local
from ierf.model import Preprocess

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.networks import mobilenet_v1

METHODS = (
    "srd,srd@high,srd@low,srd?bias=uniform,srd?bias=drop,srd?head=mean,srd?head=raw,gradcam,gradient,gradient_x_input"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds data/ and models/")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--metrics", default="pointing,localization,sparseness")
    parser.add_argument("--stability-samples", type=int, default=LocalSettings.stability_samples)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, default=Path("ierf-coco"))
    arguments = parser.parse_args()
    preprocess = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    model = ierf.VisionModel(mobilenet_v1(arguments.data), preprocess, name="MobileNet-V1 0.75")
    settings = LocalSettings(tuple(arguments.metrics.split(",")), stability_samples=arguments.stability_samples)
    with measuring() as progress:
        results = local(
            model,
            open_data(str(arguments.data / "data/coco_masks.parquet")),
            parse_methods([arguments.methods]),
            arguments.out,
            settings,
            limit=arguments.limit,
            progress=progress,
        )
    Console(width=160).print(terminal_table(results))
    save(results, arguments.out, "local")


if __name__ == "__main__":
    main()
