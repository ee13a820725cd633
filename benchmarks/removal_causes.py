"""Why do maps rank the parts of a scene otherwise than their removal does? Experiments on `bundled:world-cnn`.

    python benchmarks/removal_causes.py [--scenes 200] [--first 1000000] [--methods srd,srd@layer4,…]

For each method: the rank correlation of the relevance on the parts with the falls of the logit (the column "removal" of
`ierf evaluate truth`), and how many pairs of parts are in the right order: two parts that decide, one that does and one
that does not, two that do not. Beside the library's methods, rows that take one thing apart each, written here for a
chain of convolution, batch-norm and ReLU under a mean and a linear layer:

    IG, means of 8 × 8 cells       integrated gradients as coarse as the encoder output
    difference to …, whole PFVs    SRD of Δv_j = Σ_i W_ij Δa_i, where no bias is left: μ_ij = ⟨W_ij Δa_i, Δv_j⟩/‖Δv_j‖²
    difference to …, channels      the same, each channel k by itself: μ_ijk = (W_ij Δa_i)_k / Δv_jk

with Δ the difference to the pass on zero pixels, or on the scene's background.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import ierf
from ierf.experiments import Method, confidence_interval, parse_methods, spearman
from ierf.experiments.truth.scenes import Known, as_mask, scene_inputs
from ierf.metrics import at_pixels
from ierf.world import HELD_OUT, Scenes, part_masks

LAYERS = ("layer1", "layer2", "layer3", "layer4", "layer5")
METHODS = (
    *("srd", "srd?head=mean", "srd?head=raw", "srd?head=raw&bias=uniform", "srd?head=raw&bias=drop"),
    *(f"srd@{layer}?head=raw" for layer in reversed(LAYERS)),
    *("gradient_x_input", "integrated_gradients", "attnlrp"),
    *(f"srd?head=integrated&encoder={layer}" for layer in reversed(LAYERS)),
)
KINDS = ("both decide", "one decides", "none decides")


class Affine(NamedTuple):
    """A convolution with the batch-norm behind it."""

    weight: Tensor
    bias: Tensor
    stride: int


def affine_layers(model: ierf.VisionModel) -> list[Affine]:
    layers = []
    for name in LAYERS:
        conv, norm, _ = model.net.get_submodule(name).children()
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        bias = norm.bias - norm.running_mean * scale
        layers.append(Affine((conv.weight * scale.view(-1, 1, 1, 1)).detach(), bias.detach(), conv.stride[0]))
    return layers


def forward(layers: Sequence[Affine], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The PFVs after each activation, pixels first, and before it."""
    after, before = [x], list[Tensor]()
    for layer in layers:
        before.append(F.conv2d(after[-1], layer.weight, layer.bias, layer.stride, 1))
        after.append(before[-1].relu())
    return after, before


def of_the_difference(model: ierf.VisionModel, x: Tensor, reference: Tensor, label: int, whole: bool) -> Tensor:
    """(1, H, W): the relevance of `x − reference` for the difference of the logits, which it sums to."""
    layers = affine_layers(model)
    passes = zip(forward(layers, x), forward(layers, reference), strict=True)
    after, before = ([one - other for one, other in zip(*maps, strict=True)] for maps in passes)
    head = model.net.get_submodule("fc").weight.detach()[label].view(-1, 1, 1)
    gradient = (head / after[-1][0, 0].numel()).expand_as(after[-1])
    for layer, a, v, below in zip(layers[::-1], after[:0:-1], before[::-1], after[-2::-1], strict=True):
        if whole:
            relevance = (a * gradient).sum(1, keepdim=True)
            cotangent = torch.nan_to_num(v * relevance / v.square().sum(1, keepdim=True), 0, 0, 0)
        else:
            cotangent = torch.nan_to_num(gradient * a / v, 0, 0, 0)
        gradient = torch.nn.grad.conv2d_input(below.shape, layer.weight, cotangent, layer.stride, 1)
    return (gradient * after[0]).sum(1)


def pairs(on_parts: Tensor, drops: Tensor, deciding: Sequence[int]) -> dict[str, list[bool]]:
    """Kind of pair -> whether each of them is in the order of the falls."""
    found: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for i, j in combinations(range(len(drops)), 2):
        kind = KINDS[2 - (i in deciding) - (j in deciding)]
        found[kind].append(bool((on_parts[i] - on_parts[j]) * (drops[i] - drops[j]) > 0))
    return found


def rows(model: ierf.VisionModel, methods: Sequence[str]) -> dict[str, Callable[[Known], Tensor]]:
    """What a row is called -> its map (H, W) of a scene."""

    def cells(known: Known) -> Tensor:
        fine = ierf.attribute(model, known.x, known.scene.label, "integrated_gradients")
        return at_pixels(F.avg_pool2d(fine, 8), fine.shape[1:])[0]

    def difference(known: Known, to_zero: bool, whole: bool) -> Tensor:
        empty = known.scene.without(*range(len(known.scene.parts)))
        reference = torch.zeros_like(known.x) if to_zero else scene_inputs(model, [empty])
        return of_the_difference(model, known.x, reference, known.scene.label, whole)[0]

    def by_method(known: Known, method: Method) -> Tensor:
        return method(model, known.x, [known.scene.label])[0].detach()

    found: dict[str, Callable[[Known], Tensor]] = {m.text: partial(by_method, method=m) for m in parse_methods(methods)}
    found["IG, means of 8 × 8 cells"] = cells
    for name, to_zero in (("zero", True), ("the background", False)):
        for unit, whole in (("whole PFVs", True), ("channels", False)):
            found[f"difference to {name}, {unit}"] = partial(difference, to_zero=to_zero, whole=whole)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--first", type=int, default=HELD_OUT, help="number of the first scene")
    parser.add_argument("--methods", default=",".join(METHODS))
    arguments = parser.parse_args()
    model, scenes = ierf.load("bundled:world-cnn"), Scenes(arguments.scenes, arguments.first)
    explain = rows(model, arguments.methods.split(","))
    ranks, ordered = defaultdict[str, list[float]](list), defaultdict[str, dict[str, list[bool]]](dict)
    for index in track(range(arguments.scenes), "scenes", console=Console(stderr=True)):
        known = Known.of(model, scenes.scene(index))
        if known is None:
            continue
        scene = known.scene
        drops = known.drops(model, [scene.without(i) for i in range(len(scene.parts))])
        for name, map_of in explain.items():
            on_parts = (map_of(known) * as_mask(part_masks(scene))).sum((1, 2))
            ranks[name].append(spearman(on_parts, drops))
            for kind, right in pairs(on_parts, drops, scene.deciding).items():
                ordered[name].setdefault(kind, []).extend(right)
    counts = {kind: len(right) for kind, right in next(iter(ordered.values())).items()}
    table = Table(
        "method", "removal", *(f"{kind} ({counts[kind]})" for kind in KINDS), title=f"{len(ranks[name])} scenes"
    )
    for name in explain:
        removal = confidence_interval(torch.tensor(ranks[name]))
        shares = [torch.tensor(ordered[name][kind]).float().mean() for kind in KINDS]
        table.add_row(
            name, f"{removal.mean:.3f} ({removal.low:.3f} – {removal.high:.3f})", *(f"{s:.3f}" for s in shares)
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
