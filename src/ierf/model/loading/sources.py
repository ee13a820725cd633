"""All places that models come from, by the word before the colon."""

from ierf.model.loading.from_bundle import BUNDLED
from ierf.model.loading.from_file import file_source
from ierf.model.loading.from_open_clip import OPEN_CLIP
from ierf.model.loading.from_timm import TIMM
from ierf.model.loading.from_torchvision import TORCHVISION
from ierf.model.loading.from_transformers import TRANSFORMERS
from ierf.model.loading.source import Source

_NAMED: dict[str, Source] = {
    "bundled": BUNDLED,
    "timm": TIMM,
    "torchvision": TORCHVISION,
    "hf": TRANSFORMERS,
    "open_clip": OPEN_CLIP,
}

SOURCES: dict[str, Source] = {**_NAMED, "file": file_source(_NAMED)}
