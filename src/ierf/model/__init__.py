"""A vision model as the rest of the library sees it: network, preprocessing, labels, layers; and how to get one."""

from ierf.model.evaluating import evaluating
from ierf.model.files import find_images
from ierf.model.images import read_image
from ierf.model.loading import available, find_models, load
from ierf.model.logits import logits_of
from ierf.model.preprocess import Preprocess
from ierf.model.vision_model import VisionModel, as_vision_model

__all__ = [
    "Preprocess",
    "VisionModel",
    "as_vision_model",
    "available",
    "evaluating",
    "find_images",
    "find_models",
    "load",
    "logits_of",
    "read_image",
]
