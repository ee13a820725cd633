"""Explanations for people: pictures, and reports that open in a browser."""

from ierf.report.explain import explain
from ierf.report.explanation import RESOLUTIONS, Explanation, PFVField, Prediction
from ierf.report.index import Card, card, distinct_stems, save_index
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
