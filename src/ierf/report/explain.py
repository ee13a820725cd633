"""Explaining one photograph: what `ierf.explain` returns, the maps, features and account, from one forward pass."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from ierf.attribution import (
    METHODS,
    RULES,
    Ledger,
    PFVField,
    attribute,
    checked_options,
    only,
    told_by_one_pass,
    usual_method,
)
from ierf.attribution.targets import PFV
from ierf.errors import IerfError, UnknownNameError
from ierf.model import ImageLike, VisionModel, as_image, as_input, as_vision_model, evaluating


class Prediction(NamedTuple):
    """A class and the model's probability for it (softmax of the logits)."""

    class_index: int
    label: str
    probability: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model sees what it sees in one photograph."""

    name: str
    """Of the photograph: its file name."""
    photo: Image.Image
    """The photograph as the model sees it: resized, cropped, RGB, of the input's size."""
    scene: Image.Image
    """The same part of the photograph in more pixels, to lie beneath maps."""
    model_name: str
    top: list[Prediction]
    """The five most probable classes."""
    classes: list[Prediction]
    """The classes explained, the first of which `fields` and `ledger` are about."""
    method: str
    options: Mapping[str, Any]
    """Of the method, as far as they were given."""
    maps: dict[int, dict[str, Float[Tensor, "h w"]]]
    """Class index → resolution → map, the very one that `ierf.attribute` returns; on the CPU."""
    fields: list[PFVField] = field(default_factory=list)
    """PFVs of several layers, from shallow to deep, with their iERFs; method "srd" only."""
    ledger: Ledger | None = None
    """What was conserved on the way to the pixels; method "srd" only."""
    pfvs: tuple[PFV, ...] | None = None
    """The PFVs that were asked for; None: `fields` are the strongest."""
    source: Path | None = None
    """The photograph's file."""

    def save(self, path: str | Path = "report.html", pngs: bool = True) -> Path:
        """Write one HTML file that holds everything, and beside it (`pngs`) the folder NAME_pictures with the figures.

        Nothing is left half-written, and a file of the same name is replaced. Missing folders are made. Returns the
        path of the HTML file. Raises `IerfError` where writing is not possible.
        """
        from ierf.report.html import save_report

        return save_report(self, Path(path), pngs)


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
        logits, maps, fields, account = told_by_one_pass(vision_model, x, choose, method, resolutions, pfvs, **options)
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


def _by_attribution(
    model: VisionModel,
    x: Tensor,
    choose: _Choose,
    method: str,
    resolutions: Sequence[str] | None,
    options: Mapping[str, Any],
) -> tuple[Tensor, _Maps]:
    with evaluating(model.net), torch.no_grad():
        logits = only(model(x))

    def map_of(index: int, resolution: str) -> Tensor:
        return only(attribute(model, x, index, method, resolution, **options))

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
