"""A vision model as the rest of the library sees it: network, preprocessing, labels, layers; and how to get one."""

from ierf.model.capture import Captured, Replacement, capture, patched
from ierf.model.following import Values
from ierf.model.forward import evaluating, logits_of
from ierf.model.images import ImageLike, as_image, as_input, find_images, read_image
from ierf.model.loading import available, find_models, load
from ierf.model.preprocess import Preprocess
from ierf.model.section import Section
from ierf.model.shift import shift_of, shifts_of
from ierf.model.vision_model import Outputs, VisionModel, as_vision_model, usable_device

__all__ = [
    "Captured",
    "ImageLike",
    "Outputs",
    "Preprocess",
    "Replacement",
    "Section",
    "Values",
    "VisionModel",
    "as_image",
    "as_input",
    "as_vision_model",
    "available",
    "capture",
    "evaluating",
    "find_images",
    "find_models",
    "load",
    "logits_of",
    "patched",
    "read_image",
    "shift_of",
    "shifts_of",
    "usable_device",
]
