"""Table I: localisation, sparseness, fidelity and stability of many methods on the same photographs (IV-B, VII-G)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from ierf.attribution import METHODS, attribute
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments.data import DataSet, Photo, drawn
from ierf.experiments.journal import Journal, Values, model_fingerprint, run_over, takes_track
from ierf.experiments.results import Better, Interval, Results, as_values, confidence_interval
from ierf.metrics import (
    Preset,
    at_pixels,
    attribution_localization,
    deletion,
    fidelity,
    insertion,
    pointing_game,
    sparseness,
    stability,
)
from ierf.metrics.scoring import check_preset
from ierf.model import VisionModel, as_vision_model, evaluating
from ierf.progress import Progress

PAPER = (
    *("gradient", "guided_backprop", "gradient_x_input", "integrated_gradients", "lrp_zplus", "smoothgrad", "fullgrad"),
    *("gradcam", "gradcam_pp", "scorecam", "ablationcam", "xgradcam", "layercam@low", "layercam@high"),
    *("srd@low", "srd@high", "srd"),
)
"""The rows of Table I."""
ABLATION = ("srd?head=raw", "srd?head=mean", "srd")
"""The rows of Table IV."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "paper": PAPER,
    "ablation": ABLATION,
    "all": (*PAPER, *ABLATION[:2], "attnlrp", "cp_lrp", "kernel_shap", "random"),
}


@dataclass(frozen=True)
class Method:
    """A method with its resolution and options; `text` is what tables call it."""

    text: str
    name: str
    resolution: str = "input"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: VisionModel, x: Float[Tensor, "N 3 H W"], target: list[int]) -> Float[Tensor, "N H W"]:
        """Maps at the pixels: coarser ones are scaled up bilinearly (arXiv 2605.00474, IV-B)."""
        height, width = x.shape[2:]
        maps = attribute(model, x, target, self.name, self.resolution, **self.options)
        return at_pixels(maps, (height, width))


def parse_method(text: str) -> Method:
    """`NAME[@RESOLUTION][?OPTION=VALUE[&…]]`. Raises `IerfError` for a method that does not exist."""
    address, _, query = text.strip().partition("?")
    name, _, resolution = address.partition("@")
    if name not in METHODS:
        raise UnknownNameError("method", name, [*METHODS, *GROUPS])
    pairs = [option.partition("=") for option in query.split("&") if option]
    if any(not value for _, _, value in pairs):
        raise IerfError(f"an option of a method is given as ?name=value, which {text!r} does not do")
    return Method(text.strip(), name, resolution or "input", {key: _value(value) for key, _, value in pairs})


def parse_methods(texts: Sequence[str]) -> list[Method]:
    """Methods and groups of them (`GROUPS`), each row once; commas separate as well."""
    single = [name for text in texts for part in text.split(",") for name in GROUPS.get(part.strip(), (part,))]
    return [parse_method(name) for name in dict.fromkeys(name.strip() for name in single)]


def _value(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


PAPER_METRICS = ("pointing", "localization", "sparseness", "fidelity", "stability")
METRICS: Mapping[str, Better] = {
    "pointing": "higher",
    "localization": "higher",
    "sparseness": "higher",
    "fidelity": "higher",
    "stability": "lower",
    "insertion": "higher",
    "deletion": "lower",
    "fidelity_black": "higher",
}
"""fidelity_black: as fidelity, but pixels become black and not the network's zero, which usually is the mean colour."""
TOP = 5
"""Of a photograph with objects but no label, the best of the first five classes that is in it is explained."""


@dataclass(frozen=True)
class LocalSettings:
    """What the scores depend on apart from model, photographs and methods."""

    metrics: tuple[str, ...] = PAPER_METRICS
    tolerance: float = 15.0
    """Of the pointing game, in pixels where the input's longer side is 224; scaled with the side."""
    fidelity_runs: int = 100
    fidelity_pixels: int | None = None
    """Pixels in a set; None is the preset's number, 200."""
    stability_samples: int = 200
    stability_noise: float = 0.1
    preset: Preset = "paper"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise UnknownNameError("metric", name, METRICS)
        check_preset(self.preset)


@dataclass(frozen=True)
class Case:
    """A photograph as the network sees it, the class to explain, and where its objects are."""

    x: Float[Tensor, "1 3 H W"]
    target: int
    mask: Bool[Tensor, "H W"] | None


@takes_track
def local(
    model: VisionModel,
    data: DataSet,
    methods: Sequence[Method],
    out: Path,
    settings: LocalSettings | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Results:
    """The scores of each method on each photograph; `local.jsonl` in `out` keeps what is finished.

    The class explained is the photograph's label; without one, the best-scored of the network's first five that is
    among its objects. Photographs without such a class are left out.

    Args:
        limit: how many photographs, drawn by the seed; a larger number goes on where a smaller one ended.

    Raises:
        IerfError: `out` holds a run with other settings, or no photograph has a class to explain.
    """
    settings = settings or LocalSettings()
    journal = Journal.open(out / "local.jsonl", local_header(model, data, methods, settings))
    names = drawn(data, limit, settings.seed)
    with evaluating(model.net):
        values = run_over(names, journal, lambda name: measured(model, data.read(name), methods, settings), progress)
    if not values:
        raise IerfError(f"none of {len(names)} photographs of {data.name!r} shows a class that the network knows")
    columns = {name: METRICS[name] for name in settings.metrics}
    return Results(f"{model.name} on {data.name}", columns, values, journal.settings, seed=settings.seed)


def local_header(
    model: VisionModel, data: DataSet, methods: Sequence[Method], settings: LocalSettings
) -> dict[str, Any]:
    """Everything that a photograph's scores depend on."""
    return {
        "experiment": "local",
        "model": f"{model.name} {model_fingerprint(model)}",
        "data": f"{data.name} {data.fingerprint}",
        "methods": [method.text for method in methods],
        **asdict(settings),
    }


def case(model: VisionModel, photo: Photo) -> Case | None:
    """The photograph, prepared, with its class and that class's mask; None where there is no class to explain."""
    x = model.prepare(photo.image)
    target = photo.label
    if target is None:
        with torch.no_grad():
            best = model(x)[0].topk(TOP).indices.tolist()
        target = next((c for c in best if c in photo.objects), None)
    if target is None:
        return None
    mask = photo.objects.get(target)
    return Case(x, target, None if mask is None else seen_mask(model, mask))


def seen_mask(model: VisionModel, mask: Image.Image) -> Bool[Tensor, "H W"]:
    """A mask of the photograph after the same resize and crop."""
    return torch.from_numpy(np.asarray(model.view(mask.convert("RGB")))[..., 0] > 127)


def measured(model: VisionModel, photo: Photo, methods: Sequence[Method], settings: LocalSettings) -> Values | None:
    """The scores of each method on one photograph; None where there is no class to explain."""
    found = case(model, photo)
    if found is None:
        return None
    maps = torch.stack([method(model, found.x, [found.target]) for method in methods])
    scores = {metric: _SCORES[metric](model, found, methods, maps, settings) for metric in settings.metrics}
    return {
        method.text: as_values({metric: float(score[i]) for metric, score in scores.items()})
        for i, method in enumerate(methods)
    }


_Maps = Float[Tensor, "M 1 H W"]


def _pointing(model: VisionModel, found: Case, methods: Sequence[Method], maps: _Maps, s: LocalSettings) -> Tensor:
    mask = _one_mask(found, maps)
    return pointing_game(maps[:, 0], mask, s.tolerance * max(mask.shape[1:]) / 224)


def _localization(model: VisionModel, found: Case, methods: Sequence[Method], maps: _Maps, s: LocalSettings) -> Tensor:
    return attribution_localization(maps[:, 0], _one_mask(found, maps), s.preset)


def _one_mask(found: Case, maps: _Maps) -> Bool[Tensor, "M H W"]:
    """The mask for each method; an empty one, which has no score, where there is none."""
    mask = torch.zeros(maps.shape[2:], dtype=torch.bool) if found.mask is None else found.mask
    return mask.to(maps.device).expand(len(maps), -1, -1)


def _sparseness(model: VisionModel, found: Case, methods: Sequence[Method], maps: _Maps, s: LocalSettings) -> Tensor:
    return sparseness(maps[:, 0])


def _fidelity(
    to_black: bool, model: VisionModel, found: Case, methods: Sequence[Method], maps: _Maps, s: LocalSettings
) -> Tensor:
    runs, pixels = s.fidelity_runs, s.fidelity_pixels
    scores = fidelity(
        model,
        found.x,
        found.target,
        maps,
        runs=runs,
        pixels=pixels,
        baseline=black(model) if to_black else None,
        preset=s.preset,
        seed=s.seed,
    )
    return scores[:, 0]


def black(model: VisionModel) -> Float[Tensor, "1 C 1 1"]:
    """What the network sees of a black pixel."""
    mean, std = model.preprocess.statistics
    return (-mean / std)[None]


def _stability(model: VisionModel, found: Case, methods: Sequence[Method], maps: _Maps, s: LocalSettings) -> Tensor:
    samples, noise = s.stability_samples, s.stability_noise
    explainers = [partial(_explain, method, model, found.target) for method in methods]
    scores = [stability(one, found.x, samples=samples, noise=noise, seed=s.seed, batch=16) for one in explainers]
    return torch.cat(scores)


def _explain(method: Method, model: VisionModel, target: int, x: Tensor) -> Tensor:
    return method(model, x, [target] * len(x))


def _curve(
    metric: Callable[..., Any],
    model: VisionModel,
    found: Case,
    methods: Sequence[Method],
    maps: _Maps,
    s: LocalSettings,
) -> Tensor:
    """Of the class's probability, 100 steps at most."""
    options = {"steps": 100, "score": "probability"}
    return torch.cat([metric(model, found.x, found.target, map, **options).auc for map in maps])


_SCORES: Mapping[str, Callable[[VisionModel, Case, Sequence[Method], Tensor, LocalSettings], Tensor]] = {
    "pointing": _pointing,
    "localization": _localization,
    "sparseness": _sparseness,
    "fidelity": partial(_fidelity, False),
    "stability": _stability,
    "insertion": partial(_curve, insertion),
    "deletion": partial(_curve, deletion),
    "fidelity_black": partial(_fidelity, True),
}


Explainer = Callable[[Float[Tensor, "n 3 H W"], list[int]], Float[Tensor, "n h w"]]
"""Pictures and a class for each, to maps: `lambda x, classes: ierf.attribute(model, x, classes, method="srd")`."""


@dataclass(frozen=True)
class Areas:
    """The areas under one method's curves, image by image, and their means with confidence intervals over images."""

    method: str
    insertion: Float[Tensor, " N"]
    deletion: Float[Tensor, " N"]
    mean_insertion: Interval
    mean_deletion: Interval


def insertion_deletion(
    model: VisionModel | nn.Module,
    images: Float[Tensor, "N 3 H W"],
    explainers: Mapping[str, Explainer],
    *,
    normalised: bool = False,
    batch: int = 16,
    **options: Any,
) -> Iterator[Areas]:
    """Insertion and deletion of the predicted classes, one method after the other.

    Args:
        images: prepared pixels.
        explainers: by the methods' names.
        normalised: whether the baseline scores 0 and the whole picture 1 (`Curve.normalised`).
        batch: most images that an explainer gets at once.
        options: of `ierf.metrics.insertion` and `deletion`.
    """
    vision_model = as_vision_model(model)
    parts = torch.split(images, batch)
    with evaluating(vision_model.net), torch.no_grad():
        classes = [vision_model(x.to(vision_model.device, vision_model.dtype)).argmax(1).tolist() for x in parts]
    for method, explain in explainers.items():
        areas = []
        for x, predicted in zip(parts, classes, strict=True):
            map = explain(x, predicted)
            curves = [metric(vision_model, x, predicted, map, **options) for metric in (insertion, deletion)]
            areas.append(torch.stack([(curve.normalised if normalised else curve).auc for curve in curves]))
        inserted, deleted = torch.cat(areas, 1)
        yield Areas(method, inserted, deleted, confidence_interval(inserted), confidence_interval(deleted))
