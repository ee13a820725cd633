"""Photographs with what is known of them: a label, masks or boxes of the objects of a class."""

from ierf.experiments.data.photos import DataSet, Photo, drawn
from ierf.experiments.data.sources import open_data

__all__ = ["DataSet", "Photo", "drawn", "open_data"]
