"""Cascading randomisation: does a map depend on what the network has learnt? (Adebayo et al., arXiv 1810.03292.)"""

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ierf.errors import IerfError
from ierf.experiments.data import DataSet, Photo, drawn
from ierf.experiments.journal import Journal, Track, Values, model_fingerprint, run_over
from ierf.experiments.methods import Method
from ierf.experiments.results import Results, as_values, curves
from ierf.experiments.statistics import spearman, ssim
from ierf.model import VisionModel

SIMILARITIES = ("spearman", "spearman of |map|", "ssim of |map|")


def sanity(
    model: VisionModel,
    data: DataSet,
    methods: Sequence[Method],
    out: Path,
    *,
    depth: int = 2,
    limit: int | None = None,
    seed: int = 0,
    track: Track = iter,
) -> dict[str, Results]:
    """Similarity -> how alike the map of the untouched network is to that after each stage, method by method.

    From the logits down, one stage after the other loses its weights and stays without. The class explained is the
    one that the untouched network predicts. `model` itself is not changed; `sanity.jsonl` in `out` keeps what is
    finished.

    Args:
        depth: so many parts of a layer's name make a stage: 2 randomises "layer4.1" at once, 1 "layer4".
    """
    stages = list(stages_of(model.net, depth))
    header = {
        "experiment": "sanity",
        "model": f"{model.name} {model_fingerprint(model)}",
        "data": f"{data.name} {data.fingerprint}",
        "methods": [method.text for method in methods],
        "depth": depth,
        "seed": seed,
    }
    journal = Journal.open(out / "sanity.jsonl", header)

    def measure(name: str) -> Values:
        return _similarities(model, data.read(name), methods, depth, seed)

    values = run_over(drawn(data, limit, seed), journal, measure, track)
    everything = Results(f"{model.name} on {data.name}", {}, values, journal.settings, seed=seed)
    return {similarity: _one_similarity(everything, similarity, stages) for similarity in SIMILARITIES}


def stages_of(net: nn.Module, depth: int) -> dict[str, list[nn.Parameter]]:
    """Stage -> its parameters, from the logits down: modules in the order of declaration, backwards."""
    if depth < 1:
        raise IerfError(f"a stage is named by at least one part of a layer's name, not {depth}")
    stages: dict[str, list[nn.Parameter]] = {}
    for name, parameter in reversed(list(net.named_parameters())):
        stages.setdefault(".".join(name.split(".")[:-1][:depth]), []).append(parameter)
    if not stages:
        raise IerfError("the network has no weights to randomise")
    return stages


def cascade(model: VisionModel, depth: int, seed: int) -> Iterator[VisionModel]:
    """A copy of the model after each stage: one object that loses more and more of its weights."""
    copy = replaced_net(model, copied(model.net))
    generator = torch.Generator().manual_seed(seed)
    for parameters in stages_of(copy.net, depth).values():
        for parameter in parameters:
            randomise(parameter, generator)
        yield copy


def copied(net: nn.Module) -> nn.Module:
    """A copy of a network, on any device.

    `deepcopy` copies buffers by their storages, which it can do on few devices; those that share none are cloned here.
    """
    plain = [t for module in net.modules() for t in {**vars(module), **module._buffers}.values() if type(t) is Tensor]
    others = {id(t): t for t in [*plain, *net.parameters()]}.values()
    users = Counter(t.untyped_storage()._cdata for t in others)
    own = [t for t in plain if users[t.untyped_storage()._cdata] == 1]
    return deepcopy(net, {id(t): t.detach().clone().requires_grad_(t.requires_grad) for t in own})


def replaced_net(model: VisionModel, net: nn.Module) -> VisionModel:
    """The same preprocessing and labels around another network."""
    return VisionModel(net, model.preprocess, model.labels, model.name)


@torch.no_grad()
def randomise(parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Normal numbers of the parameter's own mean and standard deviation in its place."""
    values = parameter.detach().double().cpu()
    noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    parameter.copy_(values.mean() + values.std(correction=0) * noise)


def curve_picture(results: Results) -> bytes | None:
    """The mean similarity of each method along the stages, as PNG; None without matplotlib."""
    lines = {row: [cell.mean for cell in cells.values()] for row, cells in results.summary.items()}
    return curves(lines, list(results.columns), results.title)


def _similarities(model: VisionModel, photo: Photo, methods: Sequence[Method], depth: int, seed: int) -> Values:
    """Method -> "similarity/stage" -> value."""
    x = model.prepare(photo.image)
    with torch.no_grad():
        target = [int(model(x).argmax())]
    before = [method(model, x, target)[0] for method in methods]
    found: dict[str, dict[str, float]] = {method.text: {} for method in methods}
    for stage, randomised in zip(stages_of(model.net, depth), cascade(model, depth, seed), strict=True):
        for method, original in zip(methods, before, strict=True):
            after = method(randomised, x, target)[0]
            scores = (spearman(original, after), spearman(original.abs(), after.abs()), ssim(original, after))
            of_stage = {f"{name}/{stage}": score for name, score in zip(SIMILARITIES, scores, strict=True)}
            found[method.text] |= of_stage
    return {row: as_values(cells) for row, cells in found.items()}


def _one_similarity(everything: Results, similarity: str, stages: Sequence[str]) -> Results:
    values = {
        image: {row: {stage: cells[f"{similarity}/{stage}"] for stage in stages} for row, cells in rows.items()}
        for image, rows in everything.values.items()
    }
    title = f"{similarity} to the map before, {everything.title}"
    return replace(everything, title=title, columns=dict.fromkeys(stages, ""), values=values)
