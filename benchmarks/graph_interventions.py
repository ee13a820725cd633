"""Do the concepts that a graph puts on a class's route carry it? Delete them, and as many others, and run on.

    python benchmarks/graph_interventions.py --bank bank/ --data val.parquet --photographs 60

For each photograph and layer: the `top` most important concepts of the predicted class, as many active ones drawn at
random, and as many with the largest coefficients `Σ_p |u_pq| ‖v_q‖` after those; each set is deleted at once.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import ierf
from ierf.concepts import ConceptBank
from ierf.graph import encode, important_concepts, intervene
from ierf.store import open_images


def drop(model: ierf.VisionModel, bank: ConceptBank, x: torch.Tensor, layer: str, concepts: Sequence[int]) -> float:
    """By how much the predicted class's logit falls without the concepts."""
    found = intervene(model, bank, x, [f"{layer}/{q}" for q in concepts])
    return -float(found.change[0, found.before[0].argmax()])


def one(model: ierf.VisionModel, bank: ConceptBank, photo: object, layer: str, top: int, seed: int) -> dict[str, float]:
    """The falls for one photograph and layer."""
    x = model.prepare(photo)  # type: ignore[arg-type]
    with torch.no_grad():
        label = int(model(x)[0].argmax())
    best = important_concepts(model, bank, x, [label], [layer], top=top)[layer]
    taken = encode(model, bank, x, [layer])[layer]
    others = torch.tensor([q for q in taken.made.active.tolist() if q not in best])
    generator = torch.Generator().manual_seed(seed)
    random = others[torch.randperm(len(others), generator=generator)[: len(best)]]
    sizes = (taken.strengths * taken.concepts.atoms.norm(dim=1))[others]
    largest = others[sizes.argsort(descending=True)[: len(best)]]
    return {
        "top": drop(model, bank, x, layer, best),
        "random": drop(model, bank, x, layer, random.tolist()),
        "largest": drop(model, bank, x, layer, largest.tolist()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled:resnet18-tiny")
    parser.add_argument("--bank", required=True)
    parser.add_argument("--data", required=True, help="Photographs, as `ierf collect --data` takes them.")
    parser.add_argument("--layers", default="layer2.1,layer3.1,layer4.0,layer4.1")
    parser.add_argument("--photographs", type=int, default=60)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model, bank, images = ierf.load(arguments.model), ConceptBank.load(arguments.bank), open_images(arguments.data)
    chosen = np.random.default_rng(0).permutation(len(images.names))[: arguments.photographs]
    results = {}
    for layer in arguments.layers.split(","):
        begun = time.perf_counter()
        falls = [one(model, bank, images.read(int(i)), layer, arguments.top, int(i)) for i in chosen]
        kinds = {kind: np.array([each[kind] for each in falls]) for kind in falls[0]}
        results[layer] = {
            **{f"{kind}_mean": float(values.mean()) for kind, values in kinds.items()},
            "top_beats_random": float((kinds["top"] > kinds["random"]).mean()),
            "top_beats_largest": float((kinds["top"] > kinds["largest"]).mean()),
            "photographs": len(falls),
            "seconds": time.perf_counter() - begun,
        }
        print(layer, json.dumps({name: round(value, 3) for name, value in results[layer].items()}), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
