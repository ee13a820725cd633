"""Explanations for people: pictures, and reports that open in a browser."""

from ierf.attribution import RESOLUTIONS, PFVField
from ierf.report.explain import Explanation, Prediction, explain
from ierf.report.html import Card, card, distinct_stems, save_index
from ierf.report.pictures import cells, on_grid, overlay, spotlight
from ierf.report.text import best_classes, ledger_sentence, percent

__all__ = [
    "RESOLUTIONS",
    "Card",
    "Explanation",
    "PFVField",
    "Prediction",
    "best_classes",
    "card",
    "cells",
    "distinct_stems",
    "explain",
    "ledger_sentence",
    "on_grid",
    "overlay",
    "percent",
    "save_index",
    "spotlight",
]
