"""Explaining one photograph with one forward pass."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from ierf.attribution import Ledger, attribute
from ierf.attribution.attribute import METHODS, checked_options
from ierf.attribution.conservation import ledger
from ierf.attribution.passes import RULES, RelevancePass, relevance_pass, usual_method
from ierf.attribution.srd import Head
from ierf.attribution.strongest import RelevantPFV, layers_over_depth, relevant_pfvs, strongest_pfvs
from ierf.attribution.target_seeds import one_hot
from ierf.attribution.targets import PFV
from ierf.errors import IerfError, UnknownNameError
from ierf.model import VisionModel, as_vision_model, evaluating
from ierf.model.images import ImageLike, as_image, as_input
from ierf.report.explanation import RESOLUTIONS, Explanation, PFVField, Prediction
from ierf.rules import Backward

SHOWN_SIDE = 384
"""Pixels of the shorter side of figures, at least."""

Classes = None | str | int | Sequence[str | int]
_Maps = dict[int, dict[str, Tensor]]
_Choose = Callable[[Tensor], list[int]]


def explain(
    model: VisionModel | nn.Module,
    photo: ImageLike | Tensor,
    classes: Classes = None,
    *,
    method: str | None = None,
    n_classes: int = 3,
    resolutions: Sequence[str] | None = None,
    pfvs: Sequence[PFV] | None = None,
    **options: Any,
) -> Explanation:
    """Explain what `model` sees in a photograph: maps per class, the features behind them, and the account.

    Args:
        photo: a path, a PIL image, or uint8 pixels (H, W, 3); or an input as the network takes it, a tensor (C, H, W)
            or a `.npy` file of one.
        classes: names or indices; None: the `n_classes` most probable.
        method: one of `ierf.attribution.METHODS`; None: "attnlrp" for transformers, else "srd". These two and "cp_lrp"
            compute everything from one forward pass; others give maps only.
        resolutions: "low", "high", "input" or layers' names; None: those three, as far as the method has them.
        pfvs: the PFVs whose iERFs to compute, each with one position; None: the strongest for the first class, in
            three layers. Not for methods that give maps only.
        options: of the method, as in `ierf.attribute`.

    Raises:
        IerfError: the photograph cannot be read, a class or layer does not exist, a position lies outside its map.
    """
    vision_model = as_vision_model(model)
    method = method or usual_method(vision_model)
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    options = checked_options(method, METHODS[method], options)
    given = as_input(photo)
    picture = given if given is not None else as_image(cast("ImageLike", photo))
    x = vision_model.prepare(picture)

    def choose(logits: Tensor) -> list[int]:
        return _class_indices(vision_model, logits, classes, n_classes)

    fields: list[PFVField] = []
    account: Ledger | None = None
    if method in RULES:
        logits, maps, fields, account = _by_rules(vision_model, x, choose, method, resolutions, pfvs, **options)
    elif pfvs is not None:
        raise IerfError(f"iERFs come from the methods {', '.join(RULES)}, not from {method!r}")
    else:
        logits, maps = _by_attribution(vision_model, x, choose, method, resolutions, options)
    ranked = predictions(vision_model, logits)
    of_class = {prediction.class_index: prediction for prediction in ranked}
    path = Path(photo) if isinstance(photo, str | Path) else None
    return Explanation(
        name=path.name if path else "photograph",
        photo=vision_model.view(picture),
        scene=scene(vision_model, picture),
        model_name=vision_model.name,
        top=ranked[:5],
        classes=[of_class[index] for index in maps],
        method=method,
        options=dict(options),
        maps=maps,
        fields=fields,
        ledger=account,
        pfvs=None if pfvs is None else tuple(pfvs),
        source=path,
    )


def predictions(model: VisionModel, logits: Float[Tensor, " K"]) -> list[Prediction]:
    """All classes, the most probable first."""
    values, indices = logits.double().softmax(0).sort(descending=True, stable=True)
    return [Prediction(i, model.label(i), p) for i, p in zip(indices.tolist(), values.tolist(), strict=True)]


def _class_indices(model: VisionModel, logits: Tensor, classes: Classes, n_classes: int) -> list[int]:
    if classes is None:
        if n_classes < 1:
            raise IerfError(f"explain at least one class, not {n_classes}")
        return [int(i) for i in logits.topk(min(n_classes, len(logits))).indices]
    wanted = [classes] if isinstance(classes, str | int) else classes
    if not wanted:
        raise IerfError("no class to explain; classes=None takes the most probable")
    return list(dict.fromkeys(model.class_index(c, n_classes=len(logits)) for c in wanted))


def _by_rules(
    model: VisionModel,
    x: Tensor,
    choose: _Choose,
    method: str,
    resolutions: Sequence[str] | None,
    pfvs: Sequence[PFV] | None,
    *,
    head: Head | None = None,
    encoder: str | None = None,
    **rules: Any,
) -> tuple[Tensor, _Maps, list[PFVField], Ledger]:
    """One forward pass; per class one backward pass that stops at all resolutions (SRD: and one through the head)."""
    of_class: dict[str, Any] = {} if head is None else {"head": head}
    with relevance_pass(model, x, method, rules, encoder, Backward(metered=True, many=True)) as run:
        logits = _only(run.logits)
        stops = _stops(run, resolutions)
        starts = {index: run.start(index, **of_class) for index in choose(logits)}
        maps = {
            index: {
                name: _only(run.on_grid(node, m))
                for (name, node), m in zip(stops.items(), run.carry(*start, list(stops.values())), strict=True)
            }
            for index, start in starts.items()
        }
        node, gradient = next(iter(starts.values()))
        if pfvs is None:
            found = strongest_pfvs(run, node, gradient, layers_over_depth(run, node))
        else:
            found = relevant_pfvs(run, node, gradient, pfvs)
        return logits, maps, _fields(run, found), ledger(run, node, gradient)


def _stops(run: RelevancePass, resolutions: Sequence[str] | None) -> dict[str, int]:
    """Where each map is read off; by default the three resolutions, without those that are one and the same map."""
    if resolutions is not None:
        return {name: run.at(name) for name in resolutions}
    stops: dict[str, int] = {}
    for name in ("input", "low", "high"):
        if (node := run.at(name)) not in stops.values():
            stops[name] = node
    return {name: stops[name] for name in RESOLUTIONS if name in stops}


def _by_attribution(
    model: VisionModel,
    x: Tensor,
    choose: _Choose,
    method: str,
    resolutions: Sequence[str] | None,
    options: Mapping[str, Any],
) -> tuple[Tensor, _Maps]:
    with evaluating(model.net), torch.no_grad():
        logits = _only(model(x))

    def map_of(index: int, resolution: str) -> Tensor:
        return _only(attribute(model, x, index, method, resolution, **options))

    indices = choose(logits)
    if resolutions is not None:
        return logits, {index: {name: map_of(index, name) for name in resolutions} for index in indices}
    maps: _Maps = {}
    for index in indices:
        at_input, maps[index] = map_of(index, "input"), {}
        for coarse in ("low", "high"):
            with suppress(IerfError):
                maps[index][coarse] = map_of(index, coarse)
        maps[index]["input"] = at_input
    return logits, maps


def _fields(run: RelevancePass, found: Sequence[RelevantPFV]) -> list[PFVField]:
    """The PFVs with their iERFs, layer by layer: one batch of backward passes for each."""
    by_layer: dict[str, list[RelevantPFV]] = {}
    for pfv in found:
        by_layer.setdefault(pfv.layer, []).append(pfv)
    return [each for layer, pfvs in by_layer.items() for each in _fields_of_layer(run, layer, pfvs)]


def _fields_of_layer(run: RelevancePass, layer: str, pfvs: Sequence[RelevantPFV]) -> list[PFVField]:
    node = run.layer(layer)
    shape = run.tape.nodes[node].map_shape
    hot = torch.stack([one_hot(pfv.position, (1, *shape), layer) for pfv in pfvs])
    (ierfs,) = run.carry(node, run.cotangent(node, hot.to(run.pfvs(node))), [0])
    return [PFVField(pfv, shape, _only(ierf), run.grid(node)) for pfv, ierf in zip(pfvs, ierfs, strict=True)]


def _only(batch: Float[Tensor, "1 ..."]) -> Tensor:
    """The one sample's part, on the CPU, free of the pass that made it."""
    return batch.detach()[0].cpu()


def scene(model: VisionModel, picture: Image.Image | Tensor) -> Image.Image:
    """What the network sees, in a multiple of its pixels."""
    preprocess = model.preprocess
    if isinstance(picture, Tensor):
        seen = model.view(picture)
        factor = -(-SHOWN_SIDE // min(seen.size))
        return seen.resize((seen.width * factor, seen.height * factor), Image.Resampling.BICUBIC)
    height, width = preprocess.size
    factor = -(-SHOWN_SIDE // min(height, width))
    resize = None if preprocess.resize is None else preprocess.resize * factor
    return replace(preprocess, size=(height * factor, width * factor), resize=resize).view(picture)
