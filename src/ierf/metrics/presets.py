"""Whose definition of a metric: the paper's, or that of the toolbox whose defaults it names."""

from typing import Literal, get_args

from ierf.errors import UnknownNameError

Preset = Literal["paper", "quantus"]
"""arXiv 2605.00474, VII-G; or the defaults of Quantus 0.6 where these differ."""


def check_preset(preset: str) -> None:
    """Raise `UnknownNameError` for a preset that does not exist."""
    if preset not in get_args(Preset):
        raise UnknownNameError("preset", preset, get_args(Preset))
