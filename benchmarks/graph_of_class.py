"""The concept graph of a class: the mean over its photographs, what it costs, and how like it single photographs are.

    python benchmarks/graph_of_class.py --bank bank/ --data val.parquet --data train.parquet --label ladybug \\
        --photographs 50,150 --out class/

Photographs of the class are written to OUT/photos and opened one at a time, those of the first file first. For the
first `--singles` of them, in each layer: Spearman's rank correlation of all concepts' importances with the mean over
the *other* photographs, and the share of the photograph's five most important concepts that are among the five of that
mean; the same for as many photographs of other classes, with the importances for the same class.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

import ierf
from ierf.concepts import ConceptBank
from ierf.graph import ConceptGraph, encode
from ierf.graph.building.layer_attribution import Attributor, importances
from ierf.graph.concept_graph import STEPS
from ierf.store import open_images

TOP = 5


def written(addresses: Sequence[str], label: int, of_class: bool, count: int, folder: Path) -> list[Path]:
    """The first photographs that are of the class, or of no such class drawn at random, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for address in addresses:
        images = open_images(address)
        order = range(len(images.names)) if of_class else np.random.default_rng(0).permutation(len(images.names))
        for i in map(int, order):
            if len(files) == count:
                return files
            if (images.label(i) == label) == of_class:
                files.append(folder / f"{len(files):04d}.png")
                images.read(i).save(files[-1])
    return files


def of_each(
    model: ierf.VisionModel, bank: ConceptBank, files: Sequence[Path], label: int, layers: Sequence[str]
) -> dict[str, np.ndarray]:
    """Each layer's importances (photographs, concepts) for the class."""
    example = model.prepare(files[0])
    work = Attributor(model, bank, tuple(layers), (label,), STEPS, example)

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for file in files:
            x = model.prepare(file)
            found = importances(work, [(x, encode(model, bank, x, layers))])
            yield {layer: means.importance[0].numpy() for layer, means in found.layers.items()}

    found = list(rows())
    return {layer: np.stack([row[layer] for row in found]) for layer in layers}


def likeness(one: np.ndarray, mean: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation over the concepts that either has, and the share of the five most important in common."""
    there = (one != 0) | (mean != 0)
    both = set(one.argsort()[-TOP:]) & set(mean.argsort()[-TOP:])
    return float(spearmanr(one[there], mean[there]).statistic), len(both) / TOP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:resnet18-tiny")
    parser.add_argument("--bank", required=True)
    parser.add_argument("--data", required=True, action="append", help="As `ierf collect --data` takes it, labelled.")
    parser.add_argument("--label", required=True)
    parser.add_argument("--layers", default="layer2.1,layer3.1,layer4.0,layer4.1")
    parser.add_argument("--photographs", default="50,150", help="Of the class; a graph for each number.")
    parser.add_argument("--singles", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model, bank, layers = ierf.load(arguments.model), ConceptBank.load(arguments.bank), arguments.layers.split(",")
    label, counts = model.class_index(arguments.label), sorted(map(int, arguments.photographs.split(",")))
    own = written(arguments.data, label, True, max(counts[-1], arguments.singles), arguments.out / "photos")
    for count in counts:
        begun = time.perf_counter()
        graph = ConceptGraph.build(model, bank, own[:count], [label], layers, nodes="concepts")
        seconds, peak = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{graph.photographs} photographs: {seconds:.0f} s, at most {peak:.0f} MiB so far", flush=True)
        for suffix in ("json", "html", "svg"):
            graph.save(arguments.out / f"of_{count}.{suffix}")
    others = written(arguments.data[:1], label, False, arguments.singles, arguments.out / "others")
    singles = of_each(model, bank, own[: arguments.singles], label, layers)
    controls = of_each(model, bank, others, label, layers)
    for layer in layers:
        each = singles[layer]
        mine = [likeness(row, (each.sum(0) - row) / (len(each) - 1)) for row in each]
        theirs = [likeness(row, each.mean(0)) for row in controls[layer]]
        of_own, of_others = (np.array(found).mean(0).tolist() for found in (mine, theirs))
        print(layer, json.dumps({"own": [round(v, 3) for v in of_own], "others": [round(v, 3) for v in of_others]}))


if __name__ == "__main__":
    main()
