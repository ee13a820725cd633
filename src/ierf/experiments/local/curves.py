"""Insertion and deletion of several methods on the same images."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ierf.experiments.bootstrap import Interval, confidence_interval
from ierf.metrics import deletion, insertion
from ierf.model import VisionModel, as_vision_model, evaluating

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
