"""What the head "integrated" of SRD costs, and how far its quadrature is from the integral.

    python benchmarks/integrated_head.py --data PATH_TO_DEVELOPMENT_DATA [--encoder layer2] [--photos 8]

Seconds are those of the processor, the least of three runs for all photographs at once. The error is the mean of
`|Σ_i μ_i→c − (y(x) − y(0))|`, as a share of the mean difference; the correlation is with the map of 64 steps.
"""

import argparse
import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

import ierf
from ierf.experiments import pearson


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds data/")
    parser.add_argument("--model", default="bundled:resnet18-tiny")
    parser.add_argument("--encoder", default="layer2")
    parser.add_argument("--photos", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = ierf.load(arguments.model)
    x = torch.cat([model.prepare(image) for image in photographs(arguments.data, arguments.photos)])
    with torch.no_grad():
        logits, grey = model(x), model(torch.zeros_like(x))
    classes = logits.argmax(1)
    added = (logits - grey).gather(1, classes[:, None])[:, 0]
    explain = partial(ierf.attribute, model, x, classes.tolist())
    integrated = partial(explain, head="integrated", encoder=arguments.encoder)
    finest = None
    for steps in (64, 32, 16, 8):
        ratios = integrated(resolution="low", steps=steps)
        finest = ratios if finest is None else finest
        error = (ratios.flatten(1).sum(1) - added).abs().mean() / added.abs().mean()
        alike = torch.tensor([pearson(one, other) for one, other in zip(ratios, finest, strict=True)])
        seconds, correlation = least(partial(integrated, steps=steps)), float(alike.mean())
        print(f"integrated, {steps:2d} steps: error {error:.1%}, correlation {correlation:.4f}, {seconds:.2f} s")
    print(f"clamped: {least(explain):.2f} s")
    for steps in (16, 64):
        seconds = least(partial(explain, method="integrated_gradients", steps=steps))
        print(f"integrated gradients, {steps} steps: {seconds:.2f} s")


def photographs(data: Path, count: int) -> list[Image.Image]:
    """Validation photographs, spread evenly over the file and so over the classes."""
    rows = pq.read_table(data / "data/tiny_imagenet100_val.parquet", columns=["image"])["image"].to_pylist()
    return [Image.open(io.BytesIO(rows[i * len(rows) // count])).convert("RGB") for i in range(count)]


def least(run: Callable[[], Tensor]) -> float:
    """Processor seconds of the fastest of three runs."""
    found = []
    for _ in range(3):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


if __name__ == "__main__":
    main()
