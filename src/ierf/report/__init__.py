"""Explanations for people: pictures, and reports that open in a browser."""

from ierf.report.explain import explain
from ierf.report.explanation import RESOLUTIONS, Explanation, PFVField, Prediction
from ierf.report.index import Card, card, save_index

__all__ = ["RESOLUTIONS", "Card", "Explanation", "PFVField", "Prediction", "card", "explain", "save_index"]
